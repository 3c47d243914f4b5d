"""Training: one loop, from a recipe to a `Classifier`, that can be stopped after any epoch and resumed."""

import math
import time
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnetkit import checkpoint, device
from resnetkit.augment import Augment
from resnetkit.classifier import Classifier, load_classifier
from resnetkit.data import Data, Split, describe_split, load_data
from resnetkit.errors import CheckpointError, DataError, DivergedError, StoppedError
from resnetkit.evaluation import score
from resnetkit.feed import order_of, training_batches
from resnetkit.log import Reporter
from resnetkit.metrics import Tally
from resnetkit.model import ResNet
from resnetkit.optim import Schedule, average_of, create_optimizer, optimizer_tensors, restore_optimizer
from resnetkit.probe import Probe, probe, score_probe
from resnetkit.randomness import key
from resnetkit.run import Run, open_run
from resnetkit.shards import Shards
from resnetkit.start import create_network, read_start, training_preprocess
from resnetkit.transfer import freeze


def train(
    data: str | Path | None = None,
    /,
    recipe: str | Path | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    data_root: str | Path | None = None,
    quiet: bool = False,
    **changes: Any,
) -> Classifier:
    """Train a network and return it as a `Classifier`; the run is also written to a folder.

    `data`: a named set or a folder of images; "digits" where nothing is said.
    `recipe`: a name or a TOML file; the one that fits the data where nothing is said.
    `out`: the run's folder, `runs/DATA-TIME` by default. With `resume`, the run in it goes on.
    `changes`: keys of the recipe, such as `epochs=5, optim={"lr": 0.05}, data={"batch_size": 32}`.
    Raises the errors of `resnetkit.errors`.
    """
    reporter = Reporter(quiet=quiet)
    run = open_run(data, recipe, out=out, resume=resume, changes=changes)
    for note in run.notes:
        reporter.line(note)
    try:
        return _Trainer(run, load_data(run.recipe.data.name, run.recipe.data, data_root=data_root), reporter).train()
    except KeyboardInterrupt:
        saved = any(run.checkpoints.glob("step-*"))
        raise StoppedError(
            "interrupted",
            why=f"the last finished epoch is saved in {run.folder}" if saved else "no epoch was finished",
            remedy=f"resnetkit train --resume --out {run.folder}" if saved else None,
        ) from None


