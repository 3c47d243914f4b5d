"""Which of several classifiers is better on the same labelled images, and on which images they differ."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resnetkit.arguments import checked, refusal
from resnetkit.classifier import Classifier
from resnetkit.data.arrays import TAKES
from resnetkit.data.classnames import order_of_head, same_in_other_form, told_apart
from resnetkit.data.dataset import Data
from resnetkit.data.labelling import Labelling
from resnetkit.data.load import InPython, beside_named, load_data, source_of
from resnetkit.data.named import NAMED_SETS
from resnetkit.data.splits import Files, Images
from resnetkit.data.torchset import Items
from resnetkit.errors import DataError, UsageError
from resnetkit.evaluation.answers import Answers, answer
from resnetkit.evaluation.comparison import Pair, accuracy, compare_answers
from resnetkit.evaluation.evaluate import BATCH_SIZE, aligned, how_read
from resnetkit.evaluation.seen import memory_of, unseen
from resnetkit.machine.console import Reporter
from resnetkit.recipes.ranges import require

logger = logging.getLogger("resnetkit")


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
    looks = _load(classifiers, data, data_root, labelling, reporter)
    first = looks[classifiers[0].preprocess.channels]
    columns = _columns(classifiers, names, first)
    split_name, places, seen = _places(classifiers, first, include_seen=include_seen)
    found = []
    for classifier, column in zip(classifiers, columns, strict=True):
        loaded = looks[classifier.preprocess.channels]
        _, split = loaded.held_out()
        split = split.take(places) if isinstance(split, Images | Files | Items) else split
        said = answer(classifier, aligned(loaded, split, classifier), batch_size=batch_size, workers=workers)
        found.append(_in_order(said, column, _called(classifiers[0], first)))
    answers, lost = _read_by_all(found)
    if not len(answers[0]):
        raise DataError("no image could be read", file=first.name, why=next(iter(lost.values()), None))
    same = [(i, j) for i, j in combinations(range(len(answers)), 2) if _same(classifiers[i], classifiers[j])]
    return Comparison(
        first.name,
        split_name,
        names,
        tuple(map(accuracy, answers)),
        tuple(compare_answers(answers, names, seed=seed, same=same)),
        tuple(_differing(answers)),
        seen,
        first.unreadable | lost,
        {reason: passed.count for reason, passed in first.left_out.items()},
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


def _load(
    classifiers: Sequence[Classifier],
    data: Any,
    data_root: str | Path | None,
    labelling: Labelling | None,
    reporter: Reporter | None,
) -> dict[int, Data]:
    """The data for each number of channels that one of the classifiers sees, read as a run on them has read them."""
    looks: dict[int, Data] = {}
    for classifier in classifiers:
        channels = classifier.preprocess.channels
        if channels in looks:
            continue
        source = source_of(data, channels=channels, known=classifier.classes)
        if source is None:
            raise refusal("compare", "data", data, f"a name, a folder, or {TAKES}")
        name = str(source)
        own = next((each for each in classifiers if _learnt_from(each, name)), classifier)
        looks[channels] = load_data(
            source if isinstance(source, InPython) else name,
            how_read(own, name, labelling),
            data_root=data_root,
            whole=name not in NAMED_SETS,
            channels=channels,
            reporter=reporter,
        )
    first = next(iter(looks.values()))
    for note in (*beside_named(first.name), *(f"left out: {passed.line}" for passed in first.left_out.values())):
        logger.info("%s", note)
    return looks


def _learnt_from(classifier: Classifier, name: str) -> bool:
    data = classifier.origin.data
    return data is not None and Path(data).resolve() == Path(name).resolve()


def _called(classifier: Classifier, data: Data) -> tuple[str, ...]:
    """The names of a classifier's classes; where nobody has named them, those of the data."""
    if not classifier.numbered or len(classifier.classes) != len(data.classes):
        return tuple(classifier.classes)
    order = order_of_head(data.classes)
    return tuple(data.classes[order.index(place)] for place in range(len(order)))


def _columns(classifiers: Sequence[Classifier], names: Sequence[str], data: Data) -> list[np.ndarray]:
    """For each classifier the column of each class of the first one, int64 (classes,).

    Raises `UsageError` (exit code 2) for one that knows other classes.
    """
    ours = _called(classifiers[0], data)
    columns = []
    for name, classifier in zip(names, classifiers, strict=True):
        theirs = _called(classifier, data)
        forms = same_in_other_form(theirs, ours)
        place = {forms.get(each, each): column for column, each in enumerate(theirs)}
        if only := sorted(place.keys() ^ set(ours)):
            raise UsageError(
                f"{names[0]} and {name} do not know the same classes",
                why=f"{told_apart(only[:1])[0]} is known to one of them only",
                remedy="evaluate each alone",
            )
        columns.append(np.array([place[each] for each in ours]))
    return columns


def _places(classifiers: Sequence[Classifier], data: Data, *, include_seen: bool) -> tuple[str, np.ndarray, int]:
    """The split that is scored, the places of its images that none has learnt from, and how many are left out.

    Raises `DataError` (exit code 3) where none is left.
    """
    name, split = data.held_out()
    places = np.arange(len(split))
    if include_seen or data.name in NAMED_SETS or not isinstance(split, Images | Files | Items):
        return name, places, 0
    for memory in filter(None, map(memory_of, classifiers)):
        places = places[unseen(memory, split.take(places), data.root)]
    if len(split) and not len(places):
        raise DataError(
            f"all {len(split):,} pictures were seen in training by one of them",
            file=data.name,
            why="a comparison on them says nothing of new ones",
            remedy="other pictures, or --include-seen",
        )
    return name, places, len(split) - len(places)


def _in_order(answers: Answers, column: np.ndarray, classes: tuple[str, ...]) -> Answers:
    """Answers with the columns and the labels in another order of the classes."""
    place = np.empty_like(column)
    place[column] = np.arange(len(column))
    return replace(answers, logits=answers.logits[:, column], labels=place[answers.labels], classes=classes)


def _read_by_all(found: Sequence[Answers]) -> tuple[list[Answers], dict[str, str]]:
    """The answers to those images that could be read for each, and the files that could not."""
    lost = {file: why for each in found for file, why in each.lost.items()}
    kept = []
    for each in found:
        left = np.array([file not in lost for file in each.files], dtype=bool)
        files = tuple(file for file in each.files if file not in lost)
        kept.append(replace(each, files=files, labels=each.labels[left], logits=each.logits[left]))
    return kept, lost


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
