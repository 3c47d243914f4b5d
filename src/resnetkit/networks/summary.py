"""A network stage by stage: output shape, parameters, multiply-adds.

They follow from the `Arch` by arithmetic, without torch and without building the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from resnetkit.errors import UsageError
from resnetkit.networks.arch import EXPANSION, Arch, get_arch

MOST_PARAMETERS = 2_000_000_000
"""8 GB of float32, twice as many as the widest residual network that was published has."""
Shape = tuple[int, int, int]
"""(C, H, W)."""
LARGEST = 65_536
"""Pixels of a side, of any picture that can be."""


@dataclass(frozen=True)
class Stage:
    """One row. `output` is (C, H, W), or (classes,) for the head; `multiply_adds` are those of one image."""

    name: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """All rows of a network at one input size, and their sums; as a text, a table of at most 80 columns."""

    arch: Arch
    image_size: tuple[int, int]
    """Height and width in pixels."""
    stages: tuple[Stage, ...]
    """The stem, each stage, and `fc`, in order."""
    name: str = "network"
    """What the network is called."""

    @property
    def parameters(self) -> int:
        """Trained numbers in the whole network."""
        return sum(stage.parameters for stage in self.stages)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image; half of what is often called FLOPs."""
        return sum(stage.multiply_adds for stage in self.stages)

    @property
    def title(self) -> str:
        """What is summarised, in a line."""
        return f"{self.name}, input {times((self.arch.in_channels, *self.image_size))}"

    def __str__(self) -> str:
        rows = [("stage", "output (C, H, W)", "parameters", "multiply-adds")]
        rows += [
            (each.name, times(each.output), f"{each.parameters:,}", f"{each.multiply_adds:,}") for each in self.stages
        ]
        rows.append((f"{self.arch.layers} layers", "", f"{self.parameters:,}", f"{self.multiply_adds:,}"))
        return "\n".join([self.title, "", *aligned(rows, numbers=2)])

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "image_size": list(self.image_size),
            "layers": self.arch.layers,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "stages": [
                {
                    "name": stage.name,
                    "output": list(stage.output),
                    "parameters": stage.parameters,
                    "multiply_adds": stage.multiply_adds,
                }
                for stage in self.stages
            ],
        }


def summarise(model: Any, image_size: int | tuple[int, int] | None = None) -> Summary:
    """Summarise a network for images of `image_size` pixels, a side or (height, width).

    `model`: the name of a network, an `Arch`, a `ResNet`, or a `Classifier`. Without a size it is what the classifier
    prepares images to, or what the network was drawn for. `print(rk.summarise("resnet18"))` shows a table; `stages`,
    `parameters` and `multiply_adds` are its numbers. Multiply-adds are those of convolutions and the classifier, of one
    image, as the paper counts them.
    Raises `UsageError` (exit code 2) for an unknown name, a network that was changed by hand, one of more than
    `MOST_PARAMETERS`, and for a size below one pixel, below the stem's kernel where it has no padding, or above
    `LARGEST`.
    """
    name, arch, native_size, network = _described(model)
    if image_size is None:
        image_size = native_size
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    stem = _Tally(arch.conv_bias)
    x = _count_stem(stem, arch, *image_size)
    stages = [stem.stage("stem", x)]
    for number, (depth, width, stride) in enumerate(zip(arch.depths, arch.widths, arch.strides, strict=True), start=1):
        tally = _Tally(arch.conv_bias)
        for block in range(depth):
            x = _count_block(tally, arch, x, width, stride if block == 0 else 1)
        stages.append(tally.stage(f"layer{number}", x))
    head = _Tally(bias=True)
    if arch.preactivation:
        head.normalise(x[0])
    head.convolve((x[0], 1, 1), arch.num_classes)
    stages.append(head.stage("fc", (arch.num_classes,)))
    summary = Summary(arch, image_size, tuple(stages), name)
    if summary.parameters > MOST_PARAMETERS:
        raise UsageError(
            "the network is too large",
            why=f"it has {summary.parameters:,} parameters",
            remedy=f"at most {MOST_PARAMETERS:,}",
        )
    if network is not None:
        _check_unchanged(network, summary)
    return summary


