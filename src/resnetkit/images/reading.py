"""From a file to an upright 8-bit picture, by one rule; no torch."""

import errno
import logging
import os
import stat
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from PIL import Image, UnidentifiedImageError

from resnetkit.errors import DataError, UsageError
from resnetkit.images.avif import read_coded
from resnetkit.images.budget import BYTES, MEMORY, Stream, Watched, limit
from resnetkit.images.cost import bands, deep_rawmode, peak_bytes
from resnetkit.images.formats import FORMATS, kind_of, undecoded, why_not
from resnetkit.images.jpeg import read_markers
from resnetkit.images.levels import (
    colours_are_dark,
    colours_of_eight_bits,
    declared_maximum,
    grey_of_eight_bits,
    is_grey_deep,
    lower_bytes,
)
from resnetkit.images.tiff import refuse_many_parts

MAX_PIXELS = 89_478_485
"""Pillow's own limit, at which it warns: 256 MiB of RGB. We refuse there, so its warning says nothing new.

A camera's JPEG may have more, as far as memory suffices."""


MAX_RATIO = 256
"""Of the sides of an image. Brought to 224 pixels, one of 1 x 50,000 would take 7 GB; no photograph is so narrow."""


PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
"""What a disk or a mount answers that may be well again in a moment."""


PAUSES = (0.05, 0.2)
"""Seconds before such a file is tried again: short, for on a dead mount every file takes them."""


logger = logging.getLogger("resnetkit")


# What a decoder grumbles about and still decodes is no matter; what it refuses is an error, not a warning.
warnings.filterwarnings("ignore", module=r"PIL\.")

# In blocks of 16 MiB, Pillow's own, a large picture stays with the thread that let it go: glibc gives back what is
# larger than 32. With eight threads that is gigabytes.
if "PILLOW_BLOCK_SIZE" not in os.environ:
    Image.core.set_block_size(64 * 2**20)


Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Header:
    """What is known of an image before it is decoded."""

    format: str
    """Pillow's name of it."""
    width: int
    """Pixels, upright."""
    height: int
    ends: bool
    """False where the mark that ends the file is missing: it may be cut off, and only decoding will tell."""


def read_image(file: str | Path, channels: int = 3, stream: Stream | None = None) -> Image.Image:
    """Decode a file by content, whatever its name, to an upright 8-bit image: mode "RGB" or "L".

    `stream` holds the file's bytes where they were read already.
    Raises `DataError` (exit code 3) that names the file and says why.
    """
    return with_image(file, lambda image: image, channels, stream)


def with_image(
    file: str | Path, use: Callable[[Image.Image], Seen], channels: int = 3, stream: Stream | None = None
) -> Seen:
    """What `use` makes of a decoded image, in one go: until then no other thread decodes what memory is too small for.

    Raises `DataError` as `read_image` does.
    """
    with ExitStack() as held:
        image = read_file(Path(file), lambda path, opened: _upright(path, opened, channels, held), stream)
        try:
            return use(image)
        except DataError as error:
            raise DataError(error.what, file=file, why=error.why, remedy=error.remedy) from error


def check_header(file: str | Path, stream: Stream | None = None) -> Header:
    """What a file's header says, without decoding. Raises `DataError` as `read_image` does."""
    return read_file(Path(file), _header, stream)


