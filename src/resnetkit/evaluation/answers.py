"""What a classifier says of every labelled image of a split: what all figures are made of."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from resnetkit.classifier import Classifier
from resnetkit.data.batches import evaluation_batches
from resnetkit.data.splits import Split

BATCH_SIZE = 256


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

    def __len__(self) -> int:
        return len(self.labels)

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
    classifier: Classifier, split: Split, *, batch_size: int = BATCH_SIZE, workers: int | None = None
) -> Answers:
    """Logits of every image of a split, the same to the bit for every batch size and number of workers."""
    classifier = classifier.folded()
    lost: dict[str, str] = {}
    rows: list[np.ndarray] = []
    waiting: list[torch.Tensor] = []
    labels: list[np.ndarray] = []
    for batch in evaluation_batches(
        split, classifier.preprocess, classifier.compute, batch_size=batch_size, workers=workers
    ):
        lost |= batch.lost
        labels.append(batch.labels.cpu().numpy())
        waiting.append(batch.images)
        if sum(map(len, waiting)) >= classifier.chunk:
            images = torch.cat(waiting)
            whole = len(images) // classifier.chunk * classifier.chunk
            rows.append(classifier.invariant_logits(images[:whole]).cpu().numpy())
            waiting = [images[whole:]]
    if waiting and len(rest := torch.cat(waiting)):
        rows.append(classifier.invariant_logits(rest).cpu().numpy())
    files = tuple(_readable(split, lost))
    empty = np.empty((0, len(classifier.classes)), dtype=np.float32)
    return Answers(
        files,
        np.concatenate([*labels, np.empty(0, dtype=np.int64)]),
        np.concatenate([*rows, empty]),
        classifier.classes,
        classifier.temperature,
        lost,
    )


def _readable(split: Split, lost: dict[str, str]) -> Iterator[str]:
    return (name for name in map(split.name, range(len(split))) if name not in lost)
