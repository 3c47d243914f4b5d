"""A frozen backbone put to use: its features of a data set, the head solved on them, and what there is to say of it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

from resnetkit.classifier import Classifier
from resnetkit.data.splits import Split
from resnetkit.data.unreadable import whole_batch_lost
from resnetkit.errors import UsageError
from resnetkit.evaluation.metrics import Score, Tally
from resnetkit.machine.console import Reporter
from resnetkit.networks.resnet import ResNet
from resnetkit.recipes.schema import Recipe
from resnetkit.transfer.features import Features, Views, extract, join
from resnetkit.transfer.head import Head, solve_head


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
        lines += [f"  learnt from {images:,} images: {accuracy:.1f} %" for images, accuracy in head.curve]
        lines.append(head.advice())
        lines += [
            f"look at   {file}: labelled {classes[label]}, looks like {classes[answer]} ({share:.0%})"
            for file, label, answer, share in head.suspects[:5]
        ]
        return lines


def probe(classifier: Classifier, parts: Sequence[Split], recipe: Recipe, reporter: Reporter) -> Probe:
    """Solve a head on the features of `parts` and put it on the classifier's network, whose backbone is only read.

    Raises `UsageError` (exit code 2) for shards.
    """
    network, settings = classifier.network, recipe.transfer
    began = time.monotonic()
    before = {name: value.clone() for name, value in _backbone(network).items()}
    views, found, done = Views(settings.mirror, settings.crops), [], 0
    with reporter.progress(sum(map(len, parts)), 0, unit="images") as progress:
        for part in parts:
            found.append(_extract(classifier, part, views, lambda count, done=done: progress(done + count)))
            done += len(part)
    features = join(found)
    seconds = time.monotonic() - began
    balanced = recipe.class_weights == "balanced"
    head = solve_head(features, len(classifier.classes), folds=settings.folds, balanced=balanced, seed=recipe.seed)
    with torch.no_grad():
        network.fc.weight.copy_(torch.from_numpy(head.weight))
        network.fc.bias.copy_(torch.from_numpy(head.bias))
    drift = max(float((value - before[name]).abs().max()) for name, value in _backbone(network).items())
    return Probe(head, features, drift, seconds)


def score_probe(classifier: Classifier, split: Split) -> Score:
    """How good a classifier is on a split, from features, which are kept as those of training are."""
    found, head = _extract(classifier, split, Views()), classifier.network.fc
    tally = Tally(head.out_features, torch.device("cpu"))
    with torch.inference_mode():
        logits = F.linear(torch.from_numpy(found.values[:, 0]), head.weight.cpu(), head.bias.cpu())
        labels = torch.from_numpy(found.labels)
        tally.update(logits, labels, F.cross_entropy(logits, labels))
    return replace(tally.compute(), lost=found.lost)


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
