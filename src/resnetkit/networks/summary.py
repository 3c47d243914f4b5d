"""A network stage by stage: output shape, parameters, multiply-adds.

They follow from the `Arch` by arithmetic, without torch and without building the network.
"""

from dataclasses import dataclass
from typing import Any

from resnetkit.arguments import checked
from resnetkit.errors import UsageError
from resnetkit.networks.arch import EXPANSION, Arch

MOST_PARAMETERS = 2_000_000_000
"""8 GB of float32, twice as many as the widest residual network that was published has."""
Shape = tuple[int, int, int]
LARGEST = 65_536
"""Pixels of a side, of any picture that can be."""
"""(C, H, W)."""


@dataclass(frozen=True)
class Stage:
    """One row. `output` is (C, H, W), or (classes,) for the head; `multiply_adds` are those of one image."""

    name: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """All rows of a network at one input size, and their sums."""

    arch: Arch
    image_size: tuple[int, int]
    stages: tuple[Stage, ...]

    @property
    def parameters(self) -> int:
        """Trained numbers in the whole network."""
        return sum(stage.parameters for stage in self.stages)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image; half of what is often called FLOPs."""
        return sum(stage.multiply_adds for stage in self.stages)

    def _repr_html_(self) -> str:
        rows = [(each.name, each.output, each.parameters, each.multiply_adds) for each in self.stages]
        rows.append((f"{self.arch.layers} layers", (), self.parameters, self.multiply_adds))
        cells = [(name, " x ".join(map(str, shape)), f"{count:,}", f"{adds:,}") for name, shape, count, adds in rows]
        head = ("stage", "output (C, H, W)", "parameters", "multiply-adds")
        lines = [f"<tr><th>{'</th><th>'.join(head)}</th></tr>"]
        lines += [f"<tr><td>{'</td><td>'.join(line)}</td></tr>" for line in cells]
        return f"<table>{''.join(lines)}</table>"

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


@checked(arch="resnetkit.create_model(NAME).arch")
def summarise(arch: Arch, image_size: int | tuple[int, int]) -> Summary:
    """Summarise a network for images of `image_size` pixels, a side or (height, width).

    Multiply-adds are those of convolutions and the classifier, as the paper counts them.
    Raises `UsageError` (exit code 2) for a network of more than `MOST_PARAMETERS`, and for a size below one pixel,
    below the stem's kernel where it has no padding, or above `LARGEST`.
    """
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
    summary = Summary(arch, image_size, tuple(stages))
    if summary.parameters > MOST_PARAMETERS:
        raise UsageError(
            "the network is too large",
            why=f"it has {summary.parameters:,} parameters",
            remedy=f"at most {MOST_PARAMETERS:,}",
        )
    return summary


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
