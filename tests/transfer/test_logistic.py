import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from resnetkit.transfer.logistic import Problem, Solution

STRENGTHS = (0.01, 1.0, 100.0)


def points(count: int, width: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Not centred, as features behind a ReLU are not; every row weighs something else."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    centres = rng.standard_normal((classes, width))
    rows = np.abs(0.5 * centres[labels] + rng.standard_normal((count, width)))
    return rows.astype(np.float32), labels, rng.uniform(0.25, 1.0, count)


def theirs(
    rows: np.ndarray, labels: np.ndarray, importance: np.ndarray, strength: float, **options: object
) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's answer, run to a tolerance far below its default."""
    model = LogisticRegression(C=strength, tol=1e-9, max_iter=50_000, **options)
    model.fit(rows.astype(np.float64), labels, sample_weight=importance)
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias


def agree(found: Solution, expected: tuple[np.ndarray, np.ndarray]) -> None:
    weight, bias = expected
    np.testing.assert_allclose(found.weight, weight, atol=2e-4 * np.abs(weight).max(), rtol=1e-3)
    np.testing.assert_allclose(found.bias, bias, atol=2e-4 * max(1.0, np.abs(bias).max()), rtol=1e-3)


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize(("count", "width"), [(60, 200), (300, 40)])
def test_the_optimum_is_scikit_learns(count: int, width: int, classes: int) -> None:
    rows, labels, importance = points(count, width, classes)
    for strength, found in zip(STRENGTHS, Problem(rows, labels, importance).solve(STRENGTHS), strict=True):
        assert found.classes.tolist() == list(range(classes))
        agree(found, theirs(rows, labels, importance, strength))


@pytest.mark.parametrize("classes", [2, 4])
def test_a_subset_and_balanced_weights_are_solved_as_on_their_own(classes: int) -> None:
    rows, labels, importance = points(150, 80, classes)
    labels[labels == 1] = np.where(np.arange((labels == 1).sum()) % 4, 0, 1)  # one class is rare
    importance[:] = 0.5
    chosen = np.flatnonzero(np.arange(150) % 5)
    (found,) = Problem(rows, labels, importance).solve([1.0], chosen, balanced=True)
    agree(found, theirs(rows[chosen], labels[chosen], importance[chosen], 1.0, class_weight="balanced"))


def test_the_gradient_of_the_objective_is_zero_at_the_optimum() -> None:
    rows, labels, importance = points(400, 30, 5)
    (found,) = Problem(rows, labels, importance).solve([10.0])
    weight = torch.from_numpy(found.weight).requires_grad_()
    bias = torch.from_numpy(found.bias).requires_grad_()
    logits = torch.from_numpy(rows).double() @ weight.T + bias
    losses = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="none")
    total = 10 * (torch.from_numpy(importance) * losses).sum() + weight.square().sum() / 2
    total.backward()
    assert weight.grad.abs().max() < 1e-4
    assert bias.grad.abs().max() < 1e-4


def test_labels_that_do_not_occur_have_no_row_and_one_class_needs_none() -> None:
    rows, labels, importance = points(50, 10, 2)
    (found,) = Problem(rows, labels * 5, importance).solve([1.0])
    assert found.classes.tolist() == [0, 5]
    (alone,) = Problem(rows, np.full(50, 3), importance).solve([1.0])
    assert (alone.classes.tolist(), float(np.abs(alone.weight).max())) == ([3], 0.0)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_features_of_any_scale_and_repeated_rows_are_solved(scale: float) -> None:
    rows, labels, importance = points(40, 12, 3)
    rows = np.concatenate([rows, rows, np.zeros_like(rows)], 1) * np.float32(scale)
    for found in Problem(rows, labels, importance).solve(STRENGTHS):
        assert np.isfinite(found.weight).all()
        assert np.abs(found.weight.sum(0)).max() < 1e-6 * max(1.0, np.abs(found.weight).max())
