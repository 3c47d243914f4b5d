"""The loop: every run, from where it stands to its last step. What guards it is in `guards.py`."""

import time
from collections.abc import Callable

from resnetkit.data.splits import Split
from resnetkit.evaluation.metrics import Score
from resnetkit.evaluation.score import score
from resnetkit.networks.resnet import ResNet
from resnetkit.training import progress
from resnetkit.training.guards import Guards
from resnetkit.training.plan import Plan
from resnetkit.training.setup import Setup
from resnetkit.training.state import State


def fit(setup: Setup, plan: Plan, state: State, guards: Guards) -> None:
    """Take the steps that are left, and between two of them do whatever is due: leave, score, save.

    Every rank passes here with the same steps. Raises `StoppedError` (exit code 130, 143), `DataError` (3),
    `DivergedError` (5), `MemoryLimitError` (6), `StorageError` (7).
    """
    stepper = state.stepper
    state.start_clock()
    guards.leave_if_asked()
    setup.ranks.straggler()  # who was slow to start does not count
    if state.tally.count and (plan.ends_epoch(state.step) or state.ended):
        end_epoch(setup, plan, state, guards)  # stopped while it was being scored
    left = f"{plan.epochs_text()} epochs"
    if state.step:
        left = f"what is left of {left}"
    setup.reporter.line(progress.EPOCHS)
    with setup.reporter.progress(
        plan.total_steps, state.step, plan.batch_size, what=left, beside=_validation_share(setup)
    ) as move_bar:
        while state.step < plan.total_steps and not state.ended:  # once; and once more after a roll-back
            stepper.train_mode()
            for batch in plan.batches(start=state.step):
                result = stepper(batch, state.step)  # forward, loss, backward, update: whole or not at all
                state.lost |= batch.lost
                while stepper.notes:
                    setup.reporter.line(f"note      {stepper.notes.pop(0)}")
                if result.applied:
                    state.count(result, batch)
                elif guards.rolled_back(result):
                    break
                state.advance(result)
                move_bar(state.step)
                guards.leave_if_asked()
                if plan.ends_epoch(state.step) or state.ended:
                    end_epoch(setup, plan, state, guards)
                elif state.save_is_due():
                    state.save()
                if state.ended:
                    break  # early: a callback has said so, or the recipe's patience


def end_epoch(setup: Setup, plan: Plan, state: State, guards: Guards) -> None:
    """Score the validation split, remember the best weights, write the journal and a checkpoint."""
    stepper, fitted = state.stepper, state.fitted()
    elapsed, rate = time.monotonic() - state.epoch_began, stepper.lr(state.step - 1)
    guards.refuse_divergence(fitted.loss, rate)
    validation = score_split(setup, stepper.eval_network, setup.validation_split, between=guards.leave_if_asked)
    state.lost |= validation.lost
    best = state.remember_best(validation)
    state.tell("on_validation", {"loss": validation.loss, "top1": validation.top1, "best": best})
    row = {
        "step": state.step,
        "epoch": round(plan.epochs(state.step), 4),
        "lr": rate,
        "train_loss": fitted.loss,
        "train_top1": fitted.top1,
        "validation_loss": validation.loss,
        "validation_top1": validation.top1,
        "seconds": round(state.seconds, 3),
        "images_per_second": round(fitted.count / max(elapsed, 1e-9), 1),
    }
    _name_straggler(setup, elapsed)
    setup.write(event="epoch", **row)
    setup.reporter.passing(progress.epoch_line(row, plan.epochs_text(state.step), plan.epochs_text(), best=best))
    state.start_epoch()
    state.tell("on_epoch", row)
    if state.ended:
        setup.write(event="stopped early", step=state.step, epoch=row["epoch"], why=state.ended)
        setup.reporter.line(f"stopped at epoch {row['epoch']:.4g}: {state.ended}")
    is_last = state.step == plan.total_steps or bool(state.ended)
    if is_last or round(row["epoch"]) % setup.recipe.checkpoint.every_epochs == 0:
        state.save(must=is_last)
        state.epoch_began = time.monotonic()  # a save is no part of the next epoch's speed
    stepper.train_mode()


def score_split(setup: Setup, network: ResNet, split: Split, between: Callable[[], None] = lambda: None) -> Score:
    """Figures of a network on a split, by all ranks together; `between` is called between batches and may raise."""
    setup.ranks.copy_from_first(network.buffers())
    classifier = setup.classifier(network)
    return score(classifier, split, workers=setup.recipe.data.workers, ranks=setup.ranks, between=between)


def _validation_share(setup: Setup) -> float:
    """What scoring takes beside a training epoch: an image forward only is about a third of one forward and back."""
    return len(setup.validation_split) / (3 * len(setup.train_split))


def _name_straggler(setup: Setup, elapsed: float) -> None:
    """Say which rank the others wait for, where that is long."""
    slow = setup.ranks.straggler()
    if slow is not None and slow[1] > max(1.0, elapsed / 5):
        setup.reporter.line(f"note      the other ranks waited {slow[1]:.0f} of {elapsed:.0f} s for rank {slow[0]}")
