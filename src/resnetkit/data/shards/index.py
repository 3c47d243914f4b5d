"""One WebDataset shard, read by index: where each sample lies in the tar file, found once and kept beside it.

The format is WebDataset's: a plain tar file; neighbouring members that share a key, which is the path up to the first
dot of the base name, are one sample; their extensions say what they are. A sample here is a picture and a label:
`.cls`, a whole number in ASCII, or `.json` with such a number as "label".

An index is a header and 20 bytes a sample. It is used while the shard has the size and time that it had when it was
scanned, is written again otherwise, and may be deleted at any time.
"""

import json
import os
import re
import struct
import tarfile
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from resnetkit.data.walk import IMAGE_SUFFIXES
from resnetkit.errors import DataError, StorageError
from resnetkit.machine.storage import replace_file, sha256, user_cache

RECORD = np.dtype([("header", "<u8"), ("lead", "<u4"), ("size", "<u4"), ("label", "<i4")])
"""Where a picture's tar header begins, how far behind it the picture begins (0: there is none), its size, the label."""
OPEN_FILES = 16
"""Shards that a process keeps open, and indexes that it keeps mapped: together half of the smallest usual limit."""
MOST_CLASSES = 1 << 20
_MAGIC = b"rkindex1"
_HEADER = struct.Struct("<8sQQQi")
_CHECKSUM = struct.Struct("<I")
_START = _HEADER.size + _CHECKSUM.size
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}
_META = re.compile(r"__[^/]*__($|/)")


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

    def records(self) -> np.ndarray:
        """All samples, (count,) of `RECORD`, memory-mapped: processes share the pages."""
        return _mapped(self)

    def name(self, row: int) -> str:
        """`shard.tar:member` of a sample, for people."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(int(self.records()[row]["header"]))
                with tarfile.open(fileobj=stream, mode="r:") as tar:
                    return f"{self.path}:{tar.firstmember.name}"  # pyrefly: ignore [missing-attribute]
        except (OSError, tarfile.TarError, AttributeError):
            return f"{self.path}:sample {row}"

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
    records = _scan(path)
    after = _status(path)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError("the shard changed while it was read", file=path, remedy="again when it is complete")
    count = len(records) // RECORD.itemsize
    top = int(np.frombuffer(records, RECORD)["label"].max())
    header = _HEADER.pack(_MAGIC, after.st_size, after.st_mtime_ns, count, top)
    content = header + _CHECKSUM.pack(zlib.crc32(records, zlib.crc32(header))) + records
    beside, cached = _places(path)
    try:
        file = beside
        replace_file(file, content)
    except StorageError:
        file = cached
        replace_file(file, content)
    return TarIndex(path, file, after.st_size, after.st_mtime_ns, count, top, zlib.crc32(records))


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
            _, size, changed, count, top = _HEADER.unpack_from(header)
            (expected,) = _CHECKSUM.unpack_from(header, _HEADER.size)
            whole, alone, length = zlib.crc32(header[: _HEADER.size]), 0, 0
            while chunk := stream.read(1 << 20):
                whole, alone, length = zlib.crc32(chunk, whole), zlib.crc32(chunk, alone), length + len(chunk)
    except OSError:
        return None
    if whole != expected or length != count * RECORD.itemsize:
        return None
    return TarIndex(path, file, size, changed, count, top, alone)


@dataclass
class _Sample:
    """What was found of one key so far."""

    key: str
    first: int
    picture: tuple[int, int, int] | None = None
    label: str | None = None
    json: tuple[int, int] | None = None
    kinds: list[str] = field(default_factory=list)


def _scan(path: Path) -> bytes:
    """All records of a shard."""
    records = bytearray()
    kinds: set[str] = set()
    with path.open("rb") as stream:
        _refuse_compressed(path, stream)
        try:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                sample: _Sample | None = None
                while (member := tar.next()) is not None:
                    forget_members(tar)
                    key, kind = _parts(member.name)
                    if not key or not member.isreg() or member.issparse():
                        continue
                    if sample is None or sample.key != key:
                        records += _record(path, stream, sample)
                        sample = _Sample(key, member.offset)
                    kinds.add(kind)
                    _add(path, stream, sample, member, kind)
                records += _record(path, stream, sample)
                _refuse_cut(path, stream, tar.offset)
        except tarfile.TarError as error:
            raise _cut(path, str(error)) if records or kinds else _no_tar(path, str(error)) from error
        except OSError as error:
            raise DataError("cannot read the shard", file=path, why=error.strerror or str(error)) from error
    if not np.frombuffer(records, RECORD)["lead"].any():
        found = ", ".join(f".{kind}" for kind in sorted(kinds)[:8])
        raise DataError(
            "the shard has no labelled picture",
            file=path,
            why=f"its members are {found}" if found else "it is empty",
            remedy="shards of pictures with .cls labels, such as `resnetkit shard` writes, or leave it out",
        )
    return bytes(records)


def forget_members(tar: tarfile.TarFile) -> None:
    """`tarfile` keeps a list of all members that it has read or written, which would grow with the shard."""
    tar.members.clear()  # pyrefly: ignore [missing-attribute]


def _parts(name: str) -> tuple[str, str]:
    """Key and extension of a member's name, as WebDataset has them; no key where it belongs to no sample."""
    folder, slash, base = name.rpartition("/")
    stem, dot, kind = base.partition(".")
    if not stem or not dot or _META.match(name):
        return "", ""
    return folder + slash + stem, kind.lower()


