"""Training: from a recipe to a `Classifier`."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from resnetkit.classifier import Classifier
from resnetkit.data.load import load_data
from resnetkit.machine import ranks, torchrun
from resnetkit.machine.console import Reporter
from resnetkit.machine.signals import Stopped, Stopping
from resnetkit.runs.choice import choose_recipe
from resnetkit.runs.folder import flat, open_run
from resnetkit.training.loop import Trainer, stopped


def train(
    data: str | Path | None = None,
    /,
    recipe: str | Path | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    allow_change: Collection[str] = (),
    accept_data_change: bool = False,
    data_root: str | Path | None = None,
    quiet: bool = False,
    **changes: Any,
) -> Classifier:
    """Train a network and return it as a `Classifier`; the run is also written to a folder.

    `data`: a named set or a folder of images; "digits" where nothing is said.
    `recipe`: a name or a TOML file; the one that fits the data where nothing is said.
    `out`: the run's folder, `runs/DATA-TIME` by default. With `resume`, the run in it goes on, from its last checkpoint
    and exactly as if it had not been stopped; where there is none yet, it begins.
    `allow_change`: keys of the recipe that may differ from those that the run was begun with; `accept_data_change` lets
    it go on with other images.
    `changes`: keys of the recipe, such as `epochs=5, optim={"lr": 0.05}, data={"batch_size": 32}`.
    Raises the errors of `resnetkit.errors`; `StoppedError` after Ctrl-C, SIGTERM and SIGUSR1, once the state is saved.
    """
    stopping = Stopping()
    with stopping.watched(), ranks.joined(ranks.current()) as peers:
        reporter = Reporter(quiet=quiet or not peers.first)
        folder: Path | None = None
        try:
            if not peers.alone:
                request = {"data": data, "recipe": recipe, "resume": resume} | flat(changes)
                if recipe is not None:
                    request |= flat(choose_recipe(data, recipe, changes, None).model_dump(mode="json"))
                peers.agree({f"the recipe's {name}": value for name, value in request.items()})
            going_on = resume or (out is not None and bool(peers.any(torchrun.restarted())))
            run = peers.from_first(
                lambda: open_run(data, recipe, out=out, resume=going_on, changes=changes, allow=allow_change)
            )
            folder = run.folder
            for note in run.notes:
                reporter.line(note)
            images = load_data(run.recipe.data.name, run.recipe.data, data_root=data_root)
            return Trainer(run, images, reporter, peers, stopping, accept_data_change=accept_data_change).train()
        except Stopped as stop:
            if folder is not None and any((folder / "checkpoints").glob("step-*")):
                raise stopped(stop.number, f"the last checkpoint is in {folder}", folder) from None
            raise stopped(stop.number, "nothing had been begun that could be saved") from None
