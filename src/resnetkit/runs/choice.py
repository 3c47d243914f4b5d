"""Which recipe a run gets."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from resnetkit.data.named import NAMED_SETS
from resnetkit.errors import UsageError
from resnetkit.networks.arch import BEGINNINGS, OUTSIDE, VARIANTS, changed_fields, worded
from resnetkit.recipes.load import keys_of, list_recipes, load_recipe
from resnetkit.recipes.schema import ModelRecipe, Recipe
from resnetkit.weights.spelling import spelled
from resnetkit.weights.table import WEIGHTS, network_of, weights_of

AUTO = "auto"
"""The name of a network that stands for all backbones at hand."""


def choose_recipe(
    data: Any,
    recipe: str | Path | Recipe | None,
    changes: dict[str, Any],
    old: Path | None,
    own: str | None = None,
    say: Callable[..., None] = lambda *_: None,
) -> Recipe:
    """The recipe of a run: the one asked for, else that of the run to go on with, else the one that fits the data.

    `data` is what `source_of` gives. Weights that know their network bring it along, unless another one is asked for:
    by a flag, or in a file. `own` is the name of a network that is the user's own: no recipe says what it is, and there
    are no weights for it. `say` takes what is to be told of the choice, as a logger does.
    """
    if own is not None:
        section = ModelRecipe(name=own, weights="none")
        given = {**changes, "model": section.model_dump(exclude_unset=True)}
        return choose_recipe(data, recipe, given, old).model_copy(update={"model": section})
    if data is not None:
        changes = {**changes, "data": {**(changes.get("data") or {}), "name": str(data)}}
    model = {key: value for key, value in (changes.get("model") or {}).items() if value is not None}
    if "weights" in model:
        model["weights"] = spelled(model["weights"])
    if choosing := leaves_choice(model.get("name")):
        _refuse_more(model)
        if old is not None:  # it was chosen when the run began
            before = load_recipe(old)
            sizes = {"image_size": before.data.image_size, "resize": before.data.resize}
            model = before.model.model_dump(exclude_none=True)
            changes = {**changes, "data": {**sizes, **(changes.get("data") or {})}}
    chosen = recipe if recipe is not None else old if data is None else None
    if chosen is None and choosing:
        chosen = "finetune"
    if chosen is None:
        named = (changes.get("data") or {}).get("name", "digits")
        if not isinstance(data, str | Path | None) and data.small and model.get("weights") in (None, "none"):
            return load_recipe("arrays", changes)
        if named not in NAMED_SETS and "weights" not in model and "name" in model:
            # A folder is fine-tuned from the weights that are published for the network, where there are any.
            model["weights"] = published_for(model["name"], own=False) or "none"
        chosen = default_recipe(named, weights=model.get("weights"))
    settled = load_recipe(chosen, {**changes, "model": _with_network(model, chosen, say)})
    before, now = load_recipe(chosen).model, settled.model
    dropped = [key for key in _changed_by(before) if key not in model and getattr(now, key) != getattr(before, key)]
    if dropped:
        say("left out  %s: the recipe has them for %s", ", ".join(dropped), before.name)
    return settled


def _changed_by(section: ModelRecipe) -> list[str]:
    return [key for key in section.model_dump(exclude_none=True) if key not in ("name", "weights")]


def _with_network(model: dict[str, Any], chosen: str | Path | Recipe, say: Callable[..., None]) -> dict[str, Any]:
    """A section `model` with the network of its weights, where they know it and none but theirs is asked for."""
    network = network_of(model.get("weights"))
    if network is None or model.get("name", network[0]) != network[0]:
        return model
    own = keys_of(chosen).get("model", {}) if str(chosen) not in list_recipes() else {}
    if own.get("name", network[0]) != network[0]:
        return model
    name, arch = network
    theirs = {key: value for key, value in asdict(arch).items() if key not in (*OUTSIDE, *BEGINNINGS)}
    changed = changed_fields(arch, VARIANTS[name])
    if changed and not changed.keys() & own.keys():
        say("%s: its network is taken, %s", model["weights"], worded(name, changed))
    said = load_recipe(chosen).model.model_dump(exclude_none=True)
    taken = {key: value for key, value in theirs.items() if key not in own and (key in changed or key in said)}
    return {"name": name} | taken | model


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
