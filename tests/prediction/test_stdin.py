import io
import os
import threading
from pathlib import Path

import pytest

from resnetkit.errors import DataError
from resnetkit.prediction.stdin import MOST_NAME, iter_names

STRANGE = ["a b.png", "quo\"te's.png", "emoji 🐜.png", "\x1b[31mred.png", "-rf.png", "comma,.png", " lead.png", "ñ.png"]


def test_names_one_a_line_are_given_as_they_are() -> None:
    assert list(iter_names(io.BytesIO("\n".join(STRANGE).encode()))) == STRANGE
    assert list(iter_names(io.BytesIO("\n".join([*STRANGE, ""]).encode()))) == STRANGE


def test_names_with_a_nul_behind_each_may_hold_newlines() -> None:
    names = ["two\nlines.png", *STRANGE, "ends\r", "\n"]
    assert list(iter_names(io.BytesIO("".join(f"{name}\0" for name in names).encode()))) == names


def test_names_that_are_no_utf8_keep_their_bytes() -> None:
    (name,) = iter_names(io.BytesIO(b"caf\xe9.png\n"))
    assert os.fsencode(name) == b"caf\xe9.png"


def test_lines_as_windows_ends_them_name_the_same_files(tmp_path: Path) -> None:
    odd = tmp_path / "odd\r"
    odd.touch()
    assert list(iter_names(io.BytesIO(f"a.png\r\n\r\n{odd}\nb.png\r".encode()))) == ["a.png", str(odd), "b.png"]


def test_names_cut_by_the_end_of_a_block_are_whole() -> None:
    names = [f"folder/{number:05}.png" for number in range(10_000)]
    assert list(iter_names(io.BytesIO("\n".join(names).encode()))) == names


def test_a_name_is_there_as_soon_as_it_is_written() -> None:
    """The writer waits for the first name to be used before it writes another: a slurp would wait for ever."""
    reads, writes = os.pipe()
    with os.fdopen(reads, "rb") as stream:
        names = iter_names(stream)
        os.write(writes, b"first.png\nsec")
        first: list[str] = []
        asking = threading.Thread(target=lambda: first.append(next(names)), daemon=True)
        asking.start()
        asking.join(60)
        assert first == ["first.png"]
        os.write(writes, b"ond.png\n")
        os.close(writes)
        assert list(names) == ["second.png"]


@pytest.mark.parametrize("content", [b"\xff" * (MOST_NAME + 1), b"a\n" + b"b" * 2 * MOST_NAME])
def test_what_is_no_list_is_refused_and_not_gathered_in_memory(content: bytes) -> None:
    with pytest.raises(DataError, match=r"the names of files are expected on stdin: there is none within 65,536 bytes"):
        list(iter_names(io.BytesIO(content)))


def test_a_list_that_is_separated_in_two_ways_is_refused() -> None:
    stream = io.BufferedReader(io.BytesIO(b"a.png\n" * 20_000 + b"b.png\0c.png"))  # pyrefly: ignore
    with pytest.raises(DataError, match="by newlines and others by NUL"):
        list(iter_names(stream))
