r"""Answers as a file, by the end of its name: CSV, JSON lines, Parquet. What is written depends on the rows alone.

The columns of CSV and Parquet are those of `columns`. A name that is not UTF-8 has in CSV the bytes that it has on the
disk; JSON escapes them; Parquet holds text only, so there each such byte is written as in Python, `\udce9` for byte e9,
and `restored` gives the name back.
"""

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from resnetkit.errors import UsageError
from resnetkit.machine.console import json_line
from resnetkit.machine.csvfile import csv_line
from resnetkit.machine.extras import with_extra
from resnetkit.prediction.answer import Prediction

Write = Callable[[bytes], None]
Say = Callable[[Prediction], dict[str, Any]]
"""What is said of a row, as a JSON object."""
ROW_GROUP = 1 << 16
"""Rows of a row group of Parquet."""


class Table(Protocol):
    """What takes rows, in their order, and writes them."""

    def add(self, rows: Sequence[Prediction]) -> None:
        """Some more rows."""

    def finish(self) -> None:
        """There are no more."""


def columns(top: int) -> list[str]:
    """What a row says of its input: what it is, `top` classes with their probabilities, or why there are none."""
    others = [f"{what}_{place}" for place in range(2, top + 1) for what in ("label", "probability")]
    return ["file", "status", "label", "probability", *others, "unknown", "unknown_score", "error"]


def cells(row: Prediction, say: Say = Prediction.to_dict) -> dict[str, Any]:
    """What a row says, by the name of its column."""
    found = {"unknown": row.unknown, "unknown_score": row.unknown_score} | say(row)
    for place, (label, probability) in enumerate(row.top[1:], 2):
        found |= {f"label_{place}": label, f"probability_{place}": probability}
    return found


class CsvTable:
    """One record a row, behind one of the columns' names."""

    def __init__(self, write: Write, *, top: int, say: Say) -> None:
        self.write, self.say, self.columns = write, say, columns(top)
        write(csv_line(self.columns))

    def add(self, rows: Sequence[Prediction]) -> None:
        """Some more rows."""
        found = (cells(row, self.say) for row in rows)
        self.write(b"".join(csv_line(each.get(name) for name in self.columns) for each in found))

    def finish(self) -> None:
        """There are no more."""


class JsonLines:
    """The objects that `resnetkit predict --json` prints, one a line."""

    def __init__(self, write: Write, *, top: int, say: Say) -> None:  # noqa: ARG002 - as the others
        self.write, self.say = write, say

    def add(self, rows: Sequence[Prediction]) -> None:
        """Some more rows."""
        self.write("".join(f"{json_line(self.say(row))}\n" for row in rows).encode())

    def finish(self) -> None:
        """There are no more."""


class ParquetTable:
    """Columns with types: text, float64, and a truth value for `unknown`; what there is not is null."""

    def __init__(self, write: Write, *, top: int, say: Say) -> None:
        self.arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
        kinds = {"unknown": self.arrow.bool_(), "unknown_score": self.arrow.float64()}
        number, text = self.arrow.float64(), self.arrow.string()
        names = columns(top)
        typed = [(name, kinds.get(name, number if name.startswith("probability") else text)) for name in names]
        self.schema, self.waiting = self.arrow.schema(typed), list[dict[str, Any]]()
        self.say, self.sink = say, _Sink(write)
        self.writer = parquet.ParquetWriter(self.sink, self.schema, compression="zstd")

    def add(self, rows: Sequence[Prediction]) -> None:
        """Some more rows."""
        for row in rows:
            found = cells(row, self.say).items()
            self.waiting.append({name: escaped(each) if isinstance(each, str) else each for name, each in found})
        while len(self.waiting) >= ROW_GROUP:
            self._write(self.waiting[:ROW_GROUP])
            del self.waiting[:ROW_GROUP]

    def finish(self) -> None:
        """There are no more."""
        if self.waiting:
            self._write(self.waiting)
        self.writer.close()

    def _write(self, rows: list[dict[str, Any]]) -> None:
        self.writer.write_table(self.arrow.Table.from_pylist(rows, schema=self.schema), row_group_size=ROW_GROUP)


class _Sink:
    """What Arrow takes for a file that is open for writing."""

    closed = False

    def __init__(self, write: Write) -> None:
        self._write, self._size = write, 0

    def write(self, content: Any) -> int:
        self._write(bytes(content))
        self._size += len(content)
        return len(content)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


KINDS: dict[str, Callable[..., Table]] = {".csv": CsvTable, ".jsonl": JsonLines, ".parquet": ParquetTable}


def kind_of(out: Path) -> Callable[..., Table]:
    """What writes a file of that name; it takes what writes bytes, how many classes a row names, and what it says.

    Raises `UsageError` (exit code 2) for a name that says nothing, and for Parquet without pyarrow.
    """
    kind = KINDS.get(out.suffix.lower())
    if kind is None:
        what = "the name of the file does not say what it is to be"
        raise UsageError(what, file=out, remedy=f"--out answers.csv, or {' or '.join([*KINDS][1:])}")
    if kind is ParquetTable:
        try:
            import_module("pyarrow.parquet")
        except ImportError as error:
            remedy = f"{with_extra('tables')}, or --out answers.csv"
            raise UsageError("Parquet needs pyarrow, which is not installed", file=out, remedy=remedy) from error
    return kind


_NOT_TEXT = re.compile(r"[\ud800-\udfff]")
_TAKEN_FOR_IT = re.compile(r"\\(?=ud[89a-f][0-9a-f]{2}|u005c)")


def escaped(text: str) -> str:
    r"""A text in which there are only letters: each byte that is none as `\udce9`. `restored` gives it back.

    So that no two become the same, the backslash of a text that has those letters itself is written as `\u005c`.
    """
    plain = _TAKEN_FOR_IT.sub(r"\\u005c", text)
    return _NOT_TEXT.sub(lambda found: f"\\u{ord(found[0]):04x}", plain)


def restored(text: str) -> str:
    """The text that `escaped` was given; `os.fsencode` of it gives the bytes of a name."""
    return re.sub(r"\\u(d[89a-f][0-9a-f]{2}|005c)", lambda found: chr(int(found[1], 16)), text)