class _Trainer:
    """The parts of one run, put together once."""

    def __init__(self, run: Run, data: Data, reporter: Reporter) -> None:
        recipe = run.recipe
        if data.train is None or not len(data.train):
            raise DataError("there is nothing to train on", file=data.name, remedy="a folder train/")
        self.run, self.recipe, self.data, self.split, self.reporter = run, recipe, data, data.train, reporter
        self.compute = device.choose(recipe.device, recipe.precision)
        start = read_start(recipe)
        self.preprocess = training_preprocess(recipe, data, start)
        self.order = order_of(self.split, recipe.data.batch_size, recipe.seed)
        self.total_steps = recipe.total_steps(len(self.split))
        self.network = self.compute.network(create_network(recipe, data, start))
        self.network.recompute = recipe.recompute
        self.frozen = freeze(self.network, recipe.freeze)
        self.schedule = Schedule(recipe.optim, self.total_steps, len(self.split), self.order.batch_size)
        self.average = average_of(self.network, recipe.optim.ema) if recipe.optim.ema else None
        self.unreadable: dict[str, str] = dict(data.unreadable)
        self.extra: dict[str, Any] = {}
        self.best: dict[str, Any] = {}
        self.best_weights: dict[str, Tensor] = {}
        self.step = 0
        self._seconds_before = 0.0
        self._began = time.monotonic()

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """Made when it is first needed: PyTorch's optimizers import the compiler, which takes seconds."""
        return create_optimizer(self.network, self.recipe.optim)

    @property
    def seconds(self) -> float:
        """Time spent training, validation included, over all sittings of the run."""
        return self._seconds_before + time.monotonic() - self._began

    @property
    def judged(self) -> ResNet:
        """The network that is scored and kept: the average where there is one."""
        return cast("ResNet", self.average.module) if self.average is not None else self.network

    def train(self) -> Classifier:
        """Train to the end of the recipe, keep the best weights, score them once on what was held out."""
        self._announce()
        if self.recipe.transfer.mode == "head":
            return self._train_head()
        if self.run.reached is not None:
            self._restore(self.run.reached)
        if self.step >= self.total_steps and (self.run.folder / "model").is_dir():
            self.reporter.line(f"the run in {self.run.folder} is finished: nothing to do")
            return load_classifier(self.run.folder)
        self.run.begin()
        if self.recipe.transfer.mode == "finetune" and self.run.reached is None:
            self._begin_finetuning()
        recipe, smoothing = self.recipe, self.recipe.optim.label_smoothing
        augment = Augment(recipe.augment, self.preprocess, num_classes=len(self.data.classes), seed=recipe.seed)
        batches = training_batches(
            self.split,
            self.order,
            augment,
            self.compute,
            start=self.step,
            stop=self.total_steps,
            workers=recipe.data.workers,
            unreadable=self.unreadable,
        )
        self._began, epoch_began = time.monotonic(), time.monotonic()
        tally = Tally(len(self.data.classes), self.compute.device)
        with (
            torch.random.fork_rng(enabled=bool(self.network.arch.drop_path)),
            self.reporter.progress(self.total_steps, self.step, self.order.batch_size) as progress,
        ):
            self._train_mode()
            for batch in batches:
                for group in self.optimizer.param_groups:
                    group["lr"] = self.schedule(self.step) * group["scale"]
                if self.network.arch.drop_path:
                    torch.manual_seed(key(recipe.seed, "network", self.step))
                with self.compute.autocast():
                    logits = self.network(batch.images)
                    loss = F.cross_entropy(logits, batch.targets, label_smoothing=smoothing)
                loss.backward()
                if recipe.optim.clip is not None:
                    nn.utils.clip_grad_norm_(self.network.parameters(), recipe.optim.clip)
                self.optimizer.step()
                self.optimizer.zero_grad()
                if self.average is not None:
                    self.average.update_parameters(self.network)
                self.step += 1
                tally.update(logits.detach(), batch.labels, loss.detach())
                progress(self.step)
                if self.step == self.total_steps or self.order.ends_epoch(self.step):
                    self._end_epoch(tally.compute(), time.monotonic() - epoch_began)
                    tally = Tally(len(self.data.classes), self.compute.device)
                    epoch_began = time.monotonic()
                    self._train_mode()
        return self._finish()

    def _train_mode(self) -> None:
        """BatchNorm moves, except in what is frozen."""
        self.network.train()
        for part in self.frozen:
            part.eval()

    def _announce(self) -> None:
        data, recipe = self.data, self.recipe
        parameters = sum(p.numel() for p in self.network.parameters())
        splits = [("train", data.train), ("validation", data.validation), ("test", data.test)]
        sizes = ", ".join(f"{name} {describe_split(split)}" for name, split in splits)
        for line in (
            f"data      {data.name}: {len(data.classes)} classes; {sizes}",
            *(f"note      {note}" for note in data.notes),
            f"model     {recipe.model.name}, {parameters:,} parameters, sees {self.preprocess.size} px, "
            + (f"starts from {recipe.model.weights}" if recipe.model.weights not in (None, "none") else "from nothing"),
            f"compute   {self.compute.describe()}",
            "training  the head alone, solved on the features of the frozen backbone"
            if recipe.transfer.mode == "head"
            else f"training  {self.total_steps:,} steps of {self.order.batch_size} images, seed {recipe.seed}",
            f"run       {self.run.folder}",
        ):
            self.reporter.line(line)
        self._name_unreadable()

    def _name_unreadable(self) -> None:
        for file, why in list(self.unreadable.items())[:10]:
            self.reporter.line(f"left out  {file}: {why}")
        if len(self.unreadable) > 10:
            self.reporter.line(f"left out  and {len(self.unreadable) - 10} more")

    def _end_epoch(self, fitted: dict[str, float], elapsed: float) -> None:
        """Score the validation split, remember the best weights, write the journal and a checkpoint."""
        epoch = self.step * self.order.batch_size / self.order.count
        rate, speed = self.schedule(self.step - 1), fitted["count"] / elapsed
        if not math.isfinite(fitted["loss"]):
            raise DivergedError(
                f"the loss is no longer finite by step {self.step}",
                why=f"the learning rate was {rate:.3g}",
                remedy=f"--optim.lr {self.recipe.optim.lr / 10:.2g}",
            )
        figures = self._score("validation", self.judged)
        better = not self.best or (figures["top1"], -figures["loss"]) > (self.best["top1"], -self.best["loss"])
        if better:
            self.best = {"step": self.step, "top1": figures["top1"], "loss": figures["loss"]}
            self.best_weights = {name: value.detach().cpu().clone() for name, value in self.judged.state_dict().items()}
        self.run.journal.write(
            event="epoch",
            step=self.step,
            epoch=round(epoch, 4),
            lr=rate,
            train_loss=fitted["loss"],
            train_top1=fitted["top1"],
            validation_loss=figures["loss"],
            validation_top1=figures["top1"],
            seconds=round(self.seconds, 3),
            images_per_second=round(speed, 1),
        )
        self.reporter.line(
            f"epoch {epoch:.4g}: loss {fitted['loss']:.3f}, train {fitted['top1']:.2f} %, "
            f"validation {figures['top1']:.2f} %{' (best)' if better else ''}, {speed:,.0f} images/s, "
            f"{self.seconds:.0f} s"
        )
        if self.step == self.total_steps or round(epoch) % self.recipe.checkpoint.every_epochs == 0:
            self._save()

    def _score(self, split_name: str, network: ResNet) -> dict[str, Any]:
        split = {"validation": self.data.validation, "test": self.data.test}[split_name]
        if split is None:
            raise DataError(
                "there is nothing to choose the best weights by", file=self.data.name, remedy="a folder val/"
            )
        figures = score(self._classifier(network), split, workers=self.recipe.data.workers)
        self.unreadable |= figures.pop("unreadable")
        return figures

    def _classifier(self, network: ResNet) -> Classifier:
        recipe = self.recipe.model_dump(mode="json", exclude_none=True)
        name = self.recipe.model.name
        return Classifier(network, self.preprocess, self.data.classes, name, self.compute, recipe)

    def _save(self) -> None:
        tensors = {
            "model": self.network.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer),
            "best": self.best_weights,
        }
        if self.average is not None:
            tensors["average"] = self.average.state_dict()
        state = {
            "best": self.best,
            "extra": self.extra,
            "seconds": self.seconds,
            "journal_bytes": self.run.journal.size(),
            "data": self._fingerprint(),
            "torch": torch.__version__,
        }
        checkpoint.save(self.run.checkpoints, self.step, tensors, state, keep=self.recipe.checkpoint.keep)

    def _restore(self, reached: checkpoint.Checkpoint) -> None:
        if reached.state["data"] != self._fingerprint():
            raise DataError(
                "the images have changed since the run began",
                file=self.data.name,
                why=f"the checkpoint saw {reached.state['data']['images']} and there are now {len(self.split)}"
                if reached.state["data"]["images"] != len(self.split)
                else "their classes are others",
                remedy="the old images, or another --out",
            )
        try:
            self.network.load_state_dict(reached.tensors["model"])
            restore_optimizer(self.optimizer, reached.tensors["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(reached.tensors["average"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise CheckpointError(
                "the checkpoint does not fit the recipe", file=reached.folder, why=str(error)
            ) from error
        self.best, self.best_weights = reached.state["best"], reached.tensors["best"]
        self.extra = reached.state["extra"]
        self.step, self._seconds_before = reached.step, reached.state["seconds"]
        self.reporter.line(f"resumed   at step {self.step:,} from {reached.folder}")

    def _fingerprint(self) -> dict[str, int]:
        labels = self.split.checksums if isinstance(self.split, Shards) else self.split.labels.tolist()
        return {"images": len(self.split), "labels": key(*self.data.classes, *labels)}

    def _solve_head(self, parts: list[Split]) -> Probe:
        """Solve the head on the frozen backbone; it stands as the best until something beats it on validation."""
        solved = probe(
            self.network,
            self.preprocess,
            self.data,
            parts,
            self.compute,
            self.recipe.transfer,
            seed=self.recipe.seed,
            reporter=self.reporter,
            unreadable=self.unreadable,
        )
        for line in solved.describe(self.data.classes):
            self.reporter.line(line)
        self.best_weights = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
        self.extra = {
            "cross_validation": solved.head.to_dict(self.data.classes),
            "frozen_drift": solved.drift,
        }
        return solved

    def _train_head(self) -> Classifier:
        """The recipe `head`: solve it, and score it once on what was held out."""
        if (self.run.folder / "model").is_dir():
            self.reporter.line(f"the run in {self.run.folder} is finished: nothing to do")
            return load_classifier(self.run.folder)
        self.run.begin()
        parts = [self.split]
        if self.data.test is not None and self.data.validation is not None:
            parts.append(self.data.validation)  # nothing is chosen on it here, so it may be learnt from
        solved = self._solve_head(parts)
        self.best, self.step, self.total_steps = {"step": 0}, 0, 0
        _, held_out = self.data.held_out()
        figures = score_probe(self.network, self.preprocess, held_out, self.compute, unreadable=self.unreadable)
        speed = len(solved.features.labels) / max(self.seconds, 1e-9)
        return self._finish(figures, images_per_second=round(speed, 1))

    def _begin_finetuning(self) -> None:
        """The head first; what it scores on validation is what fine-tuning has to beat."""
        self._solve_head([self.split])
        figures = self._score("validation", self.network)
        self.best = {"step": 0, "top1": figures["top1"], "loss": figures["loss"]}
        self.reporter.line(f"head alone: validation {figures['top1']:.2f} %; now all layers that are not frozen")

    def _finish(self, figures: dict[str, Any] | None = None, **more: Any) -> Classifier:
        """Score the best weights once on the held-out split, save the model, say what to do next."""
        seconds = self.seconds
        network = self.judged
        network.load_state_dict(self.best_weights)
        split_name, _ = self.data.held_out()
        figures = figures or self._score(split_name, network)
        figures |= {
            "split": split_name,
            "steps": self.total_steps,
            "best_step": self.best["step"],
            "seconds": round(seconds, 2),
            "images_per_second": round(self.total_steps * self.order.batch_size / max(seconds, 1e-9), 1),
            "unreadable": len(self.unreadable),
        }
        figures |= self.extra | more
        if self.best["step"] == 0 and self.total_steps:
            self.reporter.line("fine-tuning did not beat the head alone on validation: the head alone is kept")
        classifier = self._classifier(network)
        classifier.metrics = figures | {"machine": device.describe_machine(), "compute": self.compute.describe()}
        classifier.save(self.run.folder / "model")
        self.run.journal.write(event="end", **figures)
        self.reporter.line(
            f"{split_name}: top-1 {figures['top1']:.2f} %, loss {figures['loss']:.3f}, on {figures['count']:,} images; "
            + (f"best weights of step {self.best['step']:,}; " if self.best["step"] else "")
            + f"{seconds:.1f} s of training"
        )
        self._name_unreadable()
        return classifier
