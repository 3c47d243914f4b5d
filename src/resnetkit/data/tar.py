"""The members of a tar file, one after another: ustar, GNU's long names, pax; read forward only, and within bounds.

What a header asks for is compared with the file before anything is read or passed over, so that no header costs more
than its own bytes: each member begins behind the one before it and ends within the file, and names have a limit.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
MOST_NAME = 1 << 20
"""Bytes that a header may spend on a member's name and its other properties."""
MOST_EXTRA = 16
"""Headers with properties that may stand before a member."""
_LONG_NAME, _LONG_LINK, _SPARSE = b"L", b"K", b"S"
_PAX, _PAX_OF_ALL = (b"x", b"X"), b"g"
_WITHOUT_DATA = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
"""Links, devices, folders, pipes."""
_RECORD = re.compile(rb"(\d{1,7}) ([^=\n]+)=")


class TarError(ValueError):
    """A file that is no tar file, or is not whole. `begun` is false where its first header is none."""

    def __init__(self, why: str, *, begun: bool = True) -> None:
        super().__init__(why)
        self.begun = begun


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a tar file."""

    name: str
    offset: int
    """Where its first header begins."""
    data: int
    """Where its content begins."""
    size: int
    """Bytes of its content."""
    plain: bool
    """A regular file that is stored as it is: no folder, no link, no sparse file."""


def iter_members(stream: BinaryIO, offset: int = 0) -> Iterator[Member]:
    """The members from `offset` on, in their order. Raises `TarError` for a file that is cut off or damaged."""
    end = os.fstat(stream.fileno()).st_size
    while True:
        member, offset = _next(stream, offset, end)
        if member is None:
            return
        yield member


def _next(stream: BinaryIO, begin: int, end: int) -> tuple[Member | None, int]:
    """The member whose headers begin at `begin`, and where the next one's do; no member where the file says its end."""
    place, name, size, sparse, extra = begin, None, None, False, 0
    while True:
        stream.seek(place)
        header = stream.read(BLOCK)
        if len(header) < BLOCK:
            why = f"it ends at byte {place + len(header):,} without the mark that ends a tar file"
            raise TarError(why, begun=bool(place))
        if not any(header):
            if name is not None or size is not None or sparse:
                raise TarError(f"the header at byte {begin:,} belongs to no member")
            return None, place
        kind, length = header[156:157], _length(header, place)
        data = place + BLOCK
        if kind not in (_LONG_NAME, _LONG_LINK, *_PAX, _PAX_OF_ALL):
            break
        extra += 1
        if length > MOST_NAME or extra > MOST_EXTRA:
            raise TarError(f"the header at byte {place:,} is too long")
        place = _behind(data, length, end)
        stream.seek(data)
        content = stream.read(length)
        if kind == _LONG_NAME:
            name = _text(content)
        elif kind in _PAX:
            found = _pax(content, data)
            name = _text(found[b"path"]) if b"path" in found else name
            size = _decimal(found[b"size"], data) if b"size" in found else size
            sparse = sparse or any(key.startswith(b"GNU.sparse.") for key in found)
    if kind == _SPARSE:
        data = _behind_map(stream, header, data, end)
    length = length if size is None else size
    held = 0 if kind in _WITHOUT_DATA else length
    plain = kind in (b"0", b"\0", b"7") and not sparse
    name = _ustar_name(header) if name is None else name
    return Member(name, begin, data, length, plain), _behind(data, held, end)


def _behind(data: int, length: int, end: int) -> int:
    """Where the header behind some content begins. Raises `TarError` where the file ends before."""
    behind = data + -(-length // BLOCK) * BLOCK
    if behind > end:
        raise TarError(f"unexpected end of data: it has {end:,} bytes, and the member at {data - BLOCK:,} needs more")
    return behind


def _length(header: bytes, place: int) -> int:
    """How many bytes of content a header announces; checks the header's own sum."""
    rest, said = header[:148] + b" " * 8 + header[156:], _number(header[148:156])
    total = sum(rest)
    # Some old writers added up the bytes with their signs.
    if said not in (total, total - 256 * sum(byte > 127 for byte in rest)):
        raise TarError(f"the header at byte {place:,} is damaged", begun=bool(place))
    length = _number(header[124:136])
    if length is None:
        raise TarError(f"the header at byte {place:,} is damaged: its member has no size that can be")
    return length


def _number(field: bytes) -> int | None:
    """Octal digits, or, behind a byte of 128, a binary number. None for what is neither, such as a negative one."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    if not digits:
        return 0
    return int(digits, 8) if re.fullmatch(rb"[0-7]+", digits) else None


def _pax(content: bytes, place: int) -> dict[bytes, bytes]:
    """The records of a pax header, `LENGTH KEY=VALUE` and a line's end."""
    found, position, content = {}, 0, content.rstrip(b"\0")
    while position < len(content):
        record = _RECORD.match(content, position)
        after = position + int(record[1]) if record else 0
        if record is None or not record.end() < after <= len(content):
            raise TarError(f"the header at byte {place - BLOCK:,} is damaged: its records are none of pax")
        found[record[2]] = content[record.end() : after - 1]
        position = after
    return found


def _decimal(value: bytes, place: int) -> int:
    if not re.fullmatch(rb"\d{1,18}", value):
        raise TarError(f"the header at byte {place - BLOCK:,} is damaged: its member has no size that can be")
    return int(value)


def _behind_map(stream: BinaryIO, header: bytes, place: int, end: int) -> int:
    """Where the content of an old sparse file of GNU begins: behind the blocks that go on with its map."""
    more = header[482]
    while more:
        if place + BLOCK > end:
            raise TarError("unexpected end of data in the map of a sparse file")
        stream.seek(place)
        more = stream.read(BLOCK)[504]
        place += BLOCK
    return place


def _ustar_name(header: bytes) -> str:
    name, prefix = header[:100].partition(b"\0")[0], header[345:500].partition(b"\0")[0]
    # GNU's own headers keep other things in the place of the prefix.
    return _text(prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name)


def _text(content: bytes) -> str:
    return content.partition(b"\0")[0].decode(errors="surrogateescape")
