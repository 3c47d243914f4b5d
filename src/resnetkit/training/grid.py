"""The rows of a sweep: every combination of what keys of a recipe may be, each with the recipe that it makes."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from resnetkit.data.load import InPython
from resnetkit.errors import UsageError
from resnetkit.machine.storage import sha256
from resnetkit.recipes.effects import refuse_idle, without_effect
from resnetkit.recipes.schema import OnResume, Recipe
from resnetkit.runs.choice import choose_recipe
from resnetkit.runs.folder import ON_RESUME, flat

SHORT = {"model": "model.name", "weights": "model.weights"}
"""Keys that have a shorter name, as on the command line."""
OF_IMAGES = frozenset(
    (
        *("data.name", "data.validation", "data.train_folder", "data.validation_folder", "data.test_folder"),
        *("data.group_by", "data.path_column", "data.label_column", "data.split_column", "data.image_root"),
        *("data.label_from", "data.allow_missing"),
    )
)
"""Keys that decide on which images a run is scored."""


@dataclass(frozen=True)
class Row:
    """One run of a sweep."""

    recipe: Recipe
    """Resolved."""
    base: str | Path | Recipe | None
    """The recipe that it was asked for by."""
    changes: dict[str, Any]
    """What it changes in that one, nested as for `train`."""
    name: str
    """Of its folder: what it has that others have not, and a number that only its recipe decides."""

    @property
    def settings(self) -> dict[str, Any]:
        """Every key that decides the outcome, by dotted name; values as in JSON."""
        return deciding(self.recipe)

    @property
    def key(self) -> str:
        """Equal for equal settings."""
        return _digest(self.settings)


def deciding(recipe: Recipe) -> dict[str, Any]:
    """Of a recipe's keys those that decide what a run comes to, by dotted name."""
    found = flat(recipe.model_dump(mode="json"))
    return {key: each for key, each in found.items() if ON_RESUME[key] is not OnResume.FREE and key != "data.name"}


def make_rows(
    source: str | Path | InPython | None,
    recipe: str | Path | Recipe | None,
    grid: Mapping[str, Sequence[Any]],
    changes: Mapping[str, Any],
) -> list[Row]:
    """A row for each combination of the values in `grid`, by dotted keys, `model`, `weights` and `recipe`.

    `changes` are those of all rows, nested. A key that does nothing in one row, as `optim.lr` beside the recipe `head`,
    is left out of it; rows that are equal are one. Raises `UsageError` (exit code 2) for a key that cannot be swept,
    one that does nothing in any row, and a recipe that cannot be.
    """
    seed_last = sorted(grid.items(), key=lambda each: each[0] == "seed")
    named = {SHORT.get(key, key): list(values) for key, values in seed_last}
    for short, key in SHORT.items():
        if short in grid and key in grid:
            raise UsageError(f"{short} and {key} are two", why="they are one key", remedy="one of them")
    for key, values in named.items():
        _refuse(key, values)
    asked = [key for key in named if key != "recipe"]
    idle: dict[str, int] = dict.fromkeys(asked, 0)
    varied = [key for key, values in named.items() if len(values) > 1]
    rows: dict[str, Row] = {}
    combinations = list(product(*named.values()))
    for values in combinations:
        chosen = dict(zip(named, values, strict=True))
        base = chosen.pop("recipe", recipe)
        resolved = choose_recipe(source, base, _nested(chosen, changes), None)
        for key, _ in list(without_effect(resolved, asked)):
            idle[key] += 1
            del chosen[key]
        kept = choose_recipe(source, base, _nested(chosen, changes), None)
        values_of = flat(kept.model_dump())
        own = {key: values_of[key] for key in chosen}
        told = {key: base if key == "recipe" else values_of[key] for key in varied if key in chosen or key == "recipe"}
        row = Row(kept, base, _nested(own, changes), _name(told, _digest(deciding(kept))))
        rows.setdefault(row.key, row)
    for key, times in idle.items():
        if times == len(combinations):
            refuse_idle(choose_recipe(source, recipe, _nested({key: named[key][0]}, changes), None), [key])
    _refuse_other_images(list(rows.values()))
    return list(rows.values())


def _refuse(key: str, values: Sequence[Any]) -> None:
    if key != "recipe" and key not in ON_RESUME:
        raise UsageError.unknown("key", key, [*ON_RESUME, "recipe"])
    if not values:
        raise UsageError(f"{key} has no value")
    if len(values) > 1 and key in OF_IMAGES:
        raise UsageError(f"{key} is not swept", why="rows would be scored on different images", remedy="one value")
    if len(values) > 1 and key != "recipe" and ON_RESUME[key] is OnResume.FREE:
        raise UsageError(f"{key} is not swept", why="it decides nothing of the result", remedy="one value")


def _refuse_other_images(rows: Sequence[Row]) -> None:
    """Recipes may hold out other images too."""
    for row in rows:
        for key in sorted(OF_IMAGES - {"data.name"}):
            if row.settings[key] != rows[0].settings[key]:
                raise UsageError(
                    f"the recipes differ in {key}",
                    why="rows would be scored on different images",
                    remedy=f"one value: --{key.replace('_', '-')}",
                )


def _nested(chosen: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys over nested changes."""
    merged = {key: dict(each) if isinstance(each, Mapping) else each for key, each in changes.items()}
    for key, value in chosen.items():
        section, _, name = key.rpartition(".")
        if section:
            merged[section] = {**(merged.get(section) or {}), name: value}
        else:
            merged[name] = value
    return merged


def _name(told: Mapping[str, Any], digest: str) -> str:
    said = "_".join(f"{key.rpartition('.')[2]}-{worded(value)}" for key, value in told.items())
    return f"{re.sub('[^A-Za-z0-9._+-]+', '-', said)[:60].strip('-.') or 'row'}-{digest[:8]}"


def worded(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(worded, value)) if isinstance(value, list | tuple) else str(value)


def _digest(settings: Mapping[str, Any]) -> str:
    return sha256(json.dumps(settings, sort_keys=True).encode())[:16]
