"""Training: from a recipe to a `Classifier`. The entrance, and the three jobs: `head`, `finetune`, and every layer."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resnetkit.arguments import checked
from resnetkit.artefact import load_classifier
from resnetkit.classifier import Classifier
from resnetkit.data.dataset import Data
from resnetkit.data.load import InPython, load_data, source_of
from resnetkit.data.splits import Split, class_weights
from resnetkit.evaluation import opened
from resnetkit.evaluation.metrics import Score
from resnetkit.machine import ranks, torchrun
from resnetkit.machine.console import Reporter
from resnetkit.machine.device import describe_machine
from resnetkit.machine.ranks import Ranks
from resnetkit.machine.signals import Stopped, Stopping
from resnetkit.machine.spawning import leave_if_imported
from resnetkit.networks.resnet import ResNet
from resnetkit.recipes.schema import Recipe
from resnetkit.reporting.loggers import open_loggers, require_loggers
from resnetkit.runs.choice import choose_recipe, leaves_choice
from resnetkit.runs.folder import Run, flat, open_run
from resnetkit.training import progress
from resnetkit.training.arguments import recipe_changes, recipe_of
from resnetkit.training.backbones import choose_backbone
from resnetkit.training.calibrate import Calibrated, calibrate, calibrate_head
from resnetkit.training.guards import Guards, stopped
from resnetkit.training.hooks import Hooks, name_of
from resnetkit.training.loop import fit, score_split
from resnetkit.training.optim import Factory
from resnetkit.training.own_network import refuse_changes
from resnetkit.training.plan import make_plan
from resnetkit.training.setup import Setup, prepare
from resnetkit.training.state import State, copy_of
from resnetkit.training.step import Stepper, draws
from resnetkit.training.strangers import unknown_of_run
from resnetkit.transfer.features import Features
from resnetkit.transfer.probe import Probe, probe, recognised, score_probe


@checked("loss", "optimizer")
def train(
    data: Any = None,
    /,
    recipe: str | Path | Recipe | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    allow_change: Collection[str] = (),
    accept_data_change: bool = False,
    data_root: str | Path | None = None,
    quiet: bool = False,
    reporter: Reporter | None = None,
    network: nn.Module | Callable[[], nn.Module] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    optimizer: Factory | None = None,
    callbacks: Sequence[object] = (),
    log: str | Sequence[str] = (),
    score_test: bool = True,
    **changes: Any,
) -> Classifier:
    """Train a network and return it as a `Classifier`; the run is also written to a folder.

    `data`: a named set, a folder of images, a table, an archive; "digits" where nothing is said. Or images that Python
    holds: `(images, labels)` of arrays or tensors, `((images, labels), (images, labels))` of train and validation, a
    `torch.utils.data.Dataset` of (image, label), or a dict of such by "train", "val" and "test"; splits that lack are
    held out. Images in arrays are (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or floats of 0-1; labels are whole
    numbers or names.
    `recipe`: a name, a TOML file, or what `load_recipe` gives; the one that fits the data where nothing is said.
    `out`: the run's folder, `runs/DATA-TIME` by default. With `resume`, the run in it goes on, from its last checkpoint
    and exactly as if it had not been stopped; where there is none yet, it begins.
    `allow_change`: keys of the recipe that may differ from those that the run was begun with; `accept_data_change` lets
    it go on with other images.
    `quiet` says nothing on stderr; `reporter` says it elsewhere, or leaves the result to the caller.
    `network`, `loss`, `transform`, `optimizer`, `callbacks`: the user's own; see `training.hooks` and docs/hooks.md.
    `log`: "tensorboard", "wandb", "mlflow"; one that fails is switched off and ends nothing.
    Without `score_test` the test split stays closed: the run is scored on the validation split alone, of which it then
    learns nothing, and `metrics["split"]` is "validation".
    `changes`: keys of the recipe, such as `epochs=5, optim={"lr": 0.05}, data={"batch_size": 32}`. `model` may also be
    the name of a network or an `Arch`, of which the data say the channels and classes.
    Its `metrics` have the figures of the test split, `count, loss, top1, top5`, under `validation` those of the
    validation split with the same weights, which are to be tuned by, and `best_epoch`, where these weights are from.
    Raises the errors of `resnetkit.errors`; `StoppedError` after Ctrl-C, SIGTERM and SIGUSR1, once the state is saved.
    """
    leave_if_imported()
    if data is None and not isinstance(changes.get("data"), Mapping | None):
        data = changes.pop("data")  # by its name, which a section of the recipe has too
    changes, source = recipe_changes(changes), source_of(data)
    hooks = Hooks(network, loss, transform, optimizer, callbacks)
    own = name_of(network) if network is not None else None
    if own is not None:
        refuse_changes(changes)
    stopping = Stopping()
    with stopping.watched(), ranks.joined(ranks.current()) as peers:
        reporter = reporter or Reporter(quiet=quiet)
        reporter.console.quiet |= not peers.first
        folder: Path | None = None
        peers.from_first(lambda: require_loggers(log))
        loggers = open_loggers(log, reporter.line, on=peers.first)
        try:
            if not peers.alone:
                request = {"data": str(source), "recipe": recipe_of(recipe), "resume": resume} | hooks.names()
                request["score_test"] = score_test
                _agree(peers, request | flat(changes), source, recipe, changes, own)
            going_on = resume or (out is not None and bool(peers.any(torchrun.restarted())))
            run = peers.from_first(
                lambda: open_run(
                    source, recipe, out=out, resume=going_on, changes=changes, allow=allow_change, network=own
                )
            )
            if run.reached is not None:
                hooks.require_same(run.reached.state.get("hooks", {}).get("names", {}), run.folder)
            folder = run.folder
            for note in run.notes:
                reporter.line(note)
            name = source if isinstance(source, InPython) else run.recipe.data.name
            images = load_data(name, run.recipe.data, data_root=data_root, reporter=reporter)
            if not score_test:
                images = replace(images, test=None, notes=[*images.notes, "the test split stays closed"])
            run, tried = _with_backbone(run, images, changes, peers, reporter)
            setup = replace(prepare(run, images, peers, reporter, hooks, loggers), backbones=tried)
            setup = replace(setup, run=peers.from_first(setup.run.claimed))
            folder = setup.run.folder
            with setup.compute.tuned():
                if setup.recipe.transfer.mode == "head":
                    return _train_head(setup)
                return _train_layers(setup, stopping, accept_data_change=accept_data_change)
        except Stopped as stop:
            if folder is not None and any((folder / "checkpoints").glob("step-*")):
                raise stopped(stop.number, f"the last checkpoint is in {folder}", folder) from None
            raise stopped(stop.number, "nothing had been begun that could be saved") from None
        finally:
            for logger in loggers:
                logger.close()


def _agree(
    peers: Ranks,
    request: dict[str, Any],
    source: Any,
    recipe: str | Path | Recipe | None,
    changes: dict[str, Any],
    own: str | None,
) -> None:
    """Raises `UsageError` (exit code 2) where other ranks were asked for something else."""
    if recipe is not None:
        request |= flat(choose_recipe(source, recipe, changes, None, own).model_dump(mode="json"))
    peers.agree({f"the recipe's {name}": value for name, value in request.items()})


def _with_backbone(
    run: Run, images: Data, changes: dict[str, Any], peers: Ranks, reporter: Reporter
) -> tuple[Run, tuple[dict[str, Any], ...]]:
    """The run with the backbone that is the best for its images, where that is left to us; and all that were tried."""
    if not leaves_choice(run.recipe.model.name):
        return run, ()
    return peers.from_first(partial(choose_backbone, run, images, changes.get("data") or {}, reporter))


def _train_head(setup: Setup) -> Classifier:
    """The recipe `head`: solve the classifier on the frozen backbone's features; no step is taken."""
    train_split, began = setup.train_split, time.monotonic()
    setup.say(progress.announcement(setup, "the head alone, solved on the features of the frozen backbone"))
    with setup.exclusive():
        if setup.run.finished:
            return _finished(setup)
        setup.begin()
        parts = [train_split]
        if setup.data.test is not None and setup.data.validation is not None:
            parts.append(setup.data.validation)  # nothing is chosen on it here, so it may be learnt from
        known = _recognised(setup)
        solved = _solve_head(setup, parts)
        split_name, held_out = setup.data.held_out()
        score = score_probe(setup.classifier(setup.network), held_out)
        seconds = time.monotonic() - began
        facts = {
            "split": split_name,
            "steps": 0,
            "best_step": 0,
            "best_epoch": 0.0,
            # Beside a test split it was learnt from; what to tune by is cross-validation.
            "validation": score.to_dict() if split_name == "validation" else None,
            "seconds": round(seconds, 2),
            "images_per_second": round(len(solved.features.labels) / max(seconds, 1e-9), 1),
        }
        lost = setup.data.unreadable | solved.features.lost | score.lost
        calibrated = calibrate_head(setup, solved.head.answers)
        told = _told(setup, solved, known)
        return _finish(setup, setup.network, score, calibrated, facts, told, lost, solved=solved.features)


def _train_layers(setup: Setup, stopping: Stopping, *, accept_data_change: bool) -> Classifier:
    """Every layer that is not frozen, step by step; the recipe `finetune` solves the head before."""
    recipe, run, plan = setup.recipe, setup.run, make_plan(setup)
    balanced = recipe.class_weights == "balanced"
    weights = class_weights(setup.train_split, len(setup.data.classes)) if balanced else None
    stepper = Stepper(
        setup.network, recipe, plan.schedule, setup.compute, setup.frozen, setup.ranks, weights, setup.hooks
    )
    state = State(setup, plan, stepper)
    length = f"{plan.epochs_text()} epochs: {plan.total_steps:,} steps of {plan.batch_size} images, seed {recipe.seed}"
    setup.say(progress.announcement(setup, length))
    if setup.hooks.loss is None:
        setup.say(progress.doubts_of_loss(recipe, setup.train_split.labels, len(setup.data.classes), weights))
    with setup.exclusive():
        if run.reached is not None:
            if not accept_data_change:
                state.check_images(run.reached)
            state.restore(run.reached)
            setup.say([f"resumed   at step {state.step:,} from {run.reached.folder}"])
            setup.say(
                f"note      the callback {name} declares no state: it begins anew"
                for name in setup.callbacks.forgetful()
            )
        if (state.step >= plan.total_steps or state.ended) and run.finished:
            return _finished(setup)
        setup.begin()
        if run.reached is None and recipe.transfer.mode == "finetune":
            _begin_with_head(setup, state)
        with stopping.deferred():
            if run.reached is None:
                state.save(must=True)  # before hours of work: is the disk writable, and large enough?
            with torch.random.fork_rng(enabled=draws(setup.network, setup.hooks)):  # the steps seed PyTorch's own
                fit(setup, plan, state, Guards(setup, state, stopping))
        return _finish_layers(setup, state)


def _recognised(setup: Setup) -> dict[str, Any]:
    """What the published head knows already, said and for the result; empty where it knows none of the classes."""
    split = setup.data.validation or setup.data.test
    if setup.published is None or split is None:
        return {}
    found = recognised(setup.classifier(setup.network), split, setup.published)
    if found is None:
        return {}
    setup.say(found.describe())
    return {"published": found.to_dict()}


def _solve_head(setup: Setup, parts: list[Split]) -> Probe:
    """Solve the head on the features of some splits, put it on the network, and say how good it is."""
    solved = probe(setup.classifier(setup.network), parts, setup.recipe, setup.reporter, setup.published)
    setup.say(solved.describe(setup.data.classes))
    return solved


def _told(setup: Setup, solved: Probe, known: Mapping[str, Any]) -> dict[str, Any]:
    """What the result of a run keeps of the head that was solved, of the one that was there, of backbones tried."""
    told = {"cross_validation": solved.head.to_dict(setup.data.classes), "frozen_drift": solved.drift, **known}
    return told | ({"backbones": list(setup.backbones)} if setup.backbones else {})


def _begin_with_head(setup: Setup, state: State) -> None:
    """The head first; what it scores on validation is what fine-tuning has to beat."""
    known = _recognised(setup)
    solved = _solve_head(setup, [setup.train_split])
    validation = score_split(setup, setup.network, setup.validation_split)
    state.lost |= solved.features.lost | validation.lost
    state.extra = _told(setup, solved, known)
    state.best = {"step": 0} | validation.to_dict()
    state.best_weights = copy_of(setup.network)
    scored = f"head alone: validation {validation.top1:.2f} %"
    setup.say([f"{scored}; now all layers that are not frozen; Ctrl-C keeps the best"])


def _finish_layers(setup: Setup, state: State) -> Classifier:
    """Score the best weights once on the held-out split."""
    seconds, network, plan = state.seconds, state.stepper.eval_network, state.plan
    network.load_state_dict(state.best_weights)
    split_name, held_out = setup.data.held_out()
    score = score_split(setup, network, held_out)
    facts = {
        "split": split_name,
        "steps": state.step,
        "best_step": state.best["step"],
        "best_epoch": round(plan.epochs(state.best["step"]), 4),
        "validation": {name: value for name, value in state.best.items() if name != "step"},
        "seconds": round(seconds, 2),
        "images_per_second": round(state.step * plan.batch_size / max(seconds, 1e-9), 1),
    }
    if not state.best["step"]:
        setup.say(["fine-tuning did not beat the head alone on validation: the head alone is kept"])
    lost = state.lost | score.lost
    calibrated = calibrate(setup, network)
    return _finish(setup, network, score, calibrated, facts, state.extra, lost, plan.epochs(state.step))


def _finish(
    setup: Setup,
    network: ResNet,
    score: Score,
    calibrated: Calibrated,
    facts: Mapping[str, Any],
    extra: Mapping[str, Any],
    lost: Mapping[str, str],
    epoch: float = 0.0,
    solved: Features | None = None,
) -> Classifier:
    """Save the model, end the journal, say the result, at the end of so many epochs."""
    figures = {**score.to_dict(), **facts, "unreadable": len(lost), "calibration": calibrated.figures, **extra}
    classifier = setup.classifier(network)
    classifier.unknown = unknown_of_run(setup, classifier, solved)
    classifier.temperature = calibrated.temperature
    classifier.metrics = figures | {"machine": describe_machine(), "compute": setup.compute.describe()}
    if setup.ranks.first:
        classifier.save(setup.run.folder / "model")
        if facts["split"] == "test":
            opened.record(setup.run.folder, "train")
    setup.write(event="end", **figures)
    setup.say([calibrated.said, *progress.left_out(lost)])
    if setup.reporter.tells_result:
        setup.say(progress.result_lines(figures, classifier.folder))
    if setup.callbacks.hear("on_end"):
        setup.callbacks.ask("on_end", setup.view(facts["steps"], facts["steps"], epoch, network), figures)
    return classifier


def _finished(setup: Setup) -> Classifier:
    setup.say([f"the run in {setup.run.folder} is finished: nothing to do"])
    own = setup.network if setup.hooks.network is not None else None
    recipe = setup.recipe
    return load_classifier(setup.run.folder, device=recipe.device, precision=recipe.precision, network=own)
