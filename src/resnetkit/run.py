"""A run's folder: begun once, gone on with as often as needed, and never mixed with another run.

runs/NAME/
├── recipe.toml        the resolved recipe
├── metrics.jsonl      one object for every epoch, one for the end
├── checkpoints/       what going on needs
└── model/             the result: model.safetensors and config.json
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from resnetkit import checkpoint
from resnetkit.checkpoint import Checkpoint
from resnetkit.data import default_recipe
from resnetkit.errors import UsageError
from resnetkit.log import Journal
from resnetkit.recipe import LENGTHS, Recipe, load_recipe
from resnetkit.storage import replace_file

MAY_CHANGE = frozenset((*LENGTHS, "device", "recompute", "checkpoint", "data.workers", "expect"))
"""Keys and sections of a recipe that may differ when a run goes on."""


@dataclass(frozen=True)
class Run:
    """One run: what it is to do, where it stands, and its folder."""

    folder: Path
    recipe: Recipe
    reached: Checkpoint | None = None
    notes: tuple[str, ...] = ()

    @property
    def journal(self) -> Journal:
        """`metrics.jsonl`."""
        return Journal(self.folder / "metrics.jsonl")

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    def begin(self) -> None:
        """Write the recipe, and cut the journal back to the checkpoint. Raises `StorageError` (exit code 7)."""
        replace_file(self.folder / "recipe.toml", self.recipe.to_toml().encode())
        self.journal.cut(self.reached.state["journal_bytes"] if self.reached else 0)


def open_run(
    data: str | Path | None,
    recipe: str | Path | None,
    *,
    out: str | Path | None,
    resume: bool,
    changes: dict[str, Any],
) -> Run:
    """Decide on the recipe and the folder of a run, and find its newest checkpoint. Writes nothing.

    Raises `UsageError` (exit code 2) where the folder holds something else or the recipe has changed,
    `CheckpointError` (exit code 4) where no checkpoint can be used.
    """
    if resume and out is None:
        raise UsageError("the run to go on with is not named", remedy="--resume --out DIR with the run's folder")
    if data is not None:
        changes = {**changes, "data": {**(changes.get("data") or {}), "name": str(data)}}
    folder = Path(out) if out is not None else None
    old_recipe = folder / "recipe.toml" if folder is not None and (folder / "recipe.toml").is_file() else None
    if folder is not None and not (resume and old_recipe):
        _refuse_occupied(folder, is_run=old_recipe is not None)
    if old_recipe is not None and recipe is None and data is None:
        settings = load_recipe(old_recipe, changes)
    else:
        named = (changes.get("data") or {}).get("name", "digits")
        pretrained = (changes.get("model") or {}).get("weights", "none") not in (None, "none")
        settings = load_recipe(recipe or default_recipe(named, pretrained=pretrained), changes)
    if folder is None:
        folder = Path("runs") / f"{Path(settings.data.name).resolve().name}-{datetime.now():%Y%m%d-%H%M%S}"
    if old_recipe is None:
        return Run(folder, settings)
    _refuse_changes(load_recipe(old_recipe), settings, old_recipe)
    reached, damaged = checkpoint.newest(folder / "checkpoints")
    notes = [f"left out: {line}" for line in damaged]
    if reached is None:
        notes.append(f"no checkpoint in {folder} yet: the run begins again")
    return Run(folder, settings, reached, tuple(notes))


def _refuse_occupied(folder: Path, *, is_run: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError("the output folder cannot be made", file=folder, why="it is a file", remedy="another --out")
    if folder.is_dir() and any(folder.iterdir()):
        what = "another run" if is_run else "other files"
        remedy = "--resume to go on with it, or another --out" if is_run else "another --out"
        raise UsageError(f"the output folder holds {what}", file=folder, remedy=remedy)


def _refuse_changes(old: Recipe, new: Recipe, file: Path) -> None:
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    for name in sorted(before.keys() | after.keys()):
        free = name in MAY_CHANGE or name.partition(".")[0] in MAY_CHANGE
        if not free and before.get(name) != after.get(name):
            raise UsageError(
                f"{name} has changed since the run began",
                file=file,
                why=f"it was {before.get(name)!r} and is now {after.get(name)!r}",
                remedy="the old value, or another --out",
            )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
