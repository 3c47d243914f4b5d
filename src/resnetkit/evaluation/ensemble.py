"""Several classifiers as one: the mean of what each of them is sure of."""

from collections.abc import Sequence

import numpy as np

from resnetkit.classifier import Classifier
from resnetkit.data.classnames import told_apart
from resnetkit.errors import UsageError
from resnetkit.evaluation.answers import Answers


def require_alike(members: Sequence[Classifier]) -> None:
    """Raise `UsageError` (exit code 2) where members do not answer with the same classes, in whatever order."""
    first, *others = members
    for other in others:
        strange = set(first.classes) ^ set(other.classes)
        if strange or first.numbered != other.numbered:
            raise UsageError(
                f"the models of an ensemble have other classes: {', '.join(told_apart(sorted(strange)[:5], []))}"
                if strange
                else "the classes of one model of an ensemble have names, and those of the other have none",
                remedy="models that were trained on the same classes",
            )


def average(answers: Sequence[Answers]) -> Answers:
    """The answers of an ensemble: the mean of the members' calibrated probabilities, class by class by its name.

    In the numbers of the first member, whose labels they are; the result has temperature 1. Images that one member
    could not read, for it sees them at another size, count for none.
    """
    first, lost = answers[0], {file: why for each in answers for file, why in each.lost.items()}
    shares = np.zeros((len(first.files) - sum(file in lost for file in first.files), len(first.classes)))
    for each in answers:
        columns = [each.classes.index(name) for name in first.classes]
        shares += each.probabilities[_kept(each, lost)][:, columns]
    kept = _kept(first, lost)
    with np.errstate(divide="ignore"):
        logits = np.log(shares / len(answers)).astype(np.float32)
    files = tuple(file for file in first.files if file not in lost)
    return Answers(files, first.labels[kept], np.maximum(logits, LEAST), first.classes, 1.0, lost)


LEAST = np.float32(-1e4)
"""Stands for the logarithm of a probability of 0."""


def _kept(answers: Answers, lost: dict[str, str]) -> np.ndarray:
    return np.array([file not in lost for file in answers.files], dtype=bool)
