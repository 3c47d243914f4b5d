"""Where and how to compute: device, precision and memory format, decided in this one place."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from resnetkit.errors import UsageError

Precision = Literal["auto", "fp32", "bf16"]
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Compute:
    """A decision: every tensor and every network of a run goes through `tensor` and `network`."""

    device: torch.device
    precision: Literal["fp32", "bf16"]
    channels_last: bool = True
    """False for networks of the user's own: whoever flattens with `view` takes tensors to be contiguous."""

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
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

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


def choose(device: str = "auto", precision: Precision = "auto") -> Compute:
    """Decide on a device ("auto", "cpu", "cuda", "cuda:1", "mps") and a precision.

    "auto" takes an accelerator where there is one, and bf16 where the hardware has it. Raises `UsageError` (exit code
    2) for a device that this machine does not have.
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
        precision = "bf16" if has_fast_bf16(chosen) else "fp32"
    return Compute(chosen, precision)


def _devices() -> list[str]:
    """What `choose` takes on this machine, beside "auto"."""
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        return ["cpu"]
    numbered = [f"{found.type}:{number}" for number in range(torch.accelerator.device_count())]
    return ["cpu", found.type, *(numbered if len(numbered) > 1 else ())]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch has run out of memory, on an accelerator or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


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
