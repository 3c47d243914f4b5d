"""Multinomial logistic regression with an L2 penalty, solved to its optimum for many penalties and subsets of the rows.

The objective is scikit-learn's: strength * sum of weighted cross-entropies + half the squared weights, biases free, one
row of weights where there are two classes. It is solved by Newton's method, each step by conjugate gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NEWTON_STEPS, INNER_STEPS = 100, 200
PRECISION = 1e-12
"""The solver stops where the objective is nearer to its minimum than this share of it."""
FORCING = 0.01
"""How much of the residual's energy a step may leave. Measured: between 0.1 and 0.0001 the time changes by a tenth."""


@dataclass(frozen=True)
class Solution:
    """Logits are `rows @ weight.T + bias`, for the classes in `classes` only, in their order."""

    classes: np.ndarray
    """The labels that occur, sorted."""
    weight: np.ndarray
    """(len(classes), width), float64; the sum over the classes is zero."""
    bias: np.ndarray
    """(len(classes),), float64."""


class Problem:
    """Rows (N, width) with integer labels (N,) and what each weighs (N,), turned so that all fits to them are fast.

    The turn is exact: the penalty keeps the weights in the space that the rows span, and does not change in a rotation.
    In the axes chosen, the columns of all rows are orthogonal, so that a diagonal says most about the curvature.
    """

    def __init__(self, rows: np.ndarray, labels: np.ndarray, importance: np.ndarray) -> None:
        self.labels, self.importance = labels, torch.from_numpy(importance).double()
        turned = torch.from_numpy(rows).double()
        self.centre = turned.mean(0)
        turned = turned - self.centre
        span = None
        if len(turned) < turned.shape[1]:
            span, corner = torch.linalg.qr(turned.T)
            turned = corner.T
        _, rotation = torch.linalg.eigh(turned.T @ turned)
        self.axes = rotation if span is None else span @ rotation
        self.design = torch.cat([turned @ rotation, torch.ones(len(turned), 1, dtype=torch.float64)], 1)

    def solve(
        self,
        strengths: Sequence[float],
        chosen: np.ndarray | None = None,
        *,
        balanced: bool = False,
        offset: np.ndarray | None = None,
    ) -> list[Solution]:
        """The optimum for every one of `strengths`, in their order, on the rows at `chosen`.

        `balanced` gives every class the same weight in all. `offset`, (N, labels), has logits that the solution's are
        added to; at a strength of 0 nothing is learnt, and all is zero. Each starts from the solution of the next
        smaller strength.
        """
        chosen = np.arange(len(self.labels)) if chosen is None else chosen
        classes, targets, counts = np.unique(self.labels[chosen], return_inverse=True, return_counts=True)
        if len(classes) == 1:
            return [Solution(classes, np.zeros((1, len(self.centre))), np.zeros(1))] * len(strengths)
        importance = self.importance[chosen]
        if balanced:
            importance = importance * torch.from_numpy(len(chosen) / (len(classes) * counts))[targets]
        given = None if offset is None else torch.from_numpy(offset[np.ix_(chosen, classes)]).double()
        with torch.inference_mode():
            fit = _Fit(self.design[chosen], torch.from_numpy(targets), importance, len(classes), given)
            found = {strength: self._unturned(classes, fit.solve(strength)) for strength in sorted(set(strengths))}
        return [found[strength] for strength in strengths]

    def _unturned(self, classes: np.ndarray, unknowns: Tensor) -> Solution:
        weight = unknowns[:, :-1] @ self.axes.T
        bias = unknowns[:, -1] - weight @ self.centre
        if len(classes) == 2:  # a softmax over the halves of the one row is the same
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        return Solution(classes, weight.numpy(), bias.numpy())


class _Fit:
    """The objective over unknowns (free rows, columns): the last column is the bias, and has no penalty."""

    def __init__(
        self, design: Tensor, targets: Tensor, importance: Tensor, classes: int, offset: Tensor | None = None
    ) -> None:
        free, self.offset = 1 if classes == 2 else classes, offset
        self.design, self.rough, self.importance = design, design.float(), importance[:, None]
        self.squares = self.rough.square()
        self.targets, self.classes = targets[:, None], classes
        self.truth = torch.nn.functional.one_hot(targets, classes)[:, -free:].double()
        self.ridge = torch.ones(design.shape[1], dtype=torch.float64)
        self.ridge[-1] = 0.0
        # Adding a number to every bias changes no answer; asking that they sum to zero makes the optimum unique.
        self.tied = float(classes > 2)
        self.unknowns = torch.zeros(free, design.shape[1], dtype=torch.float64)

    def solve(self, strength: float) -> Tensor:
        """The optimum, from where the last one was."""
        at = self.unknowns
        if not strength:
            return at
        value, shares = self._objective(at, strength)
        for _ in range(NEWTON_STEPS):
            gradient = (strength * self.importance * (shares - self.truth)).T @ self.design + self._penalty(at)
            step = self._newton_step(gradient, shares, strength)
            gap = float((gradient * step).sum())  # twice what the quadratic model says is left to gain
            if gap <= PRECISION * max(1.0, value):
                at = at - step
                break
            length = 1.0
            while True:
                following, shares = self._objective(at - length * step, strength)
                if following <= value - 1e-4 * length * gap or length < 1e-8:
                    break
                length /= 2
            at, value = at - length * step, following
        self.unknowns = at
        return at

    def _objective(self, at: Tensor, strength: float) -> tuple[float, Tensor]:
        """Its value, and the probability of each class that has a row, (N, free rows)."""
        logits = self.design @ at.T
        if self.classes == 2:
            logits = torch.cat([torch.zeros_like(logits), logits], 1)
        if self.offset is not None:
            logits = logits + self.offset
        logs = logits.log_softmax(1)
        value = -strength * (self.importance * logs.gather(1, self.targets)).sum() + (at * self._penalty(at)).sum() / 2
        return float(value), logs[:, -len(at) :].exp()

    def _penalty(self, at: Tensor) -> Tensor:
        """The gradient of the penalty, which is linear in its argument."""
        penalty = at * self.ridge.to(at.dtype)
        penalty[:, -1] += self.tied * at[:, -1].sum()
        return penalty

    def _newton_step(self, gradient: Tensor, shares: Tensor, strength: float) -> Tensor:
        """Solve curvature @ step = gradient by conjugate gradients, preconditioned with the curvature's diagonal.

        In single precision: the step need not be exact, since what it misses shows in the next gradient.
        """
        scale = float(gradient.abs().max()) or 1.0
        shares = shares.float()
        weights = (strength * self.importance).float() * shares
        diagonal = (weights * (1 - shares)).T @ self.squares + self.ridge.float()
        diagonal[:, -1] += self.tied
        residual = (gradient / scale).float()
        step, scaled = torch.zeros_like(residual), residual / diagonal
        direction, energy = scaled, float((residual * scaled).sum())
        enough = FORCING * energy
        for _ in range(INNER_STEPS):
            seen = self.rough @ direction.T
            seen = weights * (seen - (shares * seen).sum(1, keepdim=True))
            curved = seen.T @ self.rough + self._penalty(direction)
            length = energy / float((direction * curved).sum())
            step += length * direction
            residual -= length * curved
            scaled = residual / diagonal
            before, energy = energy, float((residual * scaled).sum())
            if energy <= enough:
                break
            direction = scaled + (energy / before) * direction
        return step.double() * scale
