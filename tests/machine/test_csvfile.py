import csv
import io
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resnetkit.machine.csvfile import csv_line, csv_records

FORMULAS = ('=HYPERLINK("http://a.example")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1", "\u00a0@x")
NAMES = ("a b.jpg", 'say "cat".png', "a,b", "two\nlines", "back\rwards", "\x1b[31mred", "🐈.jpg", "", "'quoted", "''")


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_begins_as_a_formula_does(text: str) -> None:
    """The oracle is Python's own reader, which sees what a spreadsheet sees."""
    ((cell, number),) = csv.reader(io.StringIO(csv_line([text, -0.5]).decode(), newline=""))
    assert cell == "'" + text
    assert float(number) == -0.5


def test_names_come_back_as_they_were() -> None:
    lost = os.fsdecode(b"caf\xe9.jpg")
    written = csv_line([*NAMES, *FORMULAS, lost])
    assert next(csv_records(written)) == [*NAMES, *FORMULAS, lost]
    assert b"caf\xe9.jpg" in written  # as on the disk


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=("Cs",))), min_size=1, max_size=4), max_size=5))
@example([["\r"], ["\n"], ["\r\n"], [""]])
@example([["'="], ["="], ["''="]])
def test_any_records_come_back_as_they_were(records: list[list[str]]) -> None:
    content = b"".join(map(csv_line, records))
    assert list(csv_records(content)) == records


def test_other_values_are_plain() -> None:
    assert csv_line([None, True, 3, 0.1, "cat"]) == b",true,3,0.1,cat\n"
    assert csv_line(["\ud800"]) == b"\\ud800\n"
