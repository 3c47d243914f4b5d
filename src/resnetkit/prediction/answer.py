"""The answer for one input."""

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

UNKNOWN = "unknown"
"""What is said in place of a class. A class may bear that name: `Prediction.unknown` tells the two apart."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one file, or for a picture in memory, of which `file` is the number.

    `top` holds (class, probability), best first; it is empty where `error` says why.
    """

    file: str
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    probabilities: np.ndarray | None = field(default=None, compare=False, repr=False)
    """Calibrated, float32 (classes,), in the order of `classifier.classes`."""
    unknown: bool | None = None
    """Whether it looks like nothing that the classifier has learnt; None where that is not asked or not known."""
    unknown_score: float | None = None
    """How strange it looks: the larger, the stranger."""

    @property
    def label(self) -> str | None:
        """The most probable class."""
        return self.top[0][0] if self.top else None

    @property
    def probability(self) -> float | None:
        """How sure the classifier is of `label`, 0-1."""
        return self.top[0][1] if self.top else None

    def to_dict(self) -> dict[str, Any]:
        """One JSON object: `file, status, label, probability, top`, or `file, status, error`.

        And `unknown, unknown_score` where the classifier can say. A score that is not finite is the largest float.
        """
        if self.error is not None:
            return {"file": self.file, "status": "error", "error": self.error}
        top = [{"label": label, "probability": probability} for label, probability in self.top]
        found = {"file": self.file, "status": "ok", **top[0], "top": top}
        if self.unknown is not None and self.unknown_score is not None:
            found |= {"unknown": self.unknown, "unknown_score": min(self.unknown_score, sys.float_info.max)}
        return found

    def rejected(self) -> dict[str, Any]:
        """As `to_dict`, but that its label is "unknown" where it is; what it was taken for stands in `top`."""
        return self.to_dict() | ({"label": UNKNOWN, "probability": None} if self.unknown else {})
