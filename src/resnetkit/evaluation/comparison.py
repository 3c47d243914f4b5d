"""Whether one of several classifiers is better, as far as the images on which they answer differently can say."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np

from resnetkit.evaluation.answers import Answers
from resnetkit.evaluation.intervals import wilson
from resnetkit.randomness import key

LEVEL = 0.05
"""Of a difference that is called one; intervals hold in 95 of 100 cases."""
POWER = 0.8
"""How often so many images as are asked for would show a difference that is there."""
REPLICATES = 10_000
"""Of the bootstrap: the ends of an interval are steady to a fiftieth of its width."""


@dataclass(frozen=True)
class Pair:
    """Two classifiers on the same images. Differences are in points of top-1, the second's less the first's."""

    first: str
    second: str
    both: int
    """Images on which both are right."""
    only_first: int
    only_second: int
    neither: int
    differ: int
    """Images to which they give different classes, whether one of these is right or not."""
    difference: float
    low: float
    high: float
    """95 % interval of the difference: paired bootstrap over the images."""
    p: float
    """McNemar's exact test."""
    p_adjusted: float
    """Holm's correction for all pairs that were compared."""
    images_needed: int | None
    """About so many would show the difference in four of five cases; none where it is shown, or there is none."""
    same_weights: bool = False

    @property
    def shown(self) -> bool:
        """Whether these images show that one is better."""
        return self.p_adjusted < LEVEL

    @property
    def better(self) -> str | None:
        """The name of the better one, where these images show that."""
        if not self.shown:
            return None
        return self.second if self.difference > 0 else self.first

    def verdict(self, first: str | None = None, second: str | None = None) -> str:
        """One sentence; other names may be put in the place of theirs."""
        names = first or self.first, second or self.second
        if self.same_weights and not self.differ:
            return f"{names[0]} and {names[1]} have the very same weights"
        sign = 1 if self.difference >= 0 else -1
        ends = sorted((sign * self.low, sign * self.high))
        size = f"{sign * self.difference:+.1f} points ({ends[0]:.1f} to {ends[1]:.1f})"
        told = f"p {_p_value(self.p_adjusted)}"
        if self.shown:
            return f"{names[sign > 0]} is better: {size}, {told}"
        if not self.only_first + self.only_second:
            return f"no difference that these images can show: both are right on the same {self.both:,}"
        ahead = f"{names[sign > 0]} {size}" if self.difference else f"0.0 points ({self.low:.1f} to {self.high:.1f})"
        return f"no difference that these images can show: {ahead}, {told}"

    def remedy(self) -> str | None:
        """How many images would show it, where these do not."""
        if self.images_needed is None:
            return None
        size = f"{abs(self.difference):.1f}" if abs(self.difference) >= 0.1 else f"{abs(self.difference):.2g}"
        return f"to show a difference of {size} points you need about {self.images_needed:,} images"

    def to_dict(self) -> dict[str, Any]:
        """All of it, for `--json`."""
        said = {"better": self.better, "verdict": self.verdict(), "remedy": self.remedy()}
        return asdict(self) | said


def compare_answers(
    answers: Sequence[Answers], names: Sequence[str], *, seed: int = 0, same: Sequence[tuple[int, int]] = ()
) -> list[Pair]:
    """Every pair of classifiers, from their answers to the same N images in the same order of classes.

    `same` are pairs whose weights are equal. The bootstrap depends on `seed` alone.
    """
    given = [each.logits.argmax(1) for each in answers]
    right = [classes == each.labels for classes, each in zip(given, answers, strict=True)]
    places = list(combinations(range(len(answers)), 2))
    tests = [sign_test(*_discordant(right[i], right[j])) for i, j in places]
    pairs = []
    for (i, j), p, adjusted in zip(places, tests, holm(tests), strict=True):
        only_first, only_second = _discordant(right[i], right[j])
        count, both = len(right[i]), int((right[i] & right[j]).sum())
        low, high = bootstrap_interval(right[j].astype(float) - right[i], seed=seed)
        needed = None
        if only_first != only_second and adjusted >= LEVEL:
            share, apart = abs(only_second - only_first) / count, (only_first + only_second) / count
            needed = images_needed(share, apart, level=LEVEL / len(places))
        pairs.append(
            Pair(
                names[i],
                names[j],
                both,
                only_first,
                only_second,
                count - both - only_first - only_second,
                int((given[i] != given[j]).sum()),
                100 * (only_second - only_first) / count,
                100 * low,
                100 * high,
                p,
                adjusted,
                needed,
                (i, j) in same,
            )
        )
    return pairs


def _discordant(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """On how many images the first alone is right, and the second alone."""
    return int((first & ~second).sum()), int((second & ~first).sum())


def sign_test(first: int, second: int) -> float:
    """McNemar's exact test, two-sided: how likely counts so uneven are where either side is as likely (McNemar 1947).

    `first` and `second` are the images on which one alone is right; those on which both are tell nothing.
    """
    count, fewer = first + second, min(first, second)
    tried = np.arange(1, fewer + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(count - tried + 1) - np.log(tried))]) - count * math.log(2)
    return min(1.0, 2 * float(np.exp(logs).sum()))


def holm(tests: Sequence[float]) -> list[float]:
    """p-values corrected for their number, so that any false alarm among them has the level of one (Holm 1979)."""
    adjusted, reached = [0.0] * len(tests), 0.0
    for rank, place in enumerate(sorted(range(len(tests)), key=tests.__getitem__)):
        reached = max(reached, min(1.0, (len(tests) - rank) * tests[place]))
        adjusted[place] = reached
    return adjusted


def bootstrap_interval(differences: np.ndarray, *, seed: int) -> tuple[float, float]:
    """95 % percentile interval of the mean of paired differences (N,), by drawing images anew (Efron 1979).

    Few values occur, so how often each is drawn is one multinomial draw: the memory does not depend on N. Where no
    image tells the two apart, the bootstrap would say that none ever will; the interval is then that of a share of
    which none was seen among N images.
    """
    values, counts = np.unique(differences, return_counts=True)
    total = len(differences)
    if not np.any(values):
        most = 1 - LEVEL ** (1 / total)
        return -most, most
    generator = np.random.Generator(np.random.PCG64(key(seed, "bootstrap")))
    means = generator.multinomial(total, counts / total, size=REPLICATES) @ values / total
    low, high = np.quantile(means, (LEVEL / 2, 1 - LEVEL / 2))
    return float(low), float(high)


def images_needed(difference: float, discordant: float, *, level: float = LEVEL) -> int:
    """Images on which McNemar's test shows a difference in four of five cases (Connor 1987, equation 3).

    `difference` is that of two shares and not 0; `discordant` the share of images on which one alone is right.
    """
    normal = NormalDist()
    spread = math.sqrt(max(0.0, discordant - difference**2))
    reach = normal.inv_cdf(1 - level / 2) * math.sqrt(discordant) + normal.inv_cdf(POWER) * spread
    return math.ceil((reach / difference) ** 2)


def accuracy(answers: Answers) -> dict[str, Any]:
    """`count, top1, low, high, loss` of a classifier: top-1 in percent with its 95 % Wilson interval."""
    right = int((answers.logits.argmax(1) == answers.labels).sum())
    low, high = wilson(right, len(answers))
    return {
        "count": len(answers),
        "top1": 100 * right / len(answers),
        "low": low,
        "high": high,
        "loss": float(answers.losses.mean()),
    }


def _p_value(p: float) -> str:
    return f"= {p:.2g}" if p >= 0.001 else "< 0.001"
