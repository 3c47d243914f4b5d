import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pictures import draw, fill
from resnetkit.data.dataset import Data
from resnetkit.data.fingerprint import Fingerprint
from resnetkit.data.load import load_data
from resnetkit.data.shards.write import shard
from resnetkit.data.splits import Images, Split, stratified_split
from resnetkit.recipes.schema import DataRecipe

KINDS = ("Images", "Files", "Shards")


def load(kind: str, folder: Path) -> Data:
    """Nine pictures a class to train on, as one of the three kinds."""
    if not folder.exists():
        fill(folder / "train", 9)
        fill(folder / "val", 3, first=100)
        if kind != "Images":
            draw("red", 0, (41, 48)).save(folder / "train" / "red" / "000.png")  # of another size: not kept in memory
    where = folder
    if kind == "Shards":
        where = folder.with_name("shards")
        if not where.exists():
            shard(folder, where, megabytes=0.03)
    data = load_data(str(where), DataRecipe(name=str(where)))
    assert type(data.train).__name__ == kind
    return data


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def split(kind: str, tmp_path: Path) -> Split:
    return load(kind, tmp_path / "set").train


def pictures(split: Split, labels: torch.Tensor) -> list[tuple[bytes, int]]:
    """Pixels and label of every image."""
    seen = (split.image(number, 3) for number in range(len(split)))
    return sorted((image.tobytes(), label) for image, label in zip(seen, labels.tolist(), strict=True))


def test_pictures_and_labels_are_those_of_pillow_and_the_folders(split: Split, tmp_path: Path) -> None:
    files = sorted((tmp_path / "set" / "train").rglob("*.png"))
    classes = ["blue", "green", "red"]
    expected = sorted((Image.open(file).tobytes(), classes.index(file.parent.name)) for file in files)
    everything = split.labels_at(np.arange(len(split)))
    assert everything.dtype == torch.int64
    assert pictures(split, everything) == expected
    assert split.labels is None or torch.equal(split.labels, everything)
    backwards = np.arange(len(split))[::-1].copy()
    assert torch.equal(split.labels_at(backwards), everything.flip(0))


def test_a_content_that_was_read_is_decoded_to_the_same_picture(split: Split) -> None:
    for number in range(len(split)):
        content = split.content(number)
        assert split.image(number, 3, content).tobytes() == split.image(number, 3).tobytes()
    contents = {split.content(number) for number in range(len(split))}
    assert len(contents) == len({split.name(number) for number in range(len(split))}) == len(split) == 27


def test_what_is_in_memory_is_whole(split: Split) -> None:
    if split.pixels is not None:
        assert split.pixels.shape == (27, 3, 40, 48)
    if split.bounds is not None:
        assert split.bounds[0] == 0
        assert split.bounds[-1] == len(split)
        assert (np.diff(split.bounds) > 0).all()


def test_relabelled_images_are_the_same_with_other_labels(split: Split) -> None:
    everything = np.arange(len(split))
    before = split.labels_at(everything)
    other = split.relabelled([7, 5, 6])
    assert torch.equal(other.labels_at(everything), torch.tensor([7, 5, 6])[before])
    assert pictures(other, before) == pictures(split, before)
    assert torch.equal(split.labels_at(everything), before)


@pytest.mark.parametrize("count", [6, 27, 100])
def test_a_limit_draws_some_of_the_images_with_their_labels(count: int, split: Split) -> None:
    some = split.limited(count)
    assert abs(len(some) - min(count, 27)) <= 1
    everything = pictures(split, split.labels_at(np.arange(len(split))))
    drawn = pictures(some, some.labels_at(np.arange(len(some))))
    assert len(set(drawn)) == len(some)
    assert set(drawn) <= set(everything)


def test_people_are_told_how_many_of_what(kind: str, split: Split) -> None:
    expected = {
        "Images": "27 images of 48 x 40 px in memory",
        "Files": "27 files",
        "Shards": f"27 images in {len(split.bounds) - 1 if split.bounds is not None else 0} shards",
    }
    assert split.describe() == expected[kind]


def test_the_fingerprint_stays_where_a_set_is_moved_and_changes_with_it(kind: str, tmp_path: Path) -> None:
    data = load(kind, tmp_path / "set")
    before = Fingerprint.of(data)
    assert before.entries.dtype == np.int64
    assert before.entries.shape[1] == 2
    assert len(np.unique(before.entries[:, 0])) == len(before.entries)  # a name for each
    for folder in [*tmp_path.iterdir()]:
        shutil.copytree(folder, tmp_path / "elsewhere" / folder.name)
    moved = load(kind, tmp_path / "elsewhere" / "set")
    assert Fingerprint.of(moved).digest == before.digest
    assert moved.train is not None
    assert not np.array_equal(moved.train.entries("validation", tmp_path), data.train.entries("train", tmp_path))
    shutil.rmtree(tmp_path / "elsewhere")
    fill(tmp_path / "elsewhere" / "set" / "train", 9)
    fill(tmp_path / "elsewhere" / "set" / "val", 3, first=100)
    size = (48, 40) if kind == "Images" else (41, 48)
    draw("red", 77, size).save(tmp_path / "elsewhere" / "set" / "train" / "red" / "000.png")
    assert Fingerprint.of(load(kind, tmp_path / "elsewhere" / "set")).digest != before.digest


def test_a_grey_image_in_memory_is_a_grey_picture() -> None:
    pixels = torch.arange(12, dtype=torch.uint8).view(2, 1, 1, 6)  # of one row: nothing else is squeezed away
    image = Images(pixels, torch.tensor([0, 1])).image(1, 1)
    assert (image.mode, image.size) == ("L", (6, 1))
    assert list(image.tobytes()) == [6, 7, 8, 9, 10, 11]


def test_of_nothing_nothing_is_held_out() -> None:
    kept, held = stratified_split(torch.empty(0, dtype=torch.int64), 0.2)
    assert (len(kept), len(held)) == (0, 0)
