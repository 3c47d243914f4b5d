"""The networks: one `Arch`, one `ResNet`, and the table `VARIANTS`.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition (arXiv 1512.03385), called "the paper" below.
Parameters carry torchvision's names, in torchvision's order, so that published weights load as they are.
"""

import fnmatch
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from resnetkit.errors import UsageError

BlockKind = Literal["basic", "bottleneck"]
Shortcut = Literal["A", "B", "C"]


@dataclass(frozen=True)
class Arch:
    """What a network is, in numbers. Two networks differ where their `Arch` differs, and nowhere else."""

    depths: tuple[int, ...]
    """Blocks in each stage."""
    block: BlockKind = "basic"
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the width at the end (paper, Figure 5)."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of the 3x3 convolutions in each stage."""
    strides: tuple[int, ...] = (1, 2, 2, 2)
    """Stride of the first block of each stage."""
    stem: Literal["imagenet", "cifar"] = "imagenet"
    """7x7 stride 2 and max pooling (Table 1), or one 3x3 at full resolution (section 4.2)."""
    stem_width: int = 64
    """Channels after the stem."""
    residual: bool = True
    """False takes the shortcuts away and changes nothing else: the paper's plain network."""
    shortcut: Shortcut = "B"
    """Where the shape changes: A identity padded with zero channels, B projection; C projects everywhere."""
    stride_on: Literal["3x3", "1x1"] = "3x3"
    """Where a bottleneck strides: on the 3x3 (v1.5, as torchvision) or on the first 1x1 (v1, as the paper)."""
    conv_bias: bool = False
    """Biases in the convolutions of the stem and the blocks (redundant before BatchNorm)."""
    projection_norm: bool = True
    """BatchNorm behind a projection shortcut."""
    init: Literal["he", "torch"] = "he"
    """He initialisation of the convolutions (fan out), or what PyTorch's layers start with."""
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        if not len(self.depths) == len(self.widths) == len(self.strides) > 0:
            raise UsageError(
                "the network's stages do not fit together",
                why=f"depths {self.depths}, widths {self.widths} and strides {self.strides} differ in length",
                remedy="give one depth, one width and one stride for each stage",
            )
        smallest = min(*self.depths, *self.widths, *self.strides, self.stem_width, self.in_channels, self.num_classes)
        if smallest < 1:
            raise UsageError("the network cannot be built", why="a depth, width, stride or count is below 1")
        narrows = any(
            after < before for before, after in zip((self.stem_width, *self.out_widths), self.out_widths, strict=False)
        )
        if self.residual and self.shortcut == "A" and narrows:
            raise UsageError(
                "shortcut A cannot be built",
                why="a padded identity can only widen, and a stage here is narrower than the one before it",
                remedy='shortcut="B"',
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`, also after a way through JSON, where tuples became lists.

        Raises `UsageError` (exit code 2) for an unknown field or a value that it cannot have.
        """
        known = {field.name for field in fields(cls)}
        for key in values:
            if key not in known:
                raise UsageError.unknown("field of a network", key, known)
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = first["loc"][0] if first["loc"] else "a field"
            raise UsageError(f"{name} = {first['input']!r} cannot be", why=first["msg"]) from error

    @property
    def out_widths(self) -> tuple[int, ...]:
        """Channels that leave each stage."""
        return tuple(width * BLOCKS[self.block].expansion for width in self.widths)

    @property
    def layers(self) -> int:
        """Weighted layers on the longest path, as the paper counts them: stem, blocks, classifier."""
        return sum(self.depths) * BLOCKS[self.block].convolutions + 2


class PadShortcut(nn.Module):
    """Shortcut A (paper, section 3.3): subsample, then pad with zero channels. It has no parameters.

    The paper does not say on which side the zeros go. Half stand on each side, as in the published CIFAR-10 networks,
    whose weights compute something else with the zeros in another place.
    """

    def __init__(self, in_width: int, out_width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        before = (out_width - in_width) // 2
        self.padding = (0, 0, 0, 0, before, out_width - in_width - before)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_width, ceil(H / stride), ceil(W / stride))."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


def _shortcut(arch: Arch, in_width: int, out_width: int, stride: int) -> nn.Module:
    same_shape = in_width == out_width and stride == 1
    if same_shape and arch.shortcut != "C":
        return nn.Identity()
    if arch.shortcut == "A":
        return PadShortcut(in_width, out_width, stride)
    projection = nn.Conv2d(in_width, out_width, 1, stride, bias=arch.conv_bias)
    if not arch.projection_norm:
        return nn.Sequential(projection)
    return nn.Sequential(projection, nn.BatchNorm2d(out_width))


class _Block(nn.Module):
    """relu(F(x) + shortcut(x)), equation 1 of the paper. A subclass says what F is."""

    expansion: int
    convolutions: int
    downsample: nn.Module
    relu: nn.Module

    def residual(self, x: Tensor) -> Tensor:
        """F(x): (N, C, H, W) to (N, C', H', W'), before the addition and the last ReLU."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        out = self.residual(x)
        out += self.downsample(x)
        return self.relu(out)


class BasicBlock(_Block):
    """Two 3x3 convolutions (paper, Figure 5 left)."""

    expansion = 1
    convolutions = 2

    def __init__(self, arch: Arch, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, padding=1, bias=arch.conv_bias)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=arch.conv_bias)
        self.bn2 = nn.BatchNorm2d(width)
        if arch.residual:
            self.downsample = _shortcut(arch, in_width, width, stride)

    def residual(self, x: Tensor) -> Tensor:
        """F(x), equation 1, before the addition."""
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck(_Block):
    """1x1 to reduce, 3x3, 1x1 to restore four times the width (paper, Figure 5 right)."""

    expansion = 4
    convolutions = 3

    def __init__(self, arch: Arch, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        first, second = (stride, 1) if arch.stride_on == "1x1" else (1, stride)
        out_width = width * self.expansion
        self.conv1 = nn.Conv2d(in_width, width, 1, first, bias=arch.conv_bias)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, padding=1, bias=arch.conv_bias)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_width, 1, bias=arch.conv_bias)
        self.bn3 = nn.BatchNorm2d(out_width)
        self.relu = nn.ReLU(inplace=True)
        if arch.residual:
            self.downsample = _shortcut(arch, in_width, out_width, stride)

    def residual(self, x: Tensor) -> Tensor:
        """F(x), equation 1, before the addition."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


class PlainBasicBlock(BasicBlock):
    """relu(F(x)): the same layers with nothing added (paper, Figure 3 middle)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        return self.relu(self.residual(x))


class PlainBottleneck(Bottleneck):
    """relu(F(x)) for the bottleneck."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        return self.relu(self.residual(x))


BLOCKS: dict[BlockKind, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}
PLAIN_BLOCKS: dict[BlockKind, type[BasicBlock] | type[Bottleneck]] = {
    "basic": PlainBasicBlock,
    "bottleneck": PlainBottleneck,
}


class ResNet(nn.Module):
    """The network that an `Arch` describes: stem, stages `layer1` to `layerN`, global average pooling, `fc`.

    Input (N, C, H, W), normalised floats; output (N, num_classes), logits.
    """

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.arch = arch
        if arch.stem == "imagenet":
            self.conv1 = nn.Conv2d(arch.in_channels, arch.stem_width, 7, 2, padding=3, bias=arch.conv_bias)
            self.maxpool: nn.Module = nn.MaxPool2d(3, 2, padding=1)
        else:
            self.conv1 = nn.Conv2d(arch.in_channels, arch.stem_width, 3, padding=1, bias=arch.conv_bias)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(arch.stem_width)
        self.relu = nn.ReLU(inplace=True)

        block = (BLOCKS if arch.residual else PLAIN_BLOCKS)[arch.block]
        in_width = arch.stem_width
        self.stage_names = tuple(f"layer{i + 1}" for i in range(len(arch.depths)))
        for name, depth, width, stride in zip(self.stage_names, arch.depths, arch.widths, arch.strides, strict=True):
            blocks = [block(arch, in_width, width, stride)]
            in_width = width * block.expansion
            blocks += [block(arch, in_width, width, 1) for _ in range(depth - 1)]
            self.add_module(name, nn.Sequential(*blocks))

        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(in_width, arch.num_classes)
        if arch.init == "he":
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def iter_stages(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield `("stem", …)`, `("layer1", …)`, …: each stage's output, (N, C, H, W), in order."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        yield "stem", x
        for name in self.stage_names:
            x = self.get_submodule(name)(x)
            yield name, x

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """All intermediate outputs by name; each (N, C, H, W)."""
        return dict(self.iter_stages(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the last stage's output, (N, C', H', W')."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stage_names:
            x = self.get_submodule(name)(x)
        return x

    def forward_head(self, features: Tensor) -> Tensor:
        """The last stage's output, (N, C', H', W'), to logits, (N, num_classes)."""
        return self.fc(torch.flatten(self.avgpool(features), 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to logits, (N, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def reset_head(self, num_classes: int) -> None:
        """Put a new, freshly initialised classifier of `num_classes` outputs on the network."""
        old = self.fc.weight
        self.fc = nn.Linear(self.fc.in_features, num_classes, device=old.device, dtype=old.dtype)
        self.arch = replace(self.arch, num_classes=num_classes)


def _imagenet(block: BlockKind, *depths: int) -> Arch:
    return Arch(depths=depths, block=block)


def _cifar(blocks_per_stage: int) -> Arch:
    """Section 4.2: 6n+2 layers, widths 16, 32, 64, shortcut A."""
    return Arch(
        depths=(blocks_per_stage,) * 3,
        widths=(16, 32, 64),
        strides=(1, 2, 2),
        stem="cifar",
        stem_width=16,
        shortcut="A",
        num_classes=10,
    )


VARIANTS: dict[str, Arch] = {
    "resnet18": _imagenet("basic", 2, 2, 2, 2),
    "resnet34": _imagenet("basic", 3, 4, 6, 3),
    "resnet50": _imagenet("bottleneck", 3, 4, 6, 3),
    "resnet101": _imagenet("bottleneck", 3, 4, 23, 3),
    "resnet152": _imagenet("bottleneck", 3, 8, 36, 3),
    "resnet20": _cifar(3),
    "resnet32": _cifar(5),
    "resnet44": _cifar(7),
    "resnet56": _cifar(9),
    "resnet110": _cifar(18),
    "resnet1202": _cifar(200),
    "d2l_resnet18": Arch(
        depths=(2, 2, 2, 2), conv_bias=True, projection_norm=False, init="torch", in_channels=1, num_classes=10
    ),
}
"""Every named network. A variant is one line here and one line in tests/golden/variants.json."""


def list_models(pattern: str = "*") -> list[str]:
    """Names of the networks that match a shell pattern such as `resnet*`, in the table's order."""
    return [name for name in VARIANTS if fnmatch.fnmatch(name, pattern)]


def get_arch(name: str, **changes: Any) -> Arch:
    """The `Arch` of a named network with fields changed by name.

    Raises `UsageError` (exit code 2) for an unknown name or field, with the nearest known one.
    """
    if name not in VARIANTS:
        raise UsageError.unknown("model", name, VARIANTS, remedy="resnetkit list models")
    return Arch.from_dict(asdict(VARIANTS[name]) | changes)


def create_model(name: str, **changes: Any) -> ResNet:
    """Build a network with fresh parameters: `create_model("resnet18", stem="cifar", num_classes=10)`.

    `changes` are fields of `Arch`. Parameters come from PyTorch's global random state: call `torch.manual_seed` first.
    """
    return ResNet(get_arch(name, **changes))
