"""Which row of a sweep is the best on the validation images, and which of the others these cannot tell from it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from resnetkit.evaluation.comparison import LEVEL, holm, sign_test
from resnetkit.evaluation.intervals import wilson


@dataclass(frozen=True)
class Scored:
    """A row that came to its end, on the validation images."""

    key: str
    settings: dict[str, Any]
    folder: str
    """Name of its run's folder."""
    right: np.ndarray
    """Whether each image was recognised, bool (N,)."""
    loss: float
    seconds: float

    @property
    def top1(self) -> float:
        """In percent."""
        return 100 * float(self.right.mean())

    @property
    def _but_seed(self) -> tuple[tuple[str, str], ...]:
        return tuple((key, repr(value)) for key, value in sorted(self.settings.items()) if key != "seed")


@dataclass(frozen=True)
class Standing:
    """Rows that differ in their seed alone, as one; accuracies in percent."""

    rows: tuple[Scored, ...]
    """The best first."""
    top1: float
    """Mean over the seeds."""
    low: float
    high: float
    """95 % Wilson interval, for so many images: more seeds do not make them more."""
    loss: float
    p: float | None = None
    """Sign test against the best over the images, with Holm's correction for all that are held against it.

    Of single rows it is McNemar's exact test. None for the best.
    """
    tied: bool = False
    """Whether the validation images cannot tell it from the best; nor, of several seeds, the seeds."""

    @property
    def settings(self) -> dict[str, Any]:
        """What they have in common, and the seed of the best."""
        return self.rows[0].settings


def rank(rows: Sequence[Scored]) -> list[Standing]:
    """All rows, those that differ in the seed as one, by mean top-1 and then by loss; the best first."""
    groups: dict[Any, list[Scored]] = {}
    for row in rows:
        groups.setdefault(row._but_seed, []).append(row)
    standings = sorted(map(_standing, groups.values()), key=lambda each: (-each.top1, each.loss))
    if not standings:
        return []
    best, others = standings[0], standings[1:]
    adjusted = holm([_against(best, other) for other in others])
    told = [
        replace(other, p=p, tied=p >= LEVEL or _seeds_overlap(best, other))
        for other, p in zip(others, adjusted, strict=True)
    ]
    return [best, *told]


def _standing(rows: Sequence[Scored]) -> Standing:
    ordered = tuple(sorted(rows, key=lambda row: (-row.top1, row.loss)))
    top1, count = sum(row.top1 for row in ordered) / len(ordered), len(ordered[0].right)
    low, high = wilson(top1 / 100 * count, count)
    return Standing(ordered, top1, low, high, sum(row.loss for row in ordered) / len(ordered))


def _against(best: Standing, other: Standing) -> float:
    """The sign test's p: on how many images one is right more often than the other."""
    mine, theirs = (np.mean([row.right for row in each.rows], axis=0) for each in (best, other))
    return sign_test(int((mine > theirs).sum()), int((mine < theirs).sum()))


def _seeds_overlap(best: Standing, other: Standing) -> bool:
    """Whether some seed of the one is no better than some seed of the other, where there are several."""
    if len(best.rows) == len(other.rows) == 1:
        return False
    return min(row.top1 for row in best.rows) <= max(row.top1 for row in other.rows)
