"""What runs a frozen backbone over batches: PyTorch, or OpenVINO for large jobs on the CPU where it is installed.

Both are given uint8 pixels and give features, equal up to rounding. On the CPU as many batches run side by side as
there are threads; who decodes a batch then computes it, with one thread. That is as fast as all threads on one batch
where the processor is free, and up to four times as fast where others use it too: no thread waits for another.
"""

import copy
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from threading import Lock, local
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resnetkit.device import Compute
from resnetkit.model import ResNet
from resnetkit.preprocess import Preprocess

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
        if compute.precision == "bf16":
            for module in self.network.modules():
                if isinstance(module, nn.Conv2d):
                    module.to(torch.bfloat16)  # as autocast would, but once and not for every batch
        self.turn = nullcontext() if compute.device.type == "cpu" else Lock()

    def __call__(self, pixels: Tensor) -> np.ndarray:
        """uint8 pixels (N, C, H, W) to features (N, width), float32."""
        network = self.network
        with self.turn, torch.inference_mode(), self.compute.autocast():
            images = self.preprocess.normalise(self.compute.tensor(pixels))
            return network.avgpool(network.forward_features(images)).flatten(1).float().cpu().numpy()


class OpenVINOEngine:
    """A folded network as a graph of OpenVINO, with as many streams as threads that ask.

    Raises `NotImplementedError` for a layer that is not translated, and for a precision that cannot be had.
    """

    name = "OpenVINO"

    def __init__(self, folded: ResNet, preprocess: Preprocess, compute: Compute, *, batch: int, streams: int) -> None:
        openvino = import_openvino()
        model = _write_down(openvino, folded, preprocess, batch)
        # Said in so many words: left alone, it takes bf16 wherever the processor has it; and where that is asked for
        # and the processor has it not, it takes fp32 and says nothing.
        asked = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}[compute.precision]
        settings = {
            "INFERENCE_PRECISION_HINT": asked,
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": str(streams),
        }
        self.compiled, self.batch, self.mine = openvino.Core().compile_model(model, "CPU", settings), batch, local()
        if self.compiled.get_property("INFERENCE_PRECISION_HINT") != asked:
            raise NotImplementedError(compute.precision)

    def __call__(self, pixels: Tensor) -> np.ndarray:
        """uint8 pixels (N, C, H, W) to features (N, width), float32."""
        if not hasattr(self.mine, "request"):
            self.mine.request = self.compiled.create_infer_request()
        count = len(pixels)
        if count < self.batch:
            pixels = torch.cat([pixels, pixels.new_zeros(self.batch - count, *pixels.shape[1:])])
        (found,) = self.mine.request.infer([pixels.numpy()]).values()
        return found[:count].copy()


def fold(network: ResNet) -> ResNet:
    """A copy for inference: every BatchNorm behind a convolution is folded into it, which is exact up to rounding."""
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


def import_openvino() -> Any:
    """OpenVINO without its telemetry, which reports every import to a server and keeps a number for the user on disk.

    It has a stand-in for where that package is missing; so, while it is imported, it is.
    """
    name = "openvino_telemetry"
    hidden = name not in sys.modules
    if hidden:
        sys.modules[name] = None  # pyrefly: ignore
    try:
        return import_module("openvino")
    finally:
        if hidden:
            del sys.modules[name]


class _Written:
    """Stands in for a tensor while a network's own forward pass is run, and writes it down as a graph."""

    def __init__(self, ops: Any, node: Any) -> None:
        self.ops, self.node = ops, node

    @classmethod
    def __torch_function__(cls, func: Callable, types: object, args: tuple = (), kwargs: Any = None) -> "_Written":
        """What PyTorch calls in place of its functions."""
        translate = _TRANSLATIONS.get(func.__name__.rstrip("_"))
        if translate is None:
            raise NotImplementedError(func.__name__)
        ops = args[0].ops
        return cls(ops, translate(ops, args[0].node, *args[1:], **(kwargs or {})))

    def dim(self) -> int:
        """(N, C, H, W), always."""
        return 4

    def __add__(self, other: "_Written") -> "_Written":
        return _Written(self.ops, self.ops.add(self.node, other.node))

    def __getitem__(self, slices: tuple[slice, ...]) -> "_Written":
        if any(part.start is not None or part.stop is not None for part in slices):
            raise NotImplementedError("a part of a tensor")
        steps = np.array([part.step or 1 for part in slices])
        begin, end = np.zeros_like(steps), np.full_like(steps, np.iinfo(np.int32).max)
        return _Written(self.ops, self.ops.slice(self.node, begin, end, steps))


def _write_down(openvino: Any, folded: ResNet, preprocess: Preprocess, batch: int) -> Any:
    """The graph from uint8 pixels (batch, C, size, size) to features (batch, width), in float32."""
    ops = import_module("openvino.opset15")
    pixels = ops.parameter([batch, preprocess.channels, preprocess.size, preprocess.size], np.uint8)
    mean, std = (
        255 * np.array(values, np.float32).reshape(1, -1, 1, 1) for values in (preprocess.mean, preprocess.std)
    )
    images = ops.divide(ops.subtract(ops.convert(pixels, "f32"), mean), std)
    with torch.inference_mode():
        last: Any = folded.forward_features(_Written(ops, images))  # pyrefly: ignore
    return openvino.Model([ops.reduce_mean(last.node, np.array([2, 3]))], [pixels])


def _constant(ops: Any, tensor: Tensor) -> Any:
    """A copy. Given arrays themselves, its operations go through a list of numbers, which takes half a second."""
    return ops.constant(tensor.detach().contiguous().numpy())


def _conv2d(ops: Any, x: Any, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, *rest: Any) -> Any:
    dilation, groups = rest
    if groups == 1:
        x = ops.convolution(x, _constant(ops, weight), stride, padding, padding, dilation)
    else:
        filters = _constant(ops, weight.reshape(groups, -1, *weight.shape[1:]))
        x = ops.group_convolution(x, filters, stride, padding, padding, dilation)
    return x if bias is None else ops.add(x, _constant(ops, bias.view(1, -1, 1, 1)))


def _batch_norm(ops: Any, x: Any, mean: Tensor, var: Tensor, **told: Any) -> Any:
    scale = told["weight"] / (var + told["eps"]).sqrt()
    shift = told["bias"] - mean * scale
    for combine, values in ((ops.multiply, scale), (ops.add, shift)):
        x = combine(x, _constant(ops, values.view(1, -1, 1, 1)))
    return x


def _max_pool2d(ops: Any, x: Any, kernel: int, stride: int, padding: int, **told: Any) -> Any:
    kernels, strides, paddings = ([value] * 2 for value in (kernel, stride, padding))
    return ops.max_pool(x, strides, [told["dilation"]] * 2, paddings, paddings, kernels, "floor").output(0)


def _pad(ops: Any, x: Any, padding: tuple[int, ...], **_told: Any) -> Any:
    before, after = padding[-2::-2], padding[::-2]  # PyTorch counts from the last axis
    rest = [0] * (4 - len(before))
    return ops.pad(x, np.array([*rest, *before]), np.array([*rest, *after]), "constant", np.float32(0))


_TRANSLATIONS: dict[str, Callable] = {
    "conv2d": _conv2d,
    "batch_norm": _batch_norm,
    "max_pool2d": _max_pool2d,
    "pad": _pad,
    "relu": lambda ops, x, **_: ops.relu(x),
}
