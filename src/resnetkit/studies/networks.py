"""The networks that studies compare: of one depth and one data set, different in one thing at a time."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from resnetkit.classifier import Classifier
from resnetkit.data.dataset import Data
from resnetkit.data.load import load_data
from resnetkit.networks.resnet import ResNet, build
from resnetkit.randomness import torch_seed
from resnetkit.recipes.schema import DataRecipe
from resnetkit.studies.fit import stacked, warmup
from resnetkit.studies.study import Place
from resnetkit.training.train import train

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"residual": False},
    "residual": {},
    "preactivation": {"preactivation": True},
}
"""Fields of `Arch` that tell the nets of a comparison apart."""


def depth_fields(depth: int) -> dict[str, Any]:
    """Fields of `Arch` that make the CIFAR family of either paper `depth` layers deep.

    6n+2 layers are the first paper's basic blocks (20, 56, 110); other depths of the form 9n+2 are the second paper's
    bottlenecks (1001) with a quarter of its width, so that all stages end in 16, 32 and 64 channels. Shortcuts have no
    parameters anywhere. Raises `ValueError` for other depths.
    """
    if depth % 6 == 2:
        return stacked(depth)
    if depth % 9 == 2:
        return {"depths": ((depth - 2) // 9,) * 3, "block": "bottleneck", "widths": (4, 8, 16)}
    raise ValueError(f"no net of the papers has {depth} layers: 6n+2 or 9n+2")


def build_network(
    shape: str, depth: int, data: Data, *, seed: int, init: str = "he", batchnorm: bool = True, **changes: Any
) -> ResNet:
    """A net of `SHAPES` for the classes and channels of some data; its parameters depend on the seed alone."""
    fields = {"in_channels": data.channels, "num_classes": len(data.classes), "init": init}
    with torch_seed(seed, "parameters"):
        network = build("resnet20", **depth_fields(depth), **SHAPES[shape], **(fields | changes))
    return network if batchnorm else without_norm(network)


def without_norm(network: ResNet) -> ResNet:
    """Take every BatchNorm out of a network, in place; no field of `Arch` says this, for no paper's net is like it.

    ReLUs then work on a copy: a BatchNorm in front of a shortcut's ReLU gave them one, and in its absence they would
    overwrite what the shortcut carries.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.ReLU):
                child.inplace = False
    return network


def study_data(place: Place, settings: DataRecipe) -> Data:
    """The images of a study, split as a recipe says. Raises the errors of `resnetkit.data.load_data`."""
    name, root = place.images
    return load_data(name, settings.model_copy(update={"name": name}), data_root=root)


def train_network(place: Place, shape: str, depth: int, *, seed: int, changes: Mapping[str, Any]) -> Classifier:
    """Train a net of `SHAPES` as the paper trains it (recipe `cifar10-paper`), but for `changes` to the recipe.

    The run lies in the study's own folder: one that was stopped goes on exactly, a finished one is loaded. ResNet-110
    is warmed up (section 4.2), and so is every net of its depth, so that shapes stay comparable.
    """
    model = {"name": "resnet20", **depth_fields(depth), **SHAPES[shape]}
    data, root = place.images
    return train(
        data,
        "cifar10-paper",
        out=place.folder / f"{shape}{depth}-seed{seed}",
        resume=True,
        data_root=root,
        quiet=True,
        seed=seed,
        model=model,
        **(warmup(place, depth) | dict(changes)),
    )
