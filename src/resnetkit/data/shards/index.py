"""One WebDataset shard, read by index: where each sample lies in the tar file, found once and kept beside it.

The format is WebDataset's: a plain tar file; neighbouring members that share a key, which is the path up to the first
dot of the base name, are one sample; their extensions say what they are. A sample here is a picture and a label:
`.cls`, a whole number in ASCII, or `.json` with such a number as "label". Where names hold further dots, a picture and
a label that share all but the last extension, such as `photo_1.v2.png` and `photo_1.v2.cls`, are a sample of their own.
Pictures that have no label of their own, such as `photo_1.mask.png` beside `photo_1.png`, are left out and counted.

An index is a header and 20 bytes a sample. It is used while the shard has the size and time that it had when it was
scanned, is written again otherwise, and may be deleted at any time.
"""

import json
import os
import re
import struct
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from resnetkit.data.tar import Member, TarError, iter_members
from resnetkit.errors import DataError, StorageError
from resnetkit.images.formats import SUFFIXES
from resnetkit.machine.storage import replace_file, sha256, user_cache

RECORD = np.dtype([("header", "<u8"), ("lead", "<u4"), ("size", "<u4"), ("label", "<i4")])
"""Where a picture's tar header begins, how far behind it the picture begins (0: there is none), its size, the label."""
OPEN_FILES = 16
"""Shards that a process keeps open, and indexes that it keeps mapped: together half of the smallest usual limit."""
MOST_CLASSES = 1 << 20
MOST_KINDS = 100
"""Extensions that are remembered, to name them."""
MOST_JSON = 1 << 20
"""Bytes of a sample's `.json`."""
_MAGIC = b"rkindex2"
_HEADER = struct.Struct("<8sQQQiQQ")
_CHECKSUM = struct.Struct("<I")
_START = _HEADER.size + _CHECKSUM.size
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}
_META = re.compile(r"__[^/]*__($|/)")
_HIDDEN = re.compile(r"(^|/)\.[^/]*$|^__[^/]*__($|/)")


@dataclass(frozen=True, slots=True)
class TarIndex:
    """The index of one shard, as it is on the disk. Small: the records stay in their file."""

    path: Path
    """The shard."""
    file: Path
    """Its index."""
    size: int
    """Bytes of the shard."""
    changed: int
    """When the shard was last changed, in ns."""
    count: int
    """Samples."""
    top: int
    """The largest label."""
    checksum: int
    """Of the records: equal where places, sizes and labels of all samples are."""
    left_out: int = 0
    """Pictures that are not read, since they have no label of their own."""
    first_left_out: int = 0
    """Where the header of the first of them begins."""

    def records(self) -> np.ndarray:
        """All samples, (count,) of `RECORD`, memory-mapped: processes share the pages."""
        return _mapped(self)

    def name(self, row: int) -> str:
        """`shard.tar:member` of a sample, for people."""
        return self.name_at(int(self.records()[row]["header"]), f"sample {row}")

    def name_at(self, header: int, otherwise: str = "a member") -> str:
        """`shard.tar:member` of the member whose header begins there, for people."""
        try:
            with self.path.open("rb") as stream:
                return f"{self.path}:{next(iter_members(stream, header)).name}"
        except (OSError, TarError, StopIteration):
            return f"{self.path}:{otherwise}"

    def read(self, row: int) -> bytes:
        """The bytes of a sample's picture. Raises `DataError` (exit code 3), naming the member."""
        record = self.records()[row]
        if not record["lead"]:
            raise DataError("cannot read the image", file=self.name(row), why="its sample has no picture")
        begin, size = int(record["header"]) + int(record["lead"]), int(record["size"])
        try:
            content = _read_at(self, begin, size)
        except OSError as error:
            raise DataError("cannot read the image", file=self.name(row), why=error.strerror or str(error)) from error
        if len(content) != size:
            raise DataError("cannot read the image", file=self.name(row), why="the shard ends before it")
        return content

    def label_counts(self) -> np.ndarray:
        """How many samples have each label, (top + 1,). Reads the index a piece at a time."""
        counts = np.zeros(self.top + 1, dtype=np.int64)
        with self.file.open("rb") as stream:
            stream.seek(_START)
            while chunk := stream.read(RECORD.itemsize << 16):
                counts += np.bincount(np.frombuffer(chunk, RECORD)["label"], minlength=self.top + 1)
        return counts


def find_index(path: Path) -> TarIndex | None:
    """The index of a shard where there is a valid one; a damaged one and one of an older shard are passed over.

    Raises `DataError` (exit code 3) for a shard that is not there.
    """
    status = _status(path)
    for file in _places(path):
        found = _open(path, file)
        if found is not None and (found.size, found.changed) == (status.st_size, status.st_mtime_ns):
            return found
    return None


