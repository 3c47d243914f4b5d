"""What a classifier says of every labelled image of a split: what all figures are made of."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from resnetkit.averaging import averaged_outputs
from resnetkit.classifier import Classifier
from resnetkit.data.batches import evaluation_batches
from resnetkit.data.splits import Split
from resnetkit.images.protocol import ONE_VIEW, ViewProtocol
from resnetkit.machine.ranks import ALONE, Ranks

BATCH_SIZE = 256
_Rows = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]
"""Logits, scores of novelty and features of some images; the last two where there are any."""


@dataclass(frozen=True)
class Answers:
    """Of N images that could be read, in the order of their split."""

    files: tuple[str, ...]
    """A name for each, as `Split.name` gives it."""
    labels: np.ndarray
    """int64 (N,), places among `classes`."""
    logits: np.ndarray
    """float32 (N, classes), not calibrated; of averaged views the logarithm of the mean probability."""
    classes: tuple[str, ...]
    temperature: float = 1.0
    lost: dict[str, str] = field(default_factory=dict)
    """Files that could not be read, and why."""
    strangeness: np.ndarray | None = None
    """float32 (N,), scores of novelty; None where the classifier has none."""
    features: np.ndarray | None = None
    """float32 (N, width), what the head was given, where that was asked for and is known."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: slice | np.ndarray) -> "Answers":
        """Those of a slice, of which nothing is copied but names, or where a mask, bool (N,), is true."""
        if isinstance(chosen, slice):
            files = self.files[chosen]
        else:
            files = tuple(file for file, kept in zip(self.files, chosen, strict=True) if kept)
        parts = {"strangeness": self.strangeness, "features": self.features}
        more = {name: part[chosen] for name, part in parts.items() if part is not None}
        return replace(self, files=files, labels=self.labels[chosen], logits=self.logits[chosen], **more)

    @property
    def log_probabilities(self) -> np.ndarray:
        """Calibrated, float64 (N, classes)."""
        return _log_softmax(self.logits.astype(np.float64) / self.temperature)

    @property
    def probabilities(self) -> np.ndarray:
        """Calibrated, float64 (N, classes)."""
        return np.exp(self.log_probabilities)

    @property
    def losses(self) -> np.ndarray:
        """Cross-entropy of the logits as they are, not calibrated, float64 (N,): what training minimises."""
        return -_log_softmax(self.logits.astype(np.float64))[np.arange(len(self)), self.labels]


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


@torch.inference_mode()
def answer(
    classifier: Classifier,
    split: Split,
    *,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    protocol: ViewProtocol = ONE_VIEW,
    ranks: Ranks = ALONE,
    features: bool = False,
) -> Answers:
    """Logits of every image of a split, the same to the bit for every batch size and number of workers and ranks.

    Each rank looks at a part, and all of them have the answers to the whole. `protocol` says which views are averaged;
    the classifier's preprocessing is what it wants already.
    With `features` those too, of one view: they take as many bytes as there are images times what the network is wide.
    """
    classifier = classifier.folded()
    lost: dict[str, str] = {}
    rows: list[_Rows] = []
    waiting: list[torch.Tensor] = []
    labels: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    look = classifier.preprocess
    batches = evaluation_batches(
        split, look, classifier.compute, batch_size=batch_size, workers=workers, ranks=ranks, protocol=protocol
    )
    for batch in batches:
        lost |= batch.lost
        labels.append(batch.labels.cpu().numpy())
        if batch.views:
            logits, strangeness = averaged_outputs(classifier, batch.views)
            rows.append((logits.numpy(), strangeness.numpy() if strangeness is not None else None, None))
        waiting.append(batch.images)
        if sum(map(len, waiting)) >= classifier.chunk:
            images = torch.cat(waiting)
            whole = len(images) // classifier.chunk * classifier.chunk
            rows.append(_said(classifier, images[:whole], features=features))
            waiting = [images[whole:]]
    if waiting and len(rest := torch.cat(waiting)):
        rows.append(_said(classifier, rest, features=features))
    parts = ranks.gather((np.concatenate(labels), rows, lost))
    lost = {file: why for _, _, theirs in parts for file, why in theirs.items()}
    rows = [row for _, theirs, _ in parts for row in theirs]
    return Answers(
        tuple(_readable(split, lost)),
        np.concatenate([theirs for theirs, _, _ in parts]),
        np.concatenate([*(part for part, _, _ in rows), np.empty((0, len(classifier.classes)), dtype=np.float32)]),
        classifier.classes,
        classifier.temperature,
        lost,
        _joined([part for _, part, _ in rows]),
        _joined([part for _, _, part in rows]),
    )


def _said(classifier: Classifier, images: torch.Tensor, *, features: bool) -> _Rows:
    logits, seen = classifier.invariant_outputs(images)
    strangeness = classifier.strangeness(logits, seen)
    return (
        logits.cpu().numpy(),
        strangeness.numpy() if strangeness is not None else None,
        seen.cpu().numpy() if features and seen is not None else None,
    )


def _joined(parts: list[np.ndarray | None]) -> np.ndarray | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if known else None


def _readable(split: Split, lost: dict[str, str]) -> Iterator[str]:
    return (name for name in map(split.name, range(len(split))) if name not in lost)
