"""Whether a classifier is as often right as it says: its temperature, and figures of its probabilities.

The temperature T divides all logits, so no order changes (Guo et al. 2017, section 4.2). It is fitted on images that
were not learnt from, and never on those of the test split.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from resnetkit.evaluation.answers import Answers
from resnetkit.evaluation.intervals import wilson
from resnetkit.randomness import key

FEWEST = 20
"""Images below which no temperature is fitted: by 10, every second fit made a network worse that was twice too sure."""
PRIOR = 1.0
"""How much T = 1 is believed beforehand, in images. Near the best of 0 to 32 for 10 to 1,000 images of two nets."""
COLDEST, HOTTEST = 0.01, 100.0
"""Bounds of a temperature."""
MOST_BINS, PER_BIN = 15, 20
"""Bins of a reliability diagram, and the images that each of them has at least."""
DRAWS = 200
"""How often chance is tried out."""
ROWS = 4096
"""Images that are computed at a time."""


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with which logits (N, classes) give the labels, int64 (N,), the highest probability.

    In b = 1 / T the negative log likelihood is convex. To it comes `PRIOR` times b - log b, the gamma distribution
    whose mode is 1: convex too, of no weight beside many images, and all that holds T where few or easy images are
    all answered rightly, of which likelihood alone would make T = 0.
    1 where there are fewer than `FEWEST` images whose logits are finite numbers.
    """
    finite = np.isfinite(logits).all(1)
    logits, labels = logits[finite], labels[finite]
    if len(labels) < FEWEST:
        return 1.0
    low, high, inverse = 1 / HOTTEST, 1 / COLDEST, 1.0
    for _ in range(200):
        slope, curvature = _derivatives(logits, labels, inverse)
        slope, curvature = slope + PRIOR * (1 - 1 / inverse), curvature + PRIOR / inverse**2
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        after = inverse - slope / curvature  # Newton's step; where it leads out of the bracket, half of that
        if not low < after < high:
            after = float(np.sqrt(low * high))
        if abs(after - inverse) <= 1e-12 * inverse:
            break
        inverse = after
    return 1 / inverse


def _derivatives(logits: np.ndarray, labels: np.ndarray, inverse: float) -> tuple[float, float]:
    """First and second derivative of the negative log likelihood by 1 / T: by how much logits are off, and vary."""
    slope = curvature = 0.0
    for start in range(0, len(labels), ROWS):
        own = labels[start : start + ROWS]
        values = logits[start : start + ROWS].astype(np.float64)
        values -= values.max(1, keepdims=True)
        powers = np.exp(inverse * values)
        powers /= powers.sum(1, keepdims=True)
        means = (powers * values).sum(1)
        slope += float((means - values[np.arange(len(own)), own]).sum())
        curvature += float((powers * (values - means[:, None]) ** 2).sum())
    return slope, curvature


@dataclass(frozen=True)
class Bin:
    """Images of which a classifier is about equally sure. All but `count` in percent."""

    count: int
    confidence: float
    """How sure it is of its answers, on average."""
    accuracy: float
    """How many of them are right."""
    low: float
    high: float
    """95 % Wilson interval of `accuracy`."""


@dataclass(frozen=True)
class Reliability:
    """How far probabilities can be believed."""

    ece: float
    """Expected calibration error: how far confidence and accuracy of a bin are apart, on average over the images, in
    percentage points (Naeini et al. 2015; bins of equal mass, Nguyen and O'Connor 2015)."""
    ece_by_chance: float
    """What it would be, on average, if every probability were right: with few images it is never 0."""
    ece_within_chance: bool
    """Whether it is less than 95 in 100 of those that chance alone gives."""
    brier: float
    """Mean square of the difference between probabilities and truth, summed over classes: 0-2 (Brier 1950)."""
    nll: float
    """Mean negative log likelihood, in nats."""
    bins: list[Bin]
    """By rising confidence."""


