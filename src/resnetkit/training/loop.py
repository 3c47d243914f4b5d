"""The loop: one run from its first step to its model, that can be stopped at any moment and goes on exactly."""

import math
import time
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from resnetkit.classifier import Classifier, load_classifier
from resnetkit.data.batches import training_batches
from resnetkit.data.dataset import Data
from resnetkit.data.fingerprint import Fingerprint
from resnetkit.data.order import order_of
from resnetkit.data.splits import Split, class_weights
from resnetkit.data.unreadable import too_many
from resnetkit.errors import DataError, DivergedError, ResnetkitError, StoppedError, UsageError
from resnetkit.evaluation.evaluate import score
from resnetkit.evaluation.metrics import Tally
from resnetkit.images.augment import Augment
from resnetkit.machine import device
from resnetkit.machine.console import Reporter
from resnetkit.machine.ranks import Ranks
from resnetkit.machine.signals import Stopping, exit_code
from resnetkit.networks.resnet import ResNet
from resnetkit.runs.folder import Run
from resnetkit.training.optim import Schedule
from resnetkit.training.setup import announcement, create_network, freeze, read_start, training_preprocess
from resnetkit.training.state import State, copy_of
from resnetkit.training.step import Stepper, with_sync_batchnorm
from resnetkit.transfer.probe import Probe, probe, score_probe

TOO_MANY_UNREADABLE = 1000
"""What a rank says in place of the number of a signal."""
BAD_STEPS = 3
"""After so many steps in a row that were not finite, something has to be done."""


