"""Writing so that a file is either whole or not there, and reading so that damage is seen.

What has to survive a crash goes through plain system calls of `os`, one by one, so that a test can stop the process, or
fill the disk, before and after each of them.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import BufferedReader, BytesIO
from pathlib import Path

from resnetkit.errors import StorageError


def write_file(path: Path, content: bytes) -> None:
    """Write a new file and wait until the disk has it. The folder must exist; the name must be free or ours."""
    with _writing(path) as write:
        write(content)


@contextmanager
def _writing(path: Path) -> Iterator[Callable[[bytes], None]]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
    try:
        yield partial(_write_all, descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step: a reader sees the old file or the new one, never a part.

    Raises `StorageError` (exit code 7); what stood at `path` is then untouched.
    """
    replace_files({path: content})


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """Put files in place, as `replace_file`, none of them before all are on the disk.

    Raises `StorageError` (exit code 7), which names the first that could not be written.
    """
    beside = {path: _beside(path) for path in contents}
    path = next(iter(contents))
    with _blaming(lambda: path, *beside.values()):
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(beside[path], content)
        for path in contents:
            os.replace(beside[path], path)  # noqa: PTH105
            sync_folder(path.parent)


@contextmanager
def replacing(path: Path, beside: Path | None = None) -> Iterator[Callable[[bytes], None]]:
    """As `replace_file`, piece by piece: gives what takes them, and what they make is at `path` afterwards.

    Until then it stands at `beside`, on the same disk; that is a hidden name in the same folder where none is given.
    """
    beside = beside or _beside(path)
    with _blaming(lambda: path, beside):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _writing(beside) as write:
            yield write
        os.replace(beside, path)  # noqa: PTH105
        sync_folder(path.parent)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextmanager
def _blaming(path: Callable[[], Path], *unfinished: Path) -> Iterator[None]:
    """Where writing fails, leave nothing unfinished. Raises `StorageError` (exit code 7), naming the path."""
    try:
        yield
    except BaseException as error:  # also where a signal ends it
        for each in unfinished:
            each.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StorageError.from_os(error, "cannot write the file", path()) from error
        raise


def sweep(folder: Path) -> None:
    """Remove what a process that was killed had begun to put in place here. Nobody else may be at work here."""
    for left_over in folder.glob(".*.tmp"):
        left_over.unlink(missing_ok=True)


def append_file(path: Path, content: bytes) -> None:
    """Add to the end of a file and wait until the disk has it; where that fails, the file is as it was."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
    try:
        size = os.fstat(descriptor).st_size
        try:
            _write_all(descriptor, content)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256(content: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(file: Path | BufferedReader | BytesIO) -> str:
    """The SHA-256 of a file, or of what is left of an open one, in hexadecimal; read piece by piece."""
    if isinstance(file, Path):
        with file.open("rb") as stream:
            return sha256_file(stream)
    return hashlib.file_digest(file, "sha256").hexdigest()


def user_cache() -> Path:
    """Where what can be made again is kept: RESNETKIT_CACHE, else the folder resnetkit in the user's cache.

    Raises `RuntimeError` for a user without a home.
    """
    if root := os.environ.get("RESNETKIT_CACHE"):
        return Path(root)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "resnetkit"


def _write_all(descriptor: int, content: bytes) -> None:
    """One call may write a part only, and never more than 2 GiB."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest[: 1 << 30]) :]
