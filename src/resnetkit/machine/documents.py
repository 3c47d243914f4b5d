"""Text and JSON from outside: of a bounded length before it is read, and of a stated shape before it is believed."""

import codecs
import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import BaseModel

MOST_BYTES = 32 << 20
MOST_NODES = 500_000
"""Lists and objects in a document: a few bytes of text make a hundred in memory."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

Schema = TypeVar("Schema", bound="BaseModel")


def read_bounded(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a plain file of at most so many bytes. Raises `OSError`; `ValueError` for any other."""
    size = require_plain_file(path)
    if size > most:
        raise ValueError(f"it has {size:,} bytes, and at most {most:,} are read")
    with path.open("rb") as stream:
        return stream.read(size)


def require_plain_file(path: Path) -> int:
    """The bytes of a plain file. Raises `OSError`; `ValueError` for a folder, a pipe or a device."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a plain file")
    return status.st_size


def encoding_of(start: bytes) -> str | None:
    """The encoding that the first bytes of a text say; None where they say none."""
    return next((encoding for mark, encoding in _MARKS if start.startswith(mark)), None)


def read_json(path: Path) -> Any:
    """What a JSON file says. Raises `OSError`; `ValueError` for what is no JSON, too long or nested too deeply."""
    return parse_json(read_bounded(path))


def parse_json(content: bytes) -> Any:
    """What JSON says. Raises `ValueError` for what is none, too long or nested too deeply."""
    if len(content) > MOST_BYTES or content.count(b"[") + content.count(b"{") > MOST_NODES:
        raise ValueError("it holds more than is read")
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def validated(schema: type[Schema], found: Any) -> Schema:
    """`found` as a `schema`. Raises `ValueError`, which names the first place that is wrong, in one line."""
    from pydantic import ValidationError

    try:
        return schema.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part)[:40] for part in first["loc"][:6])
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None


def read_lines(path: Path, *, errors: str = "strict") -> list[str]:
    """The lines of a text file that are not empty, without blanks around them: UTF-8, or what its first mark says.

    Raises `OSError`; `ValueError` for what is no such text.
    """
    content = read_bounded(path)
    text = content.decode(encoding_of(content) or "utf-8", errors=errors)
    if "\0" in text:
        raise ValueError("it holds zeros, as text in UTF-8 does not")
    return [line.strip() for line in text.splitlines() if line.strip()]
