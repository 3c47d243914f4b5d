"""Which of several classifiers is better on the same labelled images, and on which images they differ."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resnetkit.arguments import checked
from resnetkit.classifier import Classifier
from resnetkit.data.labelling import Labelling
from resnetkit.errors import UsageError
from resnetkit.evaluation.answers import BATCH_SIZE, Answers
from resnetkit.evaluation.comparison import Pair, accuracy, compare_answers
from resnetkit.evaluation.together import Where, answer_together
from resnetkit.machine.console import Reporter
from resnetkit.recipes.ranges import require


@dataclass(frozen=True)
class Differing:
    """An image to which not all classifiers give the same class. Classes and probabilities are in their order."""

    file: str
    label: str
    answers: tuple[str, ...]
    probabilities: tuple[float, ...]
    """Of its own answer each, calibrated, 0-1."""

    @property
    def right(self) -> tuple[bool, ...]:
        """Who is right."""
        return tuple(each == self.label for each in self.answers)


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. Accuracies are in percent, differences in points."""

    data: str
    split: str
    names: tuple[str, ...]
    figures: tuple[dict[str, Any], ...]
    """`count, top1, low, high, loss` of each classifier."""
    pairs: tuple[Pair, ...]
    images: tuple[Differing, ...]
    """On which they differ; first those that some know and some do not, the surest mistakes before others."""
    seen: int
    """Images left out because one of them has learnt from them, or was chosen by them."""
    unreadable: dict[str, str]
    left_out: dict[str, int]

    def to_dict(self, show: int | None = None) -> dict[str, Any]:
        """All of it, of the images that differ the first `show`."""
        return {
            "data": self.data,
            "split": self.split,
            "models": [{"name": name} | each for name, each in zip(self.names, self.figures, strict=True)],
            "pairs": [pair.to_dict() for pair in self.pairs],
            "differ": len(self.images),
            "images": [{**vars(image), "right": image.right} for image in self.images[:show]],
            "seen": self.seen,
            "unreadable": self.unreadable,
            "left_out": self.left_out,
        }


@checked("batch_size", "workers", "seed", classifiers="[resnetkit.load(A), resnetkit.load(B)]")
def compare(
    classifiers: Sequence[Classifier],
    data: Any,
    *,
    names: Sequence[str] | None = None,
    data_root: str | Path | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    include_seen: bool = False,
    labelling: Labelling | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> Comparison:
    """Show the same images to several classifiers, and say whether one is better.

    `data`, `data_root`, `labelling` and `include_seen` are as for `evaluate`; images that any of them has learnt from
    are left out. Each sees the images through its own preprocessing. `names` are what they are called, their folders
    where nothing is said. `seed` is that of the bootstrap.
    Raises `UsageError` (exit code 2) for fewer than two, or two with different classes; `DataError` (exit code 3) as
    `evaluate` does.
    """
    require(batch_size=batch_size, workers=workers, seed=seed)
    if len(classifiers) < 2:
        raise UsageError("compare() takes two classifiers or more", remedy="compare([a, b], …)")
    names = tuple(names) if names is not None else _names(classifiers)
    if len(set(names)) != len(classifiers):
        raise UsageError(f"names={names!r} cannot be", why=f"each of {len(classifiers)} classifiers has its own")
    where = Where(data, data_root, labelling, include_seen, reporter)
    found = answer_together(classifiers, names, where, batch_size=batch_size, workers=workers)
    numbers = range(len(classifiers))
    same = [(i, j) for i, j in combinations(numbers, 2) if _same(classifiers[i], classifiers[j])]
    return Comparison(
        found.data,
        found.split,
        names,
        tuple(map(accuracy, found.answers)),
        tuple(compare_answers(found.answers, names, seed=seed, same=same)),
        tuple(_differing(found.answers)),
        found.seen,
        found.unreadable,
        found.left_out,
    )


def _names(classifiers: Sequence[Classifier]) -> tuple[str, ...]:
    """A name for each: of its run, or else of its network; with numbers where these are the same."""
    folders = [each.folder for each in classifiers]
    plain = [
        each.model if folder is None else str(folder.parent if folder.name == "model" else folder)
        for each, folder in zip(classifiers, folders, strict=True)
    ]
    return tuple(
        name if plain.count(name) == 1 else f"{name} ({plain[: place + 1].count(name)})"
        for place, name in enumerate(plain)
    )


def _same(one: Classifier, other: Classifier) -> bool:
    mine, theirs = one.network.state_dict(), other.network.state_dict()
    return mine.keys() == theirs.keys() and all(
        value.shape == theirs[name].shape and torch.equal(value, theirs[name]) for name, value in mine.items()
    )


def _differing(answers: Sequence[Answers]) -> Iterator[Differing]:
    """The images on which not all agree, in the order that `Comparison.images` has."""
    first = answers[0]
    given = np.stack([each.logits.argmax(1) for each in answers])
    probabilities = np.stack([each.probabilities.max(1) for each in answers])
    places = np.flatnonzero((given != given[0]).any(0))
    right = given[:, places] == first.labels[places]
    surest = np.where(right, 0, probabilities[:, places]).max(0)
    for place in places[np.lexsort((-surest, ~right.any(0)))]:
        yield Differing(
            first.files[place],
            first.classes[first.labels[place]],
            tuple(first.classes[label] for label in given[:, place]),
            tuple(float(each) for each in probabilities[:, place]),
        )
