"""Where a run stands: all that is not a function of the recipe and the step, so that it can go on exactly."""

import time
from typing import Any

import torch
from torch import Tensor

from resnetkit.data.fingerprint import Fingerprint
from resnetkit.errors import CheckpointError, DivergedError, StorageError, UsageError
from resnetkit.evaluation.metrics import Tally
from resnetkit.machine.console import Reporter
from resnetkit.machine.ranks import Ranks
from resnetkit.networks.resnet import ResNet
from resnetkit.runs import checkpoint
from resnetkit.runs.checkpoint import Checkpoint
from resnetkit.runs.folder import Run
from resnetkit.training.optim import optimizer_tensors, restore_optimizer
from resnetkit.training.step import Stepper

FAILED_SAVES = 3
"""After so many saves in a row that failed, training for nothing ends."""


class State:
    """The state of one run, in memory and on disk. Network, optimizer and average are the stepper's."""

    def __init__(self, run: Run, stepper: Stepper, images: Fingerprint, tally: Tally, peers: Ranks) -> None:
        self.run, self.stepper, self.images, self.ranks = run, stepper, images, peers
        self.step = 0
        self.tally = tally
        """Figures of this rank's images since the epoch began."""
        self.best: dict[str, Any] = {}
        """`step, top1, loss` of the best validation so far."""
        self.best_weights: dict[str, Tensor] = {}
        self.extra: dict[str, Any] = {}
        """Figures that go into the result as they are."""
        self.unreadable: dict[str, str] = {}
        """Files that could not be read, and why."""
        self.bad_steps = 0
        """Steps in a row that were not finite."""
        self.rolled_back = False
        self.saved_step = -1
        self.last_save = self.began = time.monotonic()
        self._seconds_before = 0.0
        self._failed_saves = 0

    @property
    def seconds(self) -> float:
        """Time spent training, validation included, over all sittings of the run."""
        return self._seconds_before + time.monotonic() - self.began

    def remember_best(self, network: ResNet, top1: float, loss: float) -> bool:
        """Keep the weights where they are better on validation than all before; say whether they are."""
        better = not self.best or (top1, -loss) > (self.best["top1"], -self.best["loss"])
        if better:
            self.best = {"step": self.step, "top1": top1, "loss": loss}
            self.best_weights = copy_of(network)
        return better

    def save(self, reporter: Reporter, *, must: bool = False) -> None:
        """Write a checkpoint, unless there is one of this step. Called at the same steps on all ranks.

        A save that fails is borne, with a warning, where there is an older checkpoint and training goes on; `must` says
        that it does not. Raises `StorageError` (exit code 7).
        """
        tallies = self.ranks.gather(self.tally.state())
        self.last_save = time.monotonic()
        if self.saved_step == self.step:
            return

        def write() -> bool:
            try:
                self._write(tallies)
                self._failed_saves = 0
                return True
            except StorageError as error:
                self._failed_saves += 1
                if must or self.saved_step < 0 or self._failed_saves >= FAILED_SAVES:
                    raise
                reporter.line(f"warning   {error} Training goes on, and the next save tries again.")
                return False

        if self.ranks.from_first(write):
            self.saved_step = self.step

    def _write(self, tallies: list[list[float]]) -> None:
        stepper = self.stepper
        tensors = {
            "model": stepper.network.state_dict(),
            "optimizer": optimizer_tensors(stepper.optimizer),
            "best": self.best_weights,
        }
        if stepper.average is not None:
            tensors["average"] = stepper.average.state_dict()
        for name, value in tensors["model"].items():
            if not bool(torch.isfinite(value).all()):
                raise DivergedError(f"{name} is no longer finite at step {self.step}", remedy="a smaller --optim.lr")
        state = {
            "best": self.best,
            "extra": self.extra,
            "unreadable": self.unreadable,
            "tallies": tallies,
            "micro_batch": stepper.micro_batch,
            "slower": stepper.slower,
            "rolled_back": self.rolled_back,
            "bad_steps": self.bad_steps,
            "seconds": self.seconds,
            "journal_bytes": self.run.journal.size(),
            "images": self.images.digest,
            "batch_size": self.run.recipe.data.batch_size,
            "ranks": self.ranks.size,
            "torch": torch.__version__,
        }
        checkpoint.save(self.run.checkpoints, self.step, tensors, state, keep=self.run.recipe.checkpoint.keep)

    def restore(self, reached: Checkpoint, reporter: Reporter) -> None:
        """Be again as when `reached` was written. Raises `CheckpointError` (exit code 4) where it does not fit."""
        state, tensors, stepper = reached.state, reached.tensors, self.stepper
        try:
            stepper.network.load_state_dict(tensors["model"])
            restore_optimizer(stepper.optimizer, tensors["optimizer"])
            if stepper.average is not None:
                stepper.average.load_state_dict(tensors["average"])
            self.best, self.best_weights, self.extra = state["best"], tensors["best"], state["extra"]
            self.unreadable |= state["unreadable"]
            stepper.micro_batch = self.run.recipe.data.micro_batch or state["micro_batch"]
            stepper.slower, self.rolled_back = state["slower"], state["rolled_back"]
            self.bad_steps = state["bad_steps"]
            same_ranks = state["ranks"] == self.ranks.size
            if same_ranks:
                self.tally.restore(state["tallies"][self.ranks.rank])
            int(state["journal_bytes"])
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(
                "the checkpoint does not fit the recipe", file=reached.folder, why=str(error)
            ) from error
        if not same_ranks:
            reporter.line(f"note      begun with {state['ranks']} ranks: it goes on alike, but not equal to the bit")
        if state["torch"] != torch.__version__:
            reporter.line(f"note      begun with torch {state['torch']}: it goes on alike, but not equal to the bit")
        self.step = self.saved_step = reached.step
        self._seconds_before, self.began = state["seconds"], time.monotonic()

    def check_images(self, reached: Checkpoint) -> None:
        """Raises `UsageError` (exit code 2) where the images are not those that the run was begun with."""
        if reached.state.get("images") == self.images.digest:
            return
        before = Fingerprint.read(self.run.images)
        raise UsageError(
            "the images have changed since the run began",
            file=self.run.recipe.data.name,
            why=self.images.difference(before) if before is not None else "their fingerprint is another",
            remedy="the old images, another --out, or --accept-data-change",
        )


def copy_of(network: ResNet) -> dict[str, Tensor]:
    """A network's parameters and statistics, on the CPU, as they are now."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
