"""The blocks that networks are stacked from: basic and bottleneck, residual and plain, in the order of either paper.

Every use of a layer is a module of its own and works on a copy, so that hooks see each one: see `docs/networks.md`.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from resnetkit.arguments import checked
from resnetkit.networks.arch import EXPANSION, Arch, BlockKind

_PAPER = Arch(depths=(1, 1, 1, 1))
"""What a block is like that stands alone."""


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


class NarrowPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride, of few channels: the pixels between are left out before it, not by it.

    The same numbers. Of fewer than `SAFE` channels, oneDNN in PyTorch 2.15 corrupts memory in the backward pass of the
    other way on a CPU, and the process ends.
    """

    def forward(self, x: Tensor) -> Tensor:  # pyrefly: ignore[bad-override-param-name]
        """(N, C, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        down, right = self.stride
        return F.conv2d(x[:, :, ::down, ::right], self.weight, self.bias)


SAFE = 12
"""Channels from which on no harm was seen, of 8 with AVX512 and of 4 with AVX2."""


def _pointwise(in_width: int, out_width: int, stride: int, *, bias: bool) -> nn.Conv2d:
    narrow = stride > 1 and in_width < SAFE
    return (NarrowPointwise if narrow else nn.Conv2d)(in_width, out_width, 1, stride, bias=bias)


def _shortcut(arch: Arch, in_width: int, out_width: int, stride: int) -> nn.Module:
    same_shape = in_width == out_width and stride == 1
    if same_shape and arch.shortcut != "C":
        return nn.Identity()
    if arch.shortcut == "A":
        return PadShortcut(in_width, out_width, stride)
    projection = _pointwise(in_width, out_width, stride, bias=arch.conv_bias)
    norm = [nn.BatchNorm2d(out_width)] if arch.projection_norm else []
    return nn.Sequential(projection, *norm)


def _drop_path(probability: float) -> nn.Module:
    if not probability:
        return nn.Identity()
    from torchvision.ops import StochasticDepth

    return StochasticDepth(probability, mode="row")


class Block(nn.Module):
    """relu(F(x) + shortcut(x)), equation 1 of the paper. A subclass says what F is."""

    expansion: int
    last_norm: str
    downsample: nn.Module
    drop_path: nn.Module
    relu: nn.Module
    """The last one; those before it are numbered as the BatchNorms that they follow."""

    def residual(self, x: Tensor) -> Tensor:
        """F(x): (N, C, H, W) to (N, C', H', W'), before the addition and the last ReLU."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        out = self.drop_path(self.residual(x))
        out = out + self.downsample(x)
        return self.relu(out)


class BasicBlock(Block):
    """Two 3x3 convolutions (paper, Figure 5 left), as `BasicBlock(64, 128, stride=2)`.

    Where `out_channels` or `stride` change the shape, a projection stands in the shortcut. `arch` says what else there
    is to a network's blocks, biases for example; `first` marks the first of a network, `drop` is the probability of
    stochastic depth. Parameters are what PyTorch's layers start with.
    """

    expansion = EXPANSION["basic"]
    last_norm = "bn2"

    @checked()
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        arch: Arch = _PAPER,
        *,
        first: bool = False,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=arch.conv_bias)
        self.bn1 = nn.BatchNorm2d(in_channels if arch.preactivation else out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=arch.conv_bias)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.first = first
        if arch.residual:
            self.downsample = _shortcut(arch, in_channels, out_channels, stride)
            self.drop_path = _drop_path(drop)

    def residual(self, x: Tensor) -> Tensor:
        """F(x): convolution, BatchNorm, ReLU, convolution, BatchNorm."""
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck(Block):
    """1x1 to reduce, 3x3, 1x1 to restore four times the width (paper, Figure 5 right), as `Bottleneck(256, 64)`.

    `width` channels inside, and `4 * width` that come out, as torchvision and timm count them. The rest is as for
    `BasicBlock`; of `arch`, groups and where the stride stands count too.
    """

    expansion = EXPANSION["bottleneck"]
    last_norm = "bn3"

    @checked()
    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        arch: Arch = _PAPER,
        *,
        first: bool = False,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        before, on = (stride, 1) if arch.stride_on == "1x1" else (1, stride)
        out_width = width * self.expansion
        inner = arch.inner_width(width)
        norms = (in_channels, inner, inner) if arch.preactivation else (inner, inner, out_width)
        self.conv1 = _pointwise(in_channels, inner, before, bias=arch.conv_bias)
        self.bn1 = nn.BatchNorm2d(norms[0])
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner, inner, 3, on, padding=1, groups=arch.groups, bias=arch.conv_bias)
        self.bn2 = nn.BatchNorm2d(norms[1])
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(inner, out_width, 1, bias=arch.conv_bias)
        self.bn3 = nn.BatchNorm2d(norms[2])
        self.relu = nn.ReLU()
        self.first = first
        if arch.residual:
            self.downsample = _shortcut(arch, in_channels, out_width, stride)
            self.drop_path = _drop_path(drop)

    def residual(self, x: Tensor) -> Tensor:
        """F(x): three times convolution and BatchNorm, with ReLU between."""
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