def make_index(path: Path) -> TarIndex:
    """Scan a shard's tar headers and labels once, and write its index beside it, or else to the user's cache.

    Raises `DataError` (exit code 3) for what is no complete shard of labelled pictures, naming the file and the member;
    `StorageError` (exit code 7) where the index can be written nowhere.
    """
    before = _status(path)
    scan = _Scan(path)
    records = scan.run()
    after = _status(path)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError("the shard changed while it was read", file=path, remedy="again when it is complete")
    count = len(records) // RECORD.itemsize
    top = int(np.frombuffer(records, RECORD)["label"].max())
    found = (after.st_size, after.st_mtime_ns, count, top)
    header = _HEADER.pack(_MAGIC, *found, scan.left_out, scan.first_left_out)
    content = header + _CHECKSUM.pack(zlib.crc32(records, zlib.crc32(header))) + records
    beside, cached = _places(path)
    try:
        file = beside
        replace_file(file, content)
    except StorageError:
        file = cached
        replace_file(file, content)
    return TarIndex(path, file, *found, zlib.crc32(records), scan.left_out, scan.first_left_out)


def _status(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except OSError as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise DataError("cannot read the shard", file=path, why=why, remedy="the right name or pattern") from error
    if not path.is_file():
        raise DataError("cannot read the shard", file=path, why="it is not a file", remedy="a plain .tar file")
    return status


def _places(path: Path) -> tuple[Path, Path]:
    unique = sha256(os.fsencode(path.resolve()))[:32]
    return path.with_name(f".{path.name}.index"), user_cache() / "shards" / f"{unique}.index"


def _open(path: Path, file: Path) -> TarIndex | None:
    try:
        with file.open("rb") as stream:
            header = stream.read(_START)
            if len(header) != _START or not header.startswith(_MAGIC):
                return None
            _, size, changed, count, top, left_out, first_left_out = _HEADER.unpack_from(header)
            (expected,) = _CHECKSUM.unpack_from(header, _HEADER.size)
            whole, alone, length = zlib.crc32(header[: _HEADER.size]), 0, 0
            while chunk := stream.read(1 << 20):
                whole, alone, length = zlib.crc32(chunk, whole), zlib.crc32(chunk, alone), length + len(chunk)
    except OSError:
        return None
    if whole != expected or length != count * RECORD.itemsize:
        return None
    return TarIndex(path, file, size, changed, count, top, alone, left_out, first_left_out)


@dataclass
class _Sample:
    """What was found so far of the members that share a name up to their last extension."""

    name: str
    first: int
    picture: Member | None = None
    label: str | None = None
    json: Member | None = None
    kinds: list[str] = field(default_factory=list)


@dataclass
class _Scan:
    """One pass over a shard. What it holds at a time is one sample, and the further pictures beside it."""

    path: Path
    left_out: int = 0
    first_left_out: int = 0
    kinds: set[str] = field(default_factory=set)
    _key: str = ""
    _sample: _Sample | None = None
    _dotted: _Sample | None = None

    def run(self) -> bytes:
        """All records. Raises `DataError`."""
        records = bytearray()
        try:
            with self.path.open("rb") as self._stream:
                _refuse_compressed(self.path, self._stream)
                for member in iter_members(self._stream):
                    records += self._take(member)
                records += self._close()
        except TarError as error:
            raise (_cut if error.begun else _no_tar)(self.path, str(error)) from error
        except OSError as error:
            raise DataError("cannot read the shard", file=self.path, why=error.strerror or str(error)) from error
        if not np.frombuffer(records, RECORD)["lead"].any():
            found = ", ".join(f".{kind}" for kind in sorted(self.kinds)[:8])
            raise DataError(
                "the shard has no labelled picture",
                file=self.path,
                why=f"its members are {found}" if found else "it is empty",
                remedy="shards of pictures with .cls labels, such as `resnetkit shard` writes, or leave it out",
            )
        return bytes(records)

    def _take(self, member: Member) -> bytes:
        """Add a member to its sample; the record of the sample that it ends."""
        key, kind = _parts(member.name)
        middle, _, last = kind.rpartition(".")
        if not key or not member.plain:
            if f".{last}" in SUFFIXES and not _HIDDEN.search(member.name):
                self._leave_out(member)
            return b""
        records = b""
        if self._key != key:
            records, self._key = self._close(), key
            self._sample = _Sample(key, member.offset)
        if len(self.kinds) < MOST_KINDS:
            self.kinds.add(kind)
        sample = self._sample
        if sample is not None and len(sample.kinds) < MOST_KINDS:
            sample.kinds.append(kind)
        if middle and (last in ("cls", "json") or f".{last}" in SUFFIXES):
            name, again = f"{key}.{middle}", self._dotted is not None and self._dotted.picture is not None
            if self._dotted is None or self._dotted.name != name or (again and f".{last}" in SUFFIXES):
                records += self._close_dotted()
                self._dotted = _Sample(name, member.offset)
            sample = self._dotted
        if sample is not None:
            self._add(sample, member, last if middle else kind)
        return records

    def _add(self, sample: _Sample, member: Member, kind: str) -> None:
        if f".{kind}" in SUFFIXES:
            if sample.picture is not None:
                raise DataError(
                    "a sample has two pictures",
                    file=f"{self.path}:{member.name}",
                    why="which one its label means is not said",
                    remedy="one picture a sample, with a key of its own",
                )
            if member.size >= 1 << 32 or member.data - member.offset >= 1 << 32:
                why = "it has more than 4 GiB"
                raise DataError("the image is too large", file=f"{self.path}:{member.name}", why=why)
            sample.picture = member
        elif kind == "cls":
            self._stream.seek(member.data)
            sample.label = self._stream.read(min(member.size, 64)).decode("ascii", errors="replace").strip()
        elif kind == "json":
            sample.json = member

    def _close(self) -> bytes:
        """The records of the members that share a key, which have come to their end."""
        records, sample = self._close_dotted(), self._sample
        self._sample = None
        if sample is None:
            return records
        label = self._label(sample)
        if label is None and sample.picture is None:
            return records  # members that are no sample, such as notes
        if label is None:
            raise DataError(
                "a picture has no label",
                file=f"{self.path}:{sample.name}",
                why=f"its sample has {', '.join(f'.{kind}' for kind in sample.kinds)}, "
                'but no .cls and no "label" in .json',
                remedy="a .cls with the number of the class; `resnetkit shard FOLDER` writes such shards",
            )
        return records + self._record(sample, label)

    def _close_dotted(self) -> bytes:
        """The record of a sample whose name holds further dots; a picture without a label of its own is left out."""
        sample, self._dotted = self._dotted, None
        if sample is None or sample.picture is None:
            return b""
        label = self._label(sample)
        if label is None:
            self._leave_out(sample.picture)
            return b""
        return self._record(sample, label)

    def _leave_out(self, member: Member) -> None:
        if not self.left_out:
            self.first_left_out = member.offset
        self.left_out += 1

    def _label(self, sample: _Sample) -> str | None:
        if sample.label is not None or sample.json is None or sample.json.size > MOST_JSON:
            return sample.label
        self._stream.seek(sample.json.data)
        try:
            return str(json.loads(self._stream.read(sample.json.size))["label"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def _record(self, sample: _Sample, label: str) -> bytes:
        if not re.fullmatch(r"\d{1,9}", label, re.ASCII) or int(label) >= MOST_CLASSES:
            raise DataError(
                f"the label {label[:40]!r} is not the number of a class",
                file=f"{self.path}:{sample.name}",
                remedy="whole numbers from 0, and the names of the classes in classes.txt",
            )
        place = (sample.first, 0, 0)
        if sample.picture is not None:
            place = (sample.picture.offset, sample.picture.data - sample.picture.offset, sample.picture.size)
        return np.array([(*place, int(label))], RECORD).tobytes()


def _parts(name: str) -> tuple[str, str]:
    """Key and extension of a member's name, as WebDataset has them; no key where it belongs to no sample."""
    folder, slash, base = name.rpartition("/")
    stem, dot, kind = base.partition(".")
    if not stem or not dot or _META.match(name):
        return "", kind.lower()
    return folder + slash + stem, kind.lower()


def _refuse_compressed(path: Path, stream: BinaryIO) -> None:
    start = stream.read(6)
    stream.seek(0)
    for mark, (name, tool) in _COMPRESSED.items():
        if start.startswith(mark):
            raise DataError(
                "the shard is compressed",
                file=path,
                why=f"it is {name}, in which no sample can be found without reading all before it",
                remedy=f"{tool} {path.name}",
            )


def _cut(path: Path, why: str) -> DataError:
    return DataError("the shard is not complete", file=path, why=why, remedy="copy it again, or leave it out")


def _no_tar(path: Path, why: str) -> DataError:
    why = "it is empty" if path.stat().st_size == 0 else f"it is not a tar file ({why})"
    return DataError("cannot read the shard", file=path, why=why, remedy="a plain .tar file, or leave it out")


class _Opened:
    """A shard that is open for reading, and closed when nobody holds it: a thread may still read what was let go."""

    descriptor = -1

    def __init__(self, index: TarIndex) -> None:
        self.descriptor = os.open(index.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        status = os.fstat(self.descriptor)
        if (status.st_size, status.st_mtime_ns) != (index.size, index.changed):
            raise OSError("the shard has changed since it was indexed")

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


@lru_cache(OPEN_FILES)
def _opened(index: TarIndex) -> _Opened:
    return _Opened(index)


@lru_cache(OPEN_FILES)
def _mapped(index: TarIndex) -> np.ndarray:
    return np.memmap(index.file, dtype=RECORD, mode="r", offset=_START, shape=(index.count,))


def _read_at(index: TarIndex, begin: int, size: int) -> bytes:
    # A read that names its place moves no position, which processes that were forked would share.
    if hasattr(os, "pread"):
        opened = _opened(index)
        return os.pread(opened.descriptor, size, begin)
    with index.path.open("rb") as stream:
        stream.seek(begin)
        return stream.read(size)
