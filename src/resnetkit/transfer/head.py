"""Transfer learning with a frozen backbone: a head solved to its optimum on features that were computed once.

The head is multinomial logistic regression; its weight decay is chosen by stratified cross-validation over images, so
that all views of an image are on one side.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnetkit.evaluation.intervals import wilson
from resnetkit.machine.device import one_thread
from resnetkit.transfer.features import Features
from resnetkit.transfer.logistic import Problem, Solution

DECAYS = tuple(10.0**exponent for exponent in (-3, -2, -1, 0, 1, 2))
"""Candidates for scikit-learn's C, the inverse of the weight decay."""
CURVE = (0.125, 0.25, 0.5)
"""Shares of the images that the learning curve learns from, besides all of them."""
SURE = 0.9
WORTH_THREADS = 2_000_000
"""From this many numbers times classes on, folds are solved side by side."""

_Fitted = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Head:
    """A solved head, and what cross-validation says of it. Accuracies are in percent."""

    weight: np.ndarray
    """(classes, width)."""
    bias: np.ndarray
    """(classes,)."""
    strength: float
    """The C that was chosen."""
    folds: int
    """0 where a class has too few images for any."""
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    """95 % Wilson interval over the images."""
    curve: tuple[tuple[int, float], ...] = ()
    """Images learnt from, and the accuracy on those that were not."""
    suspects: tuple[tuple[str, int, int, float], ...] = ()
    """File, its label, the label that cross-validation is sure of, and how sure: perhaps mislabelled."""

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """For the journal and `--json`: `folds, top1, low, high, C, curve, suspects`."""
        low, high = self.interval or (None, None)
        return {
            "folds": self.folds,
            "top1": self.accuracy,
            "low": low,
            "high": high,
            "C": self.strength,
            "curve": [{"images": images, "top1": top1} for images, top1 in self.curve],
            "suspects": [
                {"file": file, "label": classes[label], "looks_like": classes[answer], "probability": share}
                for file, label, answer, share in self.suspects
            ],
        }

    def advice(self) -> str:
        """Would more pictures help? From the last doubling of the learning curve."""
        if len(self.curve) < 2 or self.interval is None:
            return "too few pictures to say whether more would help: they would"
        (_, before), (_, after) = self.curve[-2:]
        noise = (self.interval[1] - self.interval[0]) / 4
        if after - before > noise:
            return f"more pictures would help: the last doubling brought {after - before:+.1f} points"
        return f"more pictures of this kind would help little: the last doubling brought {after - before:+.1f} points"


