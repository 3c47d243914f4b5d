"""Which of the pictures to be scored a classifier has learnt from, or was chosen by: they say nothing of new ones."""

import logging
from pathlib import Path

import numpy as np

from resnetkit.classifier import Classifier
from resnetkit.data.fingerprint import FILE, Fingerprint
from resnetkit.data.splits import Split

logger = logging.getLogger("resnetkit")


def memory_of(classifier: Classifier) -> Fingerprint | None:
    """What a run remembers of its pictures; nothing for weights from elsewhere, and for sets in shards."""
    if classifier.folder is None:
        return None
    return Fingerprint.read(classifier.folder.parent / FILE)


def unseen(memory: Fingerprint, split: Split, root: Path) -> np.ndarray:
    """Places of the pictures that a run has not seen, int64 (M,).

    Where there are none but it was not learnt from all of them, those that only chose its best weights are taken, as in
    training on a folder without a test split; a line says so.
    """
    known = memory.knows(split, root)
    new = np.flatnonzero(~(known["train"] | known["validation"]))
    if len(new) or not known["validation"].any():
        return new
    logger.info("the best weights were chosen by these pictures: on new ones they may be a little less good")
    return np.flatnonzero(~known["train"])
