"""Which of the pictures to be scored a classifier has learnt from, or was chosen by: they say nothing of new ones."""

from pathlib import Path

import numpy as np

from resnetkit.classifier import Classifier
from resnetkit.data.fingerprint import Fingerprint
from resnetkit.data.splits import Files, Images, Split

IMAGES = "images.safetensors"


def memory_of(classifier: Classifier) -> Fingerprint | None:
    """What a run remembers of its pictures; nothing for weights from elsewhere, and for sets in shards."""
    if classifier.folder is None:
        return None
    return Fingerprint.read(classifier.folder.parent / IMAGES)


def unseen(memory: Fingerprint, split: Split, name: str, root: Path) -> np.ndarray:
    """Places of the pictures that a run has not seen, int64 (M,).

    Where all of the others chose the best weights, as when a folder has no test split, these are taken, and only those
    that were learnt from are left out.
    """
    known = memory.knows(split, root)
    if name == "validation":
        return np.flatnonzero(~known["train"])
    return np.flatnonzero(~(known["train"] | known["validation"]))


def without_seen(memory: Fingerprint, split: Split, name: str, root: Path) -> tuple[Split, int]:
    """A split without the pictures that were seen, and how many those are."""
    if not isinstance(split, Images | Files):  # of shards nothing is remembered picture by picture
        return split, 0
    left = unseen(memory, split, name, root)
    return split.take(left), len(split) - len(left)