def read_file(
    path: Path,
    look: Callable[[Path, Stream], Seen],
    stream: Stream | None = None,
    *,
    pauses: tuple[float, ...] = PAUSES,
) -> Seen:
    """What `look` sees in a file: open it, or use `stream`, and name the file in whatever goes wrong.

    A disk or a mount that fails is asked again after each of `pauses`, in seconds; a damaged file is not.
    Raises `DataError` (exit code 3) that names the file and says why.
    """
    try:
        if stream is not None:
            return look(path, stream)
        # Opening a pipe or a device would wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError("cannot read the image", file=path, why="it is not a regular file")
        with path.open("rb") as opened:
            return look(path, opened)
    except DataError as error:
        if error.file is not None:
            raise
        raise DataError(error.what, file=path, why=error.why, remedy=error.remedy) from error
    except UsageError:
        raise
    # Damaged files make decoders raise almost anything: OSError, ValueError, SyntaxError, RuntimeError, struct.error.
    except Exception as error:
        passing = getattr(error, "errno", None) in PASSING
        if passing and stream is not None:
            raise  # whoever opened the stream opens it again
        if not pauses or not passing:
            raise DataError("cannot read the image", file=path, why=_reason(path, error, stream)) from error
        _warn_of_mount(_mount_of(path), os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "")
    time.sleep(pauses[0])
    return read_file(path, look, stream, pauses=pauses[1:])


def _mount_of(path: Path) -> Path:
    """The disk or share that a file is on."""
    place = path.absolute()
    while not os.path.ismount(place) and place != place.parent:
        place = place.parent
    return place


@cache
def _warn_of_mount(mount: Path, why: str) -> None:
    """Once for each: what fails now and then slows everything, and looks like nothing."""
    logger.warning("%s fails now and then (%s): what it refuses is asked for again", mount, why)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an opened image, 1-8; 1 where it has none, or none that makes sense."""
    # Asking a PNG that has no EXIF for it makes Pillow decode the picture once more.
    if image.format == "PNG" and not any(mark in image.info for mark in _EXIF_MARKS):
        return 1
    try:
        value = image.getexif().get(0x0112)
    except Exception:  # malformed EXIF raises almost anything, and the pixels are good
        return 1
    return value if isinstance(value, int) and 2 <= value <= 8 else 1


def _header(path: Path, stream: Stream) -> Header:
    with _open(path, stream, 3)[0] as image:
        width, height = image.size
        turned = orientation(image) > 4
        return Header(image.format or "", *((height, width) if turned else (width, height)), _ends(image, stream))


def _open(path: Path, stream: Stream, channels: int) -> tuple[Image.Image, int]:
    """An image that is not decoded yet, and the bytes that this will take at the peak. What is too much is refused."""
    walked = read_markers(stream) or read_coded(stream)
    refuse_many_parts(stream)
    image = Image.open(cast("BinaryIO", Watched(stream)), formats=FORMATS)
    _refuse_size(path, image)
    needed = peak_bytes(image, walked, 4 if channels == 3 else 1)
    if needed > limit(BYTES):
        width, height = image.size
        takes, most = needed / 2**30, limit(BYTES) / 2**30
        why = f"to decode its {width} x {height} pixels takes {takes:.2f} GiB, more than {most:.2f}"
        raise DataError("the image is too large", file=path, why=why, remedy=f"a smaller copy, or a larger {BYTES}")
    return image, needed


def _ends(image: Image.Image, stream: Stream) -> bool:
    """Whether the mark that ends a file is there, in formats that have one. `stream` stands behind the header."""
    behind_header = stream.tell()
    mark = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}.get(image.format or "")
    if mark is None:
        return True
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - len(mark)))
    if stream.read() == mark:
        return True
    if image.format == "GIF":
        return False
    # Telephones put a film or a second picture behind a JPEG; inside its pixels this mark cannot be.
    stream.seek(behind_header)
    return mark in stream.read()


def _refuse_size(path: Path, image: Image.Image) -> None:
    """An image of too many pixels, or one that would have too many once its shorter side is as long as a network's."""
    width, height = image.size
    if width * height > MAX_PIXELS and image.format not in ("JPEG", "MPO"):
        why = f"{width} x {height} pixels are more than {MAX_PIXELS:,}"
        raise DataError("the image is too large", file=path, why=why, remedy="a smaller copy")
    if max(width, height) > MAX_RATIO * min(width, height):
        why = f"of {width} x {height} pixels, one side is more than {MAX_RATIO} times the other"
        raise DataError("the image is too narrow", file=path, why=why, remedy="cut it into pieces")


