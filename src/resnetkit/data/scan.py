"""What each file of a folder of images holds, as far as it was read, remembered until the file changes.

`scan` reads headers, and hashes the files that have a size in common; that is all that training needs. The doctor reads
whole pictures (`duplicates`). Both keep what they saw in one file for each folder, and neither reads it again.
"""

import json
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import PIL

from resnetkit.errors import DataError, ResnetkitError
from resnetkit.images.reading import Stream, check_header, read_file, read_image
from resnetkit.machine.storage import replace_file, sha256, sha256_file, user_cache

AUTO = Path()
"""The `cache` that stands for the user's own: the folder manifests in `user_cache()`."""
ENDS = 4096
"""Bytes at either end of a file that go into its mark."""
CHUNK = 256
"""Files that a thread takes at a time."""

Stamp = tuple[int, int, int, int]
Name = TypeVar("Name")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one file. The first four fields say whether the file is still the one that was read."""

    size: int
    """Bytes."""
    mtime_ns: int
    ctime_ns: int
    inode: int
    why: str = ""
    """Why the file cannot be read; the fields below are then empty."""
    format: str = ""
    width: int = 0
    """Pixels, upright."""
    height: int = 0
    sha256: str = ""
    """Of the file's bytes, in hexadecimal; empty where only the header was read."""
    pixels: str = ""
    """SHA-256 of width, height and the upright RGB pixels, as `read_image` gives them; empty where not needed."""
    dhash: int | None = None
    """64 bits, each whether a cell of the 9 x 8 thumbnail is lighter than the one left of it; None for a flat image."""
    mode: str = ""
    bits: int = 8
    """Bits per channel, 16 for more than 8."""
    orientation: int = 1
    alpha: bool = False
    animated: bool = False
    mark: int = 0
    """CRC-32 of its first and last 4 KiB: tells it from most other files of its size, and costs little."""

    @property
    def content(self) -> int:
        """Size and mark in one number below 2^63."""
        return self.size % 2**31 << 32 | self.mark

    @property
    def stamp(self) -> Stamp:
        """What changes when the file does."""
        return self.size, self.mtime_ns, self.ctime_ns, self.inode


values_of = attrgetter(*(field.name for field in fields(Entry)))
"""The fields of an entry, in order, for JSON."""


def scan(folder: Path, paths: Sequence[Path], *, cache: Path | None = AUTO) -> list[Entry]:
    """An `Entry` for each of `paths`, in their order, from the cache or from the file's header.

    Files of equal size have their `sha256`. A file that is cut off or cannot be read has the reason in `why`.
    """
    memory = Memory(folder, cache)
    names = [os.path.relpath(path, folder) for path in paths]
    stamps = [stamp_of(path) for path in paths]
    sizes = Counter(size for size, *_ in stamps)
    entries: list[Entry | None] = []
    todo = []
    for position, (name, stamp) in enumerate(zip(names, stamps, strict=True)):
        entry = memory.recall(name, stamp)
        entries.append(entry)
        if entry is None or not (entry.sha256 or sizes[stamp[0]] == 1):
            todo.append(position)

    def read(positions: list[int]) -> None:
        for position in positions:
            stamp = stamps[position]
            # What failed before may have failed behind its header, so it is decoded.
            suspect = names[position] in memory.entries and bool(memory.entries[names[position]].why)
            entries[position] = _read(paths[position], stamp, hashed=sizes[stamp[0]] > 1, decode=suspect)

    with ThreadPoolExecutor() as pool:
        list(pool.map(read, (todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK))))
    complete = [entry for entry in entries if entry is not None]
    memory.keep(dict(zip(names, complete, strict=True)))
    return complete


def copies(entries: Mapping[Name, Entry]) -> list[list[Name]]:
    """Groups of names, or paths, whose files hold the same bytes, of those whose hash is known."""
    groups: dict[str, list[Name]] = defaultdict(list)
    for name, entry in entries.items():
        if entry.sha256:
            groups[entry.sha256].append(name)
    return [group for group in groups.values() if len(group) > 1]


def apart(places: Iterable[tuple[str, str]]) -> str:
    """How far from one another copies lie, by the (split, class) of each: "classes", "splits", or "" for one place."""
    splits, classes = (set(part) for part in zip(*places, strict=True))
    return "classes" if len(classes) > 1 else "splits" if len(splits) > 1 else ""


def _read(path: Path, stamp: Stamp, *, hashed: bool, decode: bool) -> Entry:
    def look(path: Path, stream: Stream) -> Entry:
        header = check_header(path, stream)
        if decode or not header.ends:
            stream.seek(0)
            read_image(path, stream=stream)
        mark, digest = mark_of(stream), ""
        if hashed:
            stream.seek(0)
            digest = sha256_file(stream)
        return Entry(*stamp, format=header.format, width=header.width, height=header.height, sha256=digest, mark=mark)

    try:
        return read_file(path, look)
    except DataError as error:
        return Entry(*stamp, why=error.reason)


def mark_of(stream: Stream) -> int:
    """`Entry.mark` of an opened file."""
    stream.seek(0)
    first = stream.read(ENDS)
    stream.seek(max(len(first), stream.seek(0, os.SEEK_END) - ENDS))
    return zlib.crc32(stream.read(ENDS), zlib.crc32(first))


def stamp_of(path: Path) -> Stamp:
    """The stamp of the file as it is now; zeros where there is none."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0, 0, 0
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


class Memory:
    """The entries of one folder, by names relative to it, in a file with a checksum; in none where `cache` is None.

    A file that is damaged, or was written with another Pillow, is as good as none; one that cannot be written costs
    the next run its time, and no more.
    """

    def __init__(self, folder: Path, cache: Path | None = AUTO) -> None:
        self.file: Path | None = None
        with suppress(RuntimeError, OSError):  # a user without a home; a working folder that was deleted
            place = user_cache() / "manifests" if cache is AUTO else cache
            self.file = place / f"{sha256(os.fsencode(folder.resolve()))[:32]}.json" if place else None
        self.entries = self._load(self.file) if self.file else {}

    def recall(self, name: str, stamp: Stamp) -> Entry | None:
        """What is known of a file that has not changed.

        What could not be read may be readable now without a change to the file: a mount, a right, a newer decoder.
        """
        entry = self.entries.get(name)
        return entry if entry is not None and not entry.why and entry.stamp == stamp else None

    def keep(self, entries: dict[str, Entry]) -> None:
        """Put `entries` in the place of what was known."""
        if self.file is None or entries == self.entries:
            return
        content = {"version": _version(), "entries": {name: values_of(entry) for name, entry in entries.items()}}
        body = json.dumps(content, separators=(",", ":")).encode()
        with suppress(ResnetkitError, OSError):
            replace_file(self.file, sha256(body).encode() + b"\n" + body)
        self.entries = entries

    @staticmethod
    def _load(file: Path) -> dict[str, Entry]:
        try:
            digest, _, body = file.read_bytes().partition(b"\n")
            if digest.decode() != sha256(body):
                return {}
            content = json.loads(body)
            if content["version"] != _version():
                return {}
            return {name: Entry(*values) for name, values in content["entries"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}


def _version() -> list[str]:
    """Entries of other readers are worth nothing: another Pillow may decode other pixels."""
    return ["3", PIL.__version__]
