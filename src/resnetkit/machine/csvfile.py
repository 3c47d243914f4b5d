"""Lines of a CSV file that no spreadsheet takes for formulas, and from which every text comes back as it was."""

import csv
import io
from collections.abc import Iterable, Iterator

MARK = "'"
"""Stands before a text that would be a formula, and before one that begins with it."""
FORMULA = frozenset("=+-@＝＋－＠\t\r\n")
"""How a text begins that spreadsheets compute, or may compute after cleaning it (OWASP, CSV injection)."""
BYTES = "surrogateescape"
"""How names that are not UTF-8 are encoded: by the bytes that they have on the disk."""


def csv_cell(value: object) -> str:
    """What stands in a cell: nothing for None, numbers as they are, a text with `MARK` before it where it needs that.

    A number may begin with a minus: it is no formula.
    """
    if not isinstance(value, str):
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    if value.startswith(MARK) or value[:1] in FORMULA or value.lstrip()[:1] in FORMULA:
        return MARK + value
    return value


def csv_line(cells: Iterable[object]) -> bytes:
    r"""One record, in UTF-8, with the end of its line; a text may have line ends of its own and is then quoted.

    The bytes of a name that is not UTF-8 stay what they are. Half of a surrogate pair, which is no byte of any name, is
    written as `\ud800`.
    """
    text = io.StringIO(newline="")
    # Of the writer's line end depends what it quotes: with this one, both of its letters.
    csv.writer(text, lineterminator="\r\n").writerow(map(csv_cell, cells))
    line = text.getvalue().removesuffix("\r\n") + "\n"
    try:
        return line.encode(errors=BYTES)
    except UnicodeEncodeError:
        return line.encode(errors="backslashreplace")


def csv_text(cell: str) -> str:
    """The text of a cell that `csv_cell` made."""
    return cell.removeprefix(MARK)


def csv_records(content: bytes) -> Iterator[list[str]]:
    """The records that `csv_line` wrote, each a list of texts. Raises `csv.Error`."""
    lines = io.StringIO(content.decode(errors=BYTES), newline="")
    return ([csv_text(cell) for cell in record] for record in csv.reader(lines, strict=True))
