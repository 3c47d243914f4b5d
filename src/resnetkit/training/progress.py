"""What people read of a run: what is about to be done, each epoch, the result, and what was left out."""

from collections.abc import Mapping
from typing import Any

import torch

from resnetkit.data.classnames import mirrored
from resnetkit.data.dataset import Data
from resnetkit.machine.console import shown
from resnetkit.recipes.schema import Recipe
from resnetkit.training.setup import Setup

CLASSES = 12
"""Classes that are listed before the others are counted."""
NAMED = 10
"""Files that are named before the others are counted."""


def announcement(setup: Setup, length: str) -> list[str]:
    """What is about to be done, with what, on what. `length` says how long."""
    recipe, data = setup.recipe, setup.data
    splits = [("train", data.train), ("validation", data.validation), ("test", data.test)]
    sizes = ", ".join(f"{name} {split.describe() if split is not None else 'none'}" for name, split in splits)
    parameters = sum(p.numel() for p in setup.network.parameters())
    weights = recipe.model.weights
    start = "from nothing" if weights in (None, "none") else f"starts from {weights}"
    if setup.hooks.network is not None:
        start = "as it was given"
    return [
        f"data      {data.name}: {len(data.classes)} classes; {sizes}",
        *class_counts(data),
        *(f"note      {note}" for note in (*data.notes, *doubts(setup))),
        f"model     {recipe.model.name}, {parameters:,} parameters, sees {setup.preprocess.size} px, {start}",
        f"compute   {setup.compute.describe()}",
        f"training  {length}",
        f"run       {setup.run.folder}",
        *left_out(data.unreadable),
    ]


def doubts(setup: Setup) -> list[str]:
    """What in a recipe does not go with the names of the classes, or with a loss that is not its own."""
    own = loss_notes(setup.recipe) if setup.hooks.loss is not None else []
    pairs = mirrored(setup.data.classes) if setup.recipe.augment.flip else []
    if not pairs:
        return own
    first, more = " and ".join(map(shown, pairs[0])), f", and {len(pairs) - 1:,} pairs more" if pairs[1:] else ""
    said = f"classes {first} are mirror images of each other{more}, and flip mirrors pictures: --augment.flip false"
    return [*own, said]


def loss_notes(recipe: Recipe) -> list[str]:
    """What the targets are that the user's loss is given."""
    notes = []
    if recipe.optim.label_smoothing:
        notes.append(
            f"optim.label_smoothing {recipe.optim.label_smoothing:g} belongs to the recipe's loss, not to yours"
        )
    if recipe.augment.mixup or recipe.augment.cutmix:
        notes.append("with mixup or cutmix your loss is given soft targets, (N, classes)")
    return notes


def class_counts(data: Data) -> list[str]:
    """Every class with its images in each split; the first of them where there are many."""
    splits = {"train": data.train, "val": data.validation, "test": data.test}
    labels = {name: split.labels for name, split in splits.items() if split is not None and split.labels is not None}
    if not labels:
        return []
    counts = {name: torch.bincount(each, minlength=len(data.classes)).tolist() for name, each in labels.items()}
    shown_classes = [shown(name) for name in data.classes[:CLASSES]]
    width = max(map(len, shown_classes))
    lines = [
        f"class     {name:<{width}}  " + ", ".join(f"{split} {of[label]:,}" for split, of in counts.items())
        for label, name in enumerate(shown_classes)
    ]
    more = len(data.classes) - len(shown_classes)
    return [*lines, f"class     and {more:,} more"] if more else lines


def epoch_line(row: Mapping[str, Any], *, best: bool) -> str:
    """A row of the journal for people."""
    return (
        f"epoch {row['epoch']:.4g}: loss {row['train_loss']:.3f}, train {row['train_top1']:.2f} %, "
        f"validation {row['validation_top1']:.2f} %{' (best)' if best else ''}, "
        f"{row['images_per_second']:,.0f} images/s, {row['seconds']:.0f} s"
    )


def result_line(figures: Mapping[str, Any]) -> str:
    """The figures that a run ends with."""
    best = f"best weights of step {figures['best_step']:,}; " if figures["best_step"] else ""
    return (
        f"{figures['split']}: top-1 {figures['top1']:.2f} %, loss {figures['loss']:.3f}, "
        f"on {figures['count']:,} images; {best}{figures['seconds']:.1f} s of training"
    )


def left_out(lost: Mapping[str, str]) -> list[str]:
    """Files that could not be read, and why."""
    lines = [f"left out  {file}: {why}" for file, why in list(lost.items())[:NAMED]]
    return lines if len(lost) <= NAMED else [*lines, f"left out  and {len(lost) - NAMED} more"]
