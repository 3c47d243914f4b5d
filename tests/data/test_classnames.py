"""What class names say. The oracle is the list of names, written down by hand."""

import unicodedata
from pathlib import Path

import pytest

from pictures import draw, fill
from resnetkit.data.classnames import mirrored, told_apart
from resnetkit.data.load import load_data
from resnetkit.errors import DataError

NFC, NFD = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("left", "right"), [("left", "right")]),
        (("straight", "turn_left", "turn_right"), [("turn_left", "turn_right")]),
        (("LeftTurn", "RightTurn", "U-Turn"), [("LeftTurn", "RightTurn")]),
        (("turnleft", "turnright"), [("turnleft", "turnright")]),
        (("Turn Left", "turn-right"), [("Turn Left", "turn-right")]),
        (("clockwise", "counter_clockwise"), [("clockwise", "counter_clockwise")]),
        (("anticlockwise", "clockwise"), [("anticlockwise", "clockwise")]),
        (("ccw turn", "cw turn"), [("ccw turn", "cw turn")]),
        (("hand_L", "hand_R"), [("hand_L", "hand_R")]),
        (("左", "右"), [("左", "右")]),
        (("左转", "右转", "直行"), [("左转", "右转")]),
        (("顺时针", "逆时针"), [("顺时针", "逆时针")]),
        (("links", "rechts"), [("links", "rechts")]),
        (("b", "d", "p", "q", "x"), [("b", "d"), ("p", "q")]),
        (("front left", "front right", "rear left", "rear right"), None),
        (tuple("ABDLPQR"), []),
        (("l", "r"), []),
        (("bright", "dark", "left"), []),
        (("cat", "dog"), []),
        (("right",), []),
    ],
)
def test_classes_that_mirror_each_other_are_found_by_their_names(names, pairs) -> None:
    if pairs is None:
        pairs = [("front left", "front right"), ("rear left", "rear right")]
    assert mirrored(names) == pairs


def test_names_that_look_alike_are_told_apart_by_their_code_points() -> None:
    assert told_apart([NFC, NFD, "Tee"]) == [f"{NFC} ('Caf\\xe9')", f"{NFD} ('Cafe\\u0301')", "Tee"]
    assert told_apart(["cat "], ["cat"]) == ["cat  ('cat ')"]
    assert told_apart(["学校"]) == ["学校"]


def test_a_class_of_two_unicode_forms_in_two_splits_is_one_class(tmp_path: Path) -> None:
    for split, name, count in (("train", NFC, 6), ("val", NFD, 2)):
        fill(tmp_path / split, count, ("red",), first=10 * count)
        (tmp_path / split / name).mkdir()
        for number in range(count):
            draw("blue", number + 100 * count).save(tmp_path / split / name / f"{number}.png")
    data = load_data(str(tmp_path))
    assert data.classes == (NFC, "red")
    assert data.train.labels.bincount().tolist() == [6, 6]
    assert data.validation.labels.bincount().tolist() == [2, 2]
    assert [note for note in data.notes if "Unicode" in note] == [
        f"val/ writes {NFD} in another Unicode form ('Cafe\\u0301' for 'Caf\\xe9'): taken for one class"
    ]


def test_two_forms_in_one_split_are_two_classes_and_the_note_tells_them_apart(tmp_path: Path) -> None:
    for number, name in enumerate((NFC, NFD)):
        (tmp_path / name).mkdir()
        for each in range(8):
            draw("red", 10 * number + each).save(tmp_path / name / f"{each}.png")
    data = load_data(str(tmp_path))
    assert len(data.classes) == 2
    assert any(f"{NFD} ('Cafe\\u0301') and {NFC} ('Caf\\xe9') look alike" in note for note in data.notes)


def test_a_name_that_training_lacks_is_told_from_the_one_it_looks_like(tmp_path: Path) -> None:
    fill(tmp_path / "train", 3)
    fill(tmp_path / "val", 3)
    (tmp_path / "val" / "red").rename(tmp_path / "val" / "red\u2009")
    with pytest.raises(DataError, match=r"no image of red\\u2009 \('red\\u2009'\)"):
        load_data(str(tmp_path))


def test_a_folder_beside_a_named_set_is_told_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_data("digits").notes == []
    fill(tmp_path / "digits", 6)
    found = load_data("digits")
    assert len(found.classes) == 10
    assert found.notes == ["digits is the embedded set, not the folder here of that name; for the folder: ./digits"]
    assert load_data("./digits").classes == ("blue", "green", "red")