def calibration(answers: Answers) -> dict[str, Any] | None:
    """How far the probabilities of answers can be believed; None where there are none with finite logits.

    For the journal and `--json`: `temperature`, `count` of images, the figures of `Reliability`, and the same figures
    without the temperature under `…_uncalibrated`.
    """
    finite = np.asarray(np.isfinite(answers.logits).all(1))
    if not finite.any():
        return None
    known = answers if finite.all() else answers.take(finite)
    found = asdict(reliability(known))
    plain = asdict(reliability(replace(known, temperature=1.0)))
    found |= {f"{name}_uncalibrated": value for name, value in plain.items()}
    return {"temperature": known.temperature, "count": len(known)} | found


def describe(found: Mapping[str, Any]) -> str:
    """A line for people of what `calibration` gives: what it is worth that a classifier says it is nearly sure."""
    near = min(found["bins"], key=lambda each: abs(each["confidence"] - 90))
    says = f"When it says {near['confidence']:.0f} % it is right {near['accuracy']:.0f} % of the time"
    if found["ece_within_chance"]:
        return f"{says}, as near as these images tell."
    return f"{says}: off by {found['ece']:.1f} points on average."


def reliability(answers: Answers) -> Reliability:
    """Figures of answers as they are. What they answer is what the largest logit says, whatever the temperature."""
    parts = [_judged(part) for part in _in_rows(answers)]
    confidence, right, brier, nll = (np.concatenate(each) for each in zip(*parts, strict=True))
    bin_of = equal_mass(confidence)
    ece = _error(confidence, right, bin_of)
    by_chance = chance(np.sort(confidence), np.sort(bin_of))
    bins = []
    for number in range(bin_of.max() + 1):
        inside = bin_of == number
        count, good = int(inside.sum()), int(right[inside].sum())
        shares = (100 * float(confidence[inside].mean()), 100 * good / count, *wilson(good, count))
        bins.append(Bin(count, *(round(share, 4) for share in shares)))
    within = ece <= float(np.quantile(by_chance, 0.95))
    return Reliability(100 * ece, 100 * float(by_chance.mean()), within, float(brier.mean()), float(nll.mean()), bins)


def _in_rows(answers: Answers) -> Iterator[Answers]:
    for start in range(0, len(answers), ROWS):
        yield answers.take(slice(start, start + ROWS))


def _judged(answers: Answers) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Confidence of each answer, whether it is right, its Brier score and its negative log likelihood, each (N,)."""
    logs, places = answers.log_probabilities, np.arange(len(answers))
    shares, answered = np.exp(logs), answers.logits.argmax(1)
    own = shares[places, answers.labels]
    brier = (shares**2).sum(1) - 2 * own + 1
    return shares[places, answered], answered == answers.labels, brier, -logs[places, answers.labels]


def equal_mass(confidence: np.ndarray) -> np.ndarray:
    """The bin of each image, int64 (N,), from 0: bins of equal numbers of images, by rising confidence.

    Images with one and the same confidence share a bin, so that their order does not matter; so there may be fewer.
    """
    count = max(1, min(MOST_BINS, len(confidence) // PER_BIN))
    ordered = np.sort(confidence)
    edges = ordered[np.arange(1, count) * len(ordered) // count]
    return np.unique(np.searchsorted(edges, confidence, side="right"), return_inverse=True)[1]


def chance(confidence: np.ndarray, bin_of: np.ndarray) -> np.ndarray:
    """Calibration errors, 0-1, (DRAWS,), of draws in which every image is right as often as its confidence says.

    They are what an error has to be held against (Bröcker and Smith 2007, "Increasing the reliability of reliability
    diagrams"). The same draws for every number of images, whoever asks.
    """
    draw = np.random.Generator(np.random.PCG64(key(0, "calibration", len(confidence))))
    return np.array([_error(confidence, draw.random(len(confidence)) < confidence, bin_of) for _ in range(DRAWS)])


def _error(confidence: np.ndarray, right: np.ndarray, bin_of: np.ndarray) -> float:
    """The expected calibration error, 0-1."""
    return float(np.abs(np.bincount(bin_of, confidence - right)).sum() / len(confidence))
