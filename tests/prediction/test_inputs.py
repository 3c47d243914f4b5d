import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pictures import draw
from resnetkit.data.walk import iter_files
from resnetkit.errors import DataError, UsageError
from resnetkit.prediction.inputs import iter_inputs


def names(given: object) -> list[str]:
    return [each.name for each in iter_inputs(given, 3)]


def reasons(given: object) -> dict[str, str]:
    return {each.name: each.source.reason for each in iter_inputs(given, 3) if isinstance(each.source, DataError)}


def touch(folder: Path, *files: str) -> list[str]:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return [str(folder / file) for file in files]


def test_inputs_come_in_the_order_in_which_they_are_given_and_folders_sorted(tmp_path: Path) -> None:
    touch(tmp_path / "f", "b.png", "a/z.png", "a.png", "a/B.png", "c/d/e.png")
    given = [tmp_path / "z.png", tmp_path / "f", str(tmp_path / "gone.png"), tmp_path / "f" / "b.png"]
    inside = sorted(path for path in (tmp_path / "f").rglob("*") if path.is_file())
    assert names(given) == [str(path) for path in (given[0], *inside, given[2], given[3])]


def test_the_files_of_a_tree_come_as_if_sorted_while_one_folder_is_listed_at_a_time(tmp_path: Path) -> None:
    draw_name = np.random.default_rng(0)
    for _ in range(200):
        parts = draw_name.choice(["a", "a.b", "a-b", "A", "ab", "é", "0"], draw_name.integers(1, 4))
        place = tmp_path.joinpath(*(f"{part}" for part in parts))
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{draw_name.integers(5)}.png").touch()
    files = list(iter_files(tmp_path))
    assert files == sorted(path for path in tmp_path.rglob("*") if path.is_file())


def test_a_folder_that_links_lead_back_to_is_listed_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "z").symlink_to(tmp_path / "a")
    assert [path.name for path in iter_files(tmp_path)] == ["1.png", "2.png"]


def test_a_pattern_is_what_it_fits_sorted(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.jpg", "c.png", "deep/d.jpg")
    assert names(f"{tmp_path}/*.jpg") == [str(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    assert names([f"{tmp_path}/**/*.jpg"]) == [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "deep/d.jpg")]
    assert reasons([f"{tmp_path}/*.bmp"]) == {f"{tmp_path}/*.bmp": "nothing fits this pattern"}


def test_a_file_that_is_called_like_a_pattern_is_itself(tmp_path: Path) -> None:
    (odd, _) = touch(tmp_path, "photo[1].jpg", "photo1.jpg")
    assert names([odd]) == [odd]


def test_each_name_on_stdin_is_one_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `find` prints names folders too: their files must not be there twice."""
    touch(tmp_path, "a.png", "*.png")
    given = [str(tmp_path), str(tmp_path / "*.png"), str(tmp_path / "gone.png"), "http://somewhere/a.png", "-"]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("\n".join(given).encode())))
    found = list(iter_inputs(["-", tmp_path / "a.png"], 3))
    assert [each.name for each in found] == [*given[:3], "http://somewhere/a.png", "-", str(tmp_path / "a.png")]
    assert found[3].source.reason == "nothing is downloaded"


def test_pictures_in_memory_are_called_by_their_number_or_their_file(tmp_path: Path) -> None:
    draw("red", 0).save(tmp_path / "a.png")
    array = np.zeros((4, 5, 3), np.uint8)
    with Image.open(tmp_path / "a.png") as opened:
        given = [array, opened, torch.zeros(3, 4, 5), Image.new("L", (4, 4)), tmp_path / "a.png"]
        assert names(given) == ["0", str(tmp_path / "a.png"), "2", "3", str(tmp_path / "a.png")]
    assert names(array) == ["0"]
    assert names(np.zeros((3, 4, 5, 3), np.uint8)) == ["0", "1", "2"]


def test_an_iterator_is_asked_for_one_at_a_time() -> None:
    asked: list[int] = []

    def pictures() -> Iterator[Image.Image]:
        for number in range(100):
            asked.append(number)
            yield Image.new("RGB", (2, 2))

    inputs = iter_inputs(pictures(), 3)
    assert not asked
    next(inputs)
    assert len(asked) == 1


@pytest.mark.parametrize("given", [[], (), iter([])])
def test_an_empty_list_is_one_line(given: object) -> None:
    with pytest.raises(DataError, match="there is nothing to look at"):
        list(iter_inputs(given, 3))


def test_an_empty_stdin_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ("-", ["-"]):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\n\n")))
        with pytest.raises(DataError, match="there is no image"):
            list(iter_inputs(given, 3))


def test_a_closed_stdin_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="stdin is closed"):
        list(iter_inputs("-", 3))


def test_an_empty_folder_is_refused_alone_and_a_row_among_others(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"there is no image in .*empty"):
        list(iter_inputs(tmp_path / "empty", 3))
    assert reasons([tmp_path / "empty", tmp_path / "a.png"]) == {str(tmp_path / "empty"): "there is no image"}


@pytest.mark.parametrize(
    "given", ["https://somewhere/a.jpg", Path("https://somewhere/a.jpg"), "data:image/png;base64,"]
)
def test_a_url_is_one_line_before_anything_is_looked_at(given: object) -> None:
    with pytest.raises(UsageError, match="nothing is downloaded"):
        iter_inputs(["a.png", given], 3)


@pytest.mark.parametrize("given", [7, [7], ["a.png", None], [np.zeros((2, 2, 2, 2, 2))], [["a.png"]]])
def test_what_is_no_picture_is_refused_before_anything_is_looked_at(given: object) -> None:
    with pytest.raises(UsageError, match=r"predict\(inputs.* cannot be: it takes files"):
        iter_inputs(given, 3)


def test_names_that_cannot_be_are_rows(tmp_path: Path) -> None:
    odd = ["a\0b.png", "x" * 5000, str(tmp_path / "gone" / "a.png"), "~nobody/a.png", ""]
    assert len(names(odd)) == len(odd)
