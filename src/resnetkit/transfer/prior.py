"""What is believed of a head before it is learnt: where its weights lie, and in which directions they may leave it.

A linear head is weight @ f + bias on features f. Its prior is weight = mean + learnt @ root: what is learnt is
penalised by its squared length and the bias is free. With root = I and mean = 0 that is plain logistic regression.

Whatever the prior, the head stays linear in f, so what is learnt is folded into one weight and one bias, exactly, and
no model needs to know of it.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prior:
    """A belief by name. Both parts in float64; none stands for the identity and for zero."""

    name: str
    root: np.ndarray | None = None
    """(directions, width)."""
    mean: tuple[np.ndarray, np.ndarray] | None = None
    """Weight (classes, width) and bias (classes,) that learning starts from and is drawn to."""

    def rows(self, features: np.ndarray) -> np.ndarray:
        """Features (N, width) as the solver is to see them, (N, directions)."""
        return features if self.root is None else features @ self.root.T

    def offset(self, features: np.ndarray) -> np.ndarray | None:
        """Logits (N, classes) of the mean."""
        return None if self.mean is None else features @ self.mean[0].T + self.mean[1]

    def folded(self, learnt: np.ndarray, bias: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias on the features, of `learnt` (classes, directions) and `bias` for the labels in `classes`."""
        weight = learnt if self.root is None else learnt @ self.root
        if self.mean is None:
            return weight, bias
        return weight + self.mean[0][classes], bias + self.mean[1][classes]


PLAIN = Prior("features alone")
