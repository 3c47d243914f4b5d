"""Where a run stands: all that is not a function of the recipe and the step, so that it can go on exactly."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from resnetkit.data.batches import Batch
from resnetkit.data.fingerprint import Fingerprint
from resnetkit.errors import CheckpointError, DivergedError, HookError, StorageError, UsageError
from resnetkit.evaluation.metrics import Score, Tally
from resnetkit.networks.resnet import ResNet
from resnetkit.runs import checkpoint
from resnetkit.runs.checkpoint import Checkpoint
from resnetkit.training.hooks import Stateful, Stop
from resnetkit.training.optim import optimizer_tensors, restore_optimizer, restore_own_optimizer
from resnetkit.training.packing import pack, unpack
from resnetkit.training.plan import Plan
from resnetkit.training.scale import LossScale
from resnetkit.training.setup import Setup
from resnetkit.training.step import Stepper, StepResult

FAILED_SAVES = 3
"""After so many saves in a row that failed, training for nothing ends."""


class State:
    """The state of one run, in memory and on disk. Network, optimizer and average are the stepper's."""

    def __init__(self, setup: Setup, plan: Plan, stepper: Stepper) -> None:
        self.setup, self.run, self.ranks, self.reporter = setup, setup.run, setup.ranks, setup.reporter
        self.plan, self.stepper = plan, stepper
        self.step = 0
        """Steps behind us."""
        self.tally = self._new_tally()
        """Figures of this rank's images since the epoch began."""
        self.best: dict[str, Any] = {}
        """`step` of the best validation so far, and its figures."""
        self.best_weights: dict[str, Tensor] = {}
        self.extra: dict[str, Any] = {}
        """Figures that go into the result as they are."""
        self.lost: dict[str, str] = dict(setup.data.unreadable)
        """Files that could not be read, and why."""
        self.bad_steps = 0
        """Steps in a row that were not finite."""
        self.rolled_back = False
        self.ended = ""
        """Why the run ends before its last step."""
        self.saved_step = -1
        self.last_save = self.began = self.epoch_began = time.monotonic()
        self._seconds_before = 0.0
        self._failed_saves = 0

    def _new_tally(self) -> Tally:
        return Tally(len(self.setup.data.classes), self.setup.compute.device)

    @property
    def seconds(self) -> float:
        """Time spent training, validation included, over all sittings of the run."""
        return self._seconds_before + time.monotonic() - self.began

    def start_clock(self) -> None:
        """Time counts from here: reading, and solving a head, are not training."""
        self.began = self.last_save = self.epoch_began = time.monotonic()

    def start_epoch(self) -> None:
        """Figures of training images begin anew."""
        self.tally, self.epoch_began = self._new_tally(), time.monotonic()

    def count(self, result: StepResult, batch: Batch) -> None:
        """Add a step that was applied to the epoch's figures."""
        self.bad_steps = 0
        self.tally.update(result.logits, batch.labels, result.loss)

    def advance(self, result: StepResult) -> None:
        """One more step is behind us."""
        self.step += 1
        if self.setup.callbacks.hear("on_step"):
            rate = self.stepper.lr(self.step - 1)
            self.tell("on_step", {"loss": float(result.loss), "lr": rate, "applied": result.applied})

    def tell(self, moment: str, figures: Mapping[str, Any]) -> None:
        """Ask the callbacks of a moment, on all ranks; one of them may end the run.

        Raises `HookError` (exit code 2) where one fails on any rank, once the state is saved.
        """
        if not self.setup.callbacks.hear(moment):
            return
        view = self.setup.view(self.step, self.plan.total_steps, self.plan.epochs(self.step), self.stepper.network)
        failed: HookError | None = None
        answer: Stop | None = None
        try:
            answer = self.setup.callbacks.ask(moment, view, figures)
        except HookError as error:
            failed = error
        said = self.ranks.any(2 if failed is not None else int(answer is not None))
        if said == 2:
            self.save(must=True)
            error = failed or HookError("a callback of another rank failed")
            error.said = error.said or failed is None
            raise error
        if said and not self.ended:
            self.ended = answer.why if answer is not None else "a callback of another rank has said so"

    def fitted(self) -> Score:
        """The epoch's figures over the training images of all ranks."""
        whole = Tally(len(self.setup.data.classes), torch.device("cpu"))
        whole.restore(self.ranks.sum(*self.tally.state()))
        return whole.compute()

    def remember_best(self, validation: Score) -> bool:
        """Keep the weights where they are better on validation than all before; say whether they are."""
        better = not self.best or (validation.top1, -validation.loss) > (self.best["top1"], -self.best["loss"])
        if better:
            self.best = {"step": self.step} | validation.to_dict()
            self.best_weights = copy_of(self.stepper.eval_network)
        return better

    def save_is_due(self) -> bool:
        """Whether it is time for a checkpoint within an epoch."""
        every = self.run.recipe.checkpoint
        if every.every_steps and self.step % every.every_steps == 0:
            return True
        return bool(self.ranks.any(time.monotonic() - self.last_save >= 60 * every.every_minutes))

    def save(self, *, must: bool = False) -> None:
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
                self.reporter.line(f"warning   {error} Training goes on, and the next save tries again.")
                return False

        if self.ranks.from_first(write):
            self.saved_step = self.step
            self.tell("on_save", {"folder": self.run.checkpoints / f"step-{self.step:08d}"})

    def _write(self, tallies: list[list[float]]) -> None:
        stepper = self.stepper
        tensors = {
            "model": unshared(stepper.network.state_dict()),
            "optimizer": {} if stepper.hooks.optimizer else optimizer_tensors(stepper.optimizer),
            "best": self.best_weights,
        }
        if stepper.average is not None:
            tensors["average"] = unshared(stepper.average.state_dict())
        for name, value in tensors["model"].items():
            if not bool(torch.isfinite(value).all()):
                raise DivergedError(f"{name} is no longer finite at step {self.step}", remedy="a smaller --optim.lr")
        remembered: dict[str, Tensor] = {}
        hooks = pack(self._hooks_state(), remembered, "hooks")
        if remembered:
            tensors["hooks"] = remembered
        state = {
            "hooks": {"names": self.setup.hooks.names(), "state": hooks},
            "ended": self.ended,
            "best": self.best,
            "extra": self.extra,
            "unreadable": self.lost,
            "tallies": tallies,
            "micro_batch": stepper.micro_batch,
            "slower": stepper.lr_factor,
            "rolled_back": self.rolled_back,
            "bad_steps": self.bad_steps,
            "loss_scale": asdict(stepper.loss_scale) if stepper.loss_scale is not None else None,
            "seconds": self.seconds,
            "journal_bytes": self.run.journal.size(),
            "images": self.setup.images.digest,
            "batch_size": self.run.recipe.data.batch_size,
            "ranks": self.ranks.size,
            "torch": torch.__version__,
        }
        run, keep = self.run, self.run.recipe.checkpoint.keep
        checkpoint.save(run.checkpoints, self.step, tensors, state, keep=keep, run=run.identity)

    def _hooks_state(self) -> dict[str, Any]:
        """What the user's own remembers: of what is ours there is nothing in it."""
        hooks, callbacks = self.stepper.hooks, self.setup.callbacks.state()
        state: dict[str, Any] = {"callbacks": callbacks} if callbacks else {}
        if hooks.optimizer is not None:
            state["optimizer"] = self.stepper.optimizer.state_dict()
        if isinstance(hooks.loss, Stateful):
            state["loss"] = hooks.loss.state_dict()
        return state

    def _restore_hooks(self, saved: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        state, hooks = unpack(saved.get("state", {"dict": []}), tensors), self.stepper.hooks
        if hooks.optimizer is not None:
            restore_own_optimizer(self.stepper.optimizer, state["optimizer"])
        if isinstance(hooks.loss, Stateful):
            hooks.loss.load_state_dict(state["loss"])
        self.setup.callbacks.restore(state.get("callbacks", {}))

    def restore(self, reached: Checkpoint) -> None:
        """Be again as when `reached` was written. Raises `CheckpointError` (exit code 4) where it does not fit."""
        state, tensors, stepper = reached.state, reached.tensors, self.stepper
        try:
            stepper.network.load_state_dict(tensors["model"])
            if stepper.hooks.optimizer is None:
                restore_optimizer(stepper.optimizer, tensors["optimizer"])
            self._restore_hooks(state.get("hooks", {}), tensors.get("hooks", {}))
            self.ended = "" if self.run.changed else state.get("ended", "")  # with other keys it is to go on
            if stepper.average is not None:
                stepper.average.load_state_dict(tensors["average"])
            self.best, self.best_weights, self.extra = state["best"], tensors["best"], state["extra"]
            self.lost |= state["unreadable"]
            stepper.micro_batch = self.run.recipe.data.micro_batch or state["micro_batch"]
            stepper.lr_factor, self.rolled_back = state["slower"], state["rolled_back"]
            self.bad_steps = state["bad_steps"]
            if stepper.loss_scale is not None and state.get("loss_scale"):
                stepper.loss_scale = LossScale(**state["loss_scale"])
            same_ranks = state["ranks"] == self.ranks.size
            if same_ranks:
                self.tally.restore(state["tallies"][self.ranks.rank])
            int(state["journal_bytes"])
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(
                "the checkpoint does not fit the recipe", file=reached.folder, why=str(error)
            ) from error
        others = [] if same_ranks else [f"{state['ranks']} ranks"]
        others += [f"torch {state['torch']}"] if state["torch"] != torch.__version__ else []
        for other in others:
            self.reporter.line(f"note      begun with {other}: it goes on alike, but not equal to the bit")
        self.step = self.saved_step = reached.step
        self._seconds_before, self.began = state["seconds"], time.monotonic()

    def check_images(self, reached: Checkpoint) -> None:
        """Raises `UsageError` (exit code 2) where the images are not those that the run was begun with."""
        if reached.state.get("images") == self.setup.images.digest:
            return
        before = Fingerprint.read(self.run.images)
        raise UsageError(
            "the images have changed since the run began",
            file=self.run.recipe.data.name,
            why=self.setup.images.difference(before) if before is not None else "their fingerprint is another",
            remedy="the old images, another --out, or --accept-data-change",
        )


def copy_of(network: ResNet) -> dict[str, Tensor]:
    """A network's parameters and statistics, on the CPU, as they are now."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each with memory of its own: a file of tensors cannot say that two are one."""
    seen: set[int] = set()
    for name, value in tensors.items():
        place = value.untyped_storage().data_ptr()
        tensors[name] = value.clone() if place in seen else value
        seen.add(place)
    return tensors
