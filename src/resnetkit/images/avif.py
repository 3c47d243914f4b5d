"""The AV1 streams of an AVIF, walked without decoding: how many frames of how many pixels a decoder goes over.

What an AVIF says of its size and what its streams hold are two things, and many of its parts may share one stream.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from resnetkit.errors import DataError
from resnetkit.images.budget import Stream

MAX_BYTES = 100_000_000
"""Of the file, and of all its parts together, which may share bytes: noise takes 60 ns a byte."""
MAX_PARTS = 2000
"""Items, tiles and pieces of them: libavif looks each up among all others, and decoders are kept for all tiles."""
MAX_BOXES = 10_000
MAX_UNITS = 20_000
"""OBUs, of which a stream of one picture has three or four."""
MAX_CODED_PIXELS = 250_000_000
"""Of all frames of all parts together: 2 to 4 s. Usual are once those of the picture, and once those of its alpha."""

_BRANDS = (b"avif", b"avis", b"mif1", b"msf1")
_SEQUENCE, _FRAMES = 1, (3, 6)

Bytes = bytes | memoryview


@dataclass(frozen=True)
class Coded:
    """What the streams hold; nothing where they cannot be found."""

    pixels: int = 0
    """Of the largest frame."""
    frames: int = 0
    """Of the part that has most: a decoder keeps them for those that follow, shown or not."""
    total: int = 0
    """Pixels of all frames of all parts."""


def read_coded(stream: Stream) -> Coded | None:
    """What the streams of an AVIF hold; None for a file of another kind.

    Raises `DataError` (exit code 3) for one that would keep a decoder busy for nothing.
    """
    stream.seek(0)
    head = stream.read(12)
    if head[4:8] != b"ftyp" or head[8:12] not in _BRANDS:
        return None
    _refuse_above(stream.seek(0, os.SEEK_END), MAX_BYTES, "bytes")
    stream.seek(0)
    content = memoryview(stream.read())
    largest = most = total = length = units = 0
    try:
        for part in _parts(content):
            length += len(part)
            _refuse_above(length, MAX_BYTES, "bytes in all its parts")
            frames, walked = _frames_of(part, MAX_UNITS - units)
            units += walked
            largest, most, total = max(largest, *frames, 0), max(most, len(frames)), total + sum(frames)
    except EOFError:
        return Coded()
    return Coded(largest, most, total)


def _parts(content: memoryview) -> Iterator[Bytes]:
    """What each item holds, and the first picture of each track."""
    for kind, body in _boxes(content):
        if kind == b"meta":
            yield from _items(content, body[4:])
        elif kind == b"moov":
            for track in _inside(body, b"trak", b"mdia", b"minf", b"stbl"):
                yield _first_sample(content, track)


def _boxes(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and body of each box of those that follow one another."""
    at = 0
    for _ in range(MAX_BOXES):
        if at + 8 > len(content):
            return
        head, size = 8, int.from_bytes(content[at : at + 4], "big")
        if size == 1:
            head, size = 16, int.from_bytes(content[at + 8 : at + 16], "big")
        size = size or len(content) - at
        if size < head:
            return
        yield bytes(content[at + 4 : at + 8]), content[at + head : at + size]
        at += size
    raise _refusal(f"it has more than {MAX_BOXES:,} boxes")


def _inside(body: memoryview, kind: bytes, *further: bytes) -> Iterator[memoryview]:
    """The bodies of all boxes of a kind, and of one in it, and so on."""
    for each, inner in _boxes(body):
        if each == kind:
            yield from _inside(inner, *further) if further else [inner]


def _items(content: memoryview, meta: memoryview) -> Iterator[Bytes]:
    data = next(_inside(meta, b"idat"), content[:0])
    pieces = 0
    for box in _inside(meta, b"iloc"):
        number = _Numbers(box)
        version, sizes = number(4) >> 24, number(2)
        offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
        wide = 4 if version == 2 else 2
        for _ in range(number(wide)):
            number(wide)
            source = data if version and number(2) & 15 == 1 else content
            number(2)
            begin, extents = number(base), number(2)
            pieces += max(1, extents)
            _refuse_above(pieces, MAX_PARTS, "parts")
            found = []
            for _ in range(extents):
                number(index if version else 0)
                at, size = begin + number(offset), number(length)
                found.append(source[at : at + size] if size else source[at:])
            _refuse_above(sum(map(len, found)), len(content), "bytes in one part, which are all that there are")
            yield found[0] if len(found) == 1 else b"".join(found)


