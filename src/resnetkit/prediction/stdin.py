"""The names of files on stdin: one a line, or with a NUL behind each, as `find -print0` writes them."""

import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

from resnetkit.errors import DataError, UsageError

BLOCK = 1 << 16
MOST_NAME = 1 << 16
"""Bytes of a name: more than any system takes."""


def names_on_stdin() -> Iterator[str]:
    """Names as they come, whatever their bytes. Raises `UsageError` (exit code 2) where there is no stdin."""
    if sys.stdin is None:
        raise UsageError("no names can be read", why="stdin is closed")
    return iter_names(sys.stdin.buffer)


def iter_names(stream: BinaryIO) -> Iterator[str]:
    """The names in a stream, each as soon as it is there; what is no UTF-8 stays as it is, by `surrogateescape`.

    A NUL is in no name, so that one in what comes first says that they are separated by it. Empty lines are no names.
    Raises `DataError` (exit code 3) for what is no list of names.
    """
    rest, separator = b"", b""
    while block := _next_block(stream):
        rest += block
        separator = separator or (b"\0" if b"\0" in rest else b"\n" if b"\n" in rest else b"")
        if separator != b"\0" and b"\0" in block:
            raise _no_names("some are separated by newlines and others by NUL")
        if separator:
            *names, rest = rest.split(separator)
            yield from _decoded(names, separator)
        if len(rest) > MOST_NAME:
            raise _no_names(f"there is none within {MOST_NAME:,} bytes")
    yield from _decoded([rest], separator or b"\n")


def _next_block(stream: BinaryIO) -> bytes:
    """What is there now, and at least one byte; nothing at the end."""
    return stream.read1(BLOCK) if hasattr(stream, "read1") else stream.read(BLOCK)  # pyrefly: ignore


def _decoded(names: list[bytes], separator: bytes) -> Iterator[str]:
    for name in map(os.fsdecode, names):
        # Lists that Windows wrote end their lines with two letters; a name may end with one of them, too.
        if separator == b"\n" and name.endswith("\r") and not os.path.lexists(name):
            name = name[:-1]
        if name:
            yield name


def _no_names(why: str) -> DataError:
    return DataError("the names of files are expected on stdin", why=why, remedy="find FOLDER -type f -print0")
