"""An archive of pictures: a zip, or a tar that is no shard. Unpacked once into the user's cache, by its content.

Nothing of an archive is believed: every name stays below the folder that is written, links and devices are not made,
and neither members nor bytes may be more than is stated here. A folder is there as a whole or not at all.
"""

import bz2
import gzip
import lzma
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from filelock import FileLock

from resnetkit.data import filenames
from resnetkit.data.tar import TarError, iter_members
from resnetkit.data.walk import files_in, subfolders
from resnetkit.errors import DataError, StorageError
from resnetkit.images.formats import SUFFIXES
from resnetkit.machine.documents import require_plain_file
from resnetkit.machine.storage import replace_file, sha256, sha256_file, user_cache

MOST_MEMBERS = 2_000_000
MOST_TIMES = 50
"""Bytes that come out of each byte of an archive; pictures hardly become smaller."""
FREE_BYTES = 1 << 30
"""So many may come out of the smallest archive."""
MOST_PARTS = 32
"""Folders within folders."""
CHUNK = 1 << 20
LOOK = 4096
"""Members of a tar that are looked at to tell a shard."""
_PACKED: dict[str, Callable[[Path], Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, TarError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    open: Callable[[], BinaryIO]


def is_archive(source: Path) -> bool:
    """Whether a file is an archive, by its name; a plain tar may be a shard all the same, see `holds_folders`."""
    return source.suffix.lower() == ".zip" or _tar_suffix(source) is not None


def holds_folders(source: Path) -> bool:
    """Whether an archive holds class folders, and no samples of a shard beside their labels."""
    if _tar_suffix(source) != ".tar":
        return is_archive(source) and source.is_file()
    deep, pictures, labels = False, set(), set()
    with suppress(OSError, TarError), source.open("rb") as stream:
        for member in islice(iter_members(stream), LOOK):
            name = PurePosixPath(member.name)
            suffix, sample = name.suffix.lower(), str(name.parent / name.name.partition(".")[0])
            if suffix in SUFFIXES:
                deep = deep or len(name.parts) > 1
                pictures.add(sample)
            elif suffix in (".cls", ".json"):
                labels.add(sample)
    return deep and pictures.isdisjoint(labels)


def unpack(archive: Path) -> tuple[Path, list[str]]:
    """The folder that an archive's content is in, and what to say of it; written now unless it is there.

    Raises `DataError` (exit code 3) for an archive that is damaged, hostile or larger than it may be, `StorageError`
    (exit code 7) where it cannot be written.
    """
    try:
        size = require_plain_file(archive)
        cache = user_cache() / "archives"
        cache.mkdir(parents=True, exist_ok=True)
        target = cache / _digest(archive, cache)
        with FileLock(cache / f".{target.name}.lock"):
            if not target.is_dir():
                _write(archive, size, target)
    except FileNotFoundError as error:
        raise DataError("cannot read the images", file=archive, why="no such file") from error
    except ValueError as error:
        raise _refusal(archive, str(error)) from error
    except OSError as error:
        raise StorageError.from_os(error, f"cannot unpack {archive}", error.filename or archive) from error
    except RuntimeError as error:  # a user without a home
        raise StorageError("cannot unpack", file=archive, why=str(error), remedy="RESNETKIT_CACHE=FOLDER") from error
    links = target.with_suffix(".links")
    notes = [f"unpacked  {archive} to {target}"]
    if links.is_file():
        notes.append(f"{links.read_text(encoding='ascii')} links and other members that are no files are left out")
    return _inner(target), notes


def _refusal(archive: Path, why: str, remedy: str | None = "pack it again, or unpack it yourself") -> DataError:
    return DataError("cannot read the archive", file=archive, why=why, remedy=remedy)


def _tar_suffix(path: Path) -> str | None:
    name = path.name.lower()
    return next((suffix for suffix in (".tar", *_PACKED) if name.endswith(suffix)), None)


def _digest(archive: Path, cache: Path) -> str:
    """The SHA-256 of an archive's bytes, which is not computed again while the file stays as it is."""
    status = archive.stat()
    stamp = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    memo = cache / f".{sha256(os.fsencode(archive.resolve()))[:32]}.stamp"
    with suppress(OSError, ValueError):
        before, _, digest = memo.read_text(encoding="ascii").partition("\n")
        if before == stamp and len(digest) == 32 and digest.isalnum():
            return digest
    digest = sha256_file(archive)[:32]
    replace_file(memo, f"{stamp}\n{digest}".encode())
    return digest


def _write(archive: Path, size: int, target: Path) -> None:
    for left_over in target.parent.glob(f".{target.name}.*.tmp"):  # of a process that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    most = max(FREE_BYTES, MOST_TIMES * size)
    try:
        count = 0
        for member in _members(archive, beside, most):
            if member is None:
                count += 1
            else:
                _copy(member, beside.joinpath(*_safe(member.name)))
        if count:
            replace_file(target.with_suffix(".links"), str(count).encode())
        beside.replace(target)
    except _DAMAGE as error:
        raise ValueError(_short(error)) from error
    except OSError as error:
        if error.errno is None:  # of a decoder, not of a disk
            raise ValueError(_short(error)) from error
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _short(error: Exception) -> str:
    if isinstance(error, RuntimeError) and "encrypted" in str(error):
        return "it is encrypted"
    return f"it is damaged ({' '.join(str(error).split())[:160]})"


def _members(archive: Path, scratch: Path, most: int) -> Iterator[_Member | None]:
    """The files of an archive, and None for each member that is none."""
    suffix = _tar_suffix(archive)
    if suffix is None:
        yield from _of_zip(archive, most)
    elif suffix == ".tar":
        yield from _of_tar(archive, most)
    else:
        with tempfile.NamedTemporaryFile(dir=scratch) as plain:
            with _PACKED[suffix](archive) as packed:
                _pour(packed, cast("BinaryIO", plain), most)
            plain.flush()
            yield from _of_tar(Path(plain.name), most)


def _of_zip(archive: Path, most: int) -> Iterator[_Member | None]:
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        _refuse_much(len(infos), sum(info.file_size for info in infos), most)
        for info in infos:
            kind = info.external_attr >> 28
            if info.is_dir():
                continue
            if kind not in (0, 8):  # of Unix: neither a plain file nor nothing said
                yield None
                continue
            name = info.filename
            if not info.flag_bits & 0x800:
                # Macs write UTF-8 without saying so.
                with suppress(UnicodeError):
                    name = name.encode("cp437").decode()
            yield _Member(name, info.file_size, partial(_opened, opened, info))


def _opened(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> BinaryIO:
    return cast("BinaryIO", archive.open(info))


class _Part:
    """Some bytes of a file."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.left = stream, size

    def read(self, count: int) -> bytes:
        content = self.stream.read(min(count, self.left))
        self.left -= len(content)
        return content

    def __enter__(self) -> "_Part":
        return self

    def __exit__(self, *_: object) -> None: ...


def _of_tar(archive: Path, most: int) -> Iterator[_Member | None]:
    count = size = 0
    with archive.open("rb") as stream:
        for member in iter_members(stream):
            count, size = count + 1, size + member.size
            _refuse_much(count, size, most)
    with archive.open("rb") as stream, archive.open("rb") as contents:

        def part(offset: int, size: int) -> BinaryIO:
            contents.seek(offset)
            return cast("BinaryIO", _Part(contents, size))

        for member in iter_members(stream):
            if member.plain:
                yield _Member(member.name, member.size, partial(part, member.data, member.size))
            elif not member.name.endswith("/"):
                yield None


def _refuse_much(count: int, size: int, most: int) -> None:
    if count > MOST_MEMBERS:
        raise ValueError(f"it has more than {MOST_MEMBERS:,} members")
    if size > most:
        raise ValueError(f"more than {most:,} bytes would come out of it")


def _safe(name: str) -> list[str]:
    """The parts of a member's name below the folder. Raises `ValueError` for one that leads elsewhere."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    shown = name[:80].encode("unicode_escape").decode()
    if name.startswith(("/", "\\")) or ".." in parts or (parts and parts[0][1:2] == ":"):
        raise ValueError(f"{shown} leads out of it")
    if not parts or "\0" in name or len(parts) > MOST_PARTS or max(len(os.fsencode(part)) for part in parts) > 255:
        raise ValueError(f"{shown} is no name of a file")
    return parts


def _copy(member: _Member, path: Path) -> None:
    """Write a member to a new file; of two of one name the first counts."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{member.name[:80]!r} lies in a file") from error
    with suppress(FileExistsError), path.open("xb") as target, member.open() as source:
        _pour(source, target, member.size)


def _pour(source: BinaryIO, target: BinaryIO, most: int) -> None:
    while content := source.read(CHUNK):
        most -= len(content)
        if most < 0:
            raise ValueError("more bytes come out of it than it says, or than are read")
        target.write(content)


def _inner(folder: Path) -> Path:
    """The folder that is meant: archives often hold one folder, in which everything is."""
    while True:
        children = subfolders(folder)
        if len(children) != 1 or files_in(folder).images or any(folder.glob("*.csv")):
            return folder
        child = children[0]
        if filenames.split_of(child.name) is not None and len(subfolders(child)) > 0:
            return folder
        if not subfolders(child):
            return folder
        folder = child
