"""From a file to what the network sees: one rule for pixels, and one `Preprocess` that travels with a model.

The rule: EXIF orientation is applied; CMYK becomes RGB; 16-bit grey is scaled to 8 bits, not clipped; transparency is
laid on white; of an animation the first frame counts; an image of too many pixels is refused from its header.
"""

import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from resnetkit.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
MAX_PIXELS = 89_478_485
"""Pillow's own limit, at which it warns: 256 MiB of RGB. We refuse there, so its warning says nothing new."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


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
        width, height = image.size
        short = self.resize or self.size
        if min(width, height) != short:
            if width <= height:
                target = (short, max(1, int(short * height / width)))
            else:
                target = (max(1, int(short * width / height)), short)
            filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
            image = image.resize(target, filters[self.interpolation])
        width, height = image.size
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        # PIL fills with black what lies outside, which happens only where resize is smaller than size.
        return to_tensor(image.crop((left, top, left + self.size, top + self.size)))

    def batch(self, pixels: Tensor) -> Tensor:
        """Images held in memory, uint8 (N, C, H, W), resized and cropped to (N, C, size, size)."""
        height, width = pixels.shape[-2:]
        short = self.resize or self.size
        if min(height, width) != short:
            scale = short / min(height, width)
            pixels = F.interpolate(
                pixels, (int(height * scale), int(width * scale)), mode=self.interpolation, antialias=True
            )
            height, width = pixels.shape[-2:]
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return pixels[..., top : top + self.size, left : left + self.size]

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (N, C, H, W), on any device, to floats with about zero mean and unit variance, channels-last."""
        mean = torch.tensor(self.mean, device=pixels.device).mul_(255).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).mul_(255).view(1, -1, 1, 1)
        floats = pixels.to(torch.float32, memory_format=torch.channels_last)
        return floats.sub_(mean).div_(std)


def read_image(file: str | Path, channels: int = 3, stream: BinaryIO | None = None) -> Image.Image:
    """Decode a file by content, whatever its name, to an upright 8-bit image: mode "RGB" or "L".

    `stream` holds the file's bytes where they were read already.
    Raises `DataError` (exit code 3) that names the file and says why.
    """
    path = Path(file)
    try:
        if stream is not None:
            return _upright(path, stream, channels)
        _refuse_special(path)
        with path.open("rb") as opened:
            return _upright(path, opened, channels)
    except DataError:
        raise
    # Damaged files make decoders raise almost anything: OSError, ValueError, SyntaxError, RuntimeError, struct.error.
    except Exception as error:
        raise DataError("cannot read the image", file=path, why=_reason(path, error, stream)) from error


def check_header(file: str | Path) -> tuple[int, int]:
    """Width and height from a file's header, without decoding. Raises `DataError` as `read_image` does."""
    path = Path(file)
    try:
        _refuse_special(path)
        with Image.open(path, formats=FORMATS) as image:
            _refuse_huge(path, image)
            return image.size
    except DataError:
        raise
    except Exception as error:
        raise DataError("cannot read the image", file=path, why=_reason(path, error)) from error


def to_tensor(image: Image.Image) -> Tensor:
    """A PIL image in mode "L" or "RGB" as uint8, (C, H, W)."""
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def _refuse_special(path: Path) -> None:
    """Opening a pipe or a device would wait for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError("cannot read the image", file=path, why="it is not a regular file")


def _refuse_huge(path: Path, image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(
            "the image is too large",
            file=path,
            why=f"{width} x {height} pixels are more than {MAX_PIXELS:,}",
            remedy="a smaller copy",
        )


def _upright(path: Path, stream: BinaryIO, channels: int) -> Image.Image:
    image = Image.open(stream, formats=FORMATS)
    _refuse_huge(path, image)
    image.load()
    image = ImageOps.exif_transpose(image)
    target = "RGB" if channels == 3 else "L"
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(path, image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    return image.convert(target)


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


def _reason(path: Path, error: Exception, stream: BinaryIO | None = None) -> str:
    if stream is None:
        if isinstance(error, PermissionError) or not path.exists():
            return "it may not be read" if path.exists() else "no such file"
        with path.open("rb") as opened:
            return _reason(path, error, opened)
    stream.seek(0)
    start = stream.read(64)
    if not start:
        return "the file is empty"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has more than {MAX_PIXELS:,} pixels"
    if isinstance(error, UnidentifiedImageError):
        start = start.lstrip().lower()
        looks = next((name for mark, name in _LOOKS.items() if start.startswith(mark)), None)
        return f"it is not an image (it looks like {looks})" if looks else f"it is none of {', '.join(FORMATS)}"
    return f"it is damaged ({error})"


_LOOKS = {
    b"<!doctype html": "HTML",
    b"<html": "HTML",
    b"<svg": "SVG",
    b"<?xml": "XML",
    b"%pdf": "PDF",
    b"%!ps": "PostScript",
    b"pk\x03\x04": "a zip archive",
}
