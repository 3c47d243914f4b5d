"""A folder for one process alone. A lock whose process has died is no lock."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from resnetkit.errors import StorageError, UsageError


@contextmanager
def alone_in(folder: Path, busy: Callable[[], UsageError], cannot: str) -> Iterator[None]:
    """Keep every other process away from a folder, which is made where it is not there.

    Raises what `busy` gives where another process holds it; `StorageError` (exit code 7), which says what it `cannot`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise busy() from error
    except OSError as error:
        raise StorageError.from_os(error, cannot, folder) from error
    try:
        yield
    finally:
        # Removed while it is still held: whoever comes now makes a new one.
        with suppress(OSError):
            (folder / ".lock").unlink(missing_ok=True)
        lock.release()
