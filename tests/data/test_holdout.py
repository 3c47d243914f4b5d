"""What is held out of a folder: by content, in groups, and the same pictures whatever else is added."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from pictures import draw, fill
from resnetkit.data.filenames import group_of
from resnetkit.data.load import load_data
from resnetkit.data.splits import Split
from resnetkit.errors import UsageError
from resnetkit.recipes.schema import DataRecipe

TWO = ("blue", "red")


def names(split: Split) -> set[str]:
    paths = (Path(split.name(place)) for place in range(len(split)))
    return {f"{path.parent.name}/{path.name}" for path in paths}


def halves(folder: Path, **settings: object) -> tuple[set[str], set[str]]:
    """Names of the files that are kept and of those that are held out, where about half of all are."""
    data = load_data(str(folder), DataRecipe(name=str(folder), validation=0.5, allow_missing=True, **settings))
    return names(data.train), names(data.validation) | (names(data.test) if data.test is not None else set())


def test_pictures_that_are_added_move_no_others_across(tmp_path: Path) -> None:
    for colour in TWO:
        fill(tmp_path, 40, (colour,), first=0 if colour == "red" else 100)
    before = load_data(str(tmp_path))
    fill(tmp_path, 3, ("red",), first=200)
    after = load_data(str(tmp_path))
    for name in ("train", "validation", "test"):
        assert names(getattr(before, name)) == {each for each in names(getattr(after, name)) if "/20" not in each}


def test_neither_name_nor_place_decides_what_is_held_out(tmp_path: Path) -> None:
    fill(tmp_path / "one", 30, TWO)
    (tmp_path / "two").mkdir()
    for colour in TWO:
        (tmp_path / "two" / colour).mkdir()
        for file in (tmp_path / "one" / colour).iterdir():
            shutil.copy(file, tmp_path / "two" / colour / f"{99 - int(file.stem):03d}.png")
    first, second = load_data(str(tmp_path / "one")), load_data(str(tmp_path / "two"))
    for name in ("train", "validation", "test"):
        mine, theirs = names(getattr(first, name)), names(getattr(second, name))
        assert mine == {f"{Path(each).parent}/{99 - int(Path(each).stem):03d}.png" for each in theirs}


def test_about_the_share_is_held_out_and_every_class_has_some(tmp_path: Path) -> None:
    fill(tmp_path, 200, TWO)
    data = load_data(str(tmp_path))
    for split, share in ((data.test, 0.1), (data.validation, 0.09)):
        # 400 draws: four standard deviations to either side
        assert len(split) == pytest.approx(400 * share, abs=4 * np.sqrt(400 * share * (1 - share)))
    small = tmp_path / "small"
    fill(small, 3, TWO)
    data = load_data(str(small))
    for split in (data.train, data.validation, data.test):
        assert split.labels.bincount(minlength=2).tolist() == [1, 1]


TOGETHER = {
    "augmented": ("{}.png", "{}_flip.png", "{}_rot90.png", "{} (1).png", "{} - Copy.png"),
    "roboflow": ("{}_jpg.rf.0123456789abcdef0.png", "{}_jpg.rf.fedcba98765432100.png"),
    "aug": ("{}_aug_0.png", "{}_aug_1.png", "{}_aug_12.png"),
    "same stem": ("{}.png", "{}.bmp"),
    "frames": ("clip{}_frame_0001.png", "clip{}_frame_0002.png", "clip{}-frame-0003.png"),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_files_that_belong_together_lie_on_one_side(name: str, tmp_path: Path) -> None:
    for number in range(24):
        for turn, pattern in enumerate(TOGETHER[name]):
            for colour in TWO:
                file = tmp_path / colour / pattern.format(f"p{number:02d}")
                file.parent.mkdir(exist_ok=True)
                draw(colour, 100 * number + turn).save(file)
    kept, held = (
        {(each.partition("/")[0], re.search(r"p(\d\d)", each)[1]) for each in side} for side in halves(tmp_path)
    )
    assert len(kept | held) == 48
    assert kept
    assert held
    assert kept.isdisjoint(held)


def test_ninety_numbered_pictures_are_ninety_groups() -> None:
    stems = {f"cat ({number})" for number in range(1, 91)} | {f"IMG_{number:04d}" for number in range(90)}
    assert len({group_of(Path(f"cats/{stem}.jpg"), stems) for stem in stems}) == 180


def test_copies_by_content_lie_on_one_side_also_in_two_classes(tmp_path: Path) -> None:
    fill(tmp_path, 24, TWO)
    for number in range(24):
        shutil.copy(tmp_path / "red" / f"{number:03d}.png", tmp_path / "blue" / f"copy of {number + 500}.png")
    kept, held = halves(tmp_path)
    for number in range(24):
        copy, original = f"blue/copy of {number + 500}.png", f"red/{number:03d}.png"
        assert {copy, original} <= kept or {copy, original} <= held


def patients(names: set[str]) -> set[str]:
    return {name.partition("-")[0] for name in names}


def test_a_pattern_says_what_else_belongs_together(tmp_path: Path) -> None:
    for number in range(60):
        for colour in TWO:
            file = tmp_path / colour / f"patient{number % 12}-{number}.png"
            file.parent.mkdir(exist_ok=True)
            draw(colour, number).save(file)
    kept, held = halves(tmp_path, group_by="[a-z]+/patient[0-9]+")
    assert patients(kept).isdisjoint(patients(held))
    assert 15 <= len(kept) <= 75  # a quarter of 24 groups of five: large groups are not held out the rather
    kept, held = halves(tmp_path)
    assert not patients(kept).isdisjoint(patients(held))
    with pytest.raises(UsageError, match=r"--data.group-by \( cannot be"):
        halves(tmp_path, group_by="(")
