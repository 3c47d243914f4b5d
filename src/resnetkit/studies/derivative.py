"""Derivatives of a network, taken apart: the gradient of each layer, and the formula behind a shortcut."""

import copy
import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnetkit.networks.arch import get_arch
from resnetkit.networks.blocks import Block, block_class
from resnetkit.networks.resnet import ResNet
from resnetkit.randomness import torch_seed
from resnetkit.studies.fit import SHAPES

RECOMPUTED = 200
"""Deeper nets keep few activations, so that memory is bounded."""


def layer_gradients(
    network: ResNet, images: Tensor, labels: Tensor, parts: int
) -> tuple[float, list[dict[str, float]]]:
    """The mean loss, and for every convolution on the longest path what the gradient is like there.

    `images` (N, C, H, W), normalised, and `labels` (N,) are cut into `parts` mini-batches. Of each layer:
    `gradient`, norm of the mean gradient of the weights; `relative`, that over the norm of the weights; `signal`, norm
    of the loss's derivative by the layer's output, root mean square over images; `snr`, norm of the true gradient over
    the noise of one mini-batch's, without the bias that few mini-batches bring.
    The network itself is left alone: a copy in double precision computes, which holds what single precision rounds
    to 0.
    """
    network = copy.deepcopy(network).double().train()
    network.recompute = network.arch.layers > RECOMPUTED
    layers = [m for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and "downsample" not in name]
    sums = [torch.zeros_like(layer.weight) for layer in layers]
    squares, signals = [0.0] * len(layers), [0.0] * len(layers)
    for number, layer in enumerate(layers):

        def add(gradient: Tensor, number: int = number) -> None:
            sums[number] += gradient
            squares[number] += float(gradient.square().sum())

        def see(_layer: nn.Module, _given: Any, out: Tensor, number: int = number) -> None:
            def note(gradient: Tensor) -> None:
                signals[number] += len(gradient) * float(gradient.square().sum())

            if out.requires_grad:
                out.register_hook(note)

        layer.weight.register_hook(add)
        layer.register_forward_hook(see)
    loss = 0.0
    for some, wanted in zip(images.double().chunk(parts), labels.chunk(parts), strict=True):
        part_loss = F.cross_entropy(network(some), wanted)
        part_loss.backward()
        network.zero_grad()
        loss += float(part_loss.detach()) / parts
    found = []
    for layer, total, square, signal in zip(layers, sums, squares, signals, strict=True):
        norm = float((total.detach() / parts).norm())
        noise = max(0.0, (square - parts * norm**2) / (parts - 1))
        snr = math.sqrt(max(0.0, norm**2 - noise / parts) / noise) if noise else math.nan
        weight = float(layer.weight.detach().norm())
        found.append({"gradient": norm, "relative": norm / weight, "signal": math.sqrt(signal / parts), "snr": snr})
    return loss, found


@dataclass(frozen=True)
class Identity:
    """What became of d(x + F(x))/dx = I + dF/dx in a block of the product."""

    mismatch: float
    """Largest difference between the formula and the block's derivative by finite differences."""
    open: float
    """Share of the outputs through whose last ReLU a gradient passes; 1 where there is none."""


def check_identity(shape: str, seed: int) -> Identity:
    """Compare the formula with a small block of this shape, in double precision.

    dF/dx is autograd's; the block's own derivative is found by central differences of its forward, so that neither can
    agree by construction. In the first paper's block a ReLU follows the sum: the formula's rows are kept where it is
    open. A plain block is held against the same formula, which it has no reason to fulfil.
    """
    arch = get_arch("resnet20", widths=(4, 4, 4), stem_width=4, **SHAPES[shape])
    with torch_seed(seed, "identity"):
        kind = block_class(arch.block, residual=arch.residual, preactivation=arch.preactivation)
        block: Block = kind(4, 4, 1, arch).double().eval()
        x = torch.randn(1, 4, 4, 4, dtype=torch.float64)
    size, nudge = x.numel(), 1e-6
    with torch.no_grad():
        steps = nudge * torch.eye(size, dtype=x.dtype).view(size, *x.shape[1:])
        differences = ((block(x + steps) - block(x - steps)) / (2 * nudge)).view(size, size).T
        passes = torch.ones(size, dtype=x.dtype) if arch.preactivation else (block(x.clone()).flatten() > 0).double()
    of_branch = cast("Tensor", torch.autograd.functional.jacobian(block.residual, x)).view(size, size)
    formula = passes.unsqueeze(1) * (torch.eye(size, dtype=x.dtype) + of_branch)
    return Identity(float((differences - formula).abs().max()), float(passes.mean()))
