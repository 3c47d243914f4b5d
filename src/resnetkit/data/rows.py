"""Rows of text from a table in a file: CSV in the forms in which people have it, and Parquet.

A CSV may be separated by commas, semicolons, tabs or bars, and be UTF-8, UTF-16 or what Excel saves on Windows. It is
read line by line, and what is longer than any table of pictures is refused before it is read.
"""

import codecs
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from resnetkit.errors import DataError, UsageError
from resnetkit.machine.documents import encoding_of, require_plain_file
from resnetkit.machine.extras import with_extra

CSV, PARQUET = (".csv", ".tsv"), (".parquet", ".pq")
SUFFIXES = (*CSV, *PARQUET)
MOST_BYTES = 1 << 29
"""Of a CSV; one of ImageNet has a sixth of that."""
MOST_ROWS = 5_000_000
MOST_COLUMNS = 2_000
MOST_LINE = 1 << 20
"""Characters."""
CHUNK = 1 << 20
SEPARATORS = ",;\t|"
EXCEL = "cp1252"

Row = tuple[int, Sequence[str]]
"""The number of a row, as a spreadsheet has it, and its cells, one for each column."""


@dataclass(frozen=True)
class CsvFile:
    """A CSV. The row of its column names is number 1."""

    file: Path
    encoding: str
    separator: str
    skipped: int
    """Lines before the column names: Excel's `sep=;`."""
    columns: tuple[str, ...]

    def rows(self) -> Iterator[Row]:
        """The rows that are not empty, from the file. Raises `DataError` (exit code 3), naming the row."""
        with _reading(self.file, self.encoding) as stream:
            for number, cells in self.records(stream):
                if number == 1 or not any(cells):
                    continue
                if any(cells[len(self.columns) :]):
                    raise _refusal(
                        self.file,
                        f"row {number:,} has {len(cells)} cells and the first row {len(self.columns)}",
                        "quotes around a cell that holds a separator",
                    )
                padding = [""] * (len(self.columns) - len(cells))
                yield number, [*cells[: len(self.columns)], *padding]

    def records(self, stream: TextIO) -> Iterator[Row]:
        """All rows of an opened file, that of the column names too. Raises `DataError` (exit code 3)."""
        records = csv.reader(_lines(self.file, stream, self.skipped), delimiter=self.separator, strict=True)
        number = 0
        while True:
            number += 1
            try:
                cells = next(records, None)
            except csv.Error as error:
                raise _refusal(self.file, f"row {number:,}: {error}", "a quote at both ends of the cell") from error
            except UnicodeError as error:
                raise _no_text(self.file) from error
            if cells is None:
                return
            if number > MOST_ROWS or len(cells) > MOST_COLUMNS:
                raise _refusal(self.file, f"it has more than {MOST_ROWS:,} rows or {MOST_COLUMNS:,} columns")
            yield number, cells


