"""Transfer learning with a frozen backbone: a head solved to its optimum on features that were computed once.

The head is multinomial logistic regression; its weight decay is chosen by stratified cross-validation over images, so
that all views of an image are on one side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from resnetkit.errors import UsageError
from resnetkit.features import Features
from resnetkit.model import ResNet

DECAYS = tuple(10.0**exponent for exponent in (-3, -2, -1, 0, 1, 2))
"""Candidates for sklearn's C, the inverse of the weight decay."""
CURVE = (0.125, 0.25, 0.5, 1.0)
SURE = 0.9
MAX_ITERATIONS = 2000


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


def freeze(network: ResNet, through: str | None) -> list[nn.Module]:
    """Freeze the stem and the stages up to `through`, such as "layer3", and return what has to stay in evaluation mode.

    Frozen parameters get no gradient; kept in evaluation mode, frozen BatchNorm does not move either.
    Raises `UsageError` (exit code 2) for a stage that the network does not have.
    """
    if through is None:
        return []
    last = through.rpartition("..")[2]
    if last not in ("stem", *network.stage_names):
        raise UsageError.unknown("stage to freeze", last, ("stem", *network.stage_names))
    names = ["conv1", "bn1"]
    if last != "stem":
        names += network.stage_names[: network.stage_names.index(last) + 1]
    parts = [network.get_submodule(name) for name in names]
    for part in parts:
        part.requires_grad_(False)
    return parts


def solve_head(features: Features, classes: int, *, folds: int = 5, balanced: bool = False, seed: int = 0) -> Head:
    """Fit the head on all views of all images; choose its decay and judge it by `folds`-fold cross-validation.

    A class needs two images to be judged; with fewer, C is 1 and nothing is claimed.
    """
    labels = features.labels
    smallest = int(np.bincount(labels, minlength=classes).min())
    folds = min(folds, smallest)
    if folds < 2:
        weight, bias = _fit(features, np.arange(len(labels)), classes, 1.0, balanced=balanced)
        return Head(weight, bias, 1.0, 0)
    parts = stratified_folds(labels, folds, seed)
    judged = {strength: _cross_validate(features, parts, classes, strength, balanced=balanced) for strength in DECAYS}
    loss = {strength: _loss(probabilities, labels) for strength, probabilities in judged.items()}
    strength = min(loss, key=lambda each: loss[each])
    probabilities = judged[strength]
    right = probabilities.argmax(1) == labels
    weight, bias = _fit(features, np.arange(len(labels)), classes, strength, balanced=balanced)
    return Head(
        weight,
        bias,
        strength,
        folds,
        100 * float(right.mean()),
        wilson(int(right.sum()), len(right)),
        _curve(features, parts, classes, strength, balanced=balanced),
        _suspects(features, probabilities),
    )


def stratified_folds(labels: np.ndarray, folds: int, seed: int = 0) -> list[np.ndarray]:
    """Positions of each fold; every class is spread evenly."""
    from sklearn.model_selection import StratifiedKFold

    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return [held for _, held in splitter.split(np.zeros(len(labels)), labels)]


def wilson(successes: int, count: int) -> tuple[float, float]:
    """95 % interval of a share, in percent (Wilson 1927); it holds for few images and for shares near 100 %."""
    z = 1.959963984540054
    share = successes / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return 100 * (centre - spread) / scale, 100 * (centre + spread) / scale


def _fit(
    features: Features, chosen: np.ndarray, classes: int, strength: float, *, balanced: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Weight (classes, width) and bias (classes,) for all views of the chosen images, each image weighing one."""
    from sklearn.linear_model import LogisticRegression

    views = features.values.shape[1]
    rows = features.values[chosen].reshape(-1, features.values.shape[2])
    labels = np.repeat(features.labels[chosen], views)
    model = LogisticRegression(C=strength, class_weight="balanced" if balanced else None, max_iter=MAX_ITERATIONS)
    model.fit(rows, labels, sample_weight=np.full(len(labels), 1 / views))
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # sklearn keeps one row for two classes; a softmax over its halves is the same
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    full_weight = np.zeros((classes, weight.shape[1]), dtype=np.float32)
    full_bias = np.full(classes, -1e4, dtype=np.float32)  # a class of which nothing was seen is never answered
    full_weight[model.classes_], full_bias[model.classes_] = weight, bias
    return full_weight, full_bias


def _answers(features: Features, chosen: np.ndarray, head: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Probabilities (N, classes) of the images as they are: the first view, as in prediction."""
    logits = features.values[chosen, 0] @ head[0].T + head[1]
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _cross_validate(
    features: Features, parts: Sequence[np.ndarray], classes: int, strength: float, *, balanced: bool
) -> np.ndarray:
    probabilities = np.empty((len(features.labels), classes), dtype=np.float32)
    for held in parts:
        rest = np.setdiff1d(np.arange(len(features.labels)), held)
        probabilities[held] = _answers(features, held, _fit(features, rest, classes, strength, balanced=balanced))
    return probabilities


def _loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean())


def _curve(
    features: Features, parts: Sequence[np.ndarray], classes: int, strength: float, *, balanced: bool
) -> tuple[tuple[int, float], ...]:
    """Accuracy on held-out images after learning from growing shares of the others, mean over the folds."""
    points = []
    for share in CURVE:
        counts, right = [], 0
        for held in parts:
            rest = np.setdiff1d(np.arange(len(features.labels)), held)
            some = np.concatenate([_first(rest[features.labels[rest] == label], share) for label in range(classes)])
            if len(np.unique(features.labels[some])) < 2:
                break
            answers = _answers(features, held, _fit(features, some, classes, strength, balanced=balanced)).argmax(1)
            counts.append(len(some))
            right += int((answers == features.labels[held]).sum())
        if len(counts) == len(parts):
            points.append((round(float(np.mean(counts))), 100 * right / len(features.labels)))
    return tuple(points)


def _first(members: np.ndarray, share: float) -> np.ndarray:
    order = np.random.Generator(np.random.PCG64(len(members))).permutation(members)
    return order[: max(1, round(len(members) * share))]


def _suspects(features: Features, probabilities: np.ndarray) -> tuple[tuple[str, int, int, float], ...]:
    """Images of which cross-validation is sure that they are something else, the surest first."""
    answers, shares = probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero((answers != features.labels) & (shares >= SURE))
    order = wrong[np.argsort(-shares[wrong])]
    return tuple(
        (features.files[i], int(features.labels[i]), int(answers[i]), round(float(shares[i]), 4)) for i in order
    )
