"""Does a run that is killed go on exactly, on this machine? Tried out, with real processes and a real `kill -9`."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetkit.arguments import checked
from resnetkit.errors import CheckpointError, ResnetkitError, UsageError
from resnetkit.machine.console import Reporter
from resnetkit.recipes.load import load_recipe
from resnetkit.recipes.ranges import require
from resnetkit.runs import checkpoint

STEPS, EVERY, KILL_AFTER = 12, 3, 6
"""Length of the two runs, steps between checkpoints, and the checkpoint after which the second one is killed."""
TIMES = ("seconds", "images_per_second")
"""What the journal says of the clock, which is never twice the same."""


@dataclass(frozen=True)
class Verdict:
    """What came of it."""

    recipe: str
    tensors: int
    """Tensors of network, optimizer, average and best weights that were compared."""
    resumed_from: int
    """The step of the checkpoint from which the killed run went on."""
    differences: tuple[str, ...]
    """Names of tensors and lines of the journal that are not equal; none where resuming is exact."""
    seconds: float


@checked("limit")
def verify_resume(
    recipe: str | Path = "digits",
    *,
    data: str | Path | None = None,
    limit: int = 400,
    plugin: str | Path | None = None,
) -> Verdict:
    """Train a recipe twice for a dozen steps on `limit` images, kill the second run, let it go on, compare every bit.

    `plugin` is what `--plugin` of `resnetkit train` is, for a run with something of the user's own.
    Everything is written to a temporary folder. Raises the errors of `train`; `UsageError` (exit code 2) for
    `limit`.
    """
    require(limit=limit)
    began, reporter = time.monotonic(), Reporter()
    settings = load_recipe(recipe, {"data": {"name": str(data)}} if data is not None else None)
    if settings.transfer.mode == "head":
        raise UsageError("the recipe has no steps to resume from", file=str(recipe), remedy="another recipe")
    with tempfile.TemporaryDirectory() as temporary:
        whole, killed = Path(temporary) / "whole", Path(temporary) / "killed"
        command = [sys.executable, "-m", "resnetkit", "train", *([str(data)] if data is not None else [])]
        command += ["--recipe", str(recipe), "--steps", str(STEPS), "--data.limit", str(limit)]
        command += ["--data.batch-size", str(min(settings.data.batch_size, limit // 5))]
        command += ["--plugin", str(plugin)] if plugin is not None else []
        command += ["--checkpoint.every-steps", str(EVERY), "--checkpoint.keep", "20", "--out"]
        with reporter.progress(3, 0, unit="runs", rate=None) as progress:
            _run([*command, str(whole)])
            progress(1)
            _kill([*command, str(killed)], killed / "checkpoints" / f"step-{KILL_AFTER:08d}")
            reached, _ = checkpoint.newest(killed / "checkpoints")
            progress(2)
            _run([*command, str(killed), "--resume"])
            progress(3)
        first, second = (checkpoint.newest(run / "checkpoints")[0] for run in (whole, killed))
        if first is None or second is None or reached is None:
            raise CheckpointError("a run left no checkpoint", file=temporary, remedy="resnetkit train with this recipe")
        differences = _differences(first, second) + _lines_that_differ(whole, killed)
        tensors = sum(len(group) for group in first.tensors.values())
    return Verdict(str(recipe), tensors, reached.step, tuple(differences), round(time.monotonic() - began, 1))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        error = ResnetkitError(_last_line(done.stderr).removeprefix("error: "))
        error.exit_code = done.returncode
        raise error


def _kill(command: list[str], after: Path) -> None:
    """Start a run and kill it as soon as a checkpoint is there."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        while not after.exists() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        _, said = process.communicate()
    if process.returncode > 0:
        raise ResnetkitError(_last_line(said).removeprefix("error: "))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing was said"])[-1]


def _differences(one: checkpoint.Checkpoint, other: checkpoint.Checkpoint) -> list[str]:
    names = {(group, name) for each in (one, other) for group, tensors in each.tensors.items() for name in tensors}
    return [
        f"{group}.{name}"
        for group, name in sorted(names)
        if not _equal(one.tensors.get(group, {}).get(name), other.tensors.get(group, {}).get(name))
    ]


def _equal(one: Any, other: Any) -> bool:
    return one is not None and other is not None and one.numpy().tobytes() == other.numpy().tobytes()


def _lines_that_differ(one: Path, other: Path) -> list[str]:
    first, second = ([_timeless(line) for line in _journal(run)] for run in (one, other))
    if len(first) != len(second):
        return [f"the journal has {len(second)} lines for {len(first)}"]
    pairs = enumerate(zip(first, second, strict=True), 1)
    return [f"line {number} of the journal" for number, (mine, theirs) in pairs if mine != theirs]


def _journal(run: Path) -> list[str]:
    return (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()


def _timeless(line: str) -> dict[str, Any]:
    return {name: value for name, value in json.loads(line).items() if name not in TIMES}
