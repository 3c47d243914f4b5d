"""The markers of a JPEG, walked without decoding: how often a decoder goes over all its pixels, and what it keeps."""

import re
from dataclasses import dataclass

from resnetkit.errors import DataError
from resnetkit.images.budget import Stream

MAX_IDLE = 65_536
"""Bytes that are in no segment, such as fill bytes: Pillow skips each by a turn in Python. Usual are few."""
MAX_SEGMENTS = 16_384
"""Segments before the pixels: one of 64 KiB each would hold 1 GiB of metadata."""
MAX_SCANS = 100
"""A JPEG of 8 bits has use for a few dozen; encoders write about ten."""

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_BARE = frozenset((0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))
"""Markers after which Pillow skips no segment."""
_SCAN, _ENDS = 0xDA, (0xD8, 0xD9)
_MARK = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")


@dataclass(frozen=True)
class Markers:
    """What the markers say, as far as it costs something."""

    scans: int = 1
    samples: float = 3.0
    """Of all components, for each pixel: 3 without subsampling, 1.5 with 4:2:0."""
    kept: bool = False
    """Whether all coefficients are kept until the last scan, two bytes a sample."""


def read_markers(stream: Stream) -> Markers | None:
    """The markers of a JPEG; None for what is none. A file of a single scan is read as far as its pixels begin.

    Raises `DataError` (exit code 3) for one that would keep a decoder busy for nothing.
    """
    stream.seek(0)
    if stream.read(2) != b"\xff\xd8":
        return None
    markers, progressive, components, idle = Markers(), False, 0, 0
    for _ in range(MAX_SEGMENTS):
        marker, skipped = _next_marker(stream, MAX_IDLE - idle)
        idle += skipped
        if marker is None:
            return markers
        head = stream.read(2)
        body = stream.read(int.from_bytes(head, "big") - 2) if len(head) == 2 and head >= b"\0\2" else b""
        if marker in _FRAMES and len(body) >= 6:
            progressive, components = marker in _PROGRESSIVE, body[5]
            markers = Markers(samples=_samples(body[6:]))
        elif marker == _SCAN:
            if not progressive and body[:1] and body[0] >= components:
                return markers
            return Markers(1 + _further_scans(stream.read()), markers.samples, kept=True)
    raise _refusal(f"it has more than {MAX_SEGMENTS:,} segments before its pixels")


def _next_marker(stream: Stream, allowed: int) -> tuple[int | None, int]:
    """The next marker that has a segment, None at the end; and the bytes before it that are in none."""
    idle, after_mark = -2, False
    while byte := stream.read(1):
        idle += 1
        if idle > allowed:
            raise _refusal(f"more than {MAX_IDLE:,} bytes between its segments mean nothing")
        code = byte[0]
        if after_mark and code not in (0x00, 0xFF) and (code not in _BARE):
            return code, idle
        after_mark = code == 0xFF
    return None, 0


def _samples(components: bytes) -> float:
    factors = [(components[at + 1] >> 4, components[at + 1] & 15) for at in range(0, len(components) - 2, 3)]
    across, down = (max((pair[axis] for pair in factors), default=0) or 1 for axis in (0, 1))
    return sum(wide * high for wide, high in factors) / (across * down)


def _further_scans(content: bytes) -> int:
    """Scans behind the first, whose pixels begin `content`."""
    count, place = 0, 0
    while (found := _MARK.search(content, place)) and found[0][1] not in _ENDS:
        if found[0][1] == _SCAN:
            count += 1
            if count >= MAX_SCANS:
                raise _refusal(f"it has more than {MAX_SCANS} scans, each of which goes over all its pixels")
        place = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
    return count


def _refusal(why: str) -> DataError:
    return DataError("cannot read the image", why=why, remedy="save it anew")
