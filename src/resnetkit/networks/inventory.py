"""Every module and every parameter of a network by name, and what PyTorch's ways of asking for them give."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from resnetkit.networks.arch import Arch
from resnetkit.networks.resnet import ResNet
from resnetkit.networks.summary import aligned, times


@dataclass(frozen=True)
class Module:
    """One module. `output` is the shape for one image, without N; `parameters` are those of all that is in it."""

    name: str
    type: str
    output: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Parameter:
    """One trained tensor, and the type of the module that it is of."""

    name: str
    type: str
    shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Inventory:
    """What a network is made of, in the order in which PyTorch names it."""

    modules: tuple[Module, ...]
    """The network itself first; its name is empty, as PyTorch has it."""
    parameters: tuple[Parameter, ...]
    children: tuple[str, ...]
    """Names of the modules that it is directly made of."""
    buffers: int
    """Tensors that are kept with it and not trained."""

    @property
    def counts(self) -> dict[str, int]:
        """How much each way of asking gives."""
        parameters, modules, children = len(self.parameters), len(self.modules), len(self.children)
        return {
            "parameters": parameters,
            "named_parameters": parameters,
            "modules": modules,
            "named_modules": modules,
            "children": children,
            "named_children": children,
            "buffers": self.buffers,
            "state_dict": parameters + self.buffers,
        }

    def module_table(self) -> list[str]:
        """Lines of at most 80 columns, one for each module."""
        rows = [("module", "type", "output", "parameters")]
        rows += [(each.name or "(net)", each.type, times(each.output), f"{each.parameters:,}") for each in self.modules]
        return aligned(rows, numbers=1)

    def parameter_table(self) -> list[str]:
        """Lines of at most 80 columns, one for each parameter."""
        rows = [("parameter", "of a", "shape", "numbers")]
        rows += [(each.name, each.type, times(each.shape), f"{each.parameters:,}") for each in self.parameters]
        return aligned(rows, numbers=1)

    def sentences(self) -> list[str]:
        """What each way of asking gives, for this very network."""
        count, total = self.counts, self.modules[0].parameters
        first, last = self.parameters[0].name, self.parameters[-1].name
        gives = {
            "parameters": f"{count['parameters']} tensors, {total:,} numbers in all: what training changes",
            "named_parameters": f"the same {count['parameters']} with their names, {first} to {last}",
            "modules": f"{count['modules']} modules: the network itself, its parts, and their parts in turn",
            "named_modules": f"the same {count['modules']} with their names, as `summary --modules` lists them",
            "children": f"{count['children']} parts, those that the network is directly made of",
            "named_children": f"the same {count['children']} with their names: {', '.join(self.children)}",
            "buffers": f"{count['buffers']} tensors that are kept and not trained: BatchNorm's statistics",
            "state_dict": f"{count['state_dict']} tensors by name, parameters and buffers: what is saved",
        }
        return [f"net.{method}() gives {what}." for method, what in gives.items()]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "named_modules": [
                {"name": each.name, "type": each.type, "output": list(each.output), "parameters": each.parameters}
                for each in self.modules
            ],
            "named_parameters": [
                {"name": each.name, "type": each.type, "shape": list(each.shape), "parameters": each.parameters}
                for each in self.parameters
            ],
            "counts": self.counts,
        }


def take_inventory(arch: Arch, image_size: tuple[int, int]) -> Inventory:
    """List the modules and parameters of a network, with shapes for images of `image_size`, (height, width).

    The network is built without memory for its numbers, and run without computing any.
    """
    outputs: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module) -> Callable[..., None]:
        def hook(_module: nn.Module, _given: object, out: Tensor) -> None:
            outputs[module] = tuple(out.shape[1:])

        return hook

    with torch.device("meta"), torch.no_grad():
        network = ResNet(arch, initialise=False).eval()
        for module in network.modules():
            module.register_forward_hook(note(module))
        network(torch.empty(1, arch.in_channels, *image_size))
    return Inventory(
        tuple(
            Module(name, type(each).__name__, outputs[each], sum(p.numel() for p in each.parameters()))
            for name, each in network.named_modules()
        ),
        tuple(
            Parameter(name, type(network.get_submodule(name.rpartition(".")[0])).__name__, tuple(p.shape), p.numel())
            for name, p in network.named_parameters()
        ),
        tuple(name for name, _ in network.named_children()),
        sum(1 for _ in network.buffers()),
    )
