"""How good a classifier is on labelled images that it has not seen."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from resnetkit.arguments import checked, refusal
from resnetkit.classifier import Classifier
from resnetkit.data.arrays import TAKES
from resnetkit.data.batches import evaluation_batches
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
from resnetkit.data.splits import Split
from resnetkit.errors import CheckpointError, DataError
from resnetkit.evaluation.answers import answer
from resnetkit.evaluation.chosen import own_data, validation_of
from resnetkit.evaluation.ensemble import average, require_alike
from resnetkit.evaluation.figures import Figures
from resnetkit.evaluation.metrics import Score, Tally
from resnetkit.evaluation.opened import count_opening, own_test
from resnetkit.evaluation.predictions import require_free, write_evaluation
from resnetkit.evaluation.rejection import rejection
from resnetkit.evaluation.report import Report
from resnetkit.evaluation.seen import memory_of, without_seen
from resnetkit.images.protocol import ViewProtocol
from resnetkit.machine.console import Reporter
from resnetkit.machine.device import is_out_of_memory
from resnetkit.machine.documents import validated
from resnetkit.machine.ranks import ALONE, Ranks, current, joined
from resnetkit.recipes.ranges import require
from resnetkit.recipes.schema import DataRecipe

BATCH_SIZE = 256
HOW_FOUND = (
    *("train_folder", "validation_folder", "test_folder"),
    *("path_column", "label_column", "split_column", "image_root", "label_from"),
)
"""Keys of a recipe that say where a set's splits and classes are."""

logger = logging.getLogger("resnetkit")


