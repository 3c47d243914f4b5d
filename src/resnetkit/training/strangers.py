"""What a run measures at its end, so that its classifier can tell pictures which are like nothing it has learnt."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from resnetkit.classifier import Classifier
from resnetkit.data.splits import Split
from resnetkit.evaluation.answers import answer
from resnetkit.novelty.unknown import Unknown, learn_unknown
from resnetkit.training.setup import Setup
from resnetkit.transfer.features import Features
from resnetkit.transfer.probe import features_as_shown

MOST_LEARNT = 2000
"""Training images at most whose features are looked at."""
MOST_HELD_OUT = 2000
"""Validation images at most that the threshold comes from."""


def unknown_of_run(setup: Setup, classifier: Classifier, solved: Features | None = None) -> Unknown | None:
    """The score of novelty of a run's classifier, the same on every rank.

    `solved`: features that a head was solved on, those of the training split first. None for a network of the user's
    own, for shards, and where there is no validation split.
    """
    split, held_out = setup.train_split, setup.data.validation
    if not classifier.ours or split.labels is None or held_out is None or held_out.labels is None:
        return None

    def learn() -> Unknown | None:
        if solved is None:
            *learnt, labels = _seen(setup, classifier, split, MOST_LEARNT)
            *others, _ = _seen(setup, classifier, held_out, MOST_HELD_OUT)
        else:
            count = len(split) - _lost(split, solved)
            *learnt, labels = _of_head(classifier, solved, range(count), MOST_LEARNT)
            rest = range(count, len(solved.labels))
            shown = solved if rest else features_as_shown(classifier, held_out)
            *others, _ = _of_head(classifier, shown, rest or range(len(shown.labels)), MOST_HELD_OUT)
        return learn_unknown(learnt[0], labels, learnt[1], (others[0], others[1]))

    return setup.ranks.from_first(learn)


def _seen(setup: Setup, classifier: Classifier, split: Split, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, logits and labels of at most so many images of a split, the same share of every class."""
    chosen = split.limited(most) if len(split) > most else split
    found = answer(classifier, chosen, workers=setup.recipe.data.workers, features=True)
    assert found.features is not None  # noqa: S101 - for the type alone: the network is ours
    return torch.from_numpy(found.features), torch.from_numpy(found.logits), torch.from_numpy(found.labels)


def _of_head(classifier: Classifier, found: Features, rows: range, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `_seen`, of some rows of the features that a frozen backbone gave of images as they are."""
    chosen = rows.start + np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(np.int64)
    features, head = torch.from_numpy(found.values[chosen, 0]), classifier.network.fc
    with torch.inference_mode():
        logits = F.linear(features, head.weight.cpu(), head.bias.cpu())
    return features, logits, torch.from_numpy(found.labels[chosen])


def _lost(split: Split, found: Features) -> int:
    """How many images of a split gave no features."""
    return sum(split.name(place) in found.lost for place in range(len(split))) if found.lost else 0