def solve_head(features: Features, classes: int, *, folds: int = 5, balanced: bool = False, seed: int = 0) -> Head:
    """Fit the head on all views of all images; choose its decay and judge it by `folds`-fold cross-validation.

    A class needs two images to be judged; with fewer, C is 1 and nothing is claimed.
    """
    labels, views = features.labels, features.values.shape[1]
    smallest = int(np.bincount(labels, minlength=classes).min())
    folds = min(folds, smallest)
    with one_thread() as threads:
        rows = features.values.reshape(-1, features.values.shape[2])
        # Each image weighs one, however many views it has.
        problem = Problem(rows, labels.repeat(views), np.full(len(rows), 1 / views))

        def fits(chosen: np.ndarray, strengths: Sequence[float]) -> list[_Fitted]:
            places = (chosen[:, None] * views + np.arange(views)).ravel()
            return [_full(found, classes) for found in problem.solve(strengths, places, balanced=balanced)]

        everything = np.arange(len(labels))
        if folds < 2:
            ((weight, bias),) = fits(everything, (1.0,))
            return Head(weight, bias, 1.0, 0)
        parts = stratified_folds(labels, folds, seed)
        rests = [np.setdiff1d(everything, held) for held in parts]
        with ThreadPoolExecutor(threads) as pool:
            # Small fits are many small steps of Python, which threads cannot share.
            each = pool.map if rows.size * classes >= WORTH_THREADS else map
            judged = {strength: np.empty((len(labels), classes), dtype=np.float32) for strength in DECAYS}
            for held, fitted in zip(parts, each(lambda rest: fits(rest, DECAYS), rests), strict=True):
                for strength, head in zip(DECAYS, fitted, strict=True):
                    judged[strength][held] = _answers(features, held, head)
            loss = {strength: _loss(probabilities, labels) for strength, probabilities in judged.items()}
            strength = min(loss, key=lambda each: loss[each])
            probabilities = judged[strength]
            right = probabilities.argmax(1) == labels
            ((weight, bias),) = fits(everything, (strength,))
            curve = []
            for share in CURVE:
                some = [_share(rest, labels[rest], share) for rest in rests]
                if min(len(np.unique(labels[chosen])) for chosen in some) < 2:
                    continue
                heads = each(lambda chosen: fits(chosen, (strength,))[0], some)
                answered = [_answers(features, held, head).argmax(1) for held, head in zip(parts, heads, strict=True)]
                good = sum(int((answers == labels[held]).sum()) for held, answers in zip(parts, answered, strict=True))
                curve.append((round(float(np.mean([len(chosen) for chosen in some]))), 100 * good / len(labels)))
    curve.append((round(float(np.mean([len(rest) for rest in rests]))), 100 * float(right.mean())))
    return Head(
        weight,
        bias,
        strength,
        folds,
        100 * float(right.mean()),
        wilson(int(right.sum()), len(right)),
        tuple(curve),
        _suspects(features, probabilities),
    )


def stratified_folds(labels: np.ndarray, folds: int, seed: int = 0) -> list[np.ndarray]:
    """Positions of each fold; every class is spread evenly.

    They are those of scikit-learn's StratifiedKFold, which takes a second to import. Sorted by class and dealt out like
    cards, the images say how many of each class a fold gets; chance says which.
    """
    _, first, codes = np.unique(labels, return_index=True, return_inverse=True)
    codes = np.argsort(np.argsort(first))[codes]  # classes are numbered as they come
    dealt = [np.bincount(np.sort(codes)[number::folds], minlength=len(first)) for number in range(folds)]
    draw = np.random.RandomState(seed)
    fold_of = np.empty(len(labels), dtype=np.int64)
    for code, counts in enumerate(np.stack(dealt, 1)):
        places = np.repeat(np.arange(folds), counts)
        draw.shuffle(places)
        fold_of[codes == code] = places
    return [np.flatnonzero(fold_of == number) for number in range(folds)]


def _full(found: Solution, classes: int) -> _Fitted:
    """Weight (classes, width) and bias (classes,), float32; a class of which nothing was seen is never answered."""
    weight = np.zeros((classes, found.weight.shape[1]), dtype=np.float32)
    bias = np.full(classes, -1e4, dtype=np.float32)
    weight[found.classes], bias[found.classes] = found.weight, found.bias
    return weight, bias


def _answers(features: Features, chosen: np.ndarray, head: _Fitted) -> np.ndarray:
    """Probabilities (N, classes) of the images as they are: the first view, as in prediction."""
    logits = features.values[chosen, 0] @ head[0].T + head[1]
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean())


def _share(chosen: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """A share of the chosen images, one of each class at least. A larger share holds the smaller ones."""
    parts = []
    for label in np.unique(labels):
        members = chosen[labels == label]
        order = np.random.Generator(np.random.PCG64(len(members))).permutation(members)
        parts.append(order[: max(1, round(len(members) * share))])
    return np.concatenate(parts)


def _suspects(features: Features, probabilities: np.ndarray) -> tuple[tuple[str, int, int, float], ...]:
    """Images of which cross-validation is sure that they are something else, the surest first."""
    answers, shares = probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero((answers != features.labels) & (shares >= SURE))
    order = wrong[np.argsort(-shares[wrong])]
    return tuple(
        (features.files[i], int(features.labels[i]), int(answers[i]), round(float(shares[i]), 4)) for i in order
    )
