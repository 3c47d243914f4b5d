"""Ranking: the oracles are McNemar's test of SciPy and counting by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest

from resnetkit.training.ranking import Scored, rank


def row(name: str, right: int, *, seed: int = 0, loss: float = 1.0, first: int = 0) -> Scored:
    """A row that knows `right` of 200 images from the one numbered `first` on."""
    places = (np.arange(200) - first) % 200
    return Scored(f"{name}{seed}", {"optim.lr": name, "seed": seed}, name, places < right, loss, 1.0)


def test_the_best_is_first_and_loss_decides_between_equals() -> None:
    ranking = rank([row("a", 120), row("b", 150, loss=0.9), row("c", 150, loss=0.8)])
    assert [standing.settings["optim.lr"] for standing in ranking] == ["c", "b", "a"]


def test_single_rows_are_told_apart_by_mcnemars_test_with_holms_correction() -> None:
    best, near, far = rank([row("best", 150), row("near", 148), row("far", 120)])
    assert (best.p, best.tied) == (None, False)
    assert near.p == pytest.approx(binomtest(0, 2).pvalue)
    assert far.p == pytest.approx(2 * binomtest(0, 30).pvalue)
    assert (near.tied, far.tied) == (True, False)


def test_wilson_intervals_that_overlap_do_not_hide_a_difference_on_the_same_images() -> None:
    best, other = rank([row("best", 150), row("other", 140)])
    assert other.high > best.low
    assert not other.tied


def test_rows_that_differ_in_the_seed_are_averaged() -> None:
    rows = [row("a", 150, seed=0), row("a", 130, seed=1), row("b", 145, seed=0), row("b", 143, seed=1)]
    best, other = rank(rows)
    assert (best.settings["optim.lr"], best.top1, other.top1) == ("b", 72.0, 70.0)
    assert [each.top1 for each in other.rows] == [75.0, 65.0]


def test_settings_whose_seeds_overlap_are_not_told_apart() -> None:
    """Each image speaks for a, and yet one seed of b is as good as one of a."""
    rows = [row("a", 150, seed=0), row("a", 140, seed=1), row("b", 140, seed=0), row("b", 100, seed=1)]
    best, other = rank(rows)
    assert best.settings["optim.lr"] == "a"
    assert other.p < 0.05
    assert other.tied
