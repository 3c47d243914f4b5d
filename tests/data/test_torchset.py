"""Data sets of torch and torchvision against the folders and arrays that they show."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset
from torchvision.datasets import FakeData, ImageFolder
from torchvision.transforms import v2

import resnetkit as rk
from conftest import TINY
from pictures import COLOURS, draw
from resnetkit.data.fingerprint import Fingerprint
from resnetkit.data.load import load_data, source_of
from resnetkit.doctor.check import check
from resnetkit.errors import DataError, UsageError
from resnetkit.recipes.schema import DataRecipe

SETTINGS = {"recipe": "scratch", "epochs": 1, "quiet": True, "data": {"image_size": 16}, **TINY}
NAMES = tuple(COLOURS)


class Drawn(Dataset):
    """`each` pictures of three colours, as whatever `form` makes of them; of different sizes where `sizes` says so."""

    def __init__(self, each: int = 8, form: Callable[[Image.Image], Any] = lambda image: image, size: int = 12) -> None:
        self.each, self.form, self.size = each, form, size

    def __len__(self) -> int:
        return 3 * self.each

    def __getitem__(self, number: int) -> tuple[Any, int]:
        label, which = divmod(number, self.each)
        return self.form(draw(NAMES[label], which, (self.size, self.size))), label


class Named(Drawn):
    classes = ("sky", "leaf", "rose")


def tensor(image: Image.Image) -> torch.Tensor:
    return v2.functional.pil_to_tensor(image)


FORMS: dict[str, Callable[[Image.Image], Any]] = {
    "picture": lambda image: image,
    "tensor": tensor,
    "floats": lambda image: tensor(image).float() / 255,
    "array": np.asarray,
    "array of floats": lambda image: np.asarray(image, dtype=np.float32) / 255,
    "wide integers": lambda image: tensor(image).int(),
    "floats to 255": lambda image: tensor(image).float(),
    "transparent": lambda image: image.convert("RGBA"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_picture_gives_its_pixels(form: str) -> None:
    data = load_data(source_of(Drawn(form=FORMS[form])))
    plain = load_data(source_of(Drawn()))
    assert (data.classes, data.channels) == (("0", "1", "2"), 3)
    for one, other in ((data.train, plain.train), (data.validation, plain.validation), (data.test, plain.test)):
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.labels, other.labels)
    pictures = {draw(name, number, (12, 12)).tobytes() for name in NAMES for number in range(8)}
    assert {data.train.image(index, 3).tobytes() for index in range(len(data.train))} < pictures


def test_grey_pictures_have_one_channel_until_three_are_wanted() -> None:
    given = source_of(Drawn(form=lambda image: image.convert("L")))
    assert load_data(given).train.pixels.shape[1] == 1
    assert load_data(given, channels=3).train.pixels.shape[1] == 3


def test_pictures_of_many_sizes_stay_with_the_data_set() -> None:
    class Sizes(Drawn):
        def __getitem__(self, number: int) -> tuple[Any, int]:
            label, which = divmod(number, self.each)
            return draw(NAMES[label], which, (70 + which, 90)), label

    data = load_data(source_of(Sizes()))
    assert data.train.pixels is None
    index = 3
    number = int(data.train.name(index).removeprefix("dataset[").removesuffix("]"))
    assert data.train.image(index, 3).tobytes() == Sizes()[number][0].tobytes()
    classifier = rk.train(Sizes(), **SETTINGS | {"data": {"image_size": 16, "workers": 2}})
    assert rk.evaluate(classifier, Sizes())["seen"] == len(data.train) + len(data.validation)


def test_names_of_classes_and_their_order() -> None:
    assert load_data(source_of(Named())).classes == ("sky", "leaf", "rose")
    assert load_data(source_of(Subset(Named(), range(8, 24)))).classes == ("leaf", "rose")
    joined = ConcatDataset([Named(), Subset(Named(), range(3))])
    assert load_data(source_of(joined)).classes == ("sky", "leaf", "rose")
    with_numbers = Drawn()
    with_numbers.class_to_idx = {"c": 0, "a": 1, "b": 2}
    assert load_data(source_of(with_numbers)).classes == ("c", "a", "b")
    pixels = torch.randint(0, 255, (60, 3, 8, 8), dtype=torch.uint8)
    tensors = TensorDataset(pixels, torch.arange(60) % 12)
    assert load_data(source_of(tensors)).classes == tuple(str(number) for number in range(12))


def test_splits_of_a_dict_are_kept() -> None:
    data = load_data(source_of({"train": Named(8), "val": Subset(Named(9), [8, 17, 26])}))
    assert (len(data.train), len(data.validation), data.test) == (24, 3, None)
    with pytest.raises(UsageError, match="unknown split 'trian'"):
        source_of({"trian": Named()})


def test_a_folder_of_torchvision_is_the_folder(photos: Path) -> None:
    own = load_data(str(photos / "train"))
    theirs = load_data(source_of(ImageFolder(photos / "train")))
    assert theirs.classes == own.classes
    assert Fingerprint.of(theirs).digest == Fingerprint.of(own).digest
    part = load_data(
        source_of({"train": Subset(ImageFolder(photos / "train"), range(20)), "val": ImageFolder(photos / "val")})
    )
    assert (len(part.train), len(part.validation)) == (20, 9)
    changed = ImageFolder(photos / "train", transform=v2.Compose([v2.PILToTensor(), v2.Resize((20, 20))]))
    assert load_data(source_of(changed)).train.pixels.shape[-2:] == (20, 20)


def test_torchvisions_own_are_read() -> None:
    data = load_data(source_of(FakeData(40, (3, 16, 16), 2)))
    assert sum(map(len, (data.train, data.validation, data.test))) == 40


class Dicts(Drawn):
    """As the library datasets gives items, with its names."""

    def __getitem__(self, number: int) -> dict[str, Any]:
        image, label = super().__getitem__(number)
        return {"label": label, "image": image, "id": number}

    @property
    def features(self) -> dict[str, Any]:
        return {"image": None, "label": type("ClassLabel", (), {"names": ["sky", "leaf", "rose"]})()}


def test_items_that_are_dicts() -> None:
    assert load_data(source_of(Dicts())).classes == ("sky", "leaf", "rose")


def test_a_folder_of_the_library_datasets_names_the_library(tmp_path: Path) -> None:
    if importlib.util.find_spec("datasets") is not None:
        pytest.skip("datasets is installed")
    (tmp_path / "state.json").write_text("{}")
    for read in (load_data, check):
        with pytest.raises(UsageError, match="Try: pip install datasets"):
            read(str(tmp_path))


class Broken(Drawn):
    def __getitem__(self, number: int) -> tuple[Any, Any]:
        if number in (1, 9):
            raise OSError("a disk")
        return super().__getitem__(number)


def test_items_that_fail_are_left_out_and_named() -> None:
    data = load_data(source_of(Broken()))
    assert data.unreadable == {"dataset[1]": "OSError: a disk", "dataset[9]": "OSError: a disk"}
    assert sum(map(len, (data.train, data.validation, data.test))) == 22


def relabelled(label: Any, of: type[Drawn] = Drawn) -> Dataset:
    class Labels(of):
        def __getitem__(self, number: int) -> tuple[Any, Any]:
            return super().__getitem__(number)[0], label

    return Labels()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda: Drawn(form=lambda image: (tensor(image).float() / 255 - 0.5) / 0.2), "before they were normalised"),
        (lambda: Drawn(form=v2.RandomCrop(8)), "another picture each time"),
        (lambda: Drawn(form=lambda image: "a.jpg"), "dataset[0] is no image"),
        (lambda: Drawn(form=lambda image: torch.zeros(2, 5, 4, 4)), "dataset[0] is no image"),
        (lambda: relabelled(torch.zeros(3)), "dataset[0] has no label"),
        (lambda: relabelled(None), "dataset[0] has no label"),
        (lambda: relabelled(0.5), "dataset[0] has no label"),
        (lambda: relabelled(3, Named), "the label of dataset[0] cannot be 3: its classes are 3"),
        (lambda: relabelled(-1, Named), "the label of dataset[0] cannot be -1: its classes are 3"),
        (lambda: relabelled(1), "there is one class only (1)"),
        (lambda: TensorDataset(torch.zeros(4, 3, 8, 8)), "dataset[0] is no image with its label"),
        (lambda: DataLoader(Drawn()), "Try: loader.dataset"),
        (lambda: type("Stream", (IterableDataset,), {"__iter__": lambda self: iter(())})(), "an IterableDataset"),
        (lambda: object(), "the data cannot be <object>: in memory they are"),
    ],
)
def test_what_cannot_be_learnt_from_is_said_in_one_line(given: Callable[[], Any], said: str) -> None:
    with pytest.raises((UsageError, DataError)) as error:
        load_data(source_of(given()))
    assert said in str(error.value)
    assert len(str(error.value)) < 400


def test_a_run_on_a_data_set_goes_on_and_notices_other_pictures(tmp_path: Path) -> None:
    out = tmp_path / "run"
    classifier = rk.train(Named(), out=out, **SETTINGS)
    assert classifier.classes == ("sky", "leaf", "rose")
    assert rk.evaluate(classifier, {"test": Named(12)})["seen"] > 10
    assert rk.train(Named(), out=out, resume=True, **SETTINGS).metrics["top1"] == classifier.metrics["top1"]
    with pytest.raises(UsageError, match="the images have changed since the run began"):
        rk.train(Named(9), out=out, resume=True, **SETTINGS)
    with pytest.raises(UsageError, match="the images of the run are not there"):
        rk.train(out=out, resume=True, quiet=True)


def test_the_doctor_looks_through_data_sets(photos: Path) -> None:
    found = check({"train": Named(), "test": Subset(Named(), [0])})
    assert found.classes["train"] == {"sky": 8, "leaf": 8, "rose": 8}
    assert ("exact-across-splits", ("test/000000.png", "train/000000.png")) in {
        (each.kind, each.files) for each in found.findings
    }
    assert check(Broken()).counts["unreadable"] == 2
    assert check(ImageFolder(photos / "train")).images == check(photos / "train").images
    with pytest.raises(UsageError, match="check\\(folder=3\\) cannot be"):
        check(3)


def test_what_is_held_out_has_pictures_of_its_own() -> None:
    data = load_data(source_of(Named(20)), DataRecipe(validation=0.2))
    assert set(data.train.contents()).isdisjoint(data.test.contents())
    assert data.test.labels.bincount(minlength=3).min() > 0
