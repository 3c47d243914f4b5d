"""A network stage by stage: output shape, parameters, multiply-adds."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from resnetkit.errors import UsageError
from resnetkit.networks.arch import Arch
from resnetkit.networks.resnet import ResNet


@dataclass(frozen=True)
class Stage:
    """One row. `output` is (C, H, W), or (classes,) for the head; `multiply_adds` are those of one image."""

    name: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """All rows of a network at one input size, and their sums."""

    arch: Arch
    image_size: tuple[int, int]
    stages: tuple[Stage, ...]

    @property
    def parameters(self) -> int:
        """Trained numbers in the whole network."""
        return sum(stage.parameters for stage in self.stages)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image; half of what is often called FLOPs."""
        return sum(stage.multiply_adds for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "image_size": list(self.image_size),
            "layers": self.arch.layers,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "stages": [
                {
                    "name": stage.name,
                    "output": list(stage.output),
                    "parameters": stage.parameters,
                    "multiply_adds": stage.multiply_adds,
                }
                for stage in self.stages
            ],
        }


def summarise(arch: Arch, image_size: int | tuple[int, int]) -> Summary:
    """Summarise a network for images of `image_size` pixels, a side or (height, width).

    Multiply-adds are those of convolutions and the classifier, as the paper counts them.
    Raises `UsageError` (exit code 2) for a size below one pixel.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width) < 1:
        raise UsageError(
            f"images of {width} x {height} px cannot be",
            why="the smallest that works is 1 x 1",
            remedy="--image-size 224",
        )
    # Shapes are all that is asked for: on this device nothing is allocated and nothing computed.
    with torch.device("meta"):
        network = ResNet(arch, initialise=False).eval()
        images = torch.empty(1, arch.in_channels, height, width)
    counts: dict[str, int] = {}
    stage_of = {module: name for name in network.stage_names for module in network.get_submodule(name).modules()}

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        """Every output number costs one multiply-add for each weight that leads to it."""
        each = module.get_parameter("weight")[0].numel()
        name = stage_of.get(module, "fc" if module is network.fc else "stem")
        counts[name] = counts.get(name, 0) + output.numel() * each

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
        elif isinstance(module, nn.BatchNorm2d):
            module.forward = _unchanged  # it keeps the shape, and finding that out takes most of the time
    with torch.inference_mode():
        outputs = network.stages(images)
        head = network.forward_head(outputs[network.stage_names[-1]])

    def parameters(*modules: str) -> int:
        return sum(p.numel() for module in modules for p in network.get_submodule(module).parameters())

    sizes = {"stem": parameters("conv1", "bn1"), "fc": parameters("norm", "fc")}
    sizes |= {name: parameters(name) for name in network.stage_names}
    shapes = {name: tuple(output.shape[1:]) for name, output in (outputs | {"fc": head}).items()}
    rows = tuple(Stage(name, shape, sizes[name], counts[name]) for name, shape in shapes.items())
    return Summary(arch, (height, width), rows)


def _unchanged(input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's name
    return input