class _Plain(Block):
    """relu(F(x)): the same layers with nothing added (paper, Figure 3 middle)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        return self.relu(self.residual(x))


class PlainBasicBlock(_Plain, BasicBlock):
    """The basic block without its shortcut."""


class PlainBottleneck(_Plain, Bottleneck):
    """The bottleneck without its shortcut."""


class _Preactivation(Block):
    """F(x) + x with nothing behind the addition (second paper, equations 1 and 2 with f the identity).

    Where the shape changes, and at the net's first block, both branches start from the activated input (the second
    paper's appendix and the code that was published with it).
    """

    first: bool
    bn1: nn.BatchNorm2d
    relu1: nn.ReLU

    def behind(self, activated: Tensor) -> Tensor:
        """F after its first BatchNorm and ReLU."""
        raise NotImplementedError

    def residual(self, x: Tensor) -> Tensor:
        """F(x), with its own BatchNorm and ReLU in front."""
        return self.behind(self.relu1(self.bn1(x)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        activated = self.relu1(self.bn1(x))
        out = self.drop_path(self.behind(activated))
        keeps_shape = isinstance(self.downsample, nn.Identity) and not self.first
        return out + self.downsample(x if keeps_shape else activated)


class PreactBasicBlock(_Preactivation, BasicBlock):
    """BatchNorm, ReLU, convolution, twice (second paper, Figure 4e)."""

    def behind(self, activated: Tensor) -> Tensor:
        """F after its first BatchNorm and ReLU."""
        return self.conv2(self.relu(self.bn2(self.conv1(activated))))


class PreactBottleneck(_Preactivation, Bottleneck):
    """BatchNorm, ReLU, convolution, three times."""

    def behind(self, activated: Tensor) -> Tensor:
        """F after its first BatchNorm and ReLU."""
        x = self.conv2(self.relu2(self.bn2(self.conv1(activated))))
        return self.conv3(self.relu(self.bn3(x)))


class _PlainPreactivation(_Preactivation):
    """F(x) alone, in the order of the second paper."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        return self.residual(x)


class PlainPreactBasicBlock(_PlainPreactivation, PreactBasicBlock):
    """The basic block of the second paper without its shortcut."""


class PlainPreactBottleneck(_PlainPreactivation, PreactBottleneck):
    """The bottleneck of the second paper without its shortcut."""


_CLASSES: dict[tuple[BlockKind, bool, bool], type[BasicBlock] | type[Bottleneck]] = {
    ("basic", True, False): BasicBlock,
    ("basic", False, False): PlainBasicBlock,
    ("basic", True, True): PreactBasicBlock,
    ("basic", False, True): PlainPreactBasicBlock,
    ("bottleneck", True, False): Bottleneck,
    ("bottleneck", False, False): PlainBottleneck,
    ("bottleneck", True, True): PreactBottleneck,
    ("bottleneck", False, True): PlainPreactBottleneck,
}


def block_class(kind: BlockKind, *, residual: bool, preactivation: bool) -> type[BasicBlock] | type[Bottleneck]:
    """The class of a network's blocks; which parts a block has is decided here, and not in its forward."""
    return _CLASSES[kind, residual, preactivation]
