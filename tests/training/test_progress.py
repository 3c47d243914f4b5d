"""What people read of a run."""

import pytest
import torch
from torch.nn import functional as F

from resnetkit.data.load import load_data
from resnetkit.data.splits import class_weights
from resnetkit.recipes.load import load_recipe
from resnetkit.training.progress import doubts_of_loss, least_loss

K = 10


def said(**changes: object) -> list[str]:
    labels = load_data("digits").train.labels
    return doubts_of_loss(load_recipe("digits", changes), labels, K, None)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_the_least_loss_is_where_pytorchs_own_loss_stops_falling(smoothing: float, weighted: bool) -> None:
    """The oracle is `cross_entropy` itself, minimised by Newton's method in all but name: L-BFGS."""
    split = load_data("digits").train
    labels = split.labels[:64].long()
    weights = class_weights(split, K) * torch.linspace(0.5, 1.5, K) if weighted else None
    targets = F.one_hot(labels, K).float() * (1 - smoothing) + smoothing / K
    logits = torch.zeros(len(labels), K, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        weight = weights.double() if weights is not None else None
        value = F.cross_entropy(logits, labels, weight, reduction="none", label_smoothing=smoothing).mean()
        value.backward()
        return value

    optimizer.step(loss)
    assert least_loss(targets, weights) == pytest.approx(loss().item(), abs=2e-4)


def test_of_targets_that_are_one_class_each_the_least_loss_is_none() -> None:
    assert least_loss(torch.eye(K)) == least_loss(torch.eye(K), torch.linspace(0.5, 1.5, K)) == 0


def test_what_smoothed_targets_do_to_the_loss_is_said_and_only_there() -> None:
    assert said(optim={"label_smoothing": 0.0}) == []
    assert said(optim={"label_smoothing": 0.1}) == ["note      label smoothing keeps the training loss above 0.50"]
    (line,) = said(optim={"label_smoothing": 0.0}, augment={"mixup": 1.0})
    # Of two different classes of ten, the entropy of (u, 1 - u) for a uniform u, whose mean is one half; 9 times in 10.
    assert line.startswith("note      mixup keeps the training loss above about ")
    assert float(line.split()[-1]) == pytest.approx(0.9 * 0.5, abs=0.06)
    (line,) = said(optim={"label_smoothing": 0.1}, augment={"mixup": 1.0, "cutmix": 1.0})
    assert "mixup and cutmix and label smoothing keep the training loss above about" in line


def test_the_same_line_comes_again_and_nobodys_random_numbers_move() -> None:
    state = torch.get_rng_state()
    assert said(augment={"mixup": 0.3}) == said(augment={"mixup": 0.3})
    assert torch.equal(torch.get_rng_state(), state)
