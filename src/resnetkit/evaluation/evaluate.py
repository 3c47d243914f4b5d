"""How good a classifier is on labelled images that it has not seen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from resnetkit.arguments import checked
from resnetkit.classifier import Classifier
from resnetkit.data.labelling import Labelling
from resnetkit.errors import UsageError
from resnetkit.evaluation.answers import BATCH_SIZE
from resnetkit.evaluation.calibration import calibration
from resnetkit.evaluation.chosen import own_data, validation_of
from resnetkit.evaluation.ensemble import average
from resnetkit.evaluation.figures import Figures
from resnetkit.evaluation.opened import count_opening, own_test
from resnetkit.evaluation.predictions import require_free, write_evaluation
from resnetkit.evaluation.rejection import rejection
from resnetkit.evaluation.report import Report
from resnetkit.evaluation.together import Where, answer_together
from resnetkit.images.protocol import ViewProtocol
from resnetkit.machine.console import Reporter
from resnetkit.machine.ranks import current, joined
from resnetkit.recipes.ranges import require


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
    where resizing leaves no margin to crop in, and for an ensemble of other classes, or with `reject`; `StorageError`
    (exit code 7) where `out` cannot be written.
    Returns `data, split, seen, unreadable, left_out`, the keys of `Figures.to_dict`, `validation` and `test_opened`;
    accuracies in percent. `unreadable` has the reason for each file, `left_out` the number of files that were passed
    over for each reason. On what its run was given, `validation` has the figures that its weights were chosen by, and
    `test_opened` how often the test split was scored and by what; they are None elsewhere.
    """
    require(batch_size=batch_size, workers=workers)
    if out is not None:
        require_free(Path(out), overwrite=overwrite)
    if reject:
        if ensemble:
            # Without this all images would count as answered: an ensemble has no score of novelty.
            raise UsageError("an ensemble refuses nothing", why="each model has a score of its own", remedy="one model")
        classifier.require_unknown()
    members, protocol = (classifier, *ensemble), ViewProtocol(crops, tuple(scales), size, flip)
    names = [str(each.folder or each.model) for each in members]
    where = Where(data, data_root, labelling, include_seen, reporter)
    with joined(current()) as ranks:
        found = answer_together(
            members, names, where, batch_size=batch_size, workers=workers, protocol=protocol, ranks=ranks
        )
        answers = average(found.answers) if ensemble else found.answers[0]
        report = Report({"data": found.data, "split": found.split} | Figures.of(answers).to_dict())
        report |= {"seen": found.seen, "unreadable": found.unreadable, "left_out": found.left_out}
        report["validation"] = validation_of(classifier) if found.held and own_data(classifier, found.data) else None
        opened = found.held and own_test(classifier, found.data, found.split)
        report["test_opened"] = ranks.from_first(lambda: count_opening(classifier, "evaluate") if opened else None)
        report |= {"views": protocol.describe(), "ensemble": names[1:], "calibration": calibration(answers)}
        if reject:
            report["reject"] = rejection(classifier, answers)
        if out is not None:
            model = {"model": names[0], "compute": classifier.compute.describe()}
            ranks.from_first(lambda: write_evaluation(Path(out), answers, model | report))
    return report