def _first_sample(content: memoryview, table: memoryview) -> memoryview:
    """The picture that a track begins with: the one that is read, for a film stands for its first picture."""
    sizes = [_number(box[4:8]) or _number(box[12:16]) for box in _inside(table, b"stsz")]
    wide = {b"stco": 4, b"co64": 8}
    places = [_number(body[8 : 8 + wide[kind]]) for kind, body in _boxes(table) if kind in wide]
    return content[places[0] : places[0] + max(sizes, default=0)] if places else content[:0]


def _frames_of(part: Bytes, allowed: int) -> tuple[list[int], int]:
    """The pixels of each frame of a stream, as many as its OBUs say; and how many OBUs it has.

    What is no stream, such as Exif, ends with its first byte.
    """
    frames, pixels, at = [], 0, 0
    for walked in range(allowed):
        if at >= len(part) or part[at] & 0x80:
            return frames, walked
        head = part[at]
        at += 2 if head & 4 else 1
        size, at = _leb128(part, at) if head & 2 else (len(part) - at, at)
        kind = head >> 3 & 15
        if kind == _SEQUENCE:
            pixels = _largest_frame(part[at : at + size])
        elif kind in _FRAMES:
            frames.append(pixels)
        at += size
    raise _refusal(f"its streams have more than {MAX_UNITS:,} units")


def _leb128(part: Bytes, at: int) -> tuple[int, int]:
    """A number of so many bytes as it needs, and what is behind it."""
    value = 0
    for place, byte in enumerate(part[at : at + 8]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    return len(part), at  # cut off, or no stream: there is nothing behind it


def _largest_frame(header: Bytes) -> int:
    """The pixels of the largest frame that a sequence header allows (AV1, section 5.5.1)."""
    bits = _Bits(bytes(header[:512]))
    bits(4)  # profile, still picture
    if bits(1):  # the short form, for single pictures
        bits(5)
    else:
        _skip_operating_points(bits)
    across, down = bits(4) + 1, bits(4) + 1
    return (bits(across) + 1) * (bits(down) + 1)


def _skip_operating_points(bits: "_Bits") -> None:
    delay = 0
    if bits(1):  # timing information
        bits(64)
        if bits(1):
            bits.skip_uvlc()
        if bits(1):  # decoder model
            delay = bits(5) + 1
            bits(42)
    display_delay = bits(1)
    for _ in range(bits(5) + 1):
        bits(12)
        if bits(5) > 7:
            bits(1)
        if delay and bits(1):
            bits(2 * delay + 1)
        if display_delay and bits(1):
            bits(4)


class _Numbers:
    """Numbers of so many bytes, one after another. Raises `EOFError` where there are no more."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def __call__(self, size: int) -> int:
        value = _number(self._data[self._at : self._at + size], size)
        self._at += size
        return value


def _number(data: memoryview, size: int = 1) -> int:
    if len(data) < size:
        raise EOFError
    return int.from_bytes(data, "big")


class _Bits:
    """Numbers of so many bits, one after another; zeros where there are no more."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def __call__(self, count: int) -> int:
        self._left -= count
        return (self._value >> self._left if self._left >= 0 else 0) & ((1 << count) - 1)

    def skip_uvlc(self) -> None:
        """A number that says by its leading zeros how long it is."""
        zeros = 0
        while self._left > 0 and not self(1):
            zeros += 1
        self(zeros)


def _refuse_above(count: int, most: int, what: str) -> None:
    if count > most:
        raise _refusal(f"it has more than {most:,} {what}")


def _refusal(why: str) -> DataError:
    return DataError("cannot read the image", why=why, remedy="save it anew")
