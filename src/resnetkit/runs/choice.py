"""Which recipe a run gets."""

from pathlib import Path
from typing import Any

from resnetkit.data.named import NAMED_SETS
from resnetkit.errors import UsageError
from resnetkit.recipes.load import load_recipe
from resnetkit.recipes.schema import Recipe
from resnetkit.weights.table import WEIGHTS, network_of, weights_of

AUTO = "auto"
"""The name of a network that stands for all backbones at hand."""


def choose_recipe(
    data: str | Path | None, recipe: str | Path | None, changes: dict[str, Any], old: Path | None
) -> Recipe:
    """The recipe of a run: the one asked for, else that of the run to go on with, else the one that fits the data."""
    if data is not None:
        changes = {**changes, "data": {**(changes.get("data") or {}), "name": str(data)}}
    given = changes.get("model") or {}
    choosing = leaves_choice(given.get("name"))
    if choosing:
        _refuse_more(given)
        if old is not None:  # it was chosen when the run began
            before = load_recipe(old)
            sizes = {"image_size": before.data.image_size, "resize": before.data.resize}
            changes = {
                **changes,
                "model": before.model.model_dump(exclude_none=True),
                "data": {**sizes, **(changes.get("data") or {})},
            }
    if given.get("name") is None and (network := network_of(given.get("weights"))):
        changes = {**changes, "model": network | {key: value for key, value in given.items() if value is not None}}
    if old is not None and recipe is None and data is None:
        return load_recipe(old, changes)
    if recipe is not None:
        return load_recipe(recipe, changes)
    named, model = (changes.get("data") or {}).get("name", "digits"), dict(changes.get("model") or {})
    if named not in NAMED_SETS and model.get("weights") is None and model.get("name") is not None and not choosing:
        # A folder is fine-tuned from the weights that are published for the network, where there are any.
        model["weights"] = published_for(model["name"], own=False) or "none"
        changes = {**changes, "model": model}
    fits = "finetune" if choosing else default_recipe(named, weights=model.get("weights"))
    return load_recipe(fits, changes)


def leaves_choice(model: str | None) -> bool:
    """Whether the name of a network is `auto`, or a list of backbones, of which one is to be chosen."""
    return model is not None and (model == AUTO or "," in model)


def published_for(model: str, *, own: bool = True) -> str | None:
    """The name of the weights that a network gets where none are named: published ones, or else our `own`."""
    return next((name for name in weights_of(model) if own or name in WEIGHTS), None)


def _refuse_more(model: dict[str, Any]) -> None:
    more = [key for key, value in model.items() if key != "name" and value is not None]
    if more:
        raise UsageError(
            f"model.{more[0]} does not go with --model {model['name']}",
            why="the backbone that is chosen brings its own",
            remedy="the name of one network",
        )


DEFAULT_RECIPES = {"cifar10": "cifar10-paper", "cifar100": "cifar10-paper", "imagenet": "imagenet-modern"}
"""Recipe of a named set where it is not the recipe of the same name."""


def default_recipe(name: str, *, weights: str | None = None) -> str:
    """The recipe that fits a data set when none is asked for: a folder is fine-tuned, unless `weights` is "none"."""
    if name in NAMED_SETS:
        return DEFAULT_RECIPES.get(name, name)
    return "scratch" if weights == "none" else "finetune"
