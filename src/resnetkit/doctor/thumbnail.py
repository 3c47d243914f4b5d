"""What a small copy of a picture says about it: its perceptual hash, its light, its sharpness, its colours.

A check decodes each picture once, and should cost little more than that. So all is counted by Pillow and by Python's
integers, from one copy of about 64 pixels: without NumPy, whose import takes as long as sixty photographs.
"""

import math
import sys
from collections.abc import Sequence
from itertools import accumulate
from operator import add, mul
from statistics import median
from typing import Any, cast

from PIL import Image, ImageChops, ImageFilter

SHORTER = 64
"""Pixels of the copy's shorter side, at least, where the picture has as many; under twice as many."""
FLAT = 8
"""Grey levels, of 256, between the darkest and the lightest of 64 cells; below that, a hash is a hash of noise."""
SIDE = 32
"""Cells of a row that are hashed, and rows."""
COLOUR = 10
"""Levels between two channels of a cell, from which on it has a colour."""
BITS = 63
"""Of a perceptual hash: 8 x 8 frequencies without the mean."""
_SCALE = 4096
_WAVES = tuple(
    tuple(round(_SCALE * math.cos(math.pi * wave * (2 * cell + 1) / (2 * SIDE))) for cell in range(SIDE))
    for wave in range(8)
)
_LANE = 4
"""Bytes. 32 numbers side by side in one long integer are multiplied and added at once: half the time."""
_MIDDLE = 2 ** (8 * _LANE - 1)
_MIDDLES = sum(_MIDDLE << 8 * _LANE * cell for cell in range(SIDE))
_SQUARES = tuple(level * level for level in range(256))
_HALVED = 2
"""So that a white pixel among black ones, at 4 x 255, is cut to 256 and a step from black to white is not."""
_LAPLACE = ImageFilter.Kernel((3, 3), (0, 1, 0, 1, -4, 1, 0, 1, 0), scale=_HALVED, offset=128)


def seen_in(image: Image.Image) -> dict[str, Any]:
    """The fields of `Entry` that an upright RGB image's small copy gives."""
    small = image.reduce(max(1, min(image.size) // SHORTER))
    cells = small.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    grey = small.convert("L")
    levels = grey.histogram()
    return {
        "phash": phash(cells),
        "low": _percentile(levels, 5),
        "high": _percentile(levels, 99),
        "deviation": round(_deviation(levels), 1),
        "edges": _edges(grey),
        "coloured": _is_coloured(cells),
        "levels": bytes(level for band in cells.split() for level in _extremes(band)).hex(),
    }


def phash(image: Image.Image) -> int | None:
    """The perceptual hash of an image, 63 bits; None where the image is too flat to have one.

    Each bit says whether one of the lowest frequencies of a discrete cosine transform (DCT-II) of the 32 x 32
    thumbnail is above the median of them all.
    """
    cells = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    lowest, highest = _extremes(cells.reduce(SIDE // 8))
    if highest - lowest < FLAT:
        return None
    frequencies = _frequencies(cells)
    middle = median(frequencies)
    bits = 0
    for frequency in frequencies:
        bits = bits << 1 | (frequency > middle)
    return bits


def _frequencies(cells: Image.Image) -> list[int]:
    """The lowest 8 x 8, without the mean: of columns first, all columns at once, then of what came out."""
    numbers, size = cells.convert("I").tobytes(), SIDE * _LANE
    rows = [int.from_bytes(numbers[at : at + size], sys.byteorder) for at in range(0, len(numbers), size)]
    found = []
    for wave in _WAVES:
        packed = sum(map(mul, rows, wave)) + _MIDDLES  # so that no number in it is negative
        lanes = memoryview(packed.to_bytes(size, sys.byteorder)).cast("I")
        row = [lane - _MIDDLE for lane in lanes]
        found += [sum(map(mul, row, across)) for across in _WAVES]
    return found[1:]


def _percentile(counts: Sequence[int], percent: int) -> int:
    """The lowest level at or under which lie so many of those that are counted."""
    enough = sum(counts) * percent / 100
    return next(level for level, total in enumerate(accumulate(counts)) if total >= enough)


def _deviation(counts: Sequence[int]) -> float:
    pixels = sum(counts)
    mean = sum(map(mul, counts, range(256))) / pixels
    return math.sqrt(max(0.0, sum(map(mul, counts, _SQUARES)) / pixels - mean * mean))


def _edges(grey: Image.Image) -> int:
    """How much lighter or darker than its four neighbours together the sharpest hundredth of the pixels is."""
    width, height = grey.size
    if min(width, height) < 3:
        return 2 * 128
    counts = grey.filter(_LAPLACE).crop((1, 1, width - 1, height - 1)).histogram()
    either_way = [counts[128], *map(add, counts[129:], counts[127:0:-1]), counts[0]]
    return _HALVED * _percentile(either_way, 99)


def _is_coloured(cells: Image.Image) -> bool:
    red, green, blue = cells.split()
    return any(_extremes(ImageChops.difference(green, other))[1] >= COLOUR for other in (red, blue))


def _extremes(band: Image.Image) -> tuple[int, int]:
    return cast(tuple[int, int], band.getextrema())
