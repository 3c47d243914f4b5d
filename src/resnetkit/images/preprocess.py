"""From a file to what the network sees: one rule for pixels, and one `Preprocess` that travels with a model.

The rule: EXIF orientation is applied; CMYK becomes RGB; more than 8 bits are scaled to 8, not clipped (`levels`);
transparency is laid on white; of an animation the first frame counts; what costs too much is refused (`cost`).
"""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from PIL import Image
from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from resnetkit.errors import DataError, UsageError, wrong_field
from resnetkit.images.reading import with_image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MOST_PIXELS = 1 << 26
"""Of a picture that was made larger: 200 MB."""

Side = Annotated[int, Field(ge=1, le=8192)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Preprocess:
    """Resize the shorter side, crop the centre, normalise. Channel values are in 0-1 before mean and std.

    Raises `UsageError` (exit code 2) for a value that a field cannot have.
    """

    size: Side
    """Side of the square that the network sees, in pixels."""
    mean: Annotated[tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(min_length=1, max_length=1024)]
    std: Annotated[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=1, max_length=1024)]
    resize: Side | None = None
    """Shorter side before the crop; None means `size`."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @model_validator(mode="wrap")
    @classmethod
    def _in_our_words(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            name, given = wrong_field(first, [field.name for field in fields(cls)])
            raise UsageError(f"images cannot be prepared with {name[:40]} = {given}", why=first["msg"]) from error

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise UsageError(f"there are {len(self.mean)} means", why=f"and {len(self.std)} standard deviations")

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return len(self.mean)

    def read(self, file: str | Path) -> Tensor:
        """A file as uint8 pixels, (C, size, size). Raises `DataError` (exit code 3), naming the file."""
        return with_image(file, self.pixels, self.channels)

    def pixels(self, image: Image.Image) -> Tensor:
        """A decoded image, resized and cropped, as uint8, (C, size, size). Equal to torchvision's presets on PIL."""
        image = self.resized(image)
        left, top = (round((side - self.size) / 2) for side in image.size)
        # PIL fills with black what lies outside, which happens only where resize is smaller than size.
        return to_tensor(image.crop((left, top, left + self.size, top + self.size)))

    def resized(self, image: Image.Image) -> Image.Image:
        """A decoded image brought to the shorter side, `resize` or `size`, and not cropped.

        Raises `DataError` (exit code 3) for a strip that would become too long for memory.
        """
        width, height = image.size
        short = self.resize or self.size
        if min(width, height) == short:
            return image
        # Whole numbers throughout, so that no side is one pixel short of itself by rounding.
        target = (short, short * height // width) if width <= height else (short * width // height, short)
        if target[0] * target[1] > MOST_PIXELS:
            what = f"a strip of {width:,} x {height:,} px would become {max(target):,} px long"
            raise DataError(what, remedy="a crop of it")
        filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
        return image.resize(target, filters[self.interpolation])

    def batch(self, pixels: Tensor) -> Tensor:
        """Images held in memory, uint8 (N, C, H, W), to (N, C, size, size): each as `pixels` gives it."""
        if tuple(pixels.shape[-2:]) == (self.size, self.size) and self.resize in (None, self.size):
            return pixels
        return torch.stack([self.pixels(to_image(image)) for image in pixels.cpu()]).to(pixels.device)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (N, C, H, W), on any device, to floats with about zero mean and unit variance, channels-last."""
        mean = torch.tensor(self.mean, device=pixels.device).mul_(255).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).mul_(255).view(1, -1, 1, 1)
        floats = pixels.to(torch.float32, memory_format=torch.channels_last)
        return floats.sub_(mean).div_(std)


def to_image(pixels: Tensor) -> Image.Image:
    """uint8 pixels, (1 or 3, H, W), on any device, as a PIL image: what `to_tensor` undoes."""
    array = pixels.cpu().numpy()
    return Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))


def to_tensor(image: Image.Image) -> Tensor:
    """A PIL image in mode "L" or "RGB" as uint8, (C, H, W)."""
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())
