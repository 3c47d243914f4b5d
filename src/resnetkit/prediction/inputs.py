"""What to look at, one by one: files, what is in folders and archives, pictures in memory, each with its name."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from PIL import Image

from resnetkit.arguments import shortened
from resnetkit.data.walk import iter_files
from resnetkit.errors import DataError, UsageError
from resnetkit.images.memory import SHAPES, is_array, is_picture, pictures
from resnetkit.prediction.archives import Packed, holds_members, iter_packed
from resnetkit.prediction.stdin import names_on_stdin

STDIN = "-"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:")
"""Also of a `Path`, which takes two slashes for one; `C:/` is none."""


@dataclass(frozen=True, slots=True)
class Input:
    """One picture to look at, which is not opened yet."""

    name: str
    source: Any
    """The `Path` of a file, a `Packed` one, a picture in memory, or the `DataError` that says why there is none."""


def iter_inputs(given: Any, channels: int) -> Iterator[Input]:
    """Exactly one for each picture that is meant, in the order in which they are given; nothing is read ahead.

    A file stands for itself, whatever its name; a folder for every file below it, sorted, but for hidden files and
    those of the system; a zip or a tar for the files in it, in their order; a pattern such as `photos/*.jpg`, of which
    there is no file, for what it fits, sorted; `-` for the files whose names are on stdin, each of which is one
    picture. Pictures in memory are PIL images, arrays and tensors, by `images.memory`; an array may be a batch. They
    are called by their number, or by the file that Pillow opened. `given` is one of these, a list, or an iterator,
    which is asked for one at a time. `channels` are those that the network sees.
    Raises `UsageError` (exit code 2) for anything else, `DataError` (exit code 3) where there is nothing to look at.
    """
    if is_array(given):
        given = pictures(given, "inputs", channels)
    elif isinstance(given, str | Path | Image.Image) or not isinstance(given, Iterable):
        _check(given, "inputs")
        given = [given]
    if isinstance(given, list | tuple):
        for number, each in enumerate(given):
            _check(each, f"inputs[{number}]")
        if not given:
            raise DataError("there is nothing to look at", why="the list is empty")
        if len(given) == 1 and isinstance(given[0], str | Path):
            return _required(_of_path(given[0]), given[0])
    return _in_turn(given)


def _check(given: Any, name: str) -> None:
    """Raises `UsageError` (exit code 2) for what is none of the things that can be looked at."""
    if isinstance(given, str | Path):
        if _is_url(str(given)):
            raise UsageError(
                f"cannot look at {str(given)[:80]}", why="nothing is downloaded", remedy="fetch it, and name its file"
            )
    elif not is_picture(given):
        shape = f" of the shape {tuple(given.shape)}" if is_array(given) else ""
        takes = f"files, folders, PIL images, arrays or tensors, {SHAPES}"
        raise UsageError(f"predict({name}={shortened(given)}{shape}) cannot be", why=f"it takes {takes}")


def _is_url(name: str) -> bool:
    return _URL.match(name) is not None and not os.path.lexists(name)


def _in_turn(given: Iterable[Any]) -> Iterator[Input]:
    number = -1
    for number, each in enumerate(given):
        if isinstance(each, str | Path):
            yield from _of_path(each)
        else:
            _check(each, f"inputs[{number}]")
            yield Input(getattr(each, "filename", None) or str(number), each)
    if number < 0:
        raise DataError("there is nothing to look at", why="no input was given")


def _required(found: Iterator[Input], given: str | Path) -> Iterator[Input]:
    """What was found in a place that is the only one. Raises `DataError` (exit code 3) where it holds nothing."""
    first = next(found, None)
    if first is None or (isinstance(first.source, DataError) and first.source.what == NOTHING):
        raise DataError(NOTHING, file=None if str(given) == STDIN else given)
    yield first
    yield from found


NOTHING = "there is no image"


def _of_path(given: str | Path) -> Iterator[Input]:
    name = str(given)
    if name == STDIN:
        yield from (_file(each) for each in names_on_stdin())
    elif os.path.lexists(name) or not has_magic(name):
        yield from _of_place(name)
    elif found := sorted(glob(name, recursive=True)):  # noqa: PTH207 - of a folder that is named by bytes, too
        for each in found:
            yield from _of_place(each)
    else:
        yield Input(name, DataError("cannot read the image", file=name, why="nothing fits this pattern"))


def _of_place(name: str) -> Iterator[Input]:
    """What one name of something on disk stands for."""
    found: Iterator[tuple[str, Path | Packed | DataError]]
    if os.path.isdir(name):  # noqa: PTH112 - it says no of names that are too long
        found = ((str(file), file) for file in iter_files(Path(name)))
    elif holds_members(Path(name)):
        found = iter_packed(Path(name))
    else:
        yield _file(name)
        return
    empty = True
    for each in found:
        empty = False
        yield Input(*each)
    if empty:
        yield Input(name, DataError(NOTHING, file=name))


def _file(name: str) -> Input:
    if _is_url(name):
        return Input(name, DataError("cannot read the image", file=name, why="nothing is downloaded"))
    return Input(str(Path(name)), Path(name))