class Trainer:
    """The parts of one run, put together once."""

    def __init__(
        self, run: Run, data: Data, reporter: Reporter, peers: Ranks, stopping: Stopping, *, accept_data_change: bool
    ) -> None:
        recipe = run.recipe
        if data.train is None or not len(data.train):
            raise DataError("there is nothing to train on", file=data.name, remedy="a folder train/")
        self.run, self.recipe, self.data, self.split, self.reporter = run, recipe, data, data.train, reporter
        self.ranks, self.stopping, self.accept_data_change = peers, stopping, accept_data_change
        self.compute = device.choose(recipe.device, recipe.precision)
        start = read_start(recipe)
        self.preprocess = training_preprocess(recipe, data, start)
        balanced = recipe.data.sampling == "balanced"
        self.order = order_of(self.split, recipe.data.batch_size, recipe.seed, peers, balanced=balanced)
        if self.order.batch_size < 2 * peers.size and recipe.transfer.mode != "head":
            raise UsageError(
                f"a batch of {self.order.batch_size} images for {peers.size} ranks",
                why="BatchNorm needs two images at a time",
                remedy=f"--data.batch-size {2 * peers.size} or more, and as many images",
            )
        self.total_steps = recipe.total_steps(len(self.split))
        network = create_network(recipe, data, start)
        if recipe.sync_batchnorm and not peers.alone:
            network = with_sync_batchnorm(network, self.compute)
        self.network = self.compute.network(network)
        self.network.recompute = recipe.recompute
        schedule = Schedule(recipe.optim, self.total_steps, len(self.split), self.order.batch_size)
        frozen = freeze(self.network, recipe.freeze)
        weights = class_weights(self.split, len(data.classes)) if recipe.class_weights == "balanced" else None
        self.stepper = Stepper(self.network, recipe, schedule, self.compute, frozen, peers, weights)
        self.state = State(run, self.stepper, Fingerprint.of(data), self._new_tally(), peers)
        self.state.unreadable |= data.unreadable
        self.stepping = False
        """Whether a signal waits until the next place where the state can be saved."""
        self._epoch_began = time.monotonic()
        self._lost_before = 0
        """How many files could not be read when the loop began; what is lost later is another matter."""

    @property
    def unreadable(self) -> dict[str, str]:
        """Files that could not be read, and why."""
        return self.state.unreadable

    @property
    def step(self) -> int:
        """Steps behind us."""
        return self.state.step

    def _new_tally(self) -> Tally:
        return Tally(len(self.data.classes), self.compute.device)

    def train(self) -> Classifier:
        """Train to the end of the recipe, keep the best weights, score them once on what was held out."""
        length = f"{self.total_steps:,} steps of {self.order.batch_size} images, seed {self.recipe.seed}"
        for line in announcement(self.recipe, self.data, self.network, self.preprocess, self.compute, length):
            self.reporter.line(line)
        self.reporter.line(f"run       {self.run.folder}")
        self._name_unreadable()
        facts = {"class list": self.data.classes, "list of files": self.state.images.digest, "torch": torch.__version__}
        self.ranks.agree(facts)
        if not self.ranks.first:
            return self._train()
        with self.run.locked():
            return self._train()

    def _train(self) -> Classifier:
        if self.recipe.transfer.mode == "head":
            return self._train_head()
        if self.run.reached is not None:
            if not self.accept_data_change:
                self.state.check_images(self.run.reached)
            self.state.restore(self.run.reached, self.reporter)
            self.reporter.line(f"resumed   at step {self.step:,} from {self.run.reached.folder}")
        if self.step >= self.total_steps and self.run.finished:
            self.reporter.line(f"the run in {self.run.folder} is finished: nothing to do")
            return load_classifier(self.run.folder)
        self._begin()
        if self.run.reached is None:
            if self.recipe.transfer.mode == "finetune":
                self._begin_finetuning()
            with self.stopping.deferred():
                # Before hours of work: is the disk writable, and large enough?
                self.state.save(self.reporter, must=True)
        with (
            self.stopping.deferred(),
            torch.random.fork_rng(enabled=bool(self.network.arch.drop_path)),
            self.reporter.progress(self.total_steps, self.step, self.order.batch_size) as progress,
        ):
            self.stepping = True
            self.state.began = self.state.last_save = self._epoch_began = time.monotonic()
            self._lost_before = len(self.unreadable)
            self._stop_if_asked()
            self.ranks.straggler()  # who was slow to start does not count
            if self.state.tally.count and self._at_epoch_end():
                self._end_epoch()  # stopped while it was being scored
            while self.step < self.total_steps:
                self._go_on(progress)
            self.stepping = False
        return self._finish()

    def _begin(self) -> None:
        if self.ranks.first:
            self.run.begin()
            self.state.images.write(self.run.images)

    def _go_on(self, progress: Any) -> None:
        """Train from the current step to the end, or to a roll-back."""
        recipe = self.recipe
        augment = Augment(recipe.augment, self.preprocess, num_classes=len(self.data.classes), seed=recipe.seed)
        batches = training_batches(
            self.split,
            self.order,
            augment,
            self.compute,
            start=self.step,
            stop=self.total_steps,
            workers=recipe.data.workers,
        )
        self.stepper.ready()
        for batch in batches:
            self.state.unreadable |= batch.lost
            taken = self.stepper(batch, self.step)
            while self.stepper.notes:
                self.reporter.line(f"note      {self.stepper.notes.pop(0)}")
            if taken.applied:
                self.state.bad_steps = 0
                self.state.tally.update(taken.logits, batch.labels, taken.loss)
            elif self._not_applied(float(taken.loss)):
                return
            self.state.step += 1
            progress(self.step)
            self._after_step()

    def _after_step(self) -> None:
        """Whatever is due between two steps: stop, score, save."""
        self._stop_if_asked()
        every = self.recipe.checkpoint
        if self._at_epoch_end():
            self._end_epoch()
        elif (every.every_steps and self.step % every.every_steps == 0) or self.ranks.any(
            time.monotonic() - self.state.last_save >= 60 * every.every_minutes
        ):
            self.state.save(self.reporter)

    def _at_epoch_end(self) -> bool:
        return self.step == self.total_steps or self.order.ends_epoch(self.step)

    def _stop_if_asked(self) -> None:
        """Save and leave where any rank has been asked to stop. Called at the same places on all of them."""
        lost = len(self.unreadable) - self._lost_before
        ends = too_many(lost, self.recipe.data.max_unreadable, len(self.split), self.ranks.size)
        number = self.ranks.any(TOO_MANY_UNREADABLE if ends else self.stopping.number)
        if not number:
            return
        self.state.save(self.reporter, must=True)
        folder, saved = self.run.folder, f"everything up to step {self.step:,} is saved in {self.run.folder}"
        if number == TOO_MANY_UNREADABLE:
            gone = {file: why for found in self.ranks.gather(self.unreadable) for file, why in found.items()}
            error: ResnetkitError = DataError(
                f"{len(gone):,} images cannot be read, most of which could when the run began",
                file=self.data.name,
                why="the last is {}: {}".format(*list(gone.items())[-1]),
                remedy=f"{saved}: bring them back, then resnetkit train --resume --out {quote(str(folder))}",
            )
        else:
            error = stopped(number, saved, folder)
        error.said = not self.ranks.first
        raise error

    def _not_applied(self, loss: float) -> bool:
        """A step was not finite and changed nothing. True where the run was rolled back for it."""
        self.state.bad_steps += 1
        rate = self.stepper.schedule(self.step) * self.stepper.slower
        files = []
        if self.split.pixels is None:
            files = [self.split.name(int(i)) for i in self.order.mine(self.step)[1]]
        self._write(event="not applied", step=self.step, loss=repr(loss), lr=rate, files=files)
        if self.state.bad_steps < BAD_STEPS:
            self.reporter.line(f"note      step {self.step}: loss or gradient not finite; the step was not applied")
            return False
        reached = self.ranks.from_first(self.run.newest)
        if self.state.rolled_back or reached is None:
            raise DivergedError(
                f"the loss is no longer finite by step {self.step}",
                file=files[0] if files else None,
                why=f"{BAD_STEPS} steps in a row had no finite loss or gradient, at a learning rate of {rate:.3g}"
                + (f"; their {len(files)} files each are in {self.run.folder / 'metrics.jsonl'}" if files else ""),
                remedy=f"--optim.lr {self.recipe.optim.lr / 10:.2g} in another --out",
            )
        before = self.step
        self.state.restore(reached, self.reporter)
        self.state.bad_steps = 0  # also where it was saved in the midst of them
        self.state.rolled_back, self.stepper.slower = True, self.stepper.slower / 2
        self._write(event="rolled back", step=before, to=self.step, lr_factor=self.stepper.slower)
        self.reporter.line(
            f"note      {BAD_STEPS} steps in a row were not finite: back from step {before} to step {self.step}, once, "
            f"with half the learning rate"
        )
        return True

    def _name_unreadable(self) -> None:
        for file, why in list(self.unreadable.items())[:10]:
            self.reporter.line(f"left out  {file}: {why}")
        if len(self.unreadable) > 10:
            self.reporter.line(f"left out  and {len(self.unreadable) - 10} more")

    def _end_epoch(self) -> None:
        """Score the validation split, remember the best weights, write the journal and a checkpoint."""
        fitted, elapsed = self._fitted(), time.monotonic() - self._epoch_began
        epoch = self.step * self.order.batch_size / self.order.count
        rate = self.stepper.schedule(self.step - 1) * self.stepper.slower
        if not math.isfinite(fitted["loss"]):
            raise DivergedError(
                f"the loss is no longer finite by step {self.step}",
                why=f"the learning rate was {rate:.3g}",
                remedy=f"--optim.lr {self.recipe.optim.lr / 10:.2g} in another --out",
            )
        figures = self._score("validation", self.stepper.judged)
        better = self.state.remember_best(self.stepper.judged, figures["top1"], figures["loss"])
        speed = fitted["count"] / max(elapsed, 1e-9)
        slow = self.ranks.straggler()
        if slow is not None and slow[1] > max(1.0, elapsed / 5):
            self.reporter.line(f"note      the other ranks waited {slow[1]:.0f} of {elapsed:.0f} s for rank {slow[0]}")
        self._write(
            event="epoch",
            step=self.step,
            epoch=round(epoch, 4),
            lr=rate,
            train_loss=fitted["loss"],
            train_top1=fitted["top1"],
            validation_loss=figures["loss"],
            validation_top1=figures["top1"],
            seconds=round(self.state.seconds, 3),
            images_per_second=round(speed, 1),
        )
        self.reporter.line(
            f"epoch {epoch:.4g}: loss {fitted['loss']:.3f}, train {fitted['top1']:.2f} %, "
            f"validation {figures['top1']:.2f} %{' (best)' if better else ''}, {speed:,.0f} images/s, "
            f"{self.state.seconds:.0f} s"
        )
        self.state.tally = self._new_tally()
        if self.step == self.total_steps or round(epoch) % self.recipe.checkpoint.every_epochs == 0:
            self.state.save(self.reporter, must=self.step == self.total_steps)
        self._epoch_began = time.monotonic()
        self.stepper.ready()

    def _fitted(self) -> dict[str, float]:
        """The epoch's figures over the images of all ranks."""
        whole = Tally(len(self.data.classes), torch.device("cpu"))
        whole.restore(self.ranks.sum(*self.state.tally.state()))
        return whole.compute().to_dict()

    def _score(self, split_name: str, network: ResNet) -> dict[str, Any]:
        split = {"validation": self.data.validation, "test": self.data.test}[split_name]
        if split is None:
            raise DataError(
                "there is nothing to choose the best weights by", file=self.data.name, remedy="a folder val/"
            )
        self.ranks.copy_from_first(network.buffers())
        between = self._stop_if_asked if self.stepping else lambda: None
        found = score(
            self._classifier(network), split, workers=self.recipe.data.workers, ranks=self.ranks, between=between
        )
        self.state.unreadable |= found.lost
        return found.to_dict()

    def _classifier(self, network: ResNet) -> Classifier:
        recipe = self.recipe.model_dump(mode="json", exclude_none=True)
        name = self.recipe.model.name
        return Classifier(network, self.preprocess, self.data.classes, name, self.compute, recipe)

    def _write(self, **fields: Any) -> None:
        if self.ranks.first:
            self.run.journal.write(**fields)

    def _solve_head(self, parts: list[Split]) -> Probe:
        """Solve the head on the frozen backbone; it stands as the best until something beats it on validation."""
        solved = probe(self._classifier(self.network), parts, self.recipe, self.reporter)
        self.state.unreadable |= solved.features.lost
        for line in solved.describe(self.data.classes):
            self.reporter.line(line)
        self.state.best_weights = copy_of(self.network)
        self.state.extra = {
            "cross_validation": solved.head.to_dict(self.data.classes),
            "frozen_drift": solved.drift,
        }
        return solved

    def _train_head(self) -> Classifier:
        """The recipe `head`: solve it, and score it once on what was held out."""
        if self.run.finished:
            self.reporter.line(f"the run in {self.run.folder} is finished: nothing to do")
            return load_classifier(self.run.folder)
        self._begin()
        parts = [self.split]
        if self.data.test is not None and self.data.validation is not None:
            parts.append(self.data.validation)  # nothing is chosen on it here, so it may be learnt from
        solved = self._solve_head(parts)
        self.state.best, self.total_steps = {"step": 0}, 0
        _, held_out = self.data.held_out()
        found = score_probe(self._classifier(self.network), held_out)
        self.state.unreadable |= found.lost
        speed = len(solved.features.labels) / max(self.state.seconds, 1e-9)
        return self._finish(found.to_dict(), images_per_second=round(speed, 1))

    def _begin_finetuning(self) -> None:
        """The head first; what it scores on validation is what fine-tuning has to beat."""
        self._solve_head([self.split])
        figures = self._score("validation", self.network)
        self.state.best = {"step": 0, "top1": figures["top1"], "loss": figures["loss"]}
        self.reporter.line(f"head alone: validation {figures['top1']:.2f} %; now all layers that are not frozen")

    def _finish(self, figures: dict[str, Any] | None = None, **more: Any) -> Classifier:
        """Score the best weights once on the held-out split, save the model, say what to do next."""
        seconds = self.state.seconds
        network = self.stepper.judged
        network.load_state_dict(self.state.best_weights)
        split_name, _ = self.data.held_out()
        figures = figures or self._score(split_name, network)
        figures |= {
            "split": split_name,
            "steps": self.total_steps,
            "best_step": self.state.best["step"],
            "seconds": round(seconds, 2),
            "images_per_second": round(self.total_steps * self.order.batch_size / max(seconds, 1e-9), 1),
            "unreadable": len(self.unreadable),
        }
        figures |= self.state.extra | more
        if self.state.best["step"] == 0 and self.total_steps:
            self.reporter.line("fine-tuning did not beat the head alone on validation: the head alone is kept")
        classifier = self._classifier(network)
        classifier.metrics = figures | {"machine": device.describe_machine(), "compute": self.compute.describe()}
        if self.ranks.first:
            classifier.save(self.run.folder / "model")
        self._write(event="end", **figures)
        self.reporter.line(
            f"{split_name}: top-1 {figures['top1']:.2f} %, loss {figures['loss']:.3f}, on {figures['count']:,} images; "
            + (f"best weights of step {self.state.best['step']:,}; " if self.state.best["step"] else "")
            + f"{seconds:.1f} s of training"
        )
        self._name_unreadable()
        return classifier


def stopped(number: int, why: str, folder: Path | None = None) -> StoppedError:
    """What says that a signal has ended a run; the one in `folder` can go on."""
    remedy = f"resnetkit train --resume --out {quote(str(folder))}" if folder is not None else None
    error = StoppedError("stopped", why=why, remedy=remedy)
    error.exit_code = exit_code(number)
    return error
