import numpy as np
import pytest
import torch

from pictures import draw
from resnetkit.images.augment import Augment
from resnetkit.images.preprocess import Preprocess, to_tensor
from resnetkit.randomness import uniform
from resnetkit.recipes.schema import AugmentRecipe

RGB = Preprocess(12, (0.2, 0.4, 0.6), (0.25, 0.25, 0.25))


def make(**settings: object) -> Augment:
    return Augment(AugmentRecipe(**settings), RGB, num_classes=4, seed=5)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (16, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


EPOCHS, INDICES = np.repeat([0, 1], 8), np.arange(16)


def test_shift_matches_a_plain_loop(pixels: torch.Tensor) -> None:
    shifted = make(pad_crop=3).geometry(pixels, EPOCHS, INDICES)
    down = (uniform(5, "shift-y", EPOCHS, INDICES) * 7).astype(int)
    right = (uniform(5, "shift-x", EPOCHS, INDICES) * 7).astype(int)
    assert len(set(down)) > 3
    for number, image in enumerate(pixels.numpy()):
        canvas = np.empty((3, 18, 18), dtype=np.uint8)
        canvas[:] = np.array([51, 102, 153], dtype=np.uint8)[:, None, None]
        canvas[:, 3:15, 3:15] = image
        expected = canvas[:, down[number] : down[number] + 12, right[number] : right[number] + 12]
        assert np.array_equal(shifted[number].numpy(), expected)


def test_flip_mirrors_about_half(pixels: torch.Tensor) -> None:
    flipped = make(flip=True).geometry(pixels, EPOCHS, INDICES)
    mirrored = [torch.equal(flipped[i], pixels[i].flip(2)) for i in range(16)]
    kept = [torch.equal(flipped[i], pixels[i]) for i in range(16)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 3 <= sum(mirrored) <= 13


EVERYTHING = {"flip": True, "pad_crop": 2, "random_erasing": 0.5}


def test_a_sample_looks_the_same_in_every_batch(pixels: torch.Tensor) -> None:
    augment = make(**EVERYTHING)

    def look(chosen: list[int]) -> torch.Tensor:
        out = augment.geometry(pixels[chosen], EPOCHS[chosen], INDICES[chosen])
        return augment.erase(RGB.normalise(out), EPOCHS[chosen], INDICES[chosen])

    assert torch.equal(look(list(range(16)))[[9, 3]], look([9, 3]))


def test_another_epoch_or_seed_looks_different(pixels: torch.Tensor) -> None:
    augment = make(**EVERYTHING)
    first = augment.geometry(pixels, EPOCHS, INDICES)
    assert not torch.equal(first, augment.geometry(pixels, EPOCHS + 1, INDICES))
    other = Augment(augment.settings, RGB, num_classes=4, seed=6)
    assert not torch.equal(first, other.geometry(pixels, EPOCHS, INDICES))


def test_erasing_blanks_to_the_mean(pixels: torch.Tensor) -> None:
    images = RGB.normalise(pixels)
    erased = make(random_erasing=1.0).erase(images.clone(), EPOCHS, INDICES)
    changed = (erased != images).flatten(1).float().mean(1)
    assert ((changed > 0) & (changed < 0.5)).all()
    assert (erased[erased != images] == 0).all()


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_targets_say_what_was_mixed(kind: str) -> None:
    # Every image is filled with its own class's value, so the mixture can be read back from the pixels.
    labels = torch.tensor([0, 1, 2, 3])
    images = labels.float().view(4, 1, 1, 1).expand(4, 3, 12, 12).clone()
    mixed, targets = make(**{kind: 1.0}).mix(images, labels, step=3)
    assert targets.shape == (4, 4)
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    torch.testing.assert_close(mixed.mean((1, 2, 3)), targets @ torch.arange(4.0))
    again, _ = make(**{kind: 1.0}).mix(images, labels, step=3)
    assert torch.equal(mixed, again)


def test_without_mixing_targets_are_labels(pixels: torch.Tensor) -> None:
    labels = torch.arange(16)
    images, targets = make().mix(pixels.float(), labels, step=0)
    assert images.shape == pixels.shape
    assert targets is labels


def test_single_images_are_drawn_from_epoch_and_index_alone() -> None:
    image = draw("red", 1, (60, 50))
    augment = make(random_resized_crop=True, trivial_augment=True)
    first = augment.image(image, 0, 7)
    torch.rand(5)  # whatever else draws in between
    assert torch.equal(first, augment.image(image, 0, 7))
    assert not torch.equal(first, augment.image(image, 1, 7))
    assert first.shape == (3, 12, 12)
    in_memory = augment.pixels(to_tensor(image), 0, 7)
    assert in_memory.shape == (3, 12, 12)
    assert torch.equal(in_memory, first)  # whether the set was small enough to be held or not
