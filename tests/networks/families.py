"""One small network of every kind that is built, with parameters as after training."""

from dataclasses import replace

import torch
from torch import nn

from resnetkit.networks.arch import VARIANTS
from resnetkit.networks.resnet import ResNet

KINDS = {
    "basic": "resnet18",
    "bottleneck": "resnet50",
    "groups": "resnext50_32x4d",
    "cifar": "resnet20",
    "plain": "plain20",
    "preactivation": "preact_resnet110",
    "preactivation bottleneck": "preact_resnet164",
    "d2l": "d2l_resnet18",
    "tutorial": "tutorial_resnet34",
}


def shallow(name: str, **changes) -> ResNet:
    """A variant with two blocks in its first stage and one in each other."""
    arch = VARIANTS[name]
    torch.manual_seed(0)
    network = ResNet(replace(arch, depths=(2, *[1] * (len(arch.depths) - 1)), **changes))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.0)
    return network.eval()


def images(network: ResNet, count: int = 2) -> torch.Tensor:
    return torch.randn(count, network.arch.in_channels, 32, 32, generator=torch.Generator().manual_seed(1))
