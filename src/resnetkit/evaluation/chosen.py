"""What the weights of a run were chosen by: its validation figures, which stand beside those of the test."""

from pathlib import Path
from typing import Any

from resnetkit.classifier import Classifier
from resnetkit.data.named import NAMED_SETS
from resnetkit.evaluation.figures import Share


def own_data(classifier: Classifier, data: str) -> bool:
    """Whether a set or path is what its run was given, by name or path."""
    own = classifier.origin.data
    if own is None or data in NAMED_SETS or own in NAMED_SETS:
        return data == own
    try:
        return Path(own).resolve() == Path(data).resolve()
    except ValueError:  # what is no path, in an artefact from elsewhere
        return False


def validation_of(classifier: Classifier) -> dict[str, Any] | None:
    """`count, top1, loss, interval` of the validation split with these weights, as its run says; else None."""
    metrics = classifier.metrics
    found = metrics if metrics.get("split") == "validation" else metrics.get("validation")
    if not isinstance(found, dict):
        return None
    count, top1, loss = (found.get(name) for name in ("count", "top1", "loss"))
    if not isinstance(count, int) or not isinstance(top1, int | float) or not 0 <= top1 <= 100 or count < 1:
        return None
    share = Share(round(count * top1 / 100), count)
    return {"count": count, "top1": top1, "loss": loss, "interval": {"top1": share.interval}}
