"""What networks are, in numbers: `Arch`, and the table `VARIANTS` of every network that has a name.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition (arXiv 1512.03385), called "the paper"; and Identity
Mappings in Deep Residual Networks (arXiv 1603.05027), "the second paper".
"""

import fnmatch
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from resnetkit.arguments import checked
from resnetkit.errors import UsageError, wrong_field
from resnetkit.networks.elsewhere import ARGUMENTS

BlockKind = Literal["basic", "bottleneck"]
EXPANSION: dict[BlockKind, int] = {"basic": 1, "bottleneck": 4}
"""Channels that a block puts out for each channel of its stage's width."""
CONVOLUTIONS: dict[BlockKind, int] = {"basic": 2, "bottleneck": 3}

MOST_STAGES = 16
MOST_BLOCKS = 10_000
Count = Annotated[int, Field(ge=1, le=1 << 20)]
Counts = Annotated[tuple[Count, ...], Field(max_length=MOST_STAGES)]
Probability = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", use_attribute_docstrings=True))
class Arch:
    """What a network is, in numbers. Two networks differ where their `Arch` differs, and nowhere else.

    The sentence under a field is also the help of its flag, `--model.FIELD`.
    Raises `UsageError` (exit code 2) for a value that a field cannot have, and for values that do not go together.
    """

    depths: Counts
    """Blocks in each stage."""
    block: BlockKind = "basic"
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the width at the end (paper, Figure 5)."""
    widths: Counts = (64, 128, 256, 512)
    """Channels of a stage; a bottleneck puts out four times as many."""
    strides: Counts = (1, 2, 2, 2)
    """Stride of the first block of each stage."""
    stem: Literal["imagenet", "cifar"] = "imagenet"
    """7x7 stride 2 and max pooling (Table 1), or one 3x3 at full resolution (section 4.2)."""
    stem_width: Count = 64
    """Channels after the stem."""
    stem_padding: bool = True
    """False lets the stem's convolution leave out the border, as one of the tutorials does."""
    residual: bool = True
    """False takes the shortcuts away and changes nothing else: the paper's plain network."""
    preactivation: bool = False
    """BatchNorm and ReLU before each convolution instead of behind it (second paper, Figure 4e)."""
    shortcut: Literal["A", "B", "C"] = "B"
    """Where the shape changes: A identity padded with zero channels, B projection; C projects everywhere."""
    stride_on: Literal["3x3", "1x1"] = "3x3"
    """Where a bottleneck strides: on the 3x3 (v1.5, as torchvision) or on the first 1x1 (v1, as the paper)."""
    groups: Count = 1
    """Groups of a bottleneck's 3x3 convolution: ResNeXt's cardinality (arXiv 1611.05431)."""
    group_width: Count = 64
    """Channels of each group, for a stage of width 64; 128 in a single group makes a wide net (arXiv 1605.07146)."""
    conv_bias: bool = False
    """Biases in the convolutions of the stem and the blocks (redundant before BatchNorm)."""
    projection_norm: bool = True
    """BatchNorm behind a projection shortcut."""
    init: Literal["he", "torch"] = "he"
    """He initialisation of the convolutions (fan out), or what PyTorch's layers start with."""
    zero_init_residual: bool = False
    """Start every block as the identity: its last BatchNorm begins with weight zero (arXiv 1706.02677)."""
    drop_path: Probability = 0.0
    """Stochastic depth (arXiv 1603.09382): probability of leaving out the last block; earlier ones in proportion."""
    in_channels: Count = 3
    """Channels of an image."""
    num_classes: Count = 1000
    """Outputs of the classifier."""

    @model_validator(mode="wrap")
    @classmethod
    def _in_our_words(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(values)
        except ValidationError as error:
            first, names = error.errors()[0], [field.name for field in fields(cls)]
            name, given = wrong_field(first, names)
            if name in ARGUMENTS:
                raise UsageError(f"unknown field of a network {name!r}", remedy=ARGUMENTS[name]) from error
            if name not in names:
                raise UsageError.unknown("field of a network", name[:80], names) from error
            remedy = ARGUMENTS.get(f"{name}={given}")
            raise UsageError(f"{name} = {given} cannot be", why=first["msg"], remedy=remedy) from error

    def __post_init__(self) -> None:
        if not len(self.depths) == len(self.widths) == len(self.strides) > 0:
            raise UsageError(
                "the network's stages do not fit together",
                why=f"depths {self.depths}, widths {self.widths} and strides {self.strides} differ in length",
                remedy="give one depth, one width and one stride for each stage",
            )
        if sum(self.depths) > MOST_BLOCKS:
            raise UsageError(
                "the network is too large",
                why=f"it has {sum(self.depths):,} blocks",
                remedy=f"at most {MOST_BLOCKS:,} blocks",
            )
        if self.block == "bottleneck" and min(map(self.inner_width, self.widths)) < 1:
            raise UsageError(
                f"group_width = {self.group_width} cannot be", why="a stage would have groups of no channel"
            )
        if self.block == "basic" and (self.groups, self.group_width) != (1, 64):
            raise UsageError("groups need a bottleneck", remedy='block="bottleneck"')
        if self.preactivation and self.zero_init_residual:
            raise UsageError(
                "zero_init_residual cannot be with preactivation", why="no BatchNorm stands at the end of a block"
            )
        narrows = any(
            after < before for before, after in zip((self.stem_width, *self.out_widths), self.out_widths, strict=False)
        )
        if self.residual and self.shortcut == "A" and narrows:
            raise UsageError(
                "shortcut A cannot be built",
                why="a padded identity can only widen, and a stage here is narrower than the one before it",
                remedy='shortcut="B"',
            )

    @property
    def out_widths(self) -> tuple[int, ...]:
        """Channels that leave each stage."""
        return tuple(width * EXPANSION[self.block] for width in self.widths)

    def inner_width(self, width: int) -> int:
        """Channels of the 3x3 convolution of a bottleneck, in a stage of this width."""
        return int(width * (self.group_width / 64)) * self.groups

    @property
    def native_size(self) -> int:
        """The side in pixels that the network was drawn for."""
        return 224 if self.stem == "imagenet" else 32

    @property
    def source(self) -> str:
        """Where the network is from, in a word or two."""
        if self.init == "torch":
            return "tutorial"
        if self.preactivation:
            return "He 2016"
        if self.groups > 1:
            return "Xie 2017"
        return "Zagoruyko 2016" if self.group_width != 64 else "He 2015"

    @property
    def layers(self) -> int:
        """Weighted layers on the longest path, as the paper counts them: stem, blocks, classifier."""
        return sum(self.depths) * CONVOLUTIONS[self.block] + 2


def _imagenet(block: BlockKind, *depths: int, **changes: Any) -> Arch:
    return Arch(depths=depths, block=block, **changes)


def _cifar(blocks_per_stage: int, **changes: Any) -> Arch:
    """Section 4.2: 6n+2 layers, widths 16, 32, 64, shortcut A."""
    settings: dict[str, Any] = {"shortcut": "A", "stem": "cifar", "stem_width": 16, "num_classes": 10} | changes
    return Arch(depths=(blocks_per_stage,) * 3, widths=(16, 32, 64), strides=(1, 2, 2), **settings)


def _preact_bottleneck(blocks_per_stage: int) -> Arch:
    """Second paper, section 4: 9n+2 layers; where the shape changes, a bare projection of the activated input."""
    return _cifar(blocks_per_stage, block="bottleneck", preactivation=True, shortcut="B", projection_norm=False)


VARIANTS: dict[str, Arch] = {
    "resnet18": _imagenet("basic", 2, 2, 2, 2),
    "resnet34": _imagenet("basic", 3, 4, 6, 3),
    "resnet50": _imagenet("bottleneck", 3, 4, 6, 3),
    "resnet101": _imagenet("bottleneck", 3, 4, 23, 3),
    "resnet152": _imagenet("bottleneck", 3, 8, 36, 3),
    "wide_resnet50_2": _imagenet("bottleneck", 3, 4, 6, 3, group_width=128),
    "wide_resnet101_2": _imagenet("bottleneck", 3, 4, 23, 3, group_width=128),
    "resnext50_32x4d": _imagenet("bottleneck", 3, 4, 6, 3, groups=32, group_width=4),
    "resnext101_32x8d": _imagenet("bottleneck", 3, 4, 23, 3, groups=32, group_width=8),
    "resnext101_64x4d": _imagenet("bottleneck", 3, 4, 23, 3, groups=64, group_width=4),
    "plain18": _imagenet("basic", 2, 2, 2, 2, residual=False),
    "plain34": _imagenet("basic", 3, 4, 6, 3, residual=False),
    "resnet20": _cifar(3),
    "resnet32": _cifar(5),
    "resnet44": _cifar(7),
    "resnet56": _cifar(9),
    "resnet110": _cifar(18),
    "resnet1202": _cifar(200),
    "plain20": _cifar(3, residual=False),
    "plain32": _cifar(5, residual=False),
    "plain44": _cifar(7, residual=False),
    "plain56": _cifar(9, residual=False),
    "plain110": _cifar(18, residual=False),
    "preact_resnet110": _cifar(18, preactivation=True),
    "preact_resnet164": _preact_bottleneck(18),
    "preact_resnet1001": _preact_bottleneck(111),
    "d2l_resnet18": _imagenet(
        "basic", 2, 2, 2, 2, conv_bias=True, projection_norm=False, init="torch", in_channels=1, num_classes=10
    ),
    "tutorial_resnet34": _imagenet("basic", 3, 4, 6, 3, widths=(128, 256, 512, 512), init="torch"),
}
"""Every named network. A variant is one line here and one line in tests/networks/golden/variants.json."""


OUTSIDE = ("num_classes", "in_channels")
"""Fields that say what a network is used for."""
BEGINNINGS = ("init", "zero_init_residual", "drop_path")
"""Fields that say how it is trained: no trained network tells whether they were others."""


def changed_fields(arch: Arch, other: Arch) -> dict[str, Any]:
    """What of a network is not as in another, by field, as far as the answers depend on it; not its use."""
    mine, theirs = asdict(arch), asdict(other)
    return {name: mine[name] for name in mine if name not in (*OUTSIDE, *BEGINNINGS) and mine[name] != theirs[name]}


def worded(name: str, changes: Mapping[str, Any]) -> str:
    """A network by its name and what was changed of it: "resnet20 with depths 1,1,1, stem cifar"."""
    said = [
        f"{key} {','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for key, value in changes.items()
    ]
    return f"{name} with {', '.join(said)}" if said else name


@checked()
def list_models(pattern: str = "*") -> list[str]:
    """Names of the networks that match a shell pattern such as `resnet*`, in the table's order."""
    return [name for name in VARIANTS if fnmatch.fnmatch(name, pattern)]


def get_arch(name: str, **changes: Any) -> Arch:
    """The `Arch` of a named network with fields changed by name.

    Raises `UsageError` (exit code 2) for an unknown name or field, with the nearest known one.
    """
    if name not in VARIANTS:
        raise UsageError.unknown("model", name, VARIANTS, remedy="resnetkit list models")
    settings: dict[str, Any] = asdict(VARIANTS[name]) | changes
    return Arch(**settings)


def describe(name: str, arch: Arch) -> str:
    """What a network is called: its variant, and where other fields than channels and classes differ from it, which.

    For example "resnet20 changed: depths 1,1,1, widths 32,64,128 (8 layers)".
    """
    if name not in VARIANTS:
        return f"{name} ({arch.layers} layers)"
    given, known = asdict(arch), asdict(VARIANTS[name])
    changed = [
        f"{field} {','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for field, value in given.items()
        if value != known[field] and field not in ("in_channels", "num_classes")
    ]
    return f"{name} changed: {', '.join(changed)} ({arch.layers} layers)" if changed else name
