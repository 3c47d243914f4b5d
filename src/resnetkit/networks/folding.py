"""A network for inference: every BatchNorm behind a convolution is folded into it."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resnetkit.networks.resnet import ResNet


def fold(network: ResNet) -> ResNet:
    """A copy for inference, faster on a CPU; exact up to rounding, some 1e-6 of the largest logit."""
    folded = copy.deepcopy(network).eval()
    for parent in folded.modules():
        before: tuple[str, nn.Conv2d] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                before = (name, child)
            elif isinstance(child, nn.BatchNorm2d) and before is not None and _follows(network, before[1], child):
                parent.add_module(before[0], fuse_conv_bn_eval(before[1], child))
                parent.add_module(name, nn.Identity())
                before = None
    return folded


def _follows(network: ResNet, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """In the order of the second paper, BatchNorm stands in front of its convolution and cannot be folded into it."""
    return not network.arch.preactivation and conv.out_channels == norm.num_features
