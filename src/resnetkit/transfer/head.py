"""Transfer learning with a frozen backbone: a head solved to its optimum on features that were computed once.

The head is multinomial logistic regression; its weight decay is chosen by stratified cross-validation over images, so
that all views of an image are on one side, and so are images that belong together. Where the backbone's own head may
help, cross-validation decides that too.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnetkit.classifier import numbers
from resnetkit.evaluation.answers import Answers
from resnetkit.evaluation.calibration import fit_temperature
from resnetkit.evaluation.intervals import wilson
from resnetkit.machine.device import one_thread
from resnetkit.transfer.features import Features
from resnetkit.transfer.logistic import Problem, Solution
from resnetkit.transfer.prior import PLAIN, Prior

DECAYS = tuple(10.0**exponent for exponent in (-3, -2, -1, 0, 1, 2))
"""Candidates for scikit-learn's C, the inverse of the weight decay."""
NEAR_THE_MEAN = (0.0, 1e-5, 1e-4)
"""Further ones for a prior that has a mean; at 0 nothing is learnt."""
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
    prior: str = PLAIN.name
    """What the head was believed to be before it was learnt."""
    compared: tuple[tuple[str, float, float], ...] = ()
    """Every prior that was tried: its name, accuracy and mean loss in cross-validation."""
    answers: Answers | None = None
    """To each image by a head that has not seen it, with the temperature that they want; classes are numbered."""

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """For the journal and `--json`: `folds, top1, low, high, C, prior, compared, curve, suspects`."""
        low, high = self.interval or (None, None)
        return {
            "folds": self.folds,
            "top1": self.accuracy,
            "low": low,
            "high": high,
            "C": self.strength,
            "prior": self.prior,
            "compared": [{"prior": name, "top1": top1, "loss": loss} for name, top1, loss in self.compared],
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


def solve_head(
    features: Features,
    classes: int,
    *,
    folds: int = 5,
    balanced: bool = False,
    seed: int = 0,
    priors: Sequence[Prior] = (PLAIN,),
    groups: np.ndarray | None = None,
) -> Head:
    """Fit the head on all views of all images; choose its decay and judge it by `folds`-fold cross-validation.

    Images of one of `groups`, int64 (N,), lie in one fold. A class needs two groups to be judged; with fewer, C is 1
    and nothing is claimed. Of several `priors` the first stays unless another's loss in cross-validation is less by
    more than the standard error of the difference, image by image.
    """
    labels = features.labels
    parts = grouped_folds(labels, groups if groups is not None else np.arange(len(labels)), folds, classes, seed)
    with one_thread() as threads, ThreadPoolExecutor(threads) as pool:
        if not parts:
            ((weight, bias),) = _Task(features, classes, priors[0], balanced).fits(np.arange(len(labels)), (1.0,))
            return Head(weight, bias, 1.0, 0)
        rests = [np.setdiff1d(np.arange(len(labels)), held) for held in parts]
        # Small fits are many small steps of Python, which threads cannot share.
        each = pool.map if features.values.size * classes >= WORTH_THREADS else map
        plain = _Task(features, classes, priors[0], balanced)
        best = (plain, plain.judged(parts, rests, each))
        compared = [(plain.prior.name, *best[1].figures())]
        for prior in priors[1:]:
            task = _Task(features, classes, prior, balanced)
            found = task.judged(parts, rests, each)
            compared.append((prior.name, *found.figures()))
            if found.clearly_beats(best[1]):
                best = (task, found)
        task, judged = best
        ((weight, bias),) = task.fits(np.arange(len(labels)), (judged.strength,))
        curve = task.curve(judged.strength, parts, rests, each)
    accuracy, _ = judged.figures()
    temperature = fit_temperature(judged.logits, labels)
    return Head(
        weight,
        bias,
        judged.strength,
        len(parts),
        accuracy,
        wilson(judged.right, len(labels)),
        (*curve, (round(float(np.mean([len(rest) for rest in rests]))), accuracy)),
        _suspects(features, judged.logits, temperature),
        task.prior.name,
        tuple(compared),
        Answers(features.files, labels, judged.logits, numbers(classes), temperature),
    )


@dataclass(frozen=True)
class _Judged:
    """What cross-validation says of a prior at the strength that suits it best."""

    strength: float
    logits: np.ndarray
    """float32 (N, classes), of each image by the head that has not seen it."""
    losses: np.ndarray
    """(N,)."""
    right: int
    """Images that are answered rightly."""

    def figures(self) -> tuple[float, float]:
        """Accuracy in percent, and mean loss."""
        return 100 * self.right / len(self.losses), float(self.losses.mean())

    def clearly_beats(self, other: "_Judged") -> bool:
        """Whether the loss is less by more than the standard error of the difference, image by image."""
        gains = other.losses - self.losses
        return float(gains.mean()) > float(gains.std()) / math.sqrt(len(gains))


class _Task:
    """Fits of heads on parts of the images under one prior; what they give is folded, a weight and a bias."""

    def __init__(self, features: Features, classes: int, prior: Prior, balanced: bool) -> None:
        self.features, self.classes, self.prior, self.balanced = features, classes, prior, balanced
        self.views = features.values.shape[1]
        rows = features.values.reshape(-1, features.values.shape[2])
        # Each image weighs one, however many views it has.
        labels, weighs = features.labels.repeat(self.views), np.full(len(rows), 1 / self.views)
        self.problem, self.offset = Problem(prior.rows(rows), labels, weighs), prior.offset(rows)
        self.strengths = DECAYS if prior.mean is None else (*NEAR_THE_MEAN, *DECAYS)

    def fits(self, chosen: np.ndarray, strengths: Sequence[float]) -> list[_Fitted]:
        """A head for every strength, from the images at `chosen`."""
        places = (chosen[:, None] * self.views + np.arange(self.views)).ravel()
        found = self.problem.solve(strengths, places, balanced=self.balanced, offset=self.offset)
        return [_full(each, self.classes, self.prior) for each in found]

    def judged(self, parts: list[np.ndarray], rests: list[np.ndarray], each: Callable) -> _Judged:
        """Cross-validation of all strengths, and the one with the least loss."""
        labels, strengths = self.features.labels, self.strengths
        answers = {strength: np.empty((len(labels), self.classes), dtype=np.float32) for strength in strengths}
        for held, fitted in zip(parts, each(lambda rest: self.fits(rest, strengths), rests), strict=True):
            for strength, head in zip(strengths, fitted, strict=True):
                answers[strength][held] = _logits(self.features, held, head)
        losses = {strength: _losses(logits, labels) for strength, logits in answers.items()}
        best = min(losses, key=lambda strength: losses[strength].mean())
        return _Judged(best, answers[best], losses[best], int((answers[best].argmax(1) == labels).sum()))

    def curve(
        self, strength: float, parts: list[np.ndarray], rests: list[np.ndarray], each: Callable
    ) -> list[tuple[int, float]]:
        """Images learnt from, and the accuracy on those held out, for each share of `CURVE`."""
        labels, points = self.features.labels, []
        for share in CURVE:
            some = [_share(rest, labels[rest], share) for rest in rests]
            if min(len(np.unique(labels[chosen])) for chosen in some) < 2:
                continue
            heads = each(lambda chosen: self.fits(chosen, (strength,))[0], some)
            answered = [_logits(self.features, held, head).argmax(1) for held, head in zip(parts, heads, strict=True)]
            good = sum(int((answers == labels[held]).sum()) for held, answers in zip(parts, answered, strict=True))
            points.append((round(float(np.mean([len(chosen) for chosen in some]))), 100 * good / len(labels)))
        return points


def grouped_folds(labels: np.ndarray, groups: np.ndarray, folds: int, classes: int, seed: int = 0) -> list[np.ndarray]:
    """Positions of each fold, as `stratified_folds`, but what belongs together is in one; none where a class cannot.

    A group counts for the class of its first member. Where each image is its own group, the folds are the same.
    """
    _, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    speakers = labels[np.sort(first)]
    folds = min(folds, int(np.bincount(speakers, minlength=classes).min()))
    if folds < 2:
        return []
    members = order[group_of]
    return [np.flatnonzero(np.isin(members, held)) for held in stratified_folds(speakers, folds, seed)]


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


def _full(found: Solution, classes: int, prior: Prior) -> _Fitted:
    """Weight (classes, width) and bias (classes,), float32; a class of which nothing was seen is never answered."""
    known, offset = prior.folded(found.weight, found.bias, found.classes)
    weight = np.zeros((classes, known.shape[1]), dtype=np.float32)
    bias = np.full(classes, -1e4, dtype=np.float32)
    weight[found.classes], bias[found.classes] = known, offset
    return weight, bias


def _logits(features: Features, chosen: np.ndarray, head: _Fitted) -> np.ndarray:
    """Logits (N, classes) of the images as they are: the first view, as in prediction."""
    return features.values[chosen, 0] @ head[0].T + head[1]


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return -np.log(np.maximum(_softmax(logits)[np.arange(len(labels)), labels], 1e-12))


def _share(chosen: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """A share of the chosen images, one of each class at least. A larger share holds the smaller ones."""
    parts = []
    for label in np.unique(labels):
        members = chosen[labels == label]
        order = np.random.Generator(np.random.PCG64(len(members))).permutation(members)
        parts.append(order[: max(1, round(len(members) * share))])
    return np.concatenate(parts)


def _suspects(features: Features, logits: np.ndarray, temperature: float) -> tuple[tuple[str, int, int, float], ...]:
    """Images of which cross-validation is sure that they are something else, the surest first.

    Sure without the temperature: the mislabelled themselves raise it, and would hide. What is told is calibrated.
    """
    answers, shares, told = logits.argmax(1), _softmax(logits).max(1), _softmax(logits / temperature).max(1)
    wrong = np.flatnonzero((answers != features.labels) & (shares >= SURE))
    order = wrong[np.argsort(-shares[wrong])]
    return tuple((features.files[i], int(features.labels[i]), int(answers[i]), round(float(told[i]), 4)) for i in order)
