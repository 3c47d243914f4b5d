"""How good answers are: accuracies and how sure they are, class by class, and which classes are taken for which."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from resnetkit.errors import CheckpointError
from resnetkit.evaluation.answers import Answers
from resnetkit.evaluation.intervals import wilson, wilson_of_mean

MOST = 10
"""Classes that are called the worst, and confusions that are called the most frequent, at most."""
MOST_DENSE = 1000
"""Classes up to which the confusion matrix goes into JSON: a row for each, and 2 MB for so many."""


@dataclass(frozen=True)
class Share:
    """So many of `count`."""

    hits: int
    count: int

    @property
    def percent(self) -> float | None:
        """To four digits behind the point; None of nothing."""
        return round(100 * self.hits / self.count, 4) if self.count else None

    @property
    def interval(self) -> list[float] | None:
        """Wilson's 95 % interval, in percent; None of nothing."""
        return _bounds(*wilson(self.hits, self.count)) if self.count else None


@dataclass(frozen=True)
class ClassFigures:
    """How good answers are for one class."""

    name: str
    support: int
    """Images of it."""
    answered: int
    """Images that were taken for it."""
    right: int

    @property
    def recall(self) -> Share:
        """Its images that were taken for it, among all of its images."""
        return Share(self.right, self.support)

    @property
    def precision(self) -> Share:
        """Its images that were taken for it, among all that were taken for it."""
        return Share(self.right, self.answered)

    @property
    def f1(self) -> float | None:
        """The harmonic mean of both, in percent; None for a class that was neither there nor answered."""
        return Share(2 * self.right, self.support + self.answered).percent

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is a share of nothing is None."""
        return {
            "class": self.name,
            "support": self.support,
            "answered": self.answered,
            "precision": self.precision.percent,
            "recall": self.recall.percent,
            "f1": self.f1,
            "interval": {"precision": self.precision.interval, "recall": self.recall.interval},
        }


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were taken for another one."""

    name: str
    answer: str
    count: int
    support: int
    """Images of the class."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"class": self.name, "answer": self.answer, "count": self.count, "support": self.support}


@dataclass(frozen=True)
class Figures:
    """How good answers are. Accuracies are in percent."""

    classes: tuple[str, ...]
    loss: float
    """Mean cross-entropy, not calibrated; infinite where a class was given no probability at all."""
    top1: Share
    top5: Share
    """All, with fewer than five classes."""
    pairs: np.ndarray
    """Class, answer, and how many images: int64 (M, 3), for all pairs that there are, in the order of the classes."""

    @classmethod
    def of(cls, answers: Answers) -> Self:
        """The figures of some answers, of at least one image.

        Of classes with the same logit the first one counts as the more probable.
        Raises `CheckpointError` (exit code 4) where an answer is no number.
        """
        _refuse_nan(answers)
        labels, given, number = answers.labels, answers.logits.argmax(1), len(answers.classes)
        own = answers.logits[np.arange(len(labels)), labels, None]
        earlier = np.arange(number) < labels[:, None]
        ranks = (answers.logits > own).sum(1) + ((answers.logits == own) & earlier).sum(1)
        codes, counts = np.unique(labels * number + given, return_counts=True)
        return cls(
            answers.classes,
            float(answers.losses.mean()),
            Share(int((ranks == 0).sum()), len(labels)),
            Share(int((ranks < 5).sum()), len(labels)),
            np.stack([codes // number, codes % number, counts], 1),
        )

    @property
    def count(self) -> int:
        """Images."""
        return self.top1.count

    @property
    def confusion(self) -> np.ndarray:
        """The confusion matrix, int64 (classes, classes): a row for each class, a column for each answer."""
        matrix = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        matrix[self.pairs[:, 0], self.pairs[:, 1]] = self.pairs[:, 2]
        return matrix

    @cached_property
    def rows(self) -> tuple[ClassFigures, ...]:
        """Every class, in their order."""
        label, given, counts = self.pairs.T
        right = label == given

        def totals(of: np.ndarray, counts: np.ndarray) -> list[int]:
            sums = np.zeros(len(self.classes), dtype=np.int64)
            np.add.at(sums, of, counts)
            return sums.tolist()

        columns = (totals(label, counts), totals(given, counts), totals(label[right], counts[right]))
        return tuple(ClassFigures(*row) for row in zip(self.classes, *columns, strict=True))

    @cached_property
    def worst(self) -> tuple[ClassFigures, ...]:
        """Classes with images, the worst ones first: by what their recall may be at best.

        A class of one image that was missed is not as surely bad as one of which a hundred were.
        """
        there = [row for row in self.rows if row.recall.interval is not None]
        return tuple(sorted(there, key=lambda row: (row.recall.interval or [])[::-1]))

    @cached_property
    def confusions(self) -> tuple[Confusion, ...]:
        """Pairs of classes that were confused, the most frequent ones first, the larger share of the class before."""
        rows = self.rows
        wrong = self.pairs[self.pairs[:, 0] != self.pairs[:, 1]].tolist()
        wrong.sort(key=lambda pair: (-pair[2], rows[pair[0]].support, pair))
        return tuple(
            Confusion(self.classes[label], self.classes[given], count, rows[label].support)
            for label, given, count in wrong
        )

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have images, in percent."""
        recalls = [100 * row.right / row.support for row in self.rows if row.support]
        return round(sum(recalls) / len(recalls), 4)

    @property
    def balanced_interval(self) -> list[float]:
        """A 95 % interval of the balanced accuracy, in percent."""
        return _bounds(*wilson_of_mean([(row.right, row.support) for row in self.rows if row.support]))

    def to_dict(self) -> dict[str, Any]:
        """For JSON: a share of nothing and an infinite loss are None, and so is the matrix of very many classes."""
        return {
            "count": self.count,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "top1": self.top1.percent,
            "top5": self.top5.percent,
            "balanced_accuracy": self.balanced_accuracy,
            "interval": {
                "top1": self.top1.interval,
                "top5": self.top5.interval,
                "balanced_accuracy": self.balanced_interval,
            },
            "classes": [row.to_dict() for row in self.rows],
            "worst": _names(self.worst[:MOST]),
            "confusion": self.confusion.tolist() if len(self.classes) <= MOST_DENSE else None,
            "confusions": [each.to_dict() for each in self.confusions[:MOST]],
        }


def _names(rows: Sequence[ClassFigures]) -> list[str]:
    return [row.name for row in rows]


def _bounds(low: float, high: float) -> list[float]:
    return [max(0.0, round(low, 4)), min(100.0, round(high, 4))]


def _refuse_nan(answers: Answers) -> None:
    wrong = np.flatnonzero(np.isnan(answers.logits).any(1))
    if len(wrong):
        raise CheckpointError(
            f"the network's answers are not numbers for {len(wrong):,} of {len(answers):,} images",
            file=answers.files[wrong[0]],
            why="NaN",
            remedy="--precision fp32, or other weights",
        )
