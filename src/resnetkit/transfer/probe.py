"""A frozen backbone put to use: its features of a data set, the head solved on them, and what there is to say of it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from resnetkit.classifier import Classifier
from resnetkit.data.holdout import group_by_name
from resnetkit.data.splits import Split
from resnetkit.data.unreadable import whole_batch_lost
from resnetkit.errors import UsageError
from resnetkit.evaluation.metrics import Score, Tally
from resnetkit.machine.console import Reporter
from resnetkit.networks.resnet import ResNet
from resnetkit.recipes.schema import Recipe
from resnetkit.transfer.features import Features, Views, extract, join
from resnetkit.transfer.head import Head, solve_head
from resnetkit.transfer.prior import PLAIN
from resnetkit.transfer.published import FEW, Published, Recognised, match, recognise


@dataclass(frozen=True)
class Probe:
    """A head that was solved and put on its network."""

    head: Head
    features: Features
    drift: float
    """Largest change of any parameter or statistic of the backbone; 0 where it was truly frozen."""
    seconds: float
    """Time for the features."""

    def describe(self, classes: Sequence[str]) -> list[str]:
        """Lines for people."""
        head, count = self.head, len(self.features.labels)
        by = f"; computed by {self.features.by}" if self.features.by else ""
        known = f"{count - self.features.computed:,} from the cache"
        lines = [
            f"features  of {count:,} images in {self.seconds:.1f} s, {known}{by}",
            f"frozen drift: {self.drift:g}",
        ]
        if head.accuracy is None or head.interval is None:
            return [*lines, "a class has one image only: nothing can be said of how good the head is"]
        low, high = head.interval
        lines.append(
            f"{head.folds}-fold cross-validation: {head.accuracy:.1f} % (95 % interval {low:.1f} to {high:.1f})"
        )
        lines += _compared(head)
        lines += [f"  learnt from {images:,} images: {accuracy:.1f} %" for images, accuracy in head.curve]
        lines.append(head.advice())
        lines += [
            f"look at   {file}: labelled {classes[label]}, looks like {classes[answer]} ({share:.0%})"
            for file, label, answer, share in head.suspects[:5]
        ]
        return lines


def probe(
    classifier: Classifier,
    parts: Sequence[Split],
    recipe: Recipe,
    reporter: Reporter,
    published: Published | None = None,
) -> Probe:
    """Solve a head on the features of `parts` and put it on the classifier's network, whose backbone is only read.

    `published` is the head that the backbone came with: cross-validation decides what it is worth.
    Raises `UsageError` (exit code 2) for shards.
    """
    network = classifier.network
    began = time.monotonic()
    before = {name: value.clone() for name, value in _backbone(network).items()}
    features = features_of(classifier, parts, recipe, reporter)
    seconds = time.monotonic() - began
    head = solve(features, classifier.classes, parts, recipe, published)
    with torch.no_grad():
        network.fc.weight.copy_(torch.from_numpy(head.weight))
        network.fc.bias.copy_(torch.from_numpy(head.bias))
    drift = max(float((value - before[name]).abs().max()) for name, value in _backbone(network).items())
    return Probe(head, features, drift, seconds)


def features_of(classifier: Classifier, parts: Sequence[Split], recipe: Recipe, reporter: Reporter) -> Features:
    """Features of some splits as one, in the views of the recipe. Raises `UsageError` (exit code 2) for shards."""
    views, found, done = Views(recipe.transfer.mirror, recipe.transfer.crops), [], 0
    with reporter.progress(sum(map(len, parts)), 0, unit="images") as progress:
        for part in parts:
            found.append(_extract(classifier, part, views, lambda count, done=done: progress(done + count)))
            done += len(part)
    return join(found)


def solve(
    features: Features, classes: Sequence[str], parts: Sequence[Split], recipe: Recipe, published: Published | None
) -> Head:
    """The head for the features of `parts`, as the recipe wants it. Files that belong together lie in one fold."""
    group_of = group_by_name(parts, Path(recipe.data.name), recipe.data.group_by)
    priors = (PLAIN,)
    if published is not None and len(features.labels) < FEW:
        priors = published.priors(features.values[:, 0], classes)
    return solve_head(
        features,
        len(classes),
        folds=recipe.transfer.folds,
        balanced=recipe.class_weights == "balanced",
        seed=recipe.seed,
        priors=priors,
        groups=np.array([group_of[file] for file in features.files]) if group_of else None,
    )


def recognised(classifier: Classifier, split: Split, published: Published) -> Recognised | None:
    """How good the published head is on a split as it is; nothing where it does not know two of the classes."""
    if len(match(classifier.classes, published.classes)) < 2:
        return None
    return recognise(published, features_as_shown(classifier, split), classifier.classes)


def features_as_shown(classifier: Classifier, split: Split) -> Features:
    """Features of a split's images as they are, in one view; kept as those of training are."""
    return _extract(classifier, split, Views())


def score_probe(classifier: Classifier, split: Split) -> Score:
    """How good a classifier is on a split, from features, which are kept as those of training are."""
    found, head = features_as_shown(classifier, split), classifier.network.fc
    tally = Tally(head.out_features, torch.device("cpu"))
    with torch.inference_mode():
        logits = F.linear(torch.from_numpy(found.values[:, 0]), head.weight.cpu(), head.bias.cpu())
        labels = torch.from_numpy(found.labels)
        tally.update(logits, labels, F.cross_entropy(logits, labels))
    return replace(tally.compute(), lost=found.lost)


def _compared(head: Head) -> list[str]:
    """What the published head was worth, in a line."""
    if len(head.compared) < 2:
        return []
    top1_of = {name: top1 for name, top1, _ in head.compared}
    if head.prior != PLAIN.name:
        return [f"  from {head.prior}; {PLAIN.name}: {top1_of[PLAIN.name]:.1f} %"]
    best, top1, _ = min((each for each in head.compared if each[0] != PLAIN.name), key=lambda each: each[2])
    return [f"  the published head does not clearly help: {best}: {top1:.1f} %"]


def _extract(
    classifier: Classifier, split: Split, views: Views, progress: Callable[[int], None] = lambda _: None
) -> Features:
    if split.labels is None:
        raise UsageError(
            "a head is not solved on shards",
            why="it takes the features of all images at once",
            remedy="--recipe finetune --transfer.mode none, which trains every layer from the weights",
        )
    found = extract(
        classifier.network, classifier.preprocess, split, classifier.compute, views=views, progress=progress
    )
    if found.lost and not len(found.labels):
        raise whole_batch_lost(found.lost)
    return found


def _backbone(network: ResNet) -> dict[str, torch.Tensor]:
    return {name: value for name, value in network.state_dict().items() if not name.startswith("fc.")}
