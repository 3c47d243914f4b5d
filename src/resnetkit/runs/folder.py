"""A run's folder: begun once, gone on with as often as needed, and never mixed with another run.

runs/NAME/
├── recipe.toml          the resolved recipe
├── metrics.jsonl        one object for every epoch, one for the end, and what happened on the way
├── test_opened.jsonl    when its test split was scored, and by what
├── images.safetensors   which images it has seen, and the identity that its checkpoints have in common
├── checkpoints/         what going on needs
└── model/               the result: model.safetensors and config.json
"""

import json
import logging
import os
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from resnetkit.data import fingerprint
from resnetkit.errors import CheckpointError, StorageError, UsageError
from resnetkit.machine import storage
from resnetkit.machine.lock import alone_in
from resnetkit.machine.storage import replace_file, sync_folder
from resnetkit.recipes.load import load_recipe
from resnetkit.recipes.schema import BOUNDS, LENGTHS, OnResume, Recipe, keys_on_resume
from resnetkit.runs import checkpoint
from resnetkit.runs.checkpoint import Checkpoint
from resnetkit.runs.choice import choose_recipe
from resnetkit.runs.journal import Journal

ON_RESUME = keys_on_resume()
WITH_LEAVE = tuple(name for name, may in ON_RESUME.items() if may is OnResume.WITH_LEAVE)

logger = logging.getLogger("resnetkit")


