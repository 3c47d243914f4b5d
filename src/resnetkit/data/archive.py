"""An archive of pictures: a zip, or a tar that is no shard. Unpacked once into the user's cache, by its content.

Nothing of an archive is believed: every name stays below the folder that is written, links and devices are not made,
and neither members nor bytes may be more than is stated here. A folder is there as a whole or not at all.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from filelock import FileLock

from resnetkit.data import filenames
from resnetkit.data.members import DAMAGE, is_archive_name, members, parts_of, pour, tar_suffix, why_damaged
from resnetkit.data.tar import TarError, iter_members
from resnetkit.data.walk import files_in, subfolders
from resnetkit.errors import DataError, StorageError
from resnetkit.images.formats import SUFFIXES
from resnetkit.machine.documents import require_plain_file
from resnetkit.machine.storage import replace_file, sha256, sha256_file, user_cache

LOOK = 4096
"""Members of a tar that are looked at to tell a shard."""


def holds_folders(source: Path) -> bool:
    """Whether an archive holds class folders, and no samples of a shard beside their labels."""
    if tar_suffix(source) != ".tar":
        return is_archive_name(source) and source.is_file()
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
        require_plain_file(archive)
        cache = user_cache() / "archives"
        cache.mkdir(parents=True, exist_ok=True)
        target = cache / _digest(archive, cache)
        with FileLock(cache / f".{target.name}.lock"):
            if not target.is_dir():
                _write(archive, target)
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


def _write(archive: Path, target: Path) -> None:
    for left_over in target.parent.glob(f".{target.name}.*.tmp"):  # of a process that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        count, content = 0, beside / "content"
        content.mkdir()
        for member in members(archive, beside):
            if member.open is None:
                count += 1
            else:
                _copy(member.open, member.size, content.joinpath(*parts_of(member.name)))
        if count:
            replace_file(target.with_suffix(".links"), str(count).encode())
        content.replace(target)
    except DAMAGE as error:
        raise ValueError(why_damaged(error)) from error
    except OSError as error:
        if error.errno is None:  # of a decoder, not of a disk
            raise ValueError(why_damaged(error)) from error
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _copy(open_member: Callable[[], BinaryIO], size: int, path: Path) -> None:
    """Write a member's content to a new file; of two of one name the first counts."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{path.name[:80]!r} lies in a file") from error
    with suppress(FileExistsError), path.open("xb") as target, open_member() as source:
        pour(source.read, target, size)


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
