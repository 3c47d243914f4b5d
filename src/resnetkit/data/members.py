"""The members of an archive, a zip or a tar, one by one and within bounds; nothing of them is written or believed.

What a member is called may lead anywhere, and is checked by `parts_of`; links and devices have no content.
"""

import bz2
import gzip
import lzma
import os
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from resnetkit.data.tar import TarError, iter_members
from resnetkit.machine.documents import require_plain_file

MOST_MEMBERS = 2_000_000
MOST_TIMES = 50
"""Bytes that come out of each byte of an archive; pictures hardly become smaller."""
FREE_BYTES = 1 << 30
"""So many may come out of the smallest archive."""
MOST_PARTS = 32
"""Folders within folders."""
CHUNK = 1 << 20
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, TarError, NotImplementedError, RuntimeError)
"""What reading a damaged archive raises, beside an `OSError` without a number."""
_PACKED: dict[str, Callable[..., Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
_PACKED_BY_CONTENT: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_ZIP = (b"PK\3\4", b"PK\5\6")
_TAR = (slice(257, 262), b"ustar")


@dataclass(frozen=True)
class Member:
    """What an archive says of one file in it."""

    name: str
    size: int
    """Bytes of its content."""
    open: Callable[[], BinaryIO] | None
    """Its content, also after other members were asked for; None for a link, a device, or whatever else is no file.

    Of a zip not in several threads at once.
    """


def tar_suffix(path: Path) -> str | None:
    """The suffix by which a file calls itself a tar, packed or not; None for another."""
    name = path.name.lower()
    return next((suffix for suffix in (".tar", *_PACKED) if name.endswith(suffix)), None)


def is_archive_name(path: Path) -> bool:
    """Whether a file is called like an archive."""
    return path.suffix.lower() == ".zip" or tar_suffix(path) is not None


def begins_as_archive(path: Path) -> bool:
    """Whether a file's first bytes are those of a zip, or of a tar, packed or not."""
    with suppress(*DAMAGE, OSError, ValueError):
        require_plain_file(path)
        with path.open("rb") as stream:
            start = stream.read(512)
        if start.startswith(_ZIP) or start[_TAR[0]] == _TAR[1]:
            return True
        if unpack := _unpacker(start):
            with unpack(path) as stream:
                return stream.read(512)[_TAR[0]] == _TAR[1]
    return False


def _unpacker(start: bytes) -> Callable[..., Any] | None:
    return next((each for mark, each in _PACKED_BY_CONTENT.items() if start.startswith(mark)), None)


def members(archive: Path, scratch: Path | None = None) -> Iterator[Member]:
    """All but folders, in their order; a packed tar is unpacked first, in `scratch`, until its last member is let go.

    Raises one of `DAMAGE` where an archive is damaged, behind what could be read; `ValueError` where more would come
    out of it than may; `OSError`.
    """
    most = max(FREE_BYTES, MOST_TIMES * require_plain_file(archive))
    with archive.open("rb") as stream:
        start = stream.read(512)
    if unpack := _unpacker(start):
        yield from _of_packed(archive, unpack, scratch, most)
    elif (tar_suffix(archive) is not None and not start.startswith(_ZIP)) or start[_TAR[0]] == _TAR[1]:
        yield from _of_tar(archive, archive.open, most)
    else:
        yield from _of_zip(archive, most)


def _of_zip(archive: Path, most: int) -> Iterator[Member]:
    opened = zipfile.ZipFile(archive)  # closed when the last member is let go
    infos = opened.infolist()
    _refuse_much(len(infos), sum(info.file_size for info in infos), most)
    for info in infos:
        if info.is_dir():
            continue
        name = info.filename
        if not info.flag_bits & 0x800:
            # Macs write UTF-8 without saying so.
            with suppress(UnicodeError):
                name = name.encode("cp437").decode()
        plain = info.external_attr >> 28 in (0, 8)  # of Unix: a plain file, or nothing said
        yield Member(name, info.file_size, partial(_opened, opened, info) if plain else None)


def _opened(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> BinaryIO:
    return cast("BinaryIO", archive.open(info))


class _Part:
    """Some bytes of a file."""

    def __init__(self, stream: BinaryIO, offset: int, size: int) -> None:
        self.stream, self.left = stream, size
        stream.seek(offset)

    def read(self, count: int) -> bytes:
        content = self.stream.read(min(count, self.left))
        self.left -= len(content)
        return content

    def __enter__(self) -> "_Part":
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


def _of_tar(archive: Path, reopen: Callable[[str], Any], most: int) -> Iterator[Member]:
    """The members of a plain tar, each of which opens it anew."""

    def part(offset: int, size: int) -> BinaryIO:
        return cast("BinaryIO", _Part(reopen("rb"), offset, size))

    count = size = 0
    with archive.open("rb") as stream:
        for member in iter_members(stream):
            count, size = count + 1, size + member.size
            _refuse_much(count, size, most)
            if member.plain:
                yield Member(member.name, member.size, partial(part, member.data, member.size))
            elif not member.name.endswith("/"):
                yield Member(member.name, member.size, None)


class _Scratch:
    """A file that is there as long as somebody may want to read it."""

    def __init__(self, folder: Path | None) -> None:
        handle, name = tempfile.mkstemp(prefix="resnetkit-", dir=folder)
        os.close(handle)
        self.path = Path(name)
        self.remove = weakref.finalize(self, self.path.unlink, missing_ok=True)

    def open(self, mode: str) -> Any:
        return self.path.open(mode)


def _of_packed(archive: Path, unpack: Callable[..., Any], scratch: Path | None, most: int) -> Iterator[Member]:
    plain, damage = _Scratch(scratch), None
    with plain.open("wb") as target, unpack(archive) as packed:
        try:
            pour(packed.read1, target, most)  # `read` gives nothing of the part before the damage
        except (*DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of a disk, not of a decoder
                raise
            damage = error
    try:
        yield from _of_tar(plain.path, plain.open, most)
    except TarError as error:
        raise damage or error from None
    if damage is not None:
        raise damage


def _refuse_much(count: int, size: int, most: int) -> None:
    if count > MOST_MEMBERS:
        raise ValueError(f"it has more than {MOST_MEMBERS:,} members")
    if size > most:
        raise ValueError(f"more than {most:,} bytes would come out of it")


def parts_of(name: str) -> list[str]:
    """The parts of a member's name below the folder. Raises `ValueError` for one that leads elsewhere."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    shown = name[:80].encode("unicode_escape").decode()
    if name.startswith(("/", "\\")) or ".." in parts or (parts and parts[0][1:2] == ":"):
        raise ValueError(f"{shown} leads out of it")
    if not parts or "\0" in name or len(parts) > MOST_PARTS or max(len(os.fsencode(part)) for part in parts) > 255:
        raise ValueError(f"{shown} is no name of a file")
    return parts


def pour(read: Callable[[int], bytes], target: BinaryIO, most: int) -> None:
    """Write what a stream's `read` gives, to its end. Raises `ValueError` behind `most` bytes."""
    while content := read(CHUNK):
        most -= len(content)
        if most < 0:
            raise ValueError("more bytes come out of it than it says, or than are read")
        target.write(content)


def why_damaged(error: Exception) -> str:
    """In few words, what one of `DAMAGE` means."""
    if isinstance(error, RuntimeError) and "encrypted" in str(error):
        return "it is encrypted"
    return f"it is damaged ({' '.join(str(error).split())[:160]})"
