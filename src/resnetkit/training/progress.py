"""What people read of a run: what is about to be done, each epoch, the result, and what was left out."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from resnetkit.data.classnames import mirrored
from resnetkit.data.dataset import Data
from resnetkit.images.augment import Augment
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.console import duration, shown
from resnetkit.networks.arch import describe
from resnetkit.recipes.schema import Recipe
from resnetkit.training.setup import Setup

CLASSES = 12
"""Classes that are listed before the others are counted."""
NAMED = 10
"""Files that are named before the others are counted."""


def announcement(setup: Setup, length: str) -> list[str]:
    """What is about to be done, with what, on what. `length` says how long."""
    recipe, data = setup.recipe, setup.data
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    parameters = sum(p.numel() for p in setup.network.parameters())
    weights = recipe.model.weights
    start = "from nothing" if weights in (None, "none") else f"starts from {weights}"
    if setup.hooks.network is None:
        network = describe(recipe.model.name, setup.network.arch)
    else:
        network, start = recipe.model.name, "as it was given"
    return [
        f"data      {data.name}: {len(data.classes)} classes",
        *(f"split     {name}: {split.describe() if split is not None else 'none'}" for name, split in splits.items()),
        *class_counts(data),
        *(f"note      {note}" for note in (*data.notes, *doubts(setup))),
        f"model     {network}",
        f"weights   {parameters:,} parameters, {start}; sees {setup.preprocess.size} px",
        f"compute   {setup.compute.describe()}",
        f"training  {length}",
        f"run       {setup.run.folder}",
        *left_out(data.unreadable),
    ]


def doubts(setup: Setup) -> list[str]:
    """What in a recipe does not go with the classes' names, with a loss that is not its own, or with the machine."""
    own = loss_notes(setup.recipe) if setup.hooks.loss is not None else []
    if setup.compute.precision == "fp16" and setup.compute.device.type == "cpu":
        own.append("processors compute slowly in fp16: --precision auto")
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


EPOCHS = (
    f"{'epoch':>11}{'train loss':>12}{'top-1 %':>8}{'validation loss':>17}{'top-1 %':>8}{'images/s':>14}{'time':>10}"
)
"""What stands in a line of `epoch_line`."""


def epoch_line(row: Mapping[str, Any], reached: str, total: str, *, best: bool) -> str:
    """A row of the journal for people, where `reached` of `total` epochs are behind us."""
    return (
        f"{f'{reached}/{total}':>11}{row['train_loss']:12.3f}{row['train_top1']:8.2f}"
        f"{row['validation_loss']:17.3f}{row['validation_top1']:8.2f} {'best' if best else '':4}"
        f"{row['images_per_second']:9,.0f}{duration(row['seconds']):>10}"
    )


def result_lines(figures: Mapping[str, Any], folder: Path | None) -> list[str]:
    """The figures that a run ends with, beside those that its weights were chosen by, and where its model is."""
    best = f"best weights of step {figures['best_step']:,}, " if figures["best_step"] else ""
    time, chosen = duration(figures["seconds"]), figures.get("validation")
    lines = [f"{_scored(figures['split'], figures)}; {time} of training", f"model: {best}in {folder}"]
    if chosen and figures["split"] != "validation":
        lines.insert(0, f"{_scored('validation', chosen)} (chose the weights)")
    return lines


def _scored(split: str, figures: Mapping[str, Any]) -> str:
    return f"{split} top-1 {figures['top1']:.2f} % of {figures['count']:,} images, loss {figures['loss']:.3f}"


def doubts_of_loss(recipe: Recipe, labels: Tensor | None, classes: int, weights: Tensor | None) -> list[str]:
    """What smoothed or mixed targets do to the training loss: even a network that knows all of them has some.

    `labels` are those of the training images, `weights` those of the classes.
    """
    smoothing = recipe.optim.label_smoothing
    mixing = [kind for kind in ("mixup", "cutmix") if getattr(recipe.augment, kind)]
    if not smoothing and not mixing:
        return []
    if labels is None:
        labels = torch.arange(classes)
    targets = F.one_hot(labels[:: max(1, len(labels) // SAMPLE)].long(), classes).float()
    if mixing:
        targets = torch.cat(list(_mixed(recipe, labels, classes)))
    floor = least_loss(targets * (1 - smoothing) + smoothing / classes, weights)
    causes = " and ".join([*mixing, *(["label smoothing"] if smoothing else [])])
    verb = "keep" if len(mixing) + bool(smoothing) > 1 else "keeps"
    return [f"note      {causes} {verb} the training loss above {'about ' if mixing else ''}{floor:.2f}"]


SAMPLE = 4096
"""Images whose targets tell what those of all are like."""


def least_loss(targets: Tensor, weights: Tensor | None = None) -> float:
    """The least mean cross-entropy that is possible for soft targets (N, classes): their entropy.

    Where classes are weighted, so are their shares of a target.
    """
    shares = (targets if weights is None else targets * weights.to(targets)).double()
    sums = shares.sum(1, keepdim=True)
    return float((torch.special.xlogy(shares, sums) - torch.special.xlogy(shares, shares)).sum(1).mean())


def _mixed(recipe: Recipe, labels: Tensor, classes: int) -> Iterator[Tensor]:
    """Targets as the recipe's augmentation mixes them, (N, classes), for images that are drawn from the labels."""
    size = 32  # the shares of a cut depend little on it
    augment = Augment(recipe.augment, Preprocess(size, (0.5,), (0.5,)), num_classes=classes, seed=recipe.seed)
    draw = torch.Generator().manual_seed(0)
    for step in range(64):
        chosen = labels[torch.randint(len(labels), (64,), generator=draw)].long()
        yield augment.mix(torch.zeros(len(chosen), 1, size, size), chosen, step)[1]


def left_out(lost: Mapping[str, str]) -> list[str]:
    """Files that could not be read, and why."""
    lines = [f"left out  {file}: {why}" for file, why in list(lost.items())[:NAMED]]
    return lines if len(lost) <= NAMED else [*lines, f"left out  and {len(lost) - NAMED} more"]