def _upright(path: Path, stream: Stream, channels: int, held: ExitStack) -> Image.Image:
    image, needed = _open(path, stream, channels)
    held.close()  # of an attempt before this one
    held.enter_context(MEMORY.share(needed))
    deep = deep_rawmode(image)
    declared = declared_maximum(image, stream) if is_grey_deep(image) else None
    image.load()
    # ImageOps.exif_transpose would write the other tags anew, and stumble over those that are malformed.
    turn = _TURNS.get(orientation(image))
    if is_grey_deep(image):
        image = grey_of_eight_bits(path, image, declared)
    elif deep and colours_are_dark(image):
        again = Image.open(cast("BinaryIO", Watched(stream)), formats=FORMATS)
        image = colours_of_eight_bits(path, image, lower_bytes(again))
    return _turned(image, channels, turn)


def upright(image: Image.Image, channels: int, name: str) -> Image.Image:
    """A picture that is in memory already, by the same rule: upright, 8 bits, mode "RGB" or "L".

    Raises `DataError` (exit code 3) that calls it by its `name`.
    """
    _refuse_size(Path(name), image)
    turn = _TURNS.get(orientation(image))
    image.load()
    if is_grey_deep(image):
        image = grey_of_eight_bits(Path(name), image, None)
    return _turned(image, channels, turn)


def _turned(image: Image.Image, channels: int, turn: Image.Transpose | None) -> Image.Image:
    image = opaque(image, "RGB" if channels == 3 else "L")
    return image if turn is None else image.transpose(turn)


def opaque(image: Image.Image, mode: str) -> Image.Image:
    """An image in `mode`, what is transparent laid on white: by bands, for three copies of a whole picture add up."""
    if not image.has_transparency_data:
        return image.convert(mode)
    width, height = image.size
    whole = Image.new(mode, image.size)
    for box in bands(width, height):
        rgba = image.crop(box).convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        whole.paste(Image.alpha_composite(white, rgba).convert(mode), box)
    return whole


def _reason(path: Path, error: Exception, stream: BinaryIO | None) -> str:
    if isinstance(error, UnidentifiedImageError):
        return _looks_like(path, stream)
    if isinstance(error, PermissionError):
        return "it may not be read"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.errno is not None:
        return f"the disk or the network failed ({error.strerror})" if error.errno in PASSING else str(error.strerror)
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has more than {MAX_PIXELS:,} pixels"
    return f"it is damaged ({error})"


def _looks_like(path: Path, stream: BinaryIO | None) -> str:
    try:
        with nullcontext(stream) if stream is not None else path.open("rb") as opened:
            opened.seek(0)
            start = opened.read(64)
    except OSError as error:  # it was there a moment ago
        return str(error.strerror)
    if not start:
        return "the file is empty"
    if why := undecoded(start):
        return why
    film = start[4:8] == b"ftyp" or start[8:12] == b"AVI "
    text = start.lstrip().lower()
    looks = _FILM if film else next((looks for mark, looks in _LOOKS.items() if text.startswith(mark)), None)
    if looks is None or kind_of(path.name):  # a raw file of a camera begins as a film does
        return why_not(path.name) or f"it is none of {', '.join(FORMATS)}"
    what, remedy = looks
    return f"it is not an image (it looks like {what})" + (f"; {remedy}" if remedy else "")


_FILM = ("a film", "save pictures of it as PNG")
_LOOKS = {
    b"<!doctype html": ("HTML", ""),
    b"<html": ("HTML", ""),
    b"<svg": ("SVG", "save it as PNG"),
    b"<?xml": ("XML", ""),
    b"%pdf": ("PDF", "save it as PNG, page by page"),
    b"%!ps": ("PostScript", "save it as PNG"),
    b"\xc5\xd0\xd3\xc6": ("PostScript", "save it as PNG"),
    b"pk\x03\x04": ("a zip archive", "unpack it"),
    b"\x1ae\xdf\xa3": _FILM,
}


_EXIF_MARKS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
