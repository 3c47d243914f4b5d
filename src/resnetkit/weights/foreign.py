"""What the settings beside other people's weights say: timm's and Hugging Face's, of a stated shape, and obeyed."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.documents import validated

Numbers = Annotated[tuple[float, ...], Field(max_length=1024)]
Share = Annotated[float, Field(gt=0.05, le=1)]
Names = Annotated[tuple[str, ...], Field(max_length=1 << 20, fail_fast=True)]


class Timm(BaseModel):
    """A `config.json` of timm, with what its `pretrained_cfg` says put in its place."""

    model_config = ConfigDict(coerce_numbers_to_str=True)
    architecture: str | None = None
    mean: Numbers | None = None
    std: Numbers | None = None
    input_size: tuple[int, int, int] | None = None
    crop_pct: Share | None = None
    crop_mode: str | None = None
    interpolation: str | None = None
    label_names: Names | None = None
    tag: str | None = None

    @classmethod
    def of(cls, config: dict[str, Any]) -> Self:
        """Raises `ValueError` for settings of another shape."""
        inner = config.get("pretrained_cfg")
        return validated(cls, config | (inner if isinstance(inner, dict) else {}))

    def preprocess(self) -> Preprocess | None:
        """How images are prepared, where all of it is said. Raises `ValueError` for what we cannot do."""
        if self.mean is None or self.std is None or self.input_size is None:
            return None
        if self.crop_mode not in (None, "center"):
            raise ValueError(f"it crops by {self.crop_mode[:40]!r}, which is not one of ours")
        if self.interpolation not in (None, "bilinear", "bicubic"):
            raise ValueError(f"interpolation {self.interpolation[:40]!r} is not one of ours")
        size = self.input_size[-1]
        resize = int(size / (self.crop_pct or 0.875))
        return Preprocess(size, self.mean, self.std, resize, self.interpolation or "bilinear")


class HuggingFaceModel(BaseModel):
    """A `config.json` of a ResNet of Hugging Face."""

    model_config = ConfigDict(coerce_numbers_to_str=True)
    problem_type: str | None = None
    hidden_act: str = "relu"
    downsample_in_bottleneck: bool = False
    downsample_in_first_stage: bool = False
    id2label: Annotated[dict[str, str] | None, Field(max_length=1 << 20)] = None

    def refuse_others(self) -> None:
        """Raises `ValueError` for a network whose tensors have our shapes and mean something else."""
        if self.problem_type not in (None, "single_label_classification"):
            raise ValueError(f"it is made for {self.problem_type[:40]}, and we choose one class of an image")
        if self.hidden_act != "relu":
            raise ValueError(f"its activation is {self.hidden_act[:40]!r} and not relu")
        if self.downsample_in_first_stage:
            raise ValueError("its first stage halves the image, which is not one of our networks")

    def classes(self, count: int) -> tuple[str, ...]:
        """The names of the outputs, where every one has a name of its own."""
        labels = self.id2label or {}
        named = tuple(labels.get(str(number)) or "" for number in range(count))
        made_up = all(label == f"LABEL_{number}" for number, label in enumerate(named))
        return named if all(named) and not made_up else ()


class HuggingFaceImages(BaseModel):
    """A `preprocessor_config.json`."""

    do_resize: bool | None = True
    size: int | dict[str, int | None] | None = None
    crop_pct: Share | None = None
    resample: int | None = None
    do_rescale: bool | None = True
    rescale_factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1 / 255
    do_normalize: bool | None = True
    image_mean: Numbers | None = None
    image_std: Numbers | None = None

    def preprocess(self, channels: int) -> Preprocess | None:
        """How images are prepared, where all of it is said. Raises `ValueError` for what we cannot do."""
        normalised = self.do_normalize is not False
        if self.do_resize is False or (normalised and (self.image_mean is None or self.image_std is None)):
            return None
        if self.resample not in (None, 2, 3):
            raise ValueError(f"resample {self.resample} is neither bilinear nor bicubic")
        mean, std = (self.image_mean, self.image_std) if normalised else ((0.0,) * channels, (1.0,) * channels)
        # Ours are of values in 0-1, whatever theirs are of.
        scale = 255 * self.rescale_factor if self.do_rescale is not False else 255.0
        mean, std = tuple(value / scale for value in mean or ()), tuple(value / scale for value in std or ())
        sizes = self.size if isinstance(self.size, dict) else {"shortest_edge": self.size}
        size = sizes.get("shortest_edge") or sizes.get("height") or 224
        # Below 384 px their processor brings the shorter side to size / crop_pct and crops the centre.
        resize = int(size / (self.crop_pct or 0.875)) if size < 384 else size
        return Preprocess(size, mean, std, resize, "bicubic" if self.resample == 3 else "bilinear")