@torch.inference_mode()
def score(
    classifier: Classifier,
    split: Split,
    *,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    ranks: Ranks = ALONE,
    between: Callable[[], None] = lambda: None,
) -> Score:
    """How good a classifier is on one split.

    Every image counts once, for any number of ranks: each scores a part, and the sums are added up. `between` is called
    between batches, as often on one rank as on the other; it may raise. Memory that does not suffice for a batch is
    asked for again in halves.
    """
    lost: dict[str, str] = {}
    tally = Tally(len(classifier.classes), classifier.compute.device)
    batches = evaluation_batches(
        split,
        classifier.preprocess,
        classifier.compute,
        batch_size=batch_size,
        workers=workers,
        ranks=ranks,
    )
    for _ in range(-(-len(split) // ranks.size) // batch_size + 1):
        if (batch := next(batches, None)) is not None:
            lost |= batch.lost
            if len(batch.labels):
                logits = _in_parts(classifier, batch.images)
                tally.update(logits, batch.labels, F.cross_entropy(logits, batch.labels))
        between()
    if not ranks.alone:
        tally.restore(ranks.sum(*tally.state()))
        for others in ranks.gather(lost):
            lost |= others
    return replace(tally.compute(), lost=lost)


def _in_parts(classifier: Classifier, images: Tensor) -> Tensor:
    try:
        return classifier.logits(images)
    except RuntimeError as error:
        if not is_out_of_memory(error) or len(images) == 1:
            raise
    # Outside of the handler the error is gone, and with it what it held on to.
    return torch.cat([_in_parts(classifier, part) for part in images.chunk(2)])


@checked("batch_size", "workers", classifier="resnetkit.load(FOLDER)")
def evaluate(
    classifier: Classifier,
    data: Any,
    *,
    data_root: str | Path | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    crops: Literal[1, 10] = 1,
    scales: Sequence[int] = (),
    size: int | None = None,
    flip: bool = False,
    ensemble: Sequence[Classifier] = (),
    include_seen: bool = False,
    reject: bool = False,
    labelling: Labelling | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Report:
    """Score a classifier on the test split of a set or folder, or on all of a folder that has no splits.

    `data` may also be `(images, labels)` of arrays or tensors, as `train` takes them; labels are names of classes, or
    numbers: the names of classes, or where these are words their places among `classifier.classes`. Or a
    `torch.utils.data.Dataset` of (image, label), or a dict of such by the names of splits.

    Pictures of a folder that its run has learnt from, or was chosen by, are left out and counted, wherever the folder
    lies by now; `include_seen` scores them too.
    `reject` adds what comes of refusing the strangest, as `evaluation.rejection` has it, under `reject`.
    `labelling` says how classes are found where no folder says them; of what it was trained on, the run knows it.
    `crops`, `scales`, `size`, `flip`: which views of an image are averaged, as `images.protocol.ViewProtocol` has it.
    `ensemble`: further classifiers of the same classes, whose probabilities are averaged with those of the first.
    Under `torchrun` each rank looks at a part of the images, and all have the same report.
    `out`: a folder for `predictions.csv` and `evaluation.json`; `overwrite` puts them in place of those that are there.
    `reporter` shows how far the indexing of shards is; without one nothing is shown.
    Classes are matched by name, by that of another Unicode form where there is just one, with a note. Where nobody has
    named those of the weights, the folder's order is the head's; numbered folders are in the order of their numbers.
    Raises `DataError` (exit code 3) for a class that the classifier does not
    know, where it has seen every picture, and where none can be read; `CheckpointError` (exit code 4) for answers
    that are no numbers.
    Raises `UsageError` (exit code 2) for a number that cannot be, for files that are there in `out`, for ten crops
    where resizing leaves no margin to crop in, and for an ensemble of other classes; `StorageError` (exit code 7) where
    `out` cannot be written.
    Returns `data, split, seen, unreadable, left_out`, the keys of `Figures.to_dict`, `validation` and `test_opened`;
    accuracies in percent. `unreadable` has the reason for each file, `left_out` the number of files that were passed
    over for each reason. On what its run was given, `validation` has the figures that its weights were chosen by, and
    `test_opened` how often the test split was scored and by what; they are None elsewhere.
    """
    require(batch_size=batch_size, workers=workers)
    if out is not None:
        require_free(Path(out), overwrite=overwrite)
    if reject:
        classifier.require_unknown()
    protocol = ViewProtocol(crops, tuple(scales), size, flip)
    members = [replace(each, preprocess=protocol.preprocess(each.preprocess)) for each in (classifier, *ensemble)]
    require_alike(members)
    channels = classifier.preprocess.channels
    source = source_of(data, channels=channels, known=classifier.classes)
    if source is None:
        raise refusal("evaluate", "data", data, f"a name, a folder, or {TAKES}")
    name = str(source)
    folder = name not in NAMED_SETS
    given = source if isinstance(source, InPython) else name
    settings = how_read(classifier, name, labelling)
    loaded = load_data(given, settings, data_root=data_root, whole=folder, channels=channels, reporter=reporter)
    for note in (*beside_named(name), *(f"left out: {passed.line}" for passed in loaded.left_out.values())):
        logger.info("%s", note)
    if (crops == 10 or flip) and (pairs := mirrored(loaded.classes)):
        shown = "five of ten crops are" if crops == 10 else "every second view is"
        logger.warning("classes %s and %s mirror each other, and %s mirrored", *pairs[0], shown)
    split_name, split = loaded.held_out()
    seen = 0
    for memory in filter(None, map(memory_of, members)) if folder and not include_seen else ():
        split, more = without_seen(memory, split, loaded.root)
        seen += more
        if more and not len(split):
            raise DataError(
                f"all {seen:,} pictures were seen in training",
                file=name,
                why="a score on them says nothing of new ones",
                remedy="other pictures, or --include-seen",
            )
    with joined(current()) as ranks:
        found = [
            answer(
                member,
                aligned(loaded, split, member),
                batch_size=max(1, batch_size // protocol.count),
                workers=workers,
                protocol=protocol,
                ranks=ranks,
            )
            for member in members
        ]
    answers = average(found) if ensemble else found[0]
    unreadable = loaded.unreadable | answers.lost
    if not len(answers):
        raise DataError("no picture could be read", file=name, why=next(iter(unreadable.values()), "there is none"))
    report = Report({"data": name, "split": split_name} | Figures.of(answers).to_dict())
    left_out = {reason: passed.count for reason, passed in loaded.left_out.items()}
    report |= {"seen": seen, "unreadable": unreadable, "left_out": left_out}
    known = not isinstance(source, InPython)  # by a name or a path
    report["validation"] = validation_of(classifier) if known and own_data(classifier, name) else None
    opened = known and own_test(classifier, name, split_name)
    report["test_opened"] = count_opening(classifier, "evaluate") if opened else None
    report["views"] = protocol.describe()
    report["ensemble"] = [str(each.folder or each.model) for each in ensemble]
    if reject:
        report["reject"] = rejection(classifier, answers)
    # More of the report that is made of `answers` is added here, before it is written.
    if out is not None and ranks.first:
        model = {"model": str(classifier.folder or classifier.model), "compute": classifier.compute.describe()}
        write_evaluation(Path(out), answers, model | report)
    return report


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
