"""Recipes by name or path, with their base and the changes that were asked for."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from resnetkit.arguments import checked
from resnetkit.errors import UsageError
from resnetkit.machine.documents import read_bounded
from resnetkit.networks.arch import BEGINNINGS
from resnetkit.recipes.schema import BOUNDS, LENGTHS, ModelRecipe, Recipe, explained

MOST_BYTES = 1 << 18
"""Of a recipe; those that ship have two thousand."""
DEFAULT_NETWORK = ModelRecipe.model_fields["name"].default
MOST_IN_A_LINE = 10_000
"""Characters: keys of keys of keys take the square of their number."""


def list_recipes() -> dict[str, str]:
    """Names of the recipes that ship with the package, each with its first line of comment."""
    found = {}
    for entry in sorted(resources.files("resnetkit").joinpath("recipes").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            first = entry.read_text(encoding="utf-8").partition("\n")[0]
            found[entry.name.removesuffix(".toml")] = first.lstrip("# ").strip()
    return found


@checked()
def load_recipe(name: str | Path | Recipe, changes: dict[str, Any] | None = None) -> Recipe:
    """Load a recipe by name or path, with its base, or take one that is loaded already; then apply `changes`.

    These are nested, such as {"optim": {"lr": 0.05}}.
    Raises `UsageError` (exit code 2) for an unknown recipe or key, with the nearest known one, and for a value that is
    out of range.
    """
    if isinstance(name, Recipe):
        settings = name.model_dump(exclude_unset=True, exclude_none=True)
        _merge(settings, changes or {})
        return _validate(settings, file=None)
    settings = _read(str(name), seen=())
    _merge(settings, changes or {})
    return _validate(settings, file=None if str(name) in list_recipes() and changes else str(name))


def keys_of(name: str | Path | Recipe) -> dict[str, Any]:
    """What a recipe says itself, without its base. Raises `UsageError` (exit code 2)."""
    return name.model_dump(exclude_unset=True) if isinstance(name, Recipe) else _parse(str(name))


def _read(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if name in seen:
        raise UsageError("a recipe is its own base", file=name, why=" -> ".join((*seen, name)))
    settings = _parse(name, named_in=seen[-1] if seen else None)
    base = settings.pop("base", None)
    if not isinstance(base, str | None):
        raise UsageError(f"base = {repr(base)[:40]} cannot be", file=name, why="it is the name of a recipe, in quotes")
    _validate(settings, file=name)
    if base is None:
        return settings
    beside = Path(name).parent / str(base)
    merged = _read(str(beside) if str(base).endswith(".toml") else str(base), (*seen, name))
    _merge(merged, {"expect": {}} | settings)
    if "expect" not in settings:
        merged.pop("expect", None)
    return merged


def _parse(name: str, named_in: str | None = None) -> dict[str, Any]:
    """A recipe as it stands; where there is none, the error names the one whose base it was to be."""
    path = Path(name)
    if name.endswith(".toml") or path.is_file():
        try:
            text = read_bounded(path, MOST_BYTES).decode("utf-8-sig")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            if isinstance(error, UnicodeDecodeError):
                reason = "it is not text in UTF-8"
            raise UsageError(
                "cannot read the recipe", file=name, why=reason, remedy="resnetkit list recipes"
            ) from error
    elif name in list_recipes():
        text = resources.files("resnetkit").joinpath("recipes", f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise UsageError.unknown("recipe", name, list_recipes(), file=named_in, remedy="a path to a .toml file")
    if max(map(len, text.splitlines()), default=0) > MOST_IN_A_LINE:
        raise UsageError("the recipe is not TOML", file=name, why=f"a line has more than {MOST_IN_A_LINE:,} characters")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        why = str(error)[:200] if isinstance(error, tomllib.TOMLDecodeError) else "it is nested too deeply"
        raise UsageError("the recipe is not TOML", file=name, why=why, remedy="mend that line") from error


def _merge(settings: dict[str, Any], changes: dict[str, Any]) -> None:
    """Lay `changes` over `settings`, section by section.

    A new length replaces the old one and its bounds, another network the old one with all that was changed in it.
    """
    model, asked = settings.get("model"), changes.get("model")
    if isinstance(model, dict) and isinstance(asked, dict):
        own = model.get("name", DEFAULT_NETWORK)
        if (asked.get("name") or own) != own:
            settings["model"] = {key: model[key] for key in model if key in ("name", "weights", *BEGINNINGS)}
    if any(changes.get(length) is not None for length in LENGTHS):
        for length in (*LENGTHS, *BOUNDS):
            settings.pop(length, None)
    for key, value in changes.items():
        if isinstance(value, dict):
            section = settings.setdefault(key, {})
            if not isinstance(section, dict):
                raise UsageError(f"{key} has no keys", why="it is a value", remedy=f"{key} = {section!r}")
            _merge(section, value)
        elif value is not None:
            settings[key] = value


def _validate(settings: dict[str, Any], file: str | None) -> Recipe:
    lengths = [length for length in LENGTHS if settings.get(length) is not None]
    if len(lengths) > 1:
        raise UsageError("a recipe has one length", file=file, why=f"it sets {' and '.join(lengths)}")
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        raise explained(error, file) from error
