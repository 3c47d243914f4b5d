"""Which recipe a run gets."""

from pathlib import Path
from typing import Any

from resnetkit.data.named import NAMED_SETS
from resnetkit.recipes.load import load_recipe
from resnetkit.recipes.schema import ModelRecipe, Recipe
from resnetkit.weights.table import WEIGHTS, network_of


def choose_recipe(
    data: str | Path | None,
    recipe: str | Path | None,
    changes: dict[str, Any],
    old: Path | None,
    own: str | None = None,
) -> Recipe:
    """The recipe of a run: the one asked for, else that of the run to go on with, else the one that fits the data.

    `own` is the name of a network that is the user's own: no recipe says what it is, and there are no weights for it.
    """
    if own is not None:
        model = ModelRecipe(name=own, weights="none")
        chosen = choose_recipe(data, recipe, {**changes, "model": model.model_dump(exclude_unset=True)}, old)
        return chosen.model_copy(update={"model": model})
    if data is not None:
        changes = {**changes, "data": {**(changes.get("data") or {}), "name": str(data)}}
    given = changes.get("model") or {}
    if given.get("name") is None and (network := network_of(given.get("weights"))):
        changes = {**changes, "model": network | {key: value for key, value in given.items() if value is not None}}
    if old is not None and recipe is None and data is None:
        return load_recipe(old, changes)
    if recipe is not None:
        return load_recipe(recipe, changes)
    named, model = (changes.get("data") or {}).get("name", "digits"), dict(changes.get("model") or {})
    if named not in NAMED_SETS and model.get("weights") is None and model.get("name") is not None:
        # A folder is fine-tuned from the weights that are published for the network, where there are any.
        model["weights"] = next((name for name, each in WEIGHTS.items() if each.model == model["name"]), "none")
        changes = {**changes, "model": model}
    return load_recipe(default_recipe(named, weights=model.get("weights")), changes)


DEFAULT_RECIPES = {"cifar10": "cifar10-paper", "cifar100": "cifar10-paper", "imagenet": "imagenet-modern"}
"""Recipe of a named set where it is not the recipe of the same name."""


def default_recipe(name: str, *, weights: str | None = None) -> str:
    """The recipe that fits a data set when none is asked for: a folder is fine-tuned, unless `weights` is "none"."""
    if name in NAMED_SETS:
        return DEFAULT_RECIPES.get(name, name)
    return "scratch" if weights == "none" else "finetune"
