from pathlib import Path

import pytest

from pictures import draw, fill
from resnetkit.data.load import load_data
from resnetkit.data.splits import Files, Images
from resnetkit.data.walk import list_images
from resnetkit.errors import DataError, UsageError
from resnetkit.recipes.schema import DataRecipe


def test_train_and_val_are_taken_as_they_are(photos: Path) -> None:
    data = load_data(str(photos))
    assert data.classes == ("blue", "green", "red")
    assert (len(data.train), len(data.validation), data.test) == (24, 9, None)
    assert data.held_out()[0] == "validation"
    assert isinstance(data.train, Images)  # small pictures of one size are decoded once


def test_tutorial_layout_holds_out_some_of_train(tmp_path: Path) -> None:
    fill(tmp_path / "train", 10)
    fill(tmp_path / "test", 2, first=50)
    data = load_data(str(tmp_path))
    assert len(data.train) + len(data.validation) == 30
    assert min(data.validation.labels.bincount(minlength=3).tolist()) >= 1
    assert len(data.test) == 6
    assert "no folder val/" in data.notes[0]


def test_a_folder_of_classes_is_split_class_by_class_and_says_so(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    data = load_data(str(tmp_path))
    assert sum(len(split) for split in (data.train, data.validation, data.test)) == 60
    for split in (data.validation, data.test):
        assert min(split.labels.bincount(minlength=3).tolist()) >= 1
    assert "no held-out folder" in data.notes[0]
    again = load_data(str(tmp_path))
    assert (again.test.pixels == data.test.pixels).all()


def test_pictures_of_many_sizes_stay_on_disk(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    draw("red", 0, (300, 200)).save(tmp_path / "red" / "large.jpg")
    data = load_data(str(tmp_path))
    assert isinstance(data.train, Files)


def test_what_is_no_picture_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    (tmp_path / "red" / ".hidden.png").write_bytes(b"")
    (tmp_path / "red" / "notes.txt").write_text("x")
    (tmp_path / "red" / "__MACOSX").mkdir()
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / ".git").mkdir()
    assert load_data(str(tmp_path)).unreadable == {}
    assert len(list_images(tmp_path)) == 9


def test_links_in_a_circle_are_walked_once(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    (tmp_path / "red" / "again").symlink_to(tmp_path / "red")
    (tmp_path / "red" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    data = load_data(str(tmp_path))
    assert sum(len(split) for split in (data.train, data.validation, data.test)) == 9
    assert list(data.unreadable.values()) == ["no such file"]


def test_names_of_any_kind(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    names = [" a b.png", "新 图.png", "-dash.png", "new\nline.png", "quote'\".png", "n" * 240 + ".png", b"\xff.png"]
    for number, name in enumerate(names):
        import os

        path = os.path.join(os.fsencode(tmp_path / "red"), os.fsencode(name))  # noqa: PTH118 - bytes
        with open(path, "wb") as stream:  # noqa: PTH123
            draw("red", number).save(stream, "PNG")
    data = load_data(str(tmp_path))
    assert sum(len(split) for split in (data.train, data.validation, data.test)) == 9 + len(names)


def test_unreadable_pictures_are_named_and_left_out(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    (tmp_path / "red" / "empty.png").write_bytes(b"")
    whole = (tmp_path / "red" / "000.png").read_bytes()
    (tmp_path / "blue" / "cut.png").write_bytes(whole[: len(whole) // 2])
    data = load_data(str(tmp_path))
    assert {Path(file).name for file in data.unreadable} == {"empty.png", "cut.png"}
    assert sum(len(split) for split in (data.train, data.validation, data.test)) == 18


def _empty(folder: Path) -> None:
    folder.mkdir(exist_ok=True)


def _flat(folder: Path) -> None:
    draw("red", 0).save(folder / "a.png")


def _one_class(folder: Path) -> None:
    fill(folder, 3, ("red",))


def _empty_class(folder: Path) -> None:
    fill(folder, 3)
    (folder / "yellow").mkdir()


def _missing_in_val(folder: Path) -> None:
    fill(folder / "train", 3)
    fill(folder / "val", 3, ("red", "blue"))


def _missing_in_train(folder: Path) -> None:
    fill(folder / "train", 3, ("red", "blue"))
    fill(folder / "val", 3)


def _all_broken(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "x.jpg").write_text("no image")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_empty, "there is nothing to learn in .*: it holds no image. Try: a folder with one folder for each class"),
        (_flat, "its 1 images are in no class folder"),
        (_one_class, r"there is one class only \(red\)"),
        (_empty_class, "a class folder holds no image in .*yellow"),
        (_missing_in_val, "the validation split has no image of green .*Try: add some, or accept it with"),
        (_missing_in_train, "the training split has no image of green"),
        (_all_broken, "no image can be read"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(make, message: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        load_data(str(tmp_path))


def test_a_missing_class_can_be_accepted(tmp_path: Path) -> None:
    _missing_in_val(tmp_path)
    data = load_data(str(tmp_path), DataRecipe(name=str(tmp_path), allow_missing=True))
    assert data.classes == ("blue", "green", "red")
    assert data.validation.labels.unique().tolist() == [0, 2]


def test_unknown_names_and_missing_folders() -> None:
    with pytest.raises(UsageError, match=r"unknown data set 'digit'. Try: digits"):
        load_data("digit")
    with pytest.raises(DataError, match="cannot read the images in /no/where: no such folder"):
        load_data("/no/where")
