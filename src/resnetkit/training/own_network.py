"""A network of the user's own: made, tried on two made-up images, and held against what a recipe says of ours."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from resnetkit.data.dataset import Data
from resnetkit.errors import UsageError, blaming
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.device import Compute
from resnetkit.networks.handmade import made
from resnetkit.randomness import torch_seed
from resnetkit.recipes.schema import Recipe
from resnetkit.training.hooks import name_of


def refuse_changes(changes: Mapping[str, Any]) -> None:
    """Raises `UsageError` (exit code 2) where the same call says something of our networks."""
    given = [f"model.{key}" for key, value in (changes.get("model") or {}).items() if value is not None]
    if given:
        raise UsageError(f"{given[0]} beside network=", why="it is of our networks", remedy="one or the other")


def own_network(
    given: nn.Module | Callable[[], nn.Module], recipe: Recipe, data: Data, preprocess: Preprocess, compute: Compute
) -> nn.Module:
    """The user's network on the device. Where it is a function, its draws depend on the recipe's seed alone.

    Raises `UsageError` (exit code 2) for a network that does not give logits (N, classes) for such images, or cannot be
    saved, and for a recipe that only our networks can follow.
    """
    name = name_of(given)
    _refuse_ours(recipe)
    with torch_seed(recipe.seed, "parameters"), blaming(f"the network {name}"):
        network = made(given, name)
        compute.network(network)
        images = torch.zeros(2, preprocess.channels, preprocess.size, preprocess.size)
        with torch.no_grad(), compute.autocast():
            logits = network.eval()(compute.images(images))
    require_logits(logits, 2, len(data.classes), name)
    for key, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise UsageError(f"{key} of the network {name} is no tensor", why="it could not be saved")
    return network


def require_logits(logits: object, images: int, classes: int | None, name: str) -> Tensor:
    """What a network gives, where it is logits (images, classes); `classes` is None where their number is known to fit.

    Raises `UsageError` (exit code 2).
    """
    fits = isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == images
    if isinstance(logits, Tensor) and fits and classes in (None, logits.shape[1]):
        return logits
    given = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
    raise UsageError(
        f"the network {name} gives {given} for {images} images",
        why=f"logits are a tensor ({images}, {classes or 'classes'}), a number for each image and class",
        remedy=f"a last layer of {classes} outputs" if fits else None,
    )


def _refuse_ours(recipe: Recipe) -> None:
    """What would be read of a recipe and have no meaning for a network of which we know nothing."""
    ours = {
        "transfer.mode": recipe.transfer.mode != "none",
        "freeze": recipe.freeze is not None,
        "recompute": recipe.recompute,
        "optim.layer_decay": recipe.optim.layer_decay != 1,
    }
    for key, said in ours.items():
        if said:
            raise UsageError(
                f"{key} beside network=", why="it is of our networks' stages and heads", remedy="a recipe without it"
            )
