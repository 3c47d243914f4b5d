"""Files of answers read back by other readers: every name and every number is what it was."""

import csv
import io
import json
import os
from pathlib import Path

import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnetkit.errors import UsageError
from resnetkit.machine.csvfile import csv_records
from resnetkit.prediction.answer import Prediction
from resnetkit.prediction.table import KINDS, Table, cells, columns, escaped, kind_of, restored

NAMES = (
    *(
        "a b.png",
        "new\nline.png",
        'quote".png',
        "'.png",
        "😀.png",
        "caf\udce9.png",
        "\x1b]0;owned\x07.png",
        "\u202e.png",
    ),
    *(
        "=1+1.png",
        "+1.png",
        "-1.png",
        "@SUM(A1).png",
        "\t=1.png",
        "'=1.png",
        "\\udce9.png",
        "\\u005cudce9.png",
        "a,b.png",
    ),
)
ROWS = [Prediction(name, (("=cat", 0.1 + place / 97), ("do\udcffg", 1e-7))) for place, name in enumerate(NAMES)]
ROWS += [
    Prediction("bad\n.png", error="=it is empty"),
    Prediction("x", (("a", 1.0), ("b", 0.0)), None, None, True, 0.5),
]


def written(kind: str, rows: list[Prediction], each: int = 5) -> bytes:
    parts: list[bytes] = []
    table: Table = KINDS[kind](parts.append, top=2, say=Prediction.to_dict)
    for start in range(0, len(rows), each):
        table.add(rows[start : start + each])
    table.finish()
    return b"".join(parts)


def test_csv_comes_back_as_it_was() -> None:
    header, *records = csv_records(written(".csv", ROWS))
    assert header == columns(2)
    assert len(records) == len(ROWS)
    for record, row in zip(records, ROWS, strict=True):
        found = dict(zip(header, record, strict=True))
        assert found["file"] == row.file
        assert os.fsencode(found["file"]) == os.fsencode(row.file)
        assert found["status"] == ("error" if row.error else "ok")
        if row.error is None:
            assert [found["label"], found["label_2"]] == [label for label, _ in row.top]
            assert [float(found["probability"]), float(found["probability_2"])] == [share for _, share in row.top]
        else:
            assert found["error"] == row.error
    assert records[0][-3:] == ["", "", ""]
    assert records[-1][-3:] == ["true", "0.5", ""]


def test_no_cell_of_a_csv_is_a_formula() -> None:
    """As the standard library reads it, and so a spreadsheet."""
    text = written(".csv", ROWS).decode(errors="surrogateescape")
    for record in csv.reader(io.StringIO(text, newline="")):
        assert not [cell for cell in record if cell.lstrip()[:1] in tuple("=+-@") and not _is_number(cell)]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_json_lines_are_the_objects_that_are_printed() -> None:
    lines = written(".jsonl", ROWS).decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == [row.to_dict() for row in ROWS]
    assert all(line.isprintable() for line in lines)


def test_parquet_comes_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(written(".parquet", ROWS))
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert table.column_names == columns(2)
    assert [str(table.schema.field(name).type) for name in ("file", "probability_2", "unknown", "unknown_score")] == [
        *("string", "double", "bool", "double")
    ]
    for found, row in zip(table.to_pylist(), ROWS, strict=True):
        assert restored(found["file"]) == row.file
        expected = dict.fromkeys(columns(2)) | {name: each for name, each in cells(row).items() if name in columns(2)}
        assert {name: restored(each) if isinstance(each, str) else each for name, each in found.items()} == expected


def test_parquet_of_many_rows_does_not_depend_on_how_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetkit.prediction.table.ROW_GROUP", 7)
    assert written(".parquet", ROWS, 3) == written(".parquet", ROWS, 256)


@given(st.text(st.characters() | st.characters(categories=("Cs",)) | st.sampled_from("\\ud5ce0"), max_size=30))
def test_every_name_can_be_told_from_every_other(name: str) -> None:
    escaped(name).encode()
    assert restored(escaped(name)) == name


@given(st.from_regex(r"(\\|u|d|c|e|9|005c|udce9|\udce9){0,12}", fullmatch=True))
def test_names_that_look_like_what_is_escaped(name: str) -> None:
    assert restored(escaped(name)) == name


def test_a_name_without_such_letters_stays_what_it_is() -> None:
    assert escaped(r"C:\users\u\x.png") == r"C:\users\u\x.png"


@pytest.mark.parametrize("name", ["answers", "answers.txt", "answers.csv.gz"])
def test_a_file_that_does_not_say_what_it_is_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"does not say what it is to be.*Try: --out answers.csv, or"):
        kind_of(Path(name))
