"""What `train` takes from Python: keys of a recipe as keywords, and a network by its name or in numbers."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from resnetkit.arguments import refusal
from resnetkit.errors import UsageError
from resnetkit.networks.arch import VARIANTS, Arch
from resnetkit.recipes.schema import Recipe

ELSEWHERE = {"learning_rate": "lr", "batch": "batch_size", "size": "image_size", "optimizer": "name", "epoch": "epochs"}
"""What keys are called by other libraries."""


def recipe_changes(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of `train` as changes of a recipe, section by section.

    Raises `UsageError` (exit code 2) for one that is no key, with the place of that key where it has one, and for a
    section that is no dict.
    """
    changes = dict(given)
    if isinstance(model := changes.get("model"), str | Arch):
        changes["model"] = {"name": model} if isinstance(model, str) else network_section(model)
    for name, value in changes.items():
        field = Recipe.model_fields.get(name)
        if field is None:
            raise _unknown(name, value)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and not isinstance(value, Mapping | None):
            of = "a name, an Arch or a dict of keys" if name == "model" else "a dict of keys"
            key = next(iter(kind.model_fields))
            raise refusal("train", name, value, of, f"{name}={{{key!r}: …}}")
    return {name: value for name, value in changes.items() if value is not None}


def network_section(arch: Arch) -> dict[str, Any]:
    """The section of a recipe that makes a network just so; channels and classes are left to the data."""
    name = min(VARIANTS, key=lambda each: _differences(VARIANTS[each], arch))
    return {"name": name} | _fields(arch)


def _fields(arch: Arch) -> dict[str, Any]:
    return {key: value for key, value in asdict(arch).items() if key not in ("in_channels", "num_classes")}


def _differences(one: Arch, other: Arch) -> int:
    theirs = _fields(other)
    return sum(value != theirs[key] for key, value in _fields(one).items())


def _unknown(name: str, value: Any) -> UsageError:
    """That a keyword is no key at the top of a recipe; the section that has it, or the nearest name."""
    places = dict(_places())
    wanted = ELSEWHERE.get(name, name.rpartition(".")[2])
    if wanted in places:
        return UsageError(f"train() has no argument {name!r}", remedy=_written(places[wanted], wanted, value))
    arguments = ["recipe", "out", "resume", "allow_change", "accept_data_change", "data_root", "quiet"]
    near = difflib.get_close_matches(name.lower(), [*arguments, *Recipe.model_fields, *places], n=1, cutoff=0.6)
    if not near:
        return UsageError(
            f"train() has no argument {name!r}", why="others are keys of a recipe", remedy="resnetkit train --help"
        )
    remedy = _written(places[near[0]], near[0], value) if near[0] in places else f"{near[0]}=…"
    return UsageError(f"train() has no argument {name!r}", remedy=remedy)


def _places() -> Iterator[tuple[str, str]]:
    """Each key with its section, "" for those at the top; the first section where several have one of that name."""
    seen = set(Recipe.model_fields)
    yield from ((name, "") for name in Recipe.model_fields if not _section(name))
    for section in ("optim", *Recipe.model_fields):
        for name in _section(section):
            if name not in seen:
                seen.add(name)
                yield name, section


def _section(name: str) -> Mapping[str, Any]:
    kind = Recipe.model_fields[name].annotation
    return kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else {}


def _written(section: str, key: str, value: Any) -> str:
    """How a key is given to `train`."""
    plain = isinstance(value, str | int | float | bool) and len(repr(value)) <= 40
    text = repr(value) if plain else "…"
    return f'{section}={{"{key}": {text}}}' if section else f"{key}={text}"


def recipe_of(recipe: str | Path | Recipe | None) -> str | Path | None:
    """A recipe as all processes of a training can compare it."""
    return recipe.to_toml() if isinstance(recipe, Recipe) else recipe
