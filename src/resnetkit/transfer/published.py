"""The head that a backbone came with, and what it is worth for other classes.

Its logits are W f + b on features f. Of its log-probabilities, W f + b - logsumexp(W f + b), the last term is the same
for all of its classes: a head on them is linear in f but for a multiple of that term. The logits less their mean,
z = (W - mean W) f + (b - mean b), say the same without it and are linear in f, so they are what is used. Then a head
on both, A f + B z + c, is the head A + B (W - mean W) on f alone, and folds into one layer exactly. It can say nothing
that a head on f cannot; but the directions that its publisher found worth telling apart cost less of the penalty. Where
classes have the names of published ones, their rows of W are what the new head is drawn to instead of zero.
Log-probabilities themselves measured no better (`docs/transfer.md`).
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Self

import numpy as np

from resnetkit.data.classnames import imagenet_synsets
from resnetkit.evaluation.intervals import wilson
from resnetkit.machine.console import shown
from resnetkit.transfer.features import Features
from resnetkit.transfer.prior import PLAIN, Prior
from resnetkit.weights.sources import Source

FEW = 1_000
"""Images from which on the published head is not asked: what it knows is learnt from them anyway, and asking takes
five times as long as solving one head. Measured: from 800 on it gains less than 0.1 points."""
LISTED = 4
"""Classes that are named before the others are counted."""


@dataclass(frozen=True)
class Published:
    """A head with its classes. Its logits are centred: their mean over the classes is zero."""

    weight: np.ndarray
    """(classes, width), float64."""
    bias: np.ndarray
    """(classes,), float64."""
    classes: tuple[str, ...]
    """Empty where nobody has named them."""
    name: str
    """Of the weights."""

    @classmethod
    def of(cls, source: Source | None) -> Self | None:
        """The head of some weights; nothing where they have none, or one that tells no classes apart."""
        if source is None or "fc.weight" not in source.tensors:
            return None
        weight, bias = (source.tensors[f"fc.{part}"].detach().cpu().double().numpy() for part in ("weight", "bias"))
        weight, bias = weight - weight.mean(0), bias - bias.mean()
        return cls(weight, bias, source.classes, source.name) if np.abs(weight).max() > 0 else None

    def priors(self, features: np.ndarray, classes: Sequence[str]) -> tuple[Prior, ...]:
        """What the head may make one believe, the first choice first. `features` are (N, width).

        Names that are the same are reason enough to begin there; logits of other classes have to prove their worth
        first. They are scaled so that they vary as much as the features do.
        """
        spread = float((features @ self.weight.T).var(0).sum())
        scaled = self.weight * np.sqrt(float(features.var(0).sum()) / spread) if spread > 0 else self.weight
        both = np.linalg.cholesky(np.eye(scaled.shape[1]) + scaled.T @ scaled).T
        found = []
        places = match(classes, self.classes)
        if len(places) > 1:
            weight, bias = np.zeros((len(classes), self.weight.shape[1])), np.zeros(len(classes))
            for label, place in places.items():
                weight[label], bias[label] = self.weight[place], self.bias[place]
            found.append(Prior("published classes of the same names", mean=(weight, bias)))
        both = np.linalg.cholesky(np.eye(scaled.shape[1]) + scaled.T @ scaled).T
        found += [PLAIN, Prior("features and published logits", both), Prior("published logits alone", scaled)]
        return tuple(found)


@dataclass(frozen=True)
class Recognised:
    """How good the published head is, without learning, on images of the classes that it knows."""

    classes: tuple[str, ...]
    """Those of the data that it has."""
    of: str
    """The name of its weights."""
    count: int
    """Images of these classes."""
    right: int

    def to_dict(self) -> dict[str, object]:
        """For the journal and `--json`: `classes, weights, count, top1, low, high`."""
        low, high = wilson(self.right, self.count)
        top1 = 100 * self.right / self.count
        return {
            "classes": self.classes,
            "weights": self.of,
            "count": self.count,
            "top1": top1,
            "low": low,
            "high": high,
        }

    def describe(self) -> list[str]:
        """Lines for people."""
        low, high = wilson(self.right, self.count)
        named = [shown(name) for name in self.classes[:LISTED]]
        more = f" and {len(self.classes) - len(named):,} more" if len(self.classes) > len(named) else ""
        share = f"{100 * self.right / self.count:.1f} % of the {self.count:,} held out"
        told = f"published {len(self.classes)} of your classes are those of {shown(self.of)}: {', '.join(named)}{more}"
        return [
            *wrap(told, 80, subsequent_indent="  "),
            f"  without learning {share} (95 % interval {low:.1f} to {high:.1f})",
        ]


def recognise(published: Published, features: Features, classes: Sequence[str]) -> Recognised | None:
    """Score the published head, among the classes that both know; nothing where there are less than two of them."""
    places = match(classes, published.classes)
    chosen = np.flatnonzero(np.isin(features.labels, list(places)))
    if len(places) < 2 or not len(chosen):
        return None
    labels, rows = np.array(list(places)), list(places.values())
    logits = features.values[chosen, 0] @ published.weight[rows].T + published.bias[rows]
    right = int((labels[logits.argmax(1)] == features.labels[chosen]).sum())
    return Recognised(tuple(classes[label] for label in places), published.name, len(chosen), right)


def match(classes: Sequence[str], published: Sequence[str]) -> dict[int, int]:
    """For each of `classes` that is one of `published`, by number: which. Only where there is no doubt.

    Names are compared without case, punctuation and the plural; a name may be several with commas between, as
    "ant, emmet, pismire". ImageNet's classes have their WordNet numbers as names too.
    """
    known: dict[str, set[int]] = defaultdict(set)
    for place, name in enumerate(published):
        for form in _forms(name):
            known[form].add(place)
    if len(published) == 1000 and "tench" in _forms(published[0]) and "toilet tissue" in _forms(published[-1]):
        for place, synset in enumerate(imagenet_synsets()):
            known[synset].add(place)
    found = {}
    for label, name in enumerate(classes):
        places = set[int]().union(*(known[form] for form in _forms(name) if form in known))
        if len(places) == 1:
            found[label] = places.pop()
    taken = list(found.values())
    return {label: place for label, place in found.items() if taken.count(place) == 1}


def _forms(name: str) -> set[str]:
    """A name, each of its synonyms, and the singular of each."""
    forms = set()
    for synonym in name.split(","):
        text = unicodedata.normalize("NFKC", synonym).casefold()
        plain = " ".join(re.sub(r"[\W_]+", " ", text).split())
        if plain:
            forms |= {plain, *_singulars(plain)}
    return forms


def _singulars(name: str) -> set[str]:
    """What a name may be the plural of, as far as its ending says."""
    found = set()
    if len(name) > 3 and name.endswith("s") and not name.endswith("ss"):
        found.add(name[:-1])
        if name.endswith("ies"):
            found.add(f"{name[:-3]}y")
        elif name.endswith(("ches", "shes", "xes", "sses", "oes")):
            found.add(name[:-2])
    return found
