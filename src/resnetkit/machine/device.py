"""Where and how to compute: device, precision and memory format, decided in this one place."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from resnetkit.errors import UsageError

Precision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
TENSOR_CORES = (7, 0)
"""Compute capability from which an NVIDIA GPU multiplies fp16 several times as fast as fp32."""
TF32 = (8, 0)
"""And from which it has TF32, fp32 with 10 bits of mantissa inside a multiplication."""
FAULTY_FP16 = "GTX 16"
"""These report a capability that has fp16, have no tensor cores, and are known for NaN in fp16 convolutions."""
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Compute:
    """A decision: every tensor and every network of a run goes through `tensor` and `network`."""

    device: torch.device
    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    channels_last: bool = True
    """False for networks of the user's own: whoever flattens with `view` takes tensors to be contiguous."""

    @property
    def lower(self) -> torch.dtype | None:
        """The type that convolutions and matrix products compute in where that is not fp32."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)

    @property
    def pins(self) -> bool:
        """Whether copies from page-locked memory go on while the device computes."""
        return self.device.type == "cuda"

    def network(self, network: Network) -> Network:
        """Move a network to the device, channels-last: convolutions are faster so, and equal in result."""
        network = network.to(self.device)
        return network.to(memory_format=torch.channels_last) if self.channels_last else network

    def images(self, images: Tensor) -> Tensor:
        """Move images (N, C, H, W) to the device, in the layout of the network."""
        images = self.tensor(images)
        if self.channels_last:
            return images
        # Images of one channel pass for contiguous with the strides of channels-last, and convolutions go by these.
        return images.contiguous().view(-1).view(images.shape)

    def tensor(self, x: Tensor) -> Tensor:
        """Move a tensor to the device."""
        return x.to(self.device, non_blocking=True)

    def autocast(self) -> torch.autocast:
        """The context in which the network runs; it does nothing in fp32."""
        return torch.autocast(self.device.type, self.lower, enabled=self.lower is not None)

    @contextmanager
    def tuned(self) -> Iterator[None]:
        """Let an NVIDIA GPU round to TF32 only where that was asked for, and try which convolution is the fastest.

        These are switches of the whole process; afterwards they are as before. Elsewhere this does nothing.
        """
        if self.device.type != "cuda":
            yield
            return
        rounding = "tf32" if self.precision == "tf32" else "ieee"
        switches = [
            (torch.backends.cuda.matmul, "fp32_precision", rounding),
            (torch.backends.cudnn.conv, "fp32_precision", rounding),  # pyrefly: ignore[missing-attribute]
            (torch.backends.cudnn, "benchmark", True),
        ]
        before = [getattr(where, name) for where, name, _ in switches]
        for where, name, value in switches:
            setattr(where, name, value)
        try:
            yield
        finally:
            for (where, name, _), value in zip(switches, before, strict=True):
                setattr(where, name, value)

    def describe(self) -> str:
        """One phrase for people: device, threads, precision, memory format."""
        if self.device.type == "cuda":
            where = torch.cuda.get_device_name(self.device)
        else:
            where = f"{self.device.type}, {torch.get_num_threads()} threads"
        return f"{where}, {self.precision}" + (", channels-last" if self.channels_last else "")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 natively; elsewhere bf16 is emulated and several times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16") or can.get("bf16"))


def best_precision(device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """What "auto" takes: bf16 where it is native, fp16 on older GPUs with tensor cores (V100, T4), else fp32."""
    if has_fast_bf16(device):
        return "bf16"
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < TENSOR_CORES:
        return "fp32"
    return "fp32" if FAULTY_FP16 in torch.cuda.get_device_name(device) else "fp16"


def _check_precision(device: torch.device, precision: str) -> None:
    """Raises `UsageError` (exit code 2) for a precision that there is not, or not on this device."""
    if precision not in get_args(Precision):
        raise UsageError.unknown("precision", precision, get_args(Precision))
    if precision != "tf32" or (device.type == "cuda" and torch.cuda.get_device_capability(device) >= TF32):
        return
    raise UsageError(
        f"precision tf32 is not on {device}",
        why="NVIDIA GPUs have it from compute capability 8.0 on",
        remedy="--precision auto",
    )


def choose(device: str = "auto", precision: Precision = "auto") -> Compute:
    """Decide on a device ("auto", "cpu", "cuda", "cuda:1", "mps") and a precision.

    "auto" takes an accelerator where there is one, and the precision that `best_precision` gives. Raises `UsageError`
    (exit code 2) for a device that this machine does not have, and for a precision that the device does not have.
    """
    if device == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        chosen = found if found is not None else torch.device("cpu")
    else:
        try:
            chosen = torch.device(device)
            torch.empty(0, device=chosen)
            if chosen.type not in _devices():
                raise NotImplementedError("nothing is computed there")
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise UsageError(
                f"device {device[:40]!r} is not on this machine",
                why=f"it has {', '.join(_devices())}",
                remedy="--device auto",
            ) from error
    if precision == "auto":
        precision = best_precision(chosen)
    _check_precision(chosen, precision)
    return Compute(chosen, precision)


def _devices() -> list[str]:
    """What `choose` takes on this machine, beside "auto"."""
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        return ["cpu"]
    numbered = [f"{found.type}:{number}" for number in range(torch.accelerator.device_count())]
    return ["cpu", found.type, *(numbered if len(numbered) > 1 else ())]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch has run out of memory: on a CPU, and on Metal, only its words say so."""
    said = ("can't allocate memory", "MPS backend out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in said)


@contextmanager
def one_thread() -> Iterator[int]:
    """Let PyTorch compute with one thread in here, in threads that are started in here too; gives what it had before.

    For work that is split by hand, and for matrices so small that threads wait for one another longer than they work:
    where others use the processor too, that wait grows to many times the work.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def describe_machine() -> dict[str, str]:
    """What a measured figure depends on: processor, threads, versions."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "machine": platform.machine(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
    }