@dataclass(frozen=True)
class Run:
    """One run: what it is to do, where it stands, and its folder."""

    folder: Path
    recipe: Recipe
    reached: Checkpoint | None = None
    notes: tuple[str, ...] = ()
    seen: frozenset[str] = frozenset()
    """What lay in its folder when it was opened."""
    changed: tuple[tuple[str, Any, Any], ...] = ()
    """Keys that differ from those it was begun with, by leave: name, old value, new value."""
    identity: str = ""
    """What tells its checkpoints from those of another run."""
    unnamed: bool = False
    """Whether nobody has said which folder it goes to, so that it may be another one of that name."""

    @property
    def journal(self) -> Journal:
        """`metrics.jsonl`."""
        return Journal(self.folder / "metrics.jsonl")

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def images(self) -> Path:
        """Which images it has seen."""
        return self.folder / fingerprint.FILE

    @property
    def finished(self) -> bool:
        """Whether its model is written: the last line of the journal comes after it, and goes when the run goes on."""
        return self.journal.last().get("event") == "end" and (self.folder / "model" / "config.json").is_file()

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that can be used, by now."""
        return _newest(self.folder, self.recipe, self.identity)[0]

    def claimed(self) -> "Run":
        """The run with a folder that is its own: where nobody has named one, a new one, however many begin at once.

        Raises `StorageError` (exit code 7).
        """
        if not self.unnamed:
            return self
        for number in count(1):
            folder = self.folder if number == 1 else self.folder.with_name(f"{self.folder.name}-{number}")
            try:
                folder.mkdir(parents=True)
                return replace(self, folder=folder, unnamed=False)
            except FileExistsError:
                continue
            except OSError as error:
                raise StorageError.from_os(error, "cannot use the run's folder", folder) from error
        raise AssertionError

    def begin(self) -> None:
        """Cut the journal back to the checkpoint, and write the recipe. Raises `StorageError` (exit code 7).

        What was changed by leave stays in the journal, for the recipe says no more that it was otherwise.
        """
        kept = self.journal.cut(self.reached.state["journal_bytes"] if self.reached else 0, keep="changed")
        for name, before, now in self.changed:
            step = self.reached.step if self.reached else 0
            row = {"event": "changed", "step": step, "key": name, "before": before, "now": now}
            if row not in kept:
                self.journal.write(**row)
        replace_file(self.folder / "recipe.toml", self.recipe.to_toml().encode())
        sync_folder(self.folder.parent)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process away from the folder.

        Raises `UsageError` (exit code 2) where another process holds it, naming the process and its machine.
        """
        owner = self.folder / ".owner.json"

        def busy() -> UsageError:
            holder = _read_owner(owner)
            return UsageError(
                "another process is at work",
                file=self.folder,
                why=f"process {holder.get('pid', '?')} on {holder.get('host', 'this machine')} trains there",
                remedy="wait until it has ended, or another --out",
            )

        with alone_in(self.folder, busy, "cannot use the run's folder"):
            try:
                for folder in (self.folder, self.folder / "model"):
                    storage.sweep(folder)
                checkpoint.sweep(self.checkpoints)
            except OSError as error:
                raise StorageError.from_os(error, "cannot use the run's folder", self.folder) from error
            try:
                if _landmarks(self.folder) != self.seen:
                    raise UsageError(
                        "another process has been at work meanwhile", file=self.folder, remedy="the same command again"
                    )
                replace_file(owner, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
                yield
            finally:
                owner.unlink(missing_ok=True)


def _landmarks(folder: Path) -> frozenset[str]:
    """Names in a run's folder by which one sees that it has moved on."""
    return frozenset(path.name for path in (*folder.glob("*.toml"), *folder.glob("checkpoints/step-*")))


def _read_owner(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}


def open_run(
    data: Any,
    recipe: str | Path | Recipe | None,
    *,
    out: str | Path | None,
    resume: bool,
    changes: dict[str, Any],
    allow: Collection[str] = (),
    network: str | None = None,
) -> Run:
    """Decide on the recipe and the folder of a run, and find its newest checkpoint. Writes nothing.

    `allow` names the keys that may differ from those that the run was begun with; `network` a network that is none of
    ours.
    Raises `UsageError` (exit code 2) where the folder holds something else or the recipe has changed,
    `CheckpointError` (exit code 4) where no checkpoint can be used.
    """
    if resume and out is None:
        raise UsageError("the run to go on with is not named", remedy="--resume --out DIR with the run's folder")
    for name in allow:
        if name not in WITH_LEAVE:
            raise UsageError.unknown("key to change", name, WITH_LEAVE)
    folder = Path(out) if out is not None else None
    seen = _landmarks(folder) if folder is not None else frozenset()
    old_recipe = folder / "recipe.toml" if folder is not None and (folder / "recipe.toml").is_file() else None
    if folder is not None and not (resume and old_recipe):
        _refuse_occupied(folder, is_run=old_recipe is not None)
    settings = choose_recipe(data, recipe, changes, old_recipe, network, logger.info)
    if folder is None:
        folder = Path("runs") / f"{Path(settings.data.name).resolve().name}-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        settings.to_toml().encode()
    except UnicodeEncodeError as error:
        what, file = "the path is not UTF-8", repr(settings.data.name)
        raise UsageError(what, file=file, remedy="rename the folder, or train inside it as .") from error
    if old_recipe is None:
        return Run(folder, settings, seen=seen, identity=uuid4().hex, unnamed=out is None)
    before = load_recipe(old_recipe)
    changed = _changes(before, settings, old_recipe, allow)
    identity = fingerprint.run_of(folder / fingerprint.FILE)
    reached, damaged = _newest(folder, settings, identity)
    if not identity:  # of a former version, or stopped before its first checkpoint
        identity = (reached.run if reached else "") or uuid4().hex
    notes = [f"left out: {line}" for line in damaged]
    if reached is not None and not reached.run and not reached.state.get("best"):
        notes.append(f"note      {reached.folder} is of a former version and does not say of which run it is")
    notes += [f"changed   {name} from {old} to {new}" for name, old, new in changed]
    if reached is None:
        notes.append(f"no checkpoint in {folder} yet: the run begins again")
    return Run(folder, settings, reached, tuple(notes), seen, tuple(changed), identity)


def _newest(folder: Path, recipe: Recipe, identity: str) -> tuple[Checkpoint | None, list[str]]:
    """As `checkpoint.newest`, but the step is counted in the recipe's batches.

    Where a run stands is a number of images; the checkpoint knows the size of the batches that led to it.
    """
    doubt = partial(_doubt, Journal(folder / "metrics.jsonl"))
    reached, damaged = checkpoint.newest(folder / "checkpoints", identity, doubt)
    if reached is not None:
        size = reached.state.get("batch_size")
        if not isinstance(size, int):
            raise CheckpointError("the checkpoint does not fit the recipe", file=reached.folder, why="no batch_size")
        reached = replace(reached, step=reached.step * size // recipe.data.batch_size)
    return reached, damaged


def _doubt(journal: Journal, reached: Checkpoint) -> str | None:
    """Why a checkpoint that does not name its run cannot be of the one with this journal.

    What it holds of the best epoch stands in its run's journal too, to the last digit.
    """
    best, size = reached.state.get("best") or {}, reached.state.get("journal_bytes")
    epochs = journal.epochs(size if isinstance(size, int) else 0)
    if not best:
        before = [row["step"] for row in journal.epochs() if row["step"] <= reached.step]
        return f"it knows no epoch, and the journal one at step {before[0]}" if before else None
    if best.get("step") == 0 or any(
        (row["step"], row.get("validation_top1"), row.get("validation_loss"))
        == (best.get("step"), best.get("top1"), best.get("loss"))
        for row in epochs
    ):
        return None
    return f"the journal knows no epoch as it has it, of step {best.get('step')}"


def _refuse_occupied(folder: Path, *, is_run: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError("the output folder cannot be made", file=folder, why="it is a file", remedy="another --out")
    if folder.is_dir() and any(not child.name.startswith(".") for child in folder.iterdir()):
        what = "another run" if is_run else "other files"
        remedy = "--resume to go on with it, or another --out" if is_run else "another --out"
        raise UsageError(f"the output folder holds {what}", file=folder, remedy=remedy)


def _changes(old: Recipe, new: Recipe, file: Path, allow: Collection[str]) -> list[tuple[str, Any, Any]]:
    """Keys that differ with leave. Raises `UsageError` for one that may not, or for which no leave was given."""
    if any(name in (*LENGTHS, *BOUNDS) for name in allow):
        allow = {*allow, *LENGTHS, *BOUNDS}  # a new length does away with the old one, whatever its unit
    before, after = flat(old.model_dump(mode="json")), flat(new.model_dump(mode="json"))
    changed = []
    # Another network first: what it is made of is its own, and follows.
    for name in sorted(before.keys() | after.keys(), key=lambda each: (each != "model.name", each)):
        was, now = before.get(name), after.get(name)
        if was == now or ON_RESUME[name] is OnResume.FREE:
            continue
        if name not in allow:
            remedy = (
                f"the old value, or --allow-change {name}" if name in WITH_LEAVE else "the old value, or another --out"
            )
            raise UsageError(
                f"{name} has changed since the run began",
                file=file,
                why=f"it was {was!r} and is now {now!r}",
                remedy=remedy,
            )
        changed.append((name, was, now))
    return changed


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found
