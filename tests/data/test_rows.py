"""Rows of tables against Python's own writer, in every form in which spreadsheets save them, and hostile ones."""

import csv
import re
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from resnetkit.data import rows
from resnetkit.data.rows import open_table
from resnetkit.errors import DataError, UsageError
from resnetkit.machine.extras import with_extra

ROWS = [("a b.jpg", "Katze, grau"), ('say "x".jpg', "größer"), ("two\nlines.jpg", "z")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-mark", "utf-32", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_each_form_gives_what_was_written(tmp_path: Path, encoding: str, separator: str, ending: str) -> None:
    file = tmp_path / "labels.csv"
    mark = "\ufeff" if encoding.endswith("-mark") else ""
    with file.open("w", encoding=encoding.removesuffix("-mark"), newline="") as stream:
        stream.write(mark)
        csv.writer(stream, delimiter=separator, lineterminator=ending).writerows([("path", "label"), *ROWS])
    table = open_table(file)
    assert table.columns == ("path", "label")
    assert [(number, tuple(cells)) for number, cells in table.rows()] == [
        (number, cells) for number, cells in enumerate(ROWS, 2)
    ]


def test_rows_are_numbered_as_a_spreadsheet_numbers_them(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text('sep=;\npath;label\n\na.jpg;"x\ny"\nb.jpg\nc.jpg;z;;\n')
    assert list(open_table(file).rows()) == [(3, ["a.jpg", "x\ny"]), (4, ["b.jpg", ""]), (5, ["c.jpg", "z"])]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"path,label\na.jpg,b,c\n", "row 2 has 3 cells and the first row 2"),
        (b'path,label\n"a.jpg"b,c\n', "row 2: "),
        (b'path,label\n"a.jpg,b\n', "row 2: "),
        (b"path,label\na\0.jpg,b\n", "it holds zeros"),
        ("path,label\na\0.jpg,b\n".encode("utf-16"), "line 2 holds zeros"),
        (b"path,label\n\x81\x8d,b\n", "it is no text"),
        (b"path,label\n" + b"a" * 200_000 + b",b\n", "row 2: field larger"),
        (b"path,label\n" + b"a,b," * 400_000, "line 2 has more than 1,048,576 characters"),
        (b"a" * (rows.MOST_LINE + 1), "its first line has more than"),
        (b",".join(b"c%d" % n for n in range(3000)) + b"\n", "columns"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read the table in .*labels\.csv: ") as error:
        list(open_table(file).rows())
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_a_line_of_a_gigabyte_costs_neither_time_nor_memory(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    with file.open("wb") as stream:
        stream.write(b"path,label\n")
        stream.truncate(1 << 30)
    within = tmp_path / "within.csv"
    within.write_bytes(b"path,label\n" + b"x" * (300 << 20))
    for each, why in ((file, "at most"), (within, "characters")):
        with pytest.raises(DataError, match=why):
            list(open_table(each).rows())


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    file = tmp_path / "labels.parquet"
    file.write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=rf"labels.parquet.*Try: {re.escape(with_extra('tables'))}"):
        _ = open_table(file).columns


def test_parquet_gives_what_pyarrow_wrote(tmp_path: Path) -> None:
    file = tmp_path / "labels.parquet"
    columns = {"path": ["a.jpg", "b.jpg", None], "label": [1, 10, 2], "box": [[1, 2], [3], None]}
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    table = open_table(file)
    assert table.columns == ("path", "label")  # lists are no cells
    assert list(table.rows()) == [(1, ["a.jpg", "1"]), (2, ["b.jpg", "10"]), (3, ["", "2"])]
    content = file.read_bytes()
    file.write_bytes(content[:-8] + b"\xff\xff\xff\x7fPAR1")
    with pytest.raises(DataError, match=r"labels\.parquet"):
        _ = open_table(file).columns
