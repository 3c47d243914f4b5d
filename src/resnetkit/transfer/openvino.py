"""A folded network as a graph of OpenVINO."""

import sys
from collections.abc import Callable
from importlib import import_module
from threading import local
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.device import Compute
from resnetkit.networks.resnet import ResNet


class OpenVINOEngine:
    """A folded network as a graph of OpenVINO, with as many streams as threads that ask.

    Raises `NotImplementedError` for a layer that is not translated, and for a precision that cannot be had.
    """

    name = "OpenVINO"

    def __init__(self, folded: ResNet, preprocess: Preprocess, compute: Compute, *, batch: int, streams: int) -> None:
        openvino = import_openvino()
        # Said in so many words: left alone, it takes bf16 wherever the processor has it; and where that is asked for
        # and the processor has it not, it takes fp32 and says nothing.
        asked = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}.get(compute.precision)
        if asked is None:
            raise NotImplementedError(compute.precision)
        model = _write_down(openvino, folded, preprocess, batch)
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
