"""What to look at: files, folders, and pictures in memory, each with its name."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from resnetkit.arguments import shortened
from resnetkit.data.walk import list_files
from resnetkit.errors import DataError, UsageError
from resnetkit.images.memory import SHAPES, is_array, is_picture, pictures


def find_files(inputs: Iterable[str | Path]) -> list[Path]:
    """Files as they are given, and in place of a folder all files below it, sorted, whatever their names.

    What a file is, its content says. Only hidden files and those of the system (`Thumbs.db`) are left aside.
    Raises `DataError` (exit code 3) for a folder without files.
    """
    files: list[Path] = []
    for given in map(Path, inputs):
        if not given.is_dir():
            files.append(given)
        elif inside := list_files(given):
            files += inside
        else:
            raise DataError("there is no image", file=given)
    return files


def find_pictures(inputs: Any, channels: int) -> list[tuple[str, Any]]:
    """What to look at, each with its name: files, found as `find_files` does, and pictures in memory.

    One of these or a list of them; an array may be a batch. A picture in memory is called by its number, or by the file
    that Pillow opened. `channels` are those that the network sees.
    Raises `UsageError` (exit code 2) for anything else, `DataError` (exit code 3) for a folder without files.
    """
    if is_array(inputs):
        given = pictures(inputs, "inputs", channels)
    elif isinstance(inputs, str | Path | Image.Image) or not isinstance(inputs, Iterable):
        given = [inputs]
    else:
        given = list(inputs)
    found: list[tuple[str, Any]] = []
    for number, each in enumerate(given):
        if isinstance(each, str | Path):
            found += [(str(file), file) for file in find_files([each])]
        elif is_picture(each):
            found.append((getattr(each, "filename", None) or str(number), each))
        else:
            shape = f" of the shape {tuple(each.shape)}" if is_array(each) else ""
            name = "inputs" if given[0] is inputs else f"inputs[{number}]"
            takes = f"files, folders, PIL images, arrays or tensors, {SHAPES}"
            raise UsageError(f"predict({name}={shortened(each)}{shape}) cannot be", why=f"it takes {takes}")
    return found
