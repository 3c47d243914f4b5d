"""The network that an `Arch` describes: one class for all of them.

Parameters carry torchvision's names, in torchvision's order, so that published weights load as they are.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from resnetkit.errors import UsageError
from resnetkit.networks.arch import Arch, get_arch
from resnetkit.networks.blocks import block_class
from resnetkit.networks.elsewhere import ATTRIBUTES
from resnetkit.networks.summary import summarise


class ResNet(nn.Module):
    """The network that an `Arch` describes: stem, stages `layer1` to `layerN`, global average pooling, `fc`.

    Input (N, C, H, W), normalised floats; output (N, num_classes), logits: what its children give, one after another.
    Without `initialise` the convolutions keep what PyTorch gave them, for parameters that are about to be loaded.
    """

    def __init__(self, arch: Arch, *, initialise: bool = True) -> None:
        super().__init__()
        if not isinstance(arch, Arch):
            raise UsageError("a ResNet is built from an Arch", remedy='rk.create_model("resnet18")')
        summarise(arch, arch.native_size)  # refuses, before anything is built, what would take all memory
        self.arch = arch
        self.recompute = False
        """Trade time for memory in training: keep one activation in about sqrt(depth), compute the others again."""
        kernel, stride = (7, 2) if arch.stem == "imagenet" else (3, 1)
        padding = kernel // 2 if arch.stem_padding else 0
        self.conv1 = nn.Conv2d(arch.in_channels, arch.stem_width, kernel, stride, padding, bias=arch.conv_bias)
        # A pre-activation block brings its own BatchNorm and ReLU; the last block's output has to be given them here.
        self.bn1 = nn.Identity() if arch.preactivation else nn.BatchNorm2d(arch.stem_width)
        self.relu = nn.Identity() if arch.preactivation else nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if arch.stem == "imagenet" else nn.Identity()

        block = block_class(arch.block, residual=arch.residual, preactivation=arch.preactivation)
        in_width, built, total = arch.stem_width, 0, sum(arch.depths)
        self.stage_names = tuple(f"layer{i + 1}" for i in range(len(arch.depths)))
        for name, depth, width, stride in zip(self.stage_names, arch.depths, arch.widths, arch.strides, strict=True):
            blocks: list[nn.Module] = []
            for number in range(depth):
                built += 1
                drop = arch.drop_path * built / total
                blocks.append(block(in_width, width, stride if number == 0 else 1, arch, first=built == 1, drop=drop))
                in_width = width * block.expansion
            self.add_module(name, nn.Sequential(*blocks))
        last = [nn.BatchNorm2d(in_width), nn.ReLU()] if arch.preactivation else []
        self.norm = nn.Sequential(*last)

        # One child, so that all but the last two are the convolutions here as in torchvision's nets.
        self.avgpool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(in_width, arch.num_classes)
        if arch.init == "he" and initialise:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if arch.zero_init_residual and initialise:
            for name in self.stage_names:
                for each in self.get_submodule(name).children():
                    nn.init.zeros_(each.get_submodule(block.last_norm).get_parameter("weight"))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name not in ATTRIBUTES:
                raise
            raise AttributeError(f"a ResNet has no {name!r}. Try: {ATTRIBUTES[name]}") from None

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier."""
        return self.arch.num_classes

    @property
    def num_features(self) -> int:
        """Channels that the classifier is given."""
        return self.arch.out_widths[-1]

    def iter_stages(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield `("stem", …)`, `("layer1", …)`, …: each stage's output, (N, C, H, W), in order."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        yield "stem", x
        for name in self.stage_names:
            stage = self.get_submodule(name)
            x = recomputed(stage, x) if self.recompute and self.training else stage(x)
            yield name, x

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """All intermediate outputs by name; each (N, C, H, W)."""
        return dict(self.iter_stages(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to what the head sees: the last stage's output, (N, C', H', W')."""
        for _, out in self.iter_stages(x):
            x = out
        return self.norm(x)

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """What `forward_features` gives, (N, C', H', W'), to logits, (N, num_classes).

        With `pre_logits` to what the classifier is given: pooled features, (N, num_features).
        """
        pooled = torch.flatten(self.avgpool(features), 1)  # also where someone has put in a pooling that does not
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to logits, (N, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def reset_head(self, num_classes: int) -> None:
        """Put a new, freshly initialised classifier of `num_classes` outputs on the network."""
        old = self.fc.weight
        self.fc = nn.Linear(self.fc.in_features, num_classes, device=old.device, dtype=old.dtype)
        self.arch = replace(self.arch, num_classes=num_classes)

    reset_classifier = reset_head
    """timm's name for it."""

    def get_classifier(self) -> nn.Module:
        """`fc`, by timm's name for it."""
        return self.fc


def recomputed(stage: nn.Module, x: Tensor) -> Tensor:
    """Run a stage of blocks so that training keeps only about sqrt(blocks) of their activations.

    BatchNorm counts a batch once: its running statistics do not move while activations are computed again.
    """
    from torch.utils.checkpoint import checkpoint

    blocks = list(stage.children())
    length = max(1, round(math.sqrt(len(blocks))))
    for start in range(0, len(blocks), length):
        part = blocks[start : start + length]
        # torch.compile takes no context of ours, and needs none: in its graph statistics move once, as they should.
        contexts: dict[str, Any] = {} if torch.compiler.is_compiling() else {"context_fn": partial(_contexts, part)}
        x = checkpoint(_through, part, x, use_reentrant=False, **contexts)
    return x


def _through(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


def _contexts(blocks: Sequence[nn.Module]) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Around computing for the first time, and around computing again."""
    return nullcontext(), _still(blocks)


@contextmanager
def _still(blocks: Sequence[nn.Module]) -> Iterator[None]:
    norms = [module for block in blocks for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def build(name: str, **changes: Any) -> ResNet:
    """A network with fresh parameters: `build("resnet18", stem="cifar", num_classes=10)`.

    `changes` are fields of `Arch`. Parameters come from PyTorch's global random state: call `torch.manual_seed` first.
    """
    return ResNet(get_arch(name, **changes))
