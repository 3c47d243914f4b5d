"""What the numbers of a picture of more than 8 bits mean: whether 200 is light or nearly black.

By what the file declares; else by the largest number in it: up to 255 they are of 8 bits, up to 4,095 of 12, up to
65,535 of 16. Floats are 0-1 or 0-255. A guess is said once for each kind, for the next picture may fall the other way.
"""

import logging
import mmap
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from PIL import Image

from resnetkit.errors import DataError
from resnetkit.images.budget import Stream
from resnetkit.images.cost import bands, deep_rawmode

if TYPE_CHECKING:
    import numpy as np

BITS = (8, 12, 16)
"""What a guess chooses from. Those of 10 and 14 bits are read as 12 and 16: a quarter as light, but all alike."""

_MAX_SAMPLE, _FLOAT_MAX, _BITS = 281, 341, 258
_KINDS = ("8 bits", "12 bits", "16 bits", "0-1", "0-255")
# Shared with the processes that are forked to decode, so that not each of them says it anew.
_SAID = mmap.mmap(-1, len(_KINDS))

logger = logging.getLogger("resnetkit")


def is_grey_deep(image: Image.Image) -> bool:
    """Whether an image is grey, of more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def grey_of_eight_bits(path: Path, image: Image.Image, declared: float | None) -> Image.Image:
    """A decoded image of mode I, I;16 or F as one of mode L. `declared` is the largest number that it may hold.

    Raises `DataError` (exit code 3) where nothing says what its numbers mean.
    """
    extent = _extent(image)
    return _mapped(image, _reading(path, *extent, declared, floats=image.mode == "F", wide=image.mode == "I"))


def values_of_eight_bits(values: "np.ndarray", name: str) -> "np.ndarray":
    """The numbers of pictures in memory, of any shape, as uint8: by the largest, as in a file that declares none.

    Raises `DataError` (exit code 3), naming them, where nothing says what they mean.
    """
    import numpy as np

    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values * np.uint8(255)
    floats = values.dtype.kind == "f"
    low, high = (float(edge) for edge in (values.min(), values.max()))
    finite = bool(np.isfinite(low) and np.isfinite(high))
    change = _reading(name, low, high, finite, None, floats=floats, wide=values.dtype.itemsize > 2)
    return np.stack([change(part).astype(np.uint8) for part in values])


def _reading(
    place: Path | str, low: float, high: float, finite: bool, declared: float | None, *, floats: bool, wide: bool
) -> "Callable[[np.ndarray], np.ndarray]":
    """What makes numbers of 0-255 of those from `low` to `high`; `wide` says that they lie in more than 16 bits."""
    import numpy as np

    if declared is not None and high > declared:
        declared = None
    most = declared or (255 if floats else 65_535)
    if not finite or not 0 <= low <= high <= most:
        raise DataError(
            "cannot read the image",
            file=place,
            why="it holds numbers that are none" if not finite else "its numbers have no declared range",
            remedy="save it with 8 or 16 bits per channel"
            if isinstance(place, Path)
            else "numbers of 0-255 or 0-1, as they were before they were normalised",
        )
    if floats or high > 65_535:
        top = declared or (1.0 if high <= 1 else 255.0)
        if declared is None:
            _say("0-1" if top == 1 else "0-255", place, f"floats of {low:g} to {high:g}")
        return lambda values: np.rint(values.astype(np.float64) * (255 / top))
    bits = bits_of(high) if declared is None else _declared_bits(int(declared))
    if declared is None and (bits < 16 or wide):
        _say(f"{bits} bits", place, f"numbers of {low:g} to {high:g} in {'32' if wide else '16'} bits")
    return lambda values: values >> (bits - 8)


def bits_of(largest: float) -> int:
    """The bits that numbers up to `largest` are taken to be of."""
    return next(bits for bits in BITS if largest < 2**bits)


def _declared_bits(largest: int) -> int:
    """Those of a declared range: exactly, where it is one of bits; some programs declare the largest number found."""
    return max(8, largest.bit_length()) if largest & (largest + 1) == 0 else bits_of(largest)


def declared_maximum(image: Image.Image, stream: Stream) -> float | None:
    """The largest number that an opened file says its grey values may have; None where it says nothing."""
    if image.format == "PPM":
        return 65_535 if image.mode != "F" else None  # Pillow has brought its numbers to this range
    if image.format == "PNG":
        bits = _significant_bits(stream)
        return 2**bits - 1 if bits else None
    tags = getattr(image, "tag_v2", {})
    for tag in (_FLOAT_MAX, _MAX_SAMPLE):
        if (value := _number(tags.get(tag))) is not None and value > 0:
            return value
    bits = _number(tags.get(_BITS))
    return 2**bits - 1 if bits in (10, 12, 14) else None


def _number(value: Any) -> Any:
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int | float) else None


def _significant_bits(stream: Stream) -> int:
    """Of a grey PNG, from its sBIT chunk, which stands before its pixels; 0 where there is none."""
    place = stream.tell()
    try:
        stream.seek(8)
        for _ in range(100):
            head = stream.read(8)
            if len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
                return 0
            if head[4:] == b"sBIT":
                return stream.read(1)[0]
            stream.seek(int.from_bytes(head[:4], "big") + 4, 1)
        return 0
    finally:
        stream.seek(place)


def colours_are_dark(image: Image.Image) -> bool:
    """Whether the upper eight bits of all colours are 0-15: numbers of 12 bits or fewer, or a very dark picture."""
    return max(_largest(image)[:3]) < 16


def _largest(image: Image.Image) -> list[int]:
    """Of each channel."""
    return [high for _, high in cast("tuple[tuple[int, int], ...]", image.getextrema())]


def lower_bytes(image: Image.Image) -> Image.Image:
    """Of an image of 16-bit colours, not yet decoded, the lower eight bits: by naming its pixels wrongly to Pillow."""
    paired = deep_rawmode(image) == "LA;16B"
    image.tile = [part._replace(args=_swapped(part.args)) for part in image.tile]  # pyrefly: ignore
    image.load()
    if not paired:
        return image
    _, grey, _, alpha = image.split()
    return Image.merge("RGBA", (grey, grey, grey, alpha))


def _swapped(args: Any) -> Any:
    if isinstance(args, tuple):
        return (_swapped(args[0]), *args[1:])
    if args == "LA;16B":
        return "RGBA"  # the upper and the lower byte of the grey, and of the transparency
    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    return args[:-1] + other[args[-1]]


def colours_of_eight_bits(path: Path, upper: Image.Image, lower: Image.Image) -> Image.Image:
    """A dark image of 16-bit colours by the range of its numbers, from their upper and their lower bytes."""
    import numpy as np

    largest = max(_largest(upper)[:3]) << 8 | max(_largest(lower)[:3])
    if not largest:
        return upper
    bits = bits_of(largest)
    _say(f"{bits} bits", path, "16-bit colours, all of them dark")
    colours = Image.new(upper.mode, upper.size)
    for box in bands(*upper.size):
        both = np.asarray(upper.crop(box)).astype(np.uint16) << 8 | np.asarray(lower.crop(box))
        colours.paste(Image.fromarray((both >> (bits - 8)).astype(np.uint8), upper.mode), box)
    if upper.mode == "RGBA" and _largest(upper)[3] >= 16:  # its transparency uses all 16 bits
        colours.putalpha(upper.getchannel("A"))
    return colours


def _extent(image: Image.Image) -> tuple[float, float, bool]:
    """The smallest and the largest number, and whether all are finite."""
    import numpy as np

    low, high = np.inf, -np.inf
    for box in bands(*image.size):
        part = np.asarray(image.crop(box))
        low, high = np.minimum(low, part.min()), np.maximum(high, part.max())  # both hand NaN on
    return float(low), float(high), bool(np.isfinite(low) and np.isfinite(high))


def _mapped(image: Image.Image, change: "Callable[[np.ndarray], np.ndarray]") -> Image.Image:
    import numpy as np

    grey = Image.new("L", image.size)
    for box in bands(*image.size):
        grey.paste(Image.fromarray(change(np.asarray(image.crop(box))).astype(np.uint8)), box)
    return grey


def _say(kind: str, path: Path | str, holds: str) -> None:
    place = _KINDS.index(kind)
    if not _SAID[place]:
        _SAID[place] = 1
        logger.warning("%s holds %s: it and others like it are read as %s (docs/check.md, Levels)", path, holds, kind)