@dataclass(frozen=True)
class ParquetFile:
    """A Parquet file. Its first row is number 1. Columns that are lists, structures or bytes are not read."""

    file: Path

    @cached_property
    def _opened(self) -> Any:
        try:
            parquet = import_module("pyarrow.parquet")
        except ImportError as error:
            raise UsageError(
                "Parquet needs pyarrow, which is not installed",
                file=self.file,
                remedy=f"{with_extra('tables')}, or save the table as CSV",
            ) from error
        try:
            return parquet.ParquetFile(self.file)
        except (OSError, ValueError) as error:
            raise _refusal(self.file, str(error)[:200]) from error

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Their names. Raises `UsageError` (exit code 2) without pyarrow, `DataError` (exit code 3) for a bad file."""
        schema = self._opened.schema_arrow
        types = import_module("pyarrow.types")
        flat = [field for field in schema if not (types.is_nested(field.type) or _is_binary(types, field.type))]
        if self._opened.metadata.num_rows > MOST_ROWS or len(flat) > MOST_COLUMNS:
            raise _refusal(self.file, f"it has more than {MOST_ROWS:,} rows or {MOST_COLUMNS:,} columns")
        return tuple(field.name for field in flat)

    def rows(self) -> Iterator[Row]:
        """All rows, as text. Raises `DataError` (exit code 3)."""
        number = 0
        try:
            for batch in self._opened.iter_batches(columns=list(self.columns)):
                for cells in zip(*(batch.column(name).to_pylist() for name in self.columns), strict=True):
                    number += 1
                    yield number, ["" if cell is None else str(cell) for cell in cells]
        except (OSError, ValueError) as error:
            raise _refusal(self.file, f"behind row {number:,}: {str(error)[:200]}") from error


Table = CsvFile | ParquetFile


def is_table(file: Path) -> bool:
    """Whether a file is a table, by its name."""
    return file.suffix.lower() in SUFFIXES


def open_table(file: Path) -> Table:
    """A table: its columns now, its rows when they are asked for.

    Raises `DataError` (exit code 3) for what is no table, or more than is read; `UsageError` (exit code 2) for Parquet
    without pyarrow.
    """
    try:
        size = require_plain_file(file)
        if file.suffix.lower() in PARQUET:
            return ParquetFile(file)
        if size > MOST_BYTES:
            raise ValueError(f"it has {size:,} bytes, and at most {MOST_BYTES:,} are read")
        encoding = _encoding(file)
        with _reading(file, encoding) as stream:
            first = stream.readline(MOST_LINE + 1)
            if len(first) > MOST_LINE:
                raise ValueError(f"its first line has more than {MOST_LINE:,} characters")
        said = first[4:5] if first.lower().startswith("sep=") else ""
        separator = said if said and said in SEPARATORS else _separator(first, file.suffix.lower())
        table = CsvFile(file, encoding, separator, int(bool(said)), ())
        with _reading(file, encoding) as stream:
            _, names = next(table.records(stream), (1, ()))
        return replace(table, columns=tuple(name.strip() for name in names))
    except UnicodeError as error:
        raise _no_text(file) from error
    except (OSError, ValueError, csv.Error) as error:
        raise _refusal(file, error.strerror if isinstance(error, OSError) else str(error)) from error


def _refusal(file: Path, why: str | None, remedy: str | None = None) -> DataError:
    return DataError("cannot read the table", file=file, why=why, remedy=remedy)


def _no_text(file: Path) -> DataError:
    return _refusal(file, "it is no text in UTF-8, in UTF-16 or of Excel", "save it as CSV UTF-8")


def _is_binary(types: Any, kind: Any) -> bool:
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


def _reading(file: Path, encoding: str) -> TextIO:
    return file.open(encoding=encoding, newline="")


def _encoding(file: Path) -> str:
    """What its first bytes say; else UTF-8, or where it is not that, what Excel saves on Windows."""
    with file.open("rb") as stream:
        marked = encoding_of(stream.read(4))
        if marked is not None:
            return marked
        stream.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while chunk := stream.read(CHUNK):
                if b"\0" in chunk:
                    raise ValueError("it holds zeros, as text in UTF-8 does not")
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return EXCEL
        return "utf-8"


def _separator(line: str, suffix: str) -> str:
    """What parts the column names: whatever gives the most of them."""
    counts = {mark: len(next(csv.reader([line], delimiter=mark), [])) for mark in SEPARATORS}
    return max(counts, key=lambda mark: (counts[mark], suffix == ".tsv" and mark == "\t"))


def _lines(file: Path, stream: TextIO, skipped: int) -> Iterator[str]:
    number = 0
    while line := stream.readline(MOST_LINE + 1):
        number += 1
        if len(line) > MOST_LINE:
            raise _refusal(file, f"line {number:,} has more than {MOST_LINE:,} characters")
        if "\0" in line:
            raise _refusal(file, f"line {number:,} holds zeros, as text does not")
        if number > skipped:
            yield line
