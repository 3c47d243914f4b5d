"""Writing so that a file is either whole or not there, and reading so that damage is seen."""

import hashlib
import os
from pathlib import Path

from resnetkit.errors import StorageError


def write_file(path: Path, content: bytes) -> None:
    """Write a new file and wait until the disk has it. The folder must exist; the name must be free or ours."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step: a reader sees the old file or the new one, never a part.

    Raises `StorageError` (exit code 7); what stood at `path` is then untouched.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(beside, content)
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StorageError.from_os(error, "cannot write the file", path) from error


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


def user_cache() -> Path:
    """Where what can be made again is kept: RESNETKIT_CACHE, else the folder resnetkit in the user's cache.

    Raises `RuntimeError` for a user without a home.
    """
    if root := os.environ.get("RESNETKIT_CACHE"):
        return Path(root)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "resnetkit"
