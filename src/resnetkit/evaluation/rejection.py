"""What a classifier gains by not answering: coverage, and accuracy of what is answered."""

from typing import Any

from resnetkit.classifier import Classifier
from resnetkit.evaluation.answers import Answers
from resnetkit.evaluation.intervals import wilson


def rejection(classifier: Classifier, answers: Answers) -> dict[str, Any]:
    """Figures of a split whose strangest images are refused, as `predict --reject` would.

    `share`, of known pictures that was to be refused, 0-1; `count, answered, refused`; `coverage`, what is answered, in
    percent; `top1` of what is answered, with its 95 % `interval` (both None where nothing is); `refused_right` and
    `refused_wrong`: the refused that would have been answered rightly and wrongly.
    Raises `UsageError` (exit code 2) where the classifier has no score of novelty.
    """
    unknown, scores = classifier.require_unknown(), answers.strangeness
    right = answers.logits.argmax(1) == answers.labels
    refused = scores > unknown.threshold if scores is not None else right & False
    answered, count = int((~refused).sum()), len(answers)
    good = int((right & ~refused).sum())
    return {
        "method": unknown.method,
        "share": unknown.share,
        "count": count,
        "answered": answered,
        "refused": count - answered,
        "coverage": 100 * answered / count if count else None,
        "top1": 100 * good / answered if answered else None,
        "interval": list(wilson(good, answered)) if answered else None,
        "refused_right": int((right & refused).sum()),
        "refused_wrong": int((~right & refused).sum()),
    }


def describe(found: dict[str, Any]) -> list[str]:
    """The figures of `rejection` for people."""
    if found["top1"] is None:
        return [f"all {found['count']:,} are refused: they look like nothing that was learnt."]
    low, high = found["interval"]
    answered = f"{found['answered']:,} of {found['count']:,} ({found['coverage']:.1f} %)"
    wrong = f"{found['refused_wrong']:,} would have been wrong"
    return [
        f"with --reject it answers {answered}, {found['top1']:.2f} % of them rightly,",
        f"95 % interval {low:.1f} to {high:.1f}, and refuses {found['refused']:,} as unknown: {wrong}.",
    ]
