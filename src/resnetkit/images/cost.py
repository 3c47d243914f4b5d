"""What decoding a picture will cost, from its header: bytes of memory at the peak.

Measured with Pillow 13 on pictures of 6 to 20 million pixels, and rounded up.
"""

from collections.abc import Iterator

from PIL import Image

from resnetkit.errors import DataError
from resnetkit.images.avif import MAX_CODED_PIXELS, Coded
from resnetkit.images.jpeg import Markers

BAND = 2**20
"""Pixels that are converted at a time, so that what comes in between takes no memory to speak of."""
BAND_BYTES = 32
MAX_SCAN_PIXELS = 2_500_000_000
"""Of all scans of a JPEG together: about 7 s."""
MAX_TILE_PIXELS = 400_000_000
"""Of all tiles of a TIFF together, their parts outside of the picture included."""

_WEBP, _AVIF, _PYTHON = 16, 18, 12
"""Bytes a pixel. WebP and AVIF: canvases, their copy and the image; PPM and RLE BMP in Python: numbers, copy, image."""
_AVIF_FRAME, _AVIF_FRAMES = 6, 8
"""Bytes a pixel of each further frame that an AVIF's decoder keeps, and how many of them it keeps at most."""
_DEEP = ("RGB;16", "RGBX;16", "RGBA;16", "LA;16")
_TILE, _ROWS, _SAMPLES, _BITS = (322, 323), 278, 277, 258


def peak_bytes(image: Image.Image, walked: Markers | Coded | None, target: int) -> int:
    """The most memory that an opened image takes until it is upright, of `target` bytes a pixel, and has been cropped.

    `walked` is what was seen of a JPEG or an AVIF before it was opened.
    Raises `DataError` (exit code 3) where it would take too long for nothing.
    """
    width, height = image.size
    pixels = width * height
    decoding, held = _decoding(image, walked)
    work = BAND_BYTES * min(pixels, BAND)
    if deep_rawmode(image):  # dark ones are decoded twice
        held = max(held, 3 * stored(image.mode) * pixels if image.mode == "RGBA" else 2 * stored(image.mode) * pixels)
    # Then the source becomes the target, and the target another of its size, by turning or by cropping.
    return work + max(decoding, held + target * pixels, 2 * target * pixels)


def bands(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Boxes that cover a picture from top to bottom, of about `BAND` pixels each."""
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(top + rows, height)


def deep_rawmode(image: Image.Image) -> str | None:
    """Pillow's name of the pixels of a colour image of 16 bits, of which it keeps the upper eight; None for others."""
    parts = getattr(image, "tile", None)
    args = parts[0].args if parts else None
    raw = args[0] if isinstance(args, tuple) and args else args
    return raw if isinstance(raw, str) and raw.startswith(_DEEP) else None


def stored(mode: str) -> int:
    """Bytes in which Pillow stores a pixel."""
    return 2 if mode.startswith("I;16") else 1 if mode in ("1", "L", "P") else 4


def _decoding(image: Image.Image, walked: Markers | Coded | None) -> tuple[int, int]:
    """The peak while decoding, and what stays until the source is let go."""
    width, height = image.size
    pixels = width * height
    image_bytes = stored(image.mode) * pixels
    if image.format == "WEBP":
        return (_WEBP + 2) * pixels, _WEBP * pixels
    if image.format == "AVIF":
        taken = _of_streams(walked if isinstance(walked, Coded) else Coded(), pixels)
        return taken, taken
    if image.format in ("HEIF", "JXL"):
        return _AVIF * pixels, _AVIF * pixels
    if isinstance(walked, Markers):
        _refuse_scans(walked.scans, pixels)
        kept = 2 * round(walked.samples * pixels) if walked.kept else 0
        return image_bytes + kept, image_bytes
    if image.format == "TIFF":
        return image_bytes + _strip_bytes(image), image_bytes
    codec = next((part[0] for part in getattr(image, "tile", ())), "raw")
    if codec in ("ppm", "ppm_plain", "bmp_rle"):
        return _PYTHON * pixels, image_bytes
    return image_bytes, image_bytes


def _refuse_scans(scans: int, pixels: int) -> None:
    if scans * pixels > MAX_SCAN_PIXELS:
        why = f"its {scans} scans go over {pixels:,} pixels each"
        raise DataError("cannot read the image", why=why, remedy="save it anew")


def _of_streams(coded: Coded, pixels: int) -> int:
    """What decoding the streams of an AVIF of `pixels` takes."""
    if not coded.pixels:
        raise DataError("cannot read the image", why="it is damaged (its pixels cannot be found)")
    if coded.total > MAX_CODED_PIXELS:
        why = f"it has {pixels:,} pixels, and its decoder goes over {coded.total:,}"
        raise DataError("cannot read the image", why=why, remedy="save it anew")
    further = _AVIF_FRAME * min(coded.frames - 1, _AVIF_FRAMES)
    return _AVIF * max(pixels, coded.pixels) + further * coded.pixels


def _strip_bytes(image: Image.Image) -> int:
    """The largest strip or tile of a TIFF, which a decoder unpacks as a whole."""
    width, height = image.size
    tags = getattr(image, "tag_v2", {})

    def number(tag: int, default: int) -> int:
        value = tags.get(tag, default)
        return max(1, int(value[0] if isinstance(value, tuple) else value))

    if _TILE[0] in tags:
        across, down = (number(tag, 1) for tag in _TILE)
        if -(-width // across) * across * -(-height // down) * down > max(MAX_TILE_PIXELS, 4 * width * height):
            why = f"its tiles of {across} x {down} pixels are far larger than the picture"
            raise DataError("cannot read the image", why=why, remedy="save it anew")
    else:
        across, down = width, min(height, number(_ROWS, height))
    bits = tags.get(_BITS, (8,))
    each = number(_SAMPLES, 1) * max(bits if isinstance(bits, tuple) else (bits,))
    return across * down * max(4, -(-each // 8))