def _described(model: Any) -> tuple[str, Arch, int, Any]:
    """Name, `Arch`, side in pixels, and the network if there is one. It is known by what it has, without torch."""
    if isinstance(model, str):
        arch = get_arch(model)
        return model, arch, arch.native_size, None
    if isinstance(model, Arch):
        return "network", model, model.native_size, None
    if isinstance(arch := getattr(model, "arch", None), Arch):
        return "network", arch, arch.native_size, model
    network = getattr(model, "network", None)
    if isinstance(arch := getattr(network, "arch", None), Arch):
        return model.model, arch, model.preprocess.size, network
    raise UsageError(
        f"a {type(model).__name__} cannot be summarised",
        remedy="a network's name, an Arch, a ResNet, or what rk.load gives",
    )


def _check_unchanged(network: Any, summary: Summary) -> None:
    held = sum(parameter.numel() for parameter in network.parameters())
    if held != summary.parameters:
        raise UsageError(
            "the network was changed by hand",
            why=f"it has {held:,} parameters, and by its arch there would be {summary.parameters:,}",
            remedy="net.reset_head(classes) for another head",
        )


def times(numbers: Sequence[int]) -> str:
    """A shape as it is written: `64 x 56 x 56`."""
    return " x ".join(map(str, numbers))


def aligned(rows: Sequence[Sequence[str]], *, numbers: int) -> list[str]:
    """Lines of a table whose first row is its heading; the last `numbers` columns stand to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = len(widths) - numbers
    lines = [
        "  ".join(
            f"{cell:{'<' if at < left else '>'}{width}}"
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


@dataclass
class _Tally:
    """What the layers of a stage add up to."""

    bias: bool
    parameters: int = 0
    multiply_adds: int = 0

    def convolve(
        self, x: Shape, width: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, padded: bool = True
    ) -> Shape:
        """Count a convolution of `x` to `width` channels; gives the shape that leaves it."""
        height, breadth = (_side(side, kernel, stride, padded=padded) for side in x[1:])
        weights = x[0] // groups * kernel**2  # that lead to each output number, at one multiply-add each
        self.parameters += width * (weights + self.bias)
        self.multiply_adds += width * height * breadth * weights
        return width, height, breadth

    def normalise(self, width: int) -> None:
        """Count a BatchNorm."""
        self.parameters += 2 * width

    def stage(self, name: str, output: tuple[int, ...]) -> Stage:
        return Stage(name, output, self.parameters, self.multiply_adds)


def _side(side: int, kernel: int, stride: int, *, padded: bool = True) -> int:
    """Height or width behind a window that moves by `stride`."""
    return (side + (kernel // 2 * 2 if padded else 0) - kernel) // stride + 1


def _count_stem(tally: _Tally, arch: Arch, height: int, width: int) -> Shape:
    """Count the stem; gives the shape that leaves it."""
    kernel, stride = (7, 2) if arch.stem == "imagenet" else (3, 1)
    smallest = 1 if arch.stem_padding else kernel
    if min(height, width) < smallest or max(height, width) > LARGEST:
        raise UsageError(
            f"images of {width} x {height} px cannot be",
            why=f"the smallest that works is {smallest} x {smallest}, the longest side {LARGEST:,}",
            remedy="--image-size 224",
        )
    x = tally.convolve((arch.in_channels, height, width), arch.stem_width, kernel, stride, padded=arch.stem_padding)
    if not arch.preactivation:
        tally.normalise(arch.stem_width)
    return (x[0], _side(x[1], 3, 2), _side(x[2], 3, 2)) if arch.stem == "imagenet" else x


def _count_block(tally: _Tally, arch: Arch, x: Shape, width: int, stride: int) -> Shape:
    """Count a block, its shortcut included; gives the shape that leaves it."""
    out_width, y = width * EXPANSION[arch.block], x
    for channels, kernel, step, groups in _convolutions(arch, width, stride):
        before, y = y, tally.convolve(y, channels, kernel, step, groups=groups)
        tally.normalise(before[0] if arch.preactivation else channels)
    keeps_shape = x[0] == out_width and stride == 1
    if arch.residual and (arch.shortcut == "C" or (arch.shortcut == "B" and not keeps_shape)):
        tally.convolve(x, out_width, stride=stride)
        if arch.projection_norm:
            tally.normalise(out_width)
    return y


def _convolutions(arch: Arch, width: int, stride: int) -> list[tuple[int, int, int, int]]:
    """Channels out, kernel, stride and groups of each convolution on a block's way."""
    if arch.block == "basic":
        return [(width, 3, stride, 1), (width, 3, 1, 1)]
    inner = arch.inner_width(width)
    first, second = (stride, 1) if arch.stride_on == "1x1" else (1, stride)
    return [(inner, 1, first, 1), (inner, 3, second, arch.groups), (width * EXPANSION["bottleneck"], 1, 1, 1)]
