"""From what Python holds, a PIL image, an array or a tensor, to an upright 8-bit picture, by the rule for files.

Arrays are (H, W), (H, W, C) or (C, H, W); batches of them have one dimension more. C is 1, 3, or 4 with transparency.
Whole numbers and floats are read as those of a file that does not declare what they mean (`levels`).
"""

import math
from typing import Any, TypeGuard

import numpy as np
from PIL import Image, ImageMode

from resnetkit.arguments import shortened
from resnetkit.errors import DataError, UsageError
from resnetkit.images.levels import values_of_eight_bits
from resnetkit.images.reading import upright

CHANNELS = (1, 3, 4)
SHAPES = "(H, W), (H, W, C) or (C, H, W), with C of 1, 3 or 4"


def is_array(value: object) -> TypeGuard[Any]:
    """Whether a value is an array, of NumPy, of PyTorch, or of whoever else keeps to `__array__`."""
    return hasattr(value, "__array__") and hasattr(value, "shape") and not isinstance(value, Image.Image)


def is_picture(value: object) -> bool:
    """Whether a value is a PIL image or has the shape of one picture, without looking into it."""
    return isinstance(value, Image.Image) or (is_array(value) and _layout(value) in ("HW", "HWC", "CHW"))


def is_grey(value: Any) -> bool:
    """Whether a picture has no colours."""
    if isinstance(value, Image.Image):
        return ImageMode.getmode(value.mode).basemode == "L"
    place = _layout(value, one=True).find("C")
    return place < 0 or value.shape[place] == 1


def picture(value: Any, channels: int, name: str = "the picture") -> Image.Image:
    """One picture, in mode "RGB" for 3 `channels` and "L" for 1.

    Raises `DataError` (exit code 3) that calls it by its `name`, `UsageError` (exit code 2) where it is none.
    """
    try:
        if isinstance(value, Image.Image):
            return upright(value, channels, name)
        return upright(_image(batch_of(_numbers(value)[None], name)[0]), channels, name)
    except (OSError, SyntaxError, ValueError) as error:  # a PIL image that was opened and not yet decoded
        raise DataError("cannot read the image", file=name, why=f"it is damaged ({error})") from error


def pictures(value: Any, name: str, channels: int) -> list[Any]:
    """The pictures of an array: itself, or those of a batch, all of which are read by one range of numbers.

    For a network of one channel, (3, H, W) are three grey pictures, and for others one in colour.
    Raises `UsageError` (exit code 2) for an array that holds none.
    """
    layout = _layout(value)
    if layout in ("HW", "HWC") or (layout == "CHW" and channels > 1):
        return [value]
    return list(batch_of(_numbers(value), name))


def batch_of(values: np.ndarray, name: str) -> np.ndarray:
    """A batch, (N, H, W), (N, H, W, C) or (N, C, H, W), as uint8 of (N, H, W, C).

    Raises `UsageError` (exit code 2) for another shape, `DataError` (exit code 3) for numbers that cannot be colours.
    """
    layout = _layout(values[0], one=True) if len(values) else ""
    if layout == "CHW":
        values = values.transpose(0, 2, 3, 1)
    elif layout == "HW":
        values = values[..., None]
    elif layout != "HWC":
        side = math.isqrt(values.shape[-1]) if values.ndim == 2 else 0
        remedy = f"{name}.reshape(-1, {side}, {side})" if side > 1 and side**2 == values.shape[-1] else None
        raise UsageError(f"{name} has the shape {tuple(values.shape)}", why=f"a picture is {SHAPES}", remedy=remedy)
    if values.shape[-1] != 4 or values.dtype == np.uint8:
        return values_of_eight_bits(values, name)
    colours, alpha = values_of_eight_bits(values[..., :3], name), values_of_eight_bits(values[..., 3:], name)
    return np.concatenate([colours, alpha], axis=-1)


def array_of(value: Any, name: str) -> np.ndarray:
    """What was given as images as one array: an array or a tensor itself, a list of pictures of one size together.

    Raises `UsageError` (exit code 2) for anything else.
    """
    if is_array(value):
        return _numbers(value)
    if not isinstance(value, list | tuple) or not all(map(is_picture, value)):
        raise UsageError(
            f"{name} cannot be {shortened(value)}",
            why="it takes an array or a tensor, (N, H, W), (N, H, W, C) or (N, C, H, W), or a list of pictures",
        )
    each = [np.asarray(one) if isinstance(one, Image.Image) else _numbers(one) for one in value]
    if len({one.shape for one in each}) != 1:
        why = f"such as {' and '.join(str(shape) for shape in sorted({one.shape for one in each})[:2])}"
        remedy = "bring them to one size, or save them in a folder for each class and give its path"
        raise UsageError(f"the pictures of {name} are of several shapes", why=why, remedy=remedy)
    return np.stack(each)


def _numbers(value: Any) -> np.ndarray:
    """An array or a tensor, wherever it is, as one of NumPy."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    array = np.asarray(value)
    if array.dtype.kind not in "buif":
        raise UsageError(f"the pictures are of type {array.dtype}", why="they are numbers: uint8, or floats of 0-1")
    return array


def _layout(value: Any, *, one: bool = False) -> str:
    """What the dimensions of an array are, such as "HWC" or "NCHW"; empty where they are those of no picture.

    `one` says that it is a single picture.
    """
    shape = tuple(value.shape)
    if len(shape) == 2:
        return "HW"
    if len(shape) not in (3, 4):
        return ""
    colours = "HWC" if shape[-1] in CHANNELS else "CHW" if shape[-3] in CHANNELS else ""
    if len(shape) == 3:
        return colours or ("" if one else "NHW")
    return f"N{colours}" if colours else ""


def _image(values: np.ndarray) -> Image.Image:
    """uint8 of (H, W, C) as a PIL image."""
    return Image.fromarray(np.ascontiguousarray(values[..., 0] if values.shape[-1] == 1 else values))