def _add(path: Path, stream: BinaryIO, sample: _Sample, member: tarfile.TarInfo, kind: str) -> None:
    sample.kinds.append(kind)
    if f".{kind}" in IMAGE_SUFFIXES:
        if sample.picture is not None:
            raise DataError(
                "a sample has two pictures",
                file=f"{path}:{member.name}",
                why="which one its label means is not said",
                remedy="one picture a sample, with a key of its own",
            )
        if member.size >= 1 << 32:
            raise DataError("the image is too large", file=f"{path}:{member.name}", why="it has more than 4 GiB")
        sample.picture = (member.offset, member.offset_data - member.offset, member.size)
    elif kind == "cls":
        stream.seek(member.offset_data)
        sample.label = stream.read(min(member.size, 64)).decode("ascii", errors="replace").strip()
    elif kind == "json":
        sample.json = (member.offset_data, member.size)


def _record(path: Path, stream: BinaryIO, sample: _Sample | None) -> bytes:
    """A sample's record; nothing for members that are no sample, such as notes. Raises `DataError`."""
    if sample is None:
        return b""
    label = sample.label
    if label is None and sample.json is not None:
        stream.seek(sample.json[0])
        try:
            label = str(json.loads(stream.read(sample.json[1]))["label"])
        except (ValueError, KeyError, TypeError):
            label = None
    if label is None and sample.picture is None:
        return b""
    if label is None:
        raise DataError(
            "a picture has no label",
            file=f"{path}:{sample.key}",
            why=f'its sample has {", ".join(f".{kind}" for kind in sample.kinds)}, but no .cls and no "label" in .json',
            remedy="a .cls with the number of the class; `resnetkit shard FOLDER` writes such shards",
        )
    if not re.fullmatch(r"\d{1,9}", label, re.ASCII) or int(label) >= MOST_CLASSES:
        raise DataError(
            f"the label {label[:40]!r} is not the number of a class",
            file=f"{path}:{sample.key}",
            remedy="whole numbers from 0, and the names of the classes in classes.txt",
        )
    header, lead, size = sample.picture or (sample.first, 0, 0)
    return np.array([(header, lead, size, int(label))], RECORD).tobytes()


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


def _refuse_cut(path: Path, stream: BinaryIO, end: int) -> None:
    """`tarfile` takes a damaged header, and the lack of the closing block of zeros, for the end."""
    stream.seek(end)
    block = stream.read(512)
    if len(block) < 512:
        raise _cut(path, f"it ends at byte {end + len(block):,} without the mark that ends a tar file")
    if any(block):
        raise _cut(path, f"the header at byte {end:,} is damaged")


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
