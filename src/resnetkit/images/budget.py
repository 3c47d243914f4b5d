"""What decoding pictures may cost a process: memory, shared by all that are decoded at a time, and processor time."""

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BufferedReader, BytesIO
from threading import Condition
from typing import Any

from resnetkit.errors import DataError, UsageError

BYTES = "RESNETKIT_IMAGE_BYTES"
"""Environment variable: what all pictures that a process decodes at a time may take."""
SECONDS = "RESNETKIT_IMAGE_SECONDS"
"""Environment variable: the processor time that one picture may take."""
DEFAULTS = {BYTES: 2.0**30, SECONDS: 10.0}

Stream = BufferedReader | BytesIO


def limit(name: str) -> float:
    """A limit from the environment, or its default. Raises `UsageError` (exit code 2) where it is not positive."""
    return _limit(name, os.environ.get(name))


@cache
def _limit(name: str, given: str | None) -> float:
    try:
        value = float(given or DEFAULTS[name])
    except ValueError:
        value = 0.0
    if not value > 0:
        raise UsageError(f"{name} cannot be {given!r}", remedy=f"a number, such as {DEFAULTS[name]:.0f}")
    return value


class Memory:
    """Bytes that threads take shares of, first come, first served: a large picture is not starved by small ones."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Nobody holds anything: in a forked process the threads that did are not there."""
        self._changed = Condition()
        self._taken = 0
        self._waiting: deque[object] = deque()

    @contextmanager
    def share(self, size: int) -> Iterator[None]:
        """Hold `size` bytes, once they are free; more than there are in all is as much as all."""
        ticket = object()
        size = min(size, int(limit(BYTES)))
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(
                    lambda: self._waiting[0] is ticket and (not self._taken or self._taken + size <= limit(BYTES))
                )
                self._taken += size
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()


MEMORY = Memory()
"""That of this process."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=MEMORY.forget)


class Watched:
    """A stream that ends a decoder's work when its time is over: most of them read little by little.

    Raises `DataError` (exit code 3) out of `read`.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream, self._read, self._began = stream, stream.read, time.thread_time()

    def read(self, size: int = -1) -> bytes:
        """As the stream's own."""
        if time.thread_time() - self._began > limit(SECONDS):
            why = f"decoding it takes more than {limit(SECONDS):g} s of processor time"
            raise DataError("cannot read the image", why=why, remedy="save it anew")
        return self._read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
