"""What runs a frozen backbone over batches: PyTorch, or OpenVINO for large jobs on the CPU where it is installed.

Both are given uint8 pixels and give features, equal up to rounding. On the CPU as many batches run side by side as
there are threads; who decodes a batch then computes it, with one thread. That is as fast as all threads on one batch
where the processor is free, and up to four times as fast where others use it too: no thread waits for another.
"""

from contextlib import nullcontext
from importlib.util import find_spec
from threading import Lock
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.device import Compute
from resnetkit.networks.folding import fold
from resnetkit.networks.resnet import ResNet
from resnetkit.transfer.openvino import OpenVINOEngine

BATCH_PIXELS = 8 * 224 * 224
"""Pixels in a batch on the CPU. Measured: 8 photographs run a fifth faster than 32; they fit the caches better."""
DEVICE_BATCH = 64
LARGE_JOB = 100
"""Views from which OpenVINO pays. Measured on two cores without bf16: it takes 0.15 s more to start, and 2 ms less for
each photograph of ResNet-18, so that 65 make up for it; `docs/transfer.md` has the figures."""


class Engine(Protocol):
    """A frozen backbone, ready. Calls may come from several threads."""

    name: str

    def __call__(self, pixels: Tensor) -> np.ndarray:
        """uint8 pixels (N, C, H, W), N at most the batch, to features (N, width), float32."""
        ...


def batch_size(compute: Compute, size: int, views: int, workers: int) -> int:
    """Images of `size` px a batch: as many as run fastest, and fewer where workers would else have nothing to do."""
    most = DEVICE_BATCH if compute.device.type != "cpu" else min(256, max(1, BATCH_PIXELS // size**2))
    return max(1, min(most, -(-views // (2 * workers))))


def create_engine(
    network: ResNet, preprocess: Preprocess, compute: Compute, *, views: int, batch: int, workers: int
) -> Engine:
    """The engine for a job of `views` images, asked by `workers` threads. The network is only read: a copy runs."""
    folded = fold(network)
    if views >= LARGE_JOB and compute.device.type == "cpu" and find_spec("openvino") is not None:
        try:
            return OpenVINOEngine(folded, preprocess, compute, batch=batch, streams=workers)
        except NotImplementedError:
            pass  # PyTorch runs every network, in every precision
    return TorchEngine(folded, preprocess, compute)


class TorchEngine:
    """A folded network in PyTorch, channels-last."""

    name = "PyTorch"

    def __init__(self, folded: ResNet, preprocess: Preprocess, compute: Compute) -> None:
        self.network, self.preprocess, self.compute = compute.network(folded), preprocess, compute
        if compute.lower is not None:
            for module in self.network.modules():
                if isinstance(module, nn.Conv2d):
                    module.to(compute.lower)  # as autocast would, but once and not for every batch
        self.turn = nullcontext() if compute.device.type == "cpu" else Lock()

    def __call__(self, pixels: Tensor) -> np.ndarray:
        """uint8 pixels (N, C, H, W) to features (N, width), float32."""
        network = self.network
        with self.turn, torch.inference_mode(), self.compute.autocast():
            images = self.preprocess.normalise(self.compute.tensor(pixels))
            return network.avgpool(network.forward_features(images)).flatten(1).float().cpu().numpy()
