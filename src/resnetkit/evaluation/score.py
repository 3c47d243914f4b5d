"""The figures of a split alone, which training looks at after every epoch: sums that stay on the device."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch.nn import functional as F

from resnetkit.classifier import Classifier
from resnetkit.data.batches import evaluation_batches
from resnetkit.data.splits import Split
from resnetkit.evaluation.metrics import Score, Tally
from resnetkit.machine.ranks import ALONE, Ranks

BATCH_SIZE = 256


@torch.inference_mode()
def score(
    classifier: Classifier,
    split: Split,
    *,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    ranks: Ranks = ALONE,
    between: Callable[[], None] = lambda: None,
) -> Score:
    """How good a classifier is on one split.

    Every image counts once, for any number of ranks: each scores a part, and the sums are added up. `between` is called
    between batches, as often on one rank as on the other; it may raise. Memory that does not suffice for a batch is
    asked for again in halves.
    """
    lost: dict[str, str] = {}
    tally = Tally(len(classifier.classes), classifier.compute.device)
    batches = evaluation_batches(
        split,
        classifier.preprocess,
        classifier.compute,
        batch_size=batch_size,
        workers=workers,
        ranks=ranks,
    )
    for _ in range(-(-len(split) // ranks.size) // batch_size + 1):
        if (batch := next(batches, None)) is not None:
            lost |= batch.lost
            if len(batch.labels):
                logits, _ = classifier.outputs_that_fit(batch.images)
                tally.update(logits, batch.labels, F.cross_entropy(logits, batch.labels))
        between()
    if not ranks.alone:
        tally.restore(ranks.sum(*tally.state()))
        for others in ranks.gather(lost):
            lost |= others
    return replace(tally.compute(), lost=lost)
