"""Folders as people have them: understood as they are meant, or refused; what is left out is counted, by reason.

Each is looked at by `check` too, which must say the same.
"""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from pictures import draw, fill
from resnetkit.data.layout import describe_left_out
from resnetkit.data.load import load_data
from resnetkit.data.survey import survey
from resnetkit.doctor.check import check
from resnetkit.errors import DataError, UsageError
from resnetkit.recipes.schema import DataRecipe

TWO = ("blue", "red")


def masks(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("L", (48, 40)).save(folder / name)


def split_folders(train: str, test: str, *more: str):
    def make(folder: Path) -> None:
        fill(folder / train, 4, TWO)
        fill(folder / test, 2, TWO, first=50)
        for name in more:
            fill(folder / name, 1, TWO, first=80)

    return make


def class_above_split(folder: Path) -> None:
    for split, count, first in (("train", 4, 0), ("test", 2, 50)):
        fill(folder / "x", count, TWO, first)
        for colour in TWO:
            shutil.move(folder / "x" / colour, folder / colour / split)
    (folder / "x").rmdir()


def flat_validation(folder: Path) -> None:
    fill(folder / "train", 6, TWO)
    (folder / "val").mkdir()
    draw("red", 90).save(folder / "val" / "red-90.png")


def mask_folders(folder: Path) -> None:
    for colour in TWO:
        fill(folder / colour, 6, (colour,))
        (folder / colour / colour).rename(folder / colour / "images")
        masks(folder / colour / "masks", [f"{number:03d}.png" for number in range(6)])


def mask_files(folder: Path) -> None:
    fill(folder, 6, TWO)
    for colour in TWO:
        masks(folder / colour, [f"{number:03d}_mask.png" for number in range(6)])


def thumbnails(folder: Path) -> None:
    fill(folder, 6, TWO)
    for place in (folder / "red" / "@eaDir" / "000.png", folder / "blue" / ".thumbnails", folder / "red" / "__MACOSX"):
        place.mkdir(parents=True)
        draw("red", 3, (12, 10)).save(place / "SYNOPHOTO_THUMB_XL.jpg")
    (folder / "red" / "__MACOSX" / "._000.png").write_bytes(b"x")
    (folder / ".ipynb_checkpoints").mkdir()
    draw("red", 0).save(folder / ".ipynb_checkpoints" / "000-checkpoint.png")


def odd_class_names(folder: Path) -> None:
    fill(folder, 4, TWO)
    for name in ("__other__", "_background_", ".5mm"):
        shutil.copytree(folder / "red", folder / name)


def own_run(folder: Path) -> None:
    fill(folder, 6, TWO)
    run = folder / "runs" / "photos-20260101-000000"
    run.mkdir(parents=True)
    for name in ("recipe.toml", "metrics.jsonl"):
        (run / name).write_text("")
    draw("red", 0).save(run / "figure.png")


def other_files(folder: Path) -> None:
    fill(folder, 4, TWO)
    for name in ("notes.txt", "a.xyz", "b.xyz"):
        (folder / "red" / name).write_text("x")


ALL = {"all": {"blue": 6, "red": 6}}
SPLIT = {"train": {"blue": 4, "red": 4}, "test": {"blue": 2, "red": 2}}
UNDERSTOOD = {
    **{
        f"{train} and {test}": (split_folders(train, test), SPLIT, [])
        for train, test in (
            ("training_set", "test_set"),
            ("seg_train", "seg_test"),
            ("train_images", "test_images"),
            ("train-data", "test-data"),
            ("Training", "Testing"),
            ("TrainSet", "TestSet"),
            ("asl_alphabet_train", "asl_alphabet_test"),
            ("训练集", "测试集"),
        )
    },
    **{
        name: (split_folders("train", "test", name), SPLIT | {"validation": {"blue": 1, "red": 1}}, [])
        for name in ("eval", "dev", "validation_set", "Valid")
    },
    "class above split": (class_above_split, SPLIT, []),
    "flat validation": (flat_validation, {"train": {"blue": 6, "red": 6}}, ["1 files in a split that has no class"]),
    "mask folders": (mask_folders, ALL, ["12 files that are masks of others, such as blue/masks/000.png"]),
    "mask files": (mask_files, ALL, ["12 files that are masks of others"]),
    "thumbnails": (thumbnails, ALL, ["2 files in hidden folders", "2 files that are thumbnails of others"]),
    "odd class names": (
        odd_class_names,
        {"all": dict.fromkeys((".5mm", "__other__", "_background_", "blue", "red"), 4)},
        [],
    ),
    "a run of ours": (own_run, ALL, ["1 files in the folder of a run"]),
    "other files": (
        other_files,
        {"all": {"blue": 4, "red": 4}},
        ["3 files that are no images by their names (1 .txt, 2 .xyz)"],
    ),
}


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_a_layout_is_understood_and_what_is_left_out_is_counted(name: str, tmp_path: Path) -> None:
    make, expected, left_out = UNDERSTOOD[name]
    make(tmp_path)
    layout = survey(tmp_path)
    found = {split: {each: len(paths) for each, paths in of.items()} for split, of in layout.members.items()}
    assert found == expected
    said = sorted(describe_left_out(layout.left_out, tmp_path))
    assert len(said) == len(left_out)
    for line, start in zip(said, sorted(left_out), strict=True):
        assert line.startswith(start)
    report = check(tmp_path, cache=None)
    assert report.classes == found
    assert {finding.kind for finding in report.findings} >= ({"left-out"} if "masks" in str(left_out) else set())
    notes = "\n".join(load_data(str(tmp_path)).notes)
    assert all(line in notes for line in said)


def train_as_a_class(folder: Path) -> None:
    fill(folder, 4, TWO)
    fill(folder / "train", 4, ("green",))
    shutil.copytree(folder / "train" / "green", folder / "train" / "steam")


def two_for_one(folder: Path) -> None:
    split_folders("train", "test", "val", "eval")(folder)


def unlabelled(folder: Path) -> None:
    for split in ("train", "test"):
        fill(folder, 4, ("red",))
        (folder / "red").rename(folder / split)


def half_split(folder: Path) -> None:
    class_above_split(folder)
    shutil.move(folder / "red" / "test", folder / "x")
    for file in (folder / "x").iterdir():
        file.rename(folder / "red" / file.name)
    (folder / "x").rmdir()


def segmentation_set(folder: Path) -> None:
    fill(folder, 4, ("red",))
    (folder / "red").rename(folder / "images")
    masks(folder / "masks", ["000.png"])


def wrapped(folder: Path) -> None:
    fill(folder / "photos", 4, TWO)


def empty_folders(folder: Path) -> None:
    fill(folder, 4, TWO)
    for name in ("New folder", "New folder (2)"):
        (folder / name).mkdir()


REFUSED = {
    "train as a class": (train_as_a_class, r"train/ may be a split or a class .* Try: --data.train-folder train if"),
    "two for one": (two_for_one, r"two folders for one split \(validation\) .*eval/, val/ .* --data.validation-folder"),
    "no labels": (unlabelled, r"the splits have no class folders .*test/, train/"),
    "half split": (half_split, r"some classes are split and some are not .*blue/ holds .*and red/ does not"),
    "segmentation": (segmentation_set, r"these folders are no classes .*images/ and masks/ look like pictures"),
    "wrapped": (wrapped, r"one class only \(photos\) .*it holds folders of its own: blue/, red/\. Try: .*photos, if"),
    "empty folders": (empty_folders, r"a class folder holds no image in .*New folder: so do New folder \(2\)/"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_layout_that_may_be_two_things_is_refused_by_training_and_by_check(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        load_data(str(tmp_path))
    if name == "empty folders":  # here check goes on, and lists each
        kinds = [finding.kind for finding in check(tmp_path, cache=None).findings]
        assert kinds.count("empty-class") == 2
        return
    with pytest.raises(DataError, match=message):
        check(tmp_path, cache=None)


def test_a_folder_is_the_split_that_it_is_said_to_be(tmp_path: Path) -> None:
    train_as_a_class(tmp_path)
    data = load_data(str(tmp_path), DataRecipe(name=str(tmp_path), train_folder="train"))
    assert data.classes == ("green", "steam")
    assert any("8 files in folders beside the splits" in note for note in data.notes)
    data = load_data(str(tmp_path), DataRecipe(name=str(tmp_path), train_folder="."))
    assert data.classes == ("blue", "red", "train")
    with pytest.raises(UsageError, match=r"--data.train-folder no cannot be .*there is no such folder\. Try: blue"):
        load_data(str(tmp_path), DataRecipe(name=str(tmp_path), train_folder="no"))


def test_folders_of_any_name_are_splits_where_they_are_named(tmp_path: Path) -> None:
    split_folders("2023", "2024")(tmp_path)
    settings = DataRecipe(name=str(tmp_path), train_folder="2023", validation_folder="2024")
    data = load_data(str(tmp_path), settings)
    assert (len(data.train), len(data.validation), data.test) == (8, 4, None)
