"""Files in folders by answer: nothing that was there changes, and the same command again changes nothing."""

import os
from pathlib import Path

import pytest

from resnetkit.errors import UsageError
from resnetkit.prediction.answer import Prediction
from resnetkit.prediction.sorting import Sorter, require_apart, safe_names


def put(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def row(path: Path, label: str, **more: object) -> Prediction:
    return Prediction(str(path), ((label, 0.9),), **more)


def listed(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def rows(tmp_path: Path) -> list[Prediction]:
    """Files of one name and of different contents, and twice the same content."""
    files = [put(tmp_path / place / "x.png", text) for place, text in (("a", "1"), ("b", "2"), ("c", "1"), ("d", "3"))]
    return [row(path, "cat") for path in files] + [row(put(tmp_path / "a" / "y", "4"), "dog")]


SORTED = {"cat/x.png": "1", "cat/x-2.png": "2", "cat/x-3.png": "1", "cat/x-4.png": "3", "dog/y": "4"}


@pytest.mark.parametrize("link", [False, True])
def test_each_file_has_its_copy_and_the_same_command_again_adds_none(
    link: bool, tmp_path: Path, rows: list[Prediction]
) -> None:
    for _ in range(2):
        sorter = Sorter(tmp_path / "sorted", ("cat", "dog"), link)
        places = [sorter.place(each) for each in rows]
        assert listed(tmp_path / "sorted") == SORTED
        assert all(place.samefile(each.file) == link for place, each in zip(places, rows, strict=True) if place)
    assert all(Path(each.file).exists() for each in rows)


def test_what_was_there_stays_and_an_interrupted_sort_goes_on(tmp_path: Path, rows: list[Prediction]) -> None:
    put(tmp_path / "sorted" / "cat" / "x.png", "the user's own")
    first = Sorter(tmp_path / "sorted", ("cat", "dog"))
    for each in rows[:2]:
        first.place(each)
    for _ in range(2):
        again = Sorter(tmp_path / "sorted", ("cat", "dog"))
        for each in rows:
            again.place(each)
    numbers = {"cat/x-2.png": "1", "cat/x-3.png": "2", "cat/x-4.png": "1", "cat/x-5.png": "3", "dog/y": "4"}
    assert listed(tmp_path / "sorted") == {"cat/x.png": "the user's own"} | numbers


def test_what_has_no_answer_is_named_and_what_is_unknown_has_a_folder(tmp_path: Path) -> None:
    strange = put(tmp_path / "strange.png", "1")
    sorter = Sorter(tmp_path / "sorted", ("cat",), reject=True)
    sorter.place(row(strange, "cat", unknown=True))
    sorter.place(Prediction("bad.png", error="the file is empty"))
    sorter.place(row(tmp_path / "gone.png", "cat"))
    assert listed(tmp_path / "sorted") == {"unknown/strange.png": "1"}
    assert sorter.left_out == {"bad.png": "the file is empty", str(tmp_path / "gone.png"): "no such file by now"}


def test_without_rejection_the_most_probable_class_is_taken(tmp_path: Path) -> None:
    Sorter(tmp_path / "sorted", ("cat",)).place(row(put(tmp_path / "x", "1"), "cat", unknown=True))
    assert listed(tmp_path / "sorted") == {"cat/x": "1"}


def test_classes_that_are_no_names_of_folders_get_safe_ones() -> None:
    labels = [
        "../../etc",
        "a/b",
        "a:b",
        "..",
        "",
        "CON",
        "nul.txt",
        "x\n",
        "caf\udce9",
        "Cat",
        "cat",
        "end. ",
        "y" * 300,
    ]
    names = safe_names([*labels, "unknown", "unknown"])
    assert (names[1:3], names[5], names[9:12]) == (["a_b", "a_b-2"], "_CON", ["Cat", "cat-2", "end"])
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert Path(name).name == name
        assert name not in ("", ".", "..")
        assert name.isprintable()
        assert not name.endswith((".", " "))
        assert len(name.encode()) < 120
    assert names[-2:] == ["unknown", "unknown-2"]


def test_a_long_name_stays_within_what_a_system_takes(tmp_path: Path) -> None:
    name = "ü" * 125 + ".png"
    for place in ("a", "b"):
        put(tmp_path / place / name, place)
    sorter = Sorter(tmp_path / "sorted", ("cat",))
    assert [len(os.fsencode(sorter.place(row(tmp_path / place / name, "cat")).name)) for place in ("a", "b")] == [
        254,
        254,
    ]


def test_a_folder_that_holds_what_is_looked_at_is_refused(tmp_path: Path) -> None:
    photos = put(tmp_path / "photos" / "x.png", "1").parent
    for given in (photos, photos / "x.png"):
        with pytest.raises(UsageError, match="which is looked at"):
            require_apart(photos, [given])
    require_apart(photos / "sorted", [photos])


def test_what_lies_in_an_archive_is_named_with_the_remedy(tmp_path: Path) -> None:
    put(tmp_path / "photos.zip", "an archive")
    sorter = Sorter(tmp_path / "sorted", ("cat", "dog"))
    assert sorter.place(row(tmp_path / "photos.zip" / "inner" / "x.png", "cat")) is None
    assert list(sorter.left_out.values()) == ["it is inside of photos.zip: unpack that first"]
