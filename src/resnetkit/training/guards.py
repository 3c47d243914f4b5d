"""What may end a run between two steps, or send it back: a signal, files that are lost, a loss that is not finite."""

import math
from contextlib import suppress
from pathlib import Path
from shlex import quote

from resnetkit.data.unreadable import too_many
from resnetkit.errors import DataError, DivergedError, ResnetkitError, StoppedError, StorageError
from resnetkit.machine.signals import Stopping, exit_code
from resnetkit.networks.resnet import ResNet
from resnetkit.training.setup import Setup
from resnetkit.training.state import State
from resnetkit.training.step import StepResult

FILES_LOST = 1000
"""What a rank says in place of the number of a signal."""
BAD_STEPS = 3
"""After so many steps in a row that were not finite, something has to be done."""


class Guards:
    """The guards of one run. Each is called at the same places on all ranks."""

    def __init__(self, setup: Setup, state: State, stopping: Stopping) -> None:
        self.setup, self.state, self.stopping = setup, state, stopping
        self._lost_before = len(state.lost)
        """How many files could not be read before the first step; what is lost later is another matter."""

    def leave_if_asked(self) -> None:
        """Save and leave where any rank has been asked to stop, or has lost more files than the recipe bears."""
        setup, state = self.setup, self.state
        lost = len(state.lost) - self._lost_before
        ends = too_many(lost, setup.recipe.data.max_unreadable, len(setup.train_split), setup.ranks.size)
        number = setup.ranks.any(FILES_LOST if ends else self.stopping.number)
        if not number:
            return
        state.save(must=True)
        keep_best(setup, state)
        folder = setup.run.folder
        saved = f"everything up to step {state.step:,} is saved in {folder}"
        if number == FILES_LOST:
            gone = {file: why for found in setup.ranks.gather(state.lost) for file, why in found.items()}
            error: ResnetkitError = DataError(
                f"{len(gone):,} images cannot be read, most of which could when the run began",
                file=setup.data.name,
                why="the last is {}: {}".format(*list(gone.items())[-1]),
                remedy=f"{saved}: bring them back, then resnetkit train --resume --out {quote(str(folder))}",
            )
        else:
            error = stopped(number, saved, folder)
        error.said = not setup.ranks.first
        raise error

    def rolled_back(self, result: StepResult) -> bool:
        """Note a step that was not finite; after several in a row go back to the last checkpoint, once.

        Raises `DivergedError` (exit code 5) where the run has been sent back before.
        """
        setup, state, stepper = self.setup, self.state, self.state.stepper
        state.bad_steps += 1
        rate, files = stepper.lr(state.step), self._files_of_step()
        setup.write(event="not applied", step=state.step, loss=repr(float(result.loss)), lr=rate, files=files)
        if state.bad_steps < BAD_STEPS:
            setup.reporter.line(f"note      step {state.step}: loss or gradient not finite; the step was not applied")
            return False
        reached = setup.ranks.from_first(setup.run.newest)
        if state.rolled_back or reached is None:
            why = f"{BAD_STEPS} steps in a row had no finite loss or gradient, at a learning rate of {rate:.3g}"
            if files:
                why += f"; their {len(files)} files each are in {setup.run.folder / 'metrics.jsonl'}"
            raise self._diverged(why, file=files[0] if files else None)
        before = state.step
        state.restore(reached)
        state.bad_steps = 0  # also where it was saved in the midst of them
        state.rolled_back, stepper.lr_factor = True, stepper.lr_factor / 2
        setup.write(event="rolled back", step=before, to=state.step, lr_factor=stepper.lr_factor)
        setup.reporter.line(
            f"note      {BAD_STEPS} steps in a row were not finite: back from step {before} to step {state.step}, "
            "once, with half the learning rate"
        )
        return True

    def refuse_divergence(self, loss: float, rate: float) -> None:
        """Raises `DivergedError` (exit code 5) where an epoch's loss is no number, as where none of its steps was."""
        if not math.isfinite(loss):
            raise self._diverged(f"the learning rate was {rate:.3g}")

    def _diverged(self, why: str, file: str | None = None) -> DivergedError:
        return DivergedError(
            f"the loss is no longer finite by step {self.state.step}",
            file=file,
            why=why,
            remedy=f"--optim.lr {self.setup.recipe.optim.lr / 10:.2g} in another --out",
        )

    def _files_of_step(self) -> list[str]:
        split = self.setup.train_split
        if split.pixels is not None:
            return []  # in memory: no file to look at
        return [split.name(int(i)) for i in self.state.plan.order.mine(self.state.step)[1]]


def keep_best(setup: Setup, state: State) -> None:
    """Make the best weights so far the run's model, so that it can be used before the run goes on."""
    if not state.best or not setup.ranks.first:
        return
    network = ResNet(setup.network.arch, initialise=False)
    network.load_state_dict(state.best_weights)
    classifier, best = setup.classifier(network), state.best
    figures = {"split": "validation", "count": len(setup.validation_split), "top1": best["top1"], "loss": best["loss"]}
    classifier.metrics = {"unfinished": f"step {best['step']:,} of {state.plan.total_steps:,}"} | figures
    folder = setup.run.folder
    with suppress(StorageError):  # the checkpoint is what matters
        classifier.save(folder / "model")
        at = f"step {best['step']:,}" if best["step"] else "the head alone"
        setup.say(
            [
                f"kept      the best weights so far, of {at}: validation {best['top1']:.2f} %",
                f"use them  resnetkit predict {quote(str(folder))} PICTURE",
            ]
        )


def stopped(number: int, why: str, folder: Path | None = None) -> StoppedError:
    """What says that a signal has ended a run; the one in `folder` can go on."""
    remedy = f"resnetkit train --resume --out {quote(str(folder))}" if folder is not None else None
    error = StoppedError("stopped", why=why, remedy=remedy)
    error.exit_code = exit_code(number)
    return error
