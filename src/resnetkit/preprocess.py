"""From a file to what the network sees: one rule for pixels, and one `Preprocess` that travels with a model.

The rule: EXIF orientation is applied; CMYK becomes RGB; 16-bit grey is scaled to 8 bits, not clipped; transparency is
laid on white; of an animation the first frame counts; an image of too many pixels is refused from its header.
"""

import errno
import logging
import os
import stat
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError, features
from torch import Tensor
from torch.nn import functional as F

from resnetkit.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
MAX_PIXELS = 89_478_485
"""Pillow's own limit, at which it warns: 256 MiB of RGB. We refuse there, so its warning says nothing new."""
MAX_RATIO = 256
"""Of the sides of an image. Brought to 224 pixels, one of 1 x 50,000 would take 7 GB; no photograph is so narrow."""
PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
"""What a disk or a mount answers that may be well again in a moment."""
PAUSES = (0.05, 0.2)
"""Seconds before such a file is tried again: short, for on a dead mount every file takes them."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

logger = logging.getLogger("resnetkit")
Seen = TypeVar("Seen")
Stream = BufferedReader | BytesIO

# What a decoder grumbles about and still decodes is no matter; what it refuses is an error, not a warning.
warnings.filterwarnings("ignore", module=r"PIL\.")


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


@dataclass(frozen=True)
class Preprocess:
    """Resize the shorter side, crop the centre, normalise. Channel values are in 0-1 before mean and std."""

    size: int
    """Side of the square that the network sees, in pixels."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    """Shorter side before the crop; None means `size`."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return len(self.mean)

    def read(self, file: str | Path) -> Tensor:
        """A file as uint8 pixels, (C, size, size). Raises `DataError` (exit code 3), naming the file."""
        return self.pixels(read_image(file, self.channels))

    def pixels(self, image: Image.Image) -> Tensor:
        """A decoded image, resized and cropped, as uint8, (C, size, size). Equal to torchvision's presets on PIL."""
        image = self._resized(image)
        width, height = image.size
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        # PIL fills with black what lies outside, which happens only where resize is smaller than size.
        return to_tensor(image.crop((left, top, left + self.size, top + self.size)))

    def ten_crops(self, image: Image.Image) -> Tensor:
        """Four corners, the centre, and their mirror images, uint8 (10, C, size, size): the paper's 10-crop testing."""
        return _ten_crops(to_tensor(self._resized(image)), self.size)

    def _resized(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        short = self.resize or self.size
        if min(width, height) != short:
            if width <= height:
                target = (short, max(1, int(short * height / width)))
            else:
                target = (max(1, int(short * width / height)), short)
            filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
            image = image.resize(target, filters[self.interpolation])
        return image

    def batch(self, pixels: Tensor) -> Tensor:
        """Images held in memory, uint8 (N, C, H, W), resized and cropped to (N, C, size, size)."""
        pixels = self._resized_batch(pixels)
        height, width = pixels.shape[-2:]
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return pixels[..., top : top + self.size, left : left + self.size]

    def ten_crops_batch(self, pixels: Tensor) -> Tensor:
        """`ten_crops` of images held in memory, uint8 (N, C, H, W) to (N, 10, C, size, size)."""
        return torch.stack([_ten_crops(image, self.size) for image in self._resized_batch(pixels)])

    def _resized_batch(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        short = self.resize or self.size
        if min(height, width) != short:
            scale = short / min(height, width)
            pixels = F.interpolate(
                pixels, (int(height * scale), int(width * scale)), mode=self.interpolation, antialias=True
            )
        return pixels

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (N, C, H, W), on any device, to floats with about zero mean and unit variance, channels-last."""
        mean = torch.tensor(self.mean, device=pixels.device).mul_(255).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).mul_(255).view(1, -1, 1, 1)
        floats = pixels.to(torch.float32, memory_format=torch.channels_last)
        return floats.sub_(mean).div_(std)


def _ten_crops(pixels: Tensor, size: int) -> Tensor:
    from torchvision.transforms.v2.functional import ten_crop

    return torch.stack(ten_crop(pixels, [size, size]))


def read_image(file: str | Path, channels: int = 3, stream: Stream | None = None) -> Image.Image:
    """Decode a file by content, whatever its name, to an upright 8-bit image: mode "RGB" or "L".

    `stream` holds the file's bytes where they were read already.
    Raises `DataError` (exit code 3) that names the file and says why.
    """
    return read_file(Path(file), lambda path, opened: _upright(path, opened, channels), stream)


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
    except DataError:
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


def to_tensor(image: Image.Image) -> Tensor:
    """A PIL image in mode "L" or "RGB" as uint8, (C, H, W)."""
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def _header(path: Path, stream: Stream) -> Header:
    with Image.open(stream, formats=FORMATS) as image:
        _refuse_size(path, image)
        width, height = image.size
        turned = orientation(image) > 4
        return Header(image.format or "", *((height, width) if turned else (width, height)), _ends(image, stream))


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
    if width * height > MAX_PIXELS:
        why = f"{width} x {height} pixels are more than {MAX_PIXELS:,}"
        raise DataError("the image is too large", file=path, why=why, remedy="a smaller copy")
    if max(width, height) > MAX_RATIO * min(width, height):
        why = f"of {width} x {height} pixels, one side is more than {MAX_RATIO} times the other"
        raise DataError("the image is too narrow", file=path, why=why, remedy="cut it into pieces")


def _upright(path: Path, stream: Stream, channels: int) -> Image.Image:
    image = Image.open(stream, formats=FORMATS)
    _refuse_size(path, image)
    image.load()
    # ImageOps.exif_transpose would write the other tags anew, and stumble over those that are malformed.
    turn = _TURNS.get(orientation(image))
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(path, image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    image = image.convert("RGB" if channels == 3 else "L")
    return image if turn is None else image.transpose(turn)


def _eight_bits(path: Path, image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise DataError(
            "cannot read the image",
            file=path,
            why="its numbers have no declared range",
            remedy="save it with 8 or 16 bits per channel",
        )
    return Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))


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
    codec = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys((b"heic", b"heix", b"heim", b"hevc", b"mif1"), "HEIC")
    if start[4:8] == b"ftyp" and start[8:12] in codec:
        name = codec[start[8:12]]
        if name == "AVIF" and features.check("avif"):
            return "it is damaged"
        return f"Pillow cannot decode {name} here; save it as JPEG"
    film = start[4:8] == b"ftyp" or start[8:12] == b"AVI "
    text = start.lstrip().lower()
    looks = "a film" if film else next((name for mark, name in _LOOKS.items() if text.startswith(mark)), None)
    return f"it is not an image (it looks like {looks})" if looks else f"it is none of {', '.join(FORMATS)}"


_LOOKS = {
    b"<!doctype html": "HTML",
    b"<html": "HTML",
    b"<svg": "SVG",
    b"<?xml": "XML",
    b"%pdf": "PDF",
    b"%!ps": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"pk\x03\x04": "a zip archive",
    b"\x1ae\xdf\xa3": "a film",
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
