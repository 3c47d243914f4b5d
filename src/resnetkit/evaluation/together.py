"""The same labelled images shown to one or several classifiers: found, checked against their classes, answered."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from resnetkit.arguments import refusal
from resnetkit.classifier import Classifier
from resnetkit.data.arrays import TAKES
from resnetkit.data.classnames import (
    describe_forms,
    imagenet_synsets,
    mirrored,
    order_of_head,
    same_in_other_form,
    told_apart,
)
from resnetkit.data.dataset import Data
from resnetkit.data.labelling import Labelling
from resnetkit.data.load import InPython, beside_named, load_data, source_of
from resnetkit.data.named import NAMED_SETS
from resnetkit.data.splits import Files, Images, Split
from resnetkit.data.torchset import Items
from resnetkit.errors import CheckpointError, DataError, UsageError
from resnetkit.evaluation.answers import BATCH_SIZE, Answers, answer
from resnetkit.evaluation.chosen import own_data
from resnetkit.evaluation.seen import memory_of, unseen
from resnetkit.images.protocol import ONE_VIEW, ViewProtocol
from resnetkit.machine.console import Reporter
from resnetkit.machine.documents import validated
from resnetkit.machine.ranks import ALONE, Ranks
from resnetkit.recipes.schema import DataRecipe

HOW_FOUND = (
    *("train_folder", "validation_folder", "test_folder"),
    *("path_column", "label_column", "split_column", "image_root", "label_from"),
)
"""Keys of a recipe that say where a set's splits and classes are."""

logger = logging.getLogger("resnetkit")


@dataclass(frozen=True)
class Where:
    """Which images are meant, and how they are read."""

    data: Any
    root: str | Path | None = None
    labelling: Labelling | None = None
    include_seen: bool = False
    reporter: Reporter | None = None


@dataclass(frozen=True)
class Together:
    """What several classifiers say of the same images."""

    data: str
    split: str
    answers: tuple[Answers, ...]
    """Of each, with labels and columns in the order of the first one's classes, of those images that all could read."""
    seen: int
    """Images left out because one of them has learnt from them, or was chosen by them."""
    unreadable: dict[str, str]
    left_out: dict[str, int]
    """How many files were passed over for each reason."""
    held: bool = True
    """Whether the images are those of a name or a path, and not what Python held."""


