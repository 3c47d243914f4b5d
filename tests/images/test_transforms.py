"""Augmentations by name and of the user's own: torchvision called by hand is the oracle; workers make no difference."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from pictures import draw, fill
from resnetkit.data.batches import training_batches
from resnetkit.data.load import load_data
from resnetkit.data.order import Order
from resnetkit.errors import UsageError
from resnetkit.images.augment import Augment
from resnetkit.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resnetkit.images.transforms import named_transforms
from resnetkit.machine.device import Compute
from resnetkit.randomness import key
from resnetkit.recipes.load import load_recipe
from resnetkit.recipes.schema import AugmentRecipe, Recipe

RGB = Preprocess(16, IMAGENET_MEAN, IMAGENET_STD)
EXTRA = [["ColorJitter", {"brightness": 0.4, "hue": [0.0, 0.1]}], ["RandomRotation", {"degrees": 20}], ["RandomInvert"]]


def own(pixels: torch.Tensor) -> torch.Tensor:
    """Of three sources, in any of which a worker would differ from its parent."""
    return (pixels * (0.2 + (random.random() + np.random.rand() + float(torch.rand(()))) / 4)).to(torch.uint8)


def test_named_transforms_are_torchvisions_with_the_images_own_seed() -> None:
    augment = Augment(AugmentRecipe(extra=EXTRA), RGB, num_classes=3, seed=5)
    image = draw("red", 1, (16, 16))
    jitter = v2.ColorJitter(brightness=0.4, hue=(0.0, 0.1))
    with torch.random.fork_rng():
        torch.manual_seed(key(5, "image", 2, 7))
        expected = v2.RandomInvert()(v2.RandomRotation(20)(jitter(RGB.pixels(image))))
    assert torch.equal(augment.image(image, 2, 7), expected)
    assert torch.equal(augment.pixels(RGB.pixels(image), 2, 7), expected)  # held in memory or not
    assert not torch.equal(augment.image(image, 3, 7), expected)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory):
    """Pictures that are read from disk by whoever is asked to."""
    folder = tmp_path_factory.mktemp("pictures") / "photos"
    fill(folder / "train", 12)
    fill(folder / "val", 1, first=90)
    for number, colour in enumerate(("red", "blue")):
        draw(colour, number, (90, 70)).save(folder / "train" / colour / "large.png")
    return load_data(str(folder)).train


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_no_difference_to_the_bit(workers: int, files) -> None:
    assert files.pixels is None
    augment = Augment(AugmentRecipe(extra=EXTRA), RGB, num_classes=3, seed=5, transform=own)
    order, compute = Order(len(files), 8, seed=5), Compute(torch.device("cpu"), "fp32")

    def look(count: int) -> list[torch.Tensor]:
        stream = training_batches(files, order, augment, compute, start=0, stop=6, workers=count)
        return [batch.images for batch in stream]

    random.seed(workers)
    np.random.seed(workers)
    states = random.getstate(), np.random.get_state()[1].tolist()
    for mine, theirs in zip(look(0), look(workers), strict=True):
        assert torch.equal(mine, theirs)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


@pytest.mark.parametrize("workers", [0, 2])
def test_a_transform_that_fails_on_the_way_says_so_in_one_line(workers: int, files) -> None:
    def fails_on_light(pixels: torch.Tensor) -> torch.Tensor:
        if pixels.float().std() > 1:  # not on the grey picture that it is tried on
            raise ZeroDivisionError("one and\nnothing")
        return pixels

    augment = Augment(AugmentRecipe(), RGB, num_classes=3, seed=5, transform=fails_on_light)
    order, compute = Order(len(files), 8, seed=5), Compute(torch.device("cpu"), "fp32")
    with pytest.raises(
        UsageError, match=rf"^the transform failed in {__file__}, line \d+: ZeroDivisionError: one and\.$"
    ):
        list(training_batches(files, order, augment, compute, start=0, stop=6, workers=workers))


WRONG = [
    ([["ColorJiter", {}]], r"unknown transform in augment.extra 'ColorJiter'. Try: ColorJitter"),
    ([["Lambda", {}]], r"unknown transform in augment.extra 'Lambda'"),
    ([["ColorJitter", {"brighness": 1}]], r"unknown argument of ColorJitter in augment.extra 'brighness'. Try: bright"),
    ([["ColorJitter", {"brightness": -1}]], r"ColorJitter in augment.extra cannot be made with .*: If brightness is"),
    ([["RandomRotation"]], r"RandomRotation in augment.extra cannot be made with \{\}: .*degrees.* its arguments are"),
    ([["AutoAugment", {"policy": "imagnet"}]], r"AutoAugment in augment.extra cannot be made"),
    (
        [["Resize", {"size": 9}]],
        r"Resize in augment.extra gives uint8 \(3, 9, 9\) for a picture of uint8 \(3, 1",
    ),
    ([["Normalize", {"mean": [0.5], "std": [0.5]}]], "Normalize in augment.extra failed: TypeError"),
]


@pytest.mark.parametrize(("extra", "said"), WRONG)
def test_what_torchvision_does_not_have_is_named_at_the_start(extra: list, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Augment(AugmentRecipe(extra=extra), RGB, num_classes=3, seed=0)


def test_all_of_v2_that_works_on_a_picture_can_be_named() -> None:
    """Each without arguments, or with the least that it needs, in the words of its documentation."""
    needs = {"RandomRotation": {"degrees": 5}, "RandomAffine": {"degrees": 5, "interpolation": "bilinear"}}
    needs |= {"GaussianBlur": {"kernel_size": 3}, "RandomPosterize": {"bits": 4}, "RandomSolarize": {"threshold": 99}}
    needs |= {"RandomAdjustSharpness": {"sharpness_factor": 2}, "AutoAugment": {"policy": "cifar10"}}
    needs |= {"ElasticTransform": {"sigma": 1.0}}
    plain = "RandomHorizontalFlip RandomVerticalFlip RandomInvert RandomAutocontrast RandomEqualize RandomPerspective "
    plain += "RandAugment TrivialAugmentWide AugMix RandomPhotometricDistort RandomErasing ColorJitter "
    plain += "RandomGrayscale RandomChannelPermutation"
    named = [(name, {}) for name in plain.split()] + list(needs.items())
    assert len(named_transforms(named, RGB)) == len(named)


def test_a_recipe_says_it_in_toml_and_a_flag_in_json(tmp_path: Path, cli) -> None:
    (tmp_path / "mine.toml").write_text(
        'base = "digits"\n[augment]\nextra = [["RandomInvert"], ["Pad", {padding = 1}]]'
    )
    recipe = load_recipe(tmp_path / "mine.toml")
    assert recipe.augment.extra == (("RandomInvert", {}), ("Pad", {"padding": 1}))
    (tmp_path / "again.toml").write_text(recipe.to_toml())
    assert load_recipe(tmp_path / "again.toml") == recipe
    assert Recipe(augment={"extra": '[["RandomInvert"]]'}).augment.extra == (("RandomInvert", {}),)
    wrong = cli("train", "digits", "--augment.extra", '[["RandomInvrt", {}]]', "--out", tmp_path / "run")
    assert (wrong.code, wrong.err.splitlines()[-1]) == (
        2,
        "error: unknown transform in augment.extra 'RandomInvrt'. Try: RandomInvert",
    )
    for text in ("RandomInvert", "3", "[3]", '[["RandomInvert", 3]]'):
        wrong = cli("train", "digits", "--augment.extra", text, "--steps", 1, "--out", tmp_path / "run")
        assert wrong.code == 2
        assert 'such as [["ColorJitter", {"brightness": 0.4}], ["RandomInvert"]]' in wrong.err