def answer_together(
    classifiers: Sequence[Classifier],
    names: Sequence[str],
    where: Where,
    *,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    protocol: ViewProtocol = ONE_VIEW,
    ranks: Ranks = ALONE,
) -> Together:
    """Show the same images to classifiers of the same classes, each through its own preprocessing.

    Images that any of them has learnt from are left out. Under several ranks each looks at a part, and all have all.
    Raises `UsageError` (exit code 2) for two with different classes, and for data that are none; `DataError` (exit
    code 3) for a class that they do not know, where all images were seen, and where none could be read.
    """
    members = [replace(each, preprocess=protocol.preprocess(each.preprocess)) for each in classifiers]
    looks, name, held = _load(members, where)
    first = looks[members[0].preprocess.channels]
    if protocol.mirrors and (pairs := mirrored(first.classes)):
        logger.warning("classes %s and %s mirror each other, and %s mirrored", *pairs[0], protocol.mirrors)
    columns = _columns(members, names, first)
    loaded = [looks[member.preprocess.channels] for member in members]
    splits = [aligned(each, each.held_out()[1], member) for each, member in zip(loaded, members, strict=True)]
    split_name, places, seen = _places(members, first, include_seen=where.include_seen)
    found = []
    for member, column, split in zip(members, columns, splits, strict=True):
        said = answer(
            member,
            split.take(places) if isinstance(split, Images | Files | Items) and seen else split,
            batch_size=max(1, batch_size // protocol.count),
            workers=workers,
            protocol=protocol,
            ranks=ranks,
        )
        found.append(_in_order(said, column, _called(members[0], first)))
    answers, lost = _read_by_all(found)
    unreadable = first.unreadable | lost
    if not len(answers[0]):
        why = next(iter(unreadable.values()), "there is none")
        raise DataError("no picture could be read", file=first.name, why=why)
    left_out = {reason: passed.count for reason, passed in first.left_out.items()}
    return Together(name, split_name, tuple(answers), seen, unreadable, left_out, held)


def _load(classifiers: Sequence[Classifier], where: Where) -> tuple[dict[int, Data], str, bool]:
    """The data for each number of channels that one of the classifiers sees, read as a run on them has read them.

    Beside them their name, and whether it is one.
    """
    looks: dict[int, Data] = {}
    name, held = "", True
    for classifier in classifiers:
        channels = classifier.preprocess.channels
        if channels in looks:
            continue
        source = source_of(where.data, channels=channels, known=classifier.classes)
        if source is None:
            raise refusal("evaluate", "data", where.data, f"a name, a folder, or {TAKES}")
        name, held = str(source), not isinstance(source, InPython)
        own = next((each for each in classifiers if own_data(each, name)), classifier)
        looks[channels] = load_data(
            source if isinstance(source, InPython) else name,
            how_read(own, name, where.labelling),
            data_root=where.root,
            whole=name not in NAMED_SETS,
            channels=channels,
            reporter=where.reporter,
        )
    first = next(iter(looks.values()))
    for note in (*beside_named(first.name), *(f"left out: {passed.line}" for passed in first.left_out.values())):
        logger.info("%s", note)
    return looks, name, held


def how_read(classifier: Classifier, name: str, labelling: Labelling | None) -> DataRecipe:
    """How the data are read: as for training, where they are what it was trained on. Raises `CheckpointError`."""
    origin, said = classifier.origin, {}
    try:
        own = own_data(classifier, name)
        if name in NAMED_SETS and origin.validation is not None:
            said = {"validation": origin.validation}
        elif own and name not in NAMED_SETS:
            said = {key: origin.settings.get(key) for key in HOW_FOUND}
        said |= {key: value for key, value in vars(labelling or Labelling()).items() if value is not None}
        return validated(DataRecipe, {"name": name, "allow_missing": True} | said)
    except ValueError as error:
        raise CheckpointError("the model's recipe cannot be used", file=classifier.folder, why=str(error)) from error


def aligned(data: Data, split: Split, classifier: Classifier) -> Split:
    """Number a split's labels as the classifier numbers its classes."""
    if data.channels != classifier.preprocess.channels and data.name in NAMED_SETS:
        raise DataError(
            f"{data.name} has {data.channels} channels and the classifier takes {classifier.preprocess.channels}",
            remedy="data of the kind that it was trained on",
        )
    if classifier.numbered and len(data.classes) == len(classifier.classes):
        order = order_of_head(data.classes)
        if order != sorted(order):
            first, last = data.classes[order.index(0)], data.classes[order.index(len(order) - 1)]
            logger.warning(
                "classes %s to %s are taken in the order of their numbers; --classes says another", first, last
            )
        return split.relabelled(order)
    known = {name: label for label, name in enumerate(classifier.classes)}
    if len(known) == 1000 and known.keys().isdisjoint(data.classes):
        # Folders of ImageNet are named by synset, classifiers of it by words; both are in the order of the synsets.
        known = {name: label for label, name in enumerate(imagenet_synsets())}
    if forms := same_in_other_form(data.classes, known):
        logger.warning("%s", describe_forms(forms, data.name))
        known |= {name: known[theirs] for name, theirs in forms.items()}
    if strangers := [name for name in data.classes if name not in known]:
        raise DataError(
            f"the classifier does not know {', '.join(told_apart(strangers[:5], known))}",
            file=data.name,
            why=f"its classes are {', '.join(told_apart(classifier.classes[:10], data.classes))}"
            f"{', …' if len(classifier.classes) > 10 else ''}",
        )
    return split.relabelled([known[name] for name in data.classes])


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
        by = " by one of the models" if len(classifiers) > 1 else ""
        raise DataError(
            f"all {len(split):,} pictures were seen in training{by}",
            file=data.name,
            why="a score on them says nothing of new ones",
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
    if not lost:
        return list(found), lost
    kept = [each.take(np.array([file not in lost for file in each.files], dtype=bool)) for each in found]
    return kept, lost
