import numpy as np
import pytest

from resnetkit.evaluation.intervals import wilson, wilson_of_mean


@pytest.mark.parametrize(
    ("shares", "counts"),
    [
        ([0.72, 0.9, 0.94, 0.99, 0.99], [36] * 5),
        ([0.9] * 50, [5] * 50),
        ([0.9, 0.3], [100, 5]),
        ([0.99, 0.5, 0.8], [1000, 10, 50]),
    ],
)
def test_a_mean_of_shares_lies_in_its_interval_as_often_as_that_says(shares: list[float], counts: list[int]) -> None:
    """A thousand draws; sums of the distances of Wilson's intervals hold it in 84 % of the second case."""
    random, held, wide = np.random.default_rng(0), 0, 0.0
    for _ in range(1000):
        low, high = wilson_of_mean(list(zip(random.binomial(counts, shares).tolist(), counts, strict=True)))
        held += low <= 100 * np.mean(shares) <= high
        wide += high - low
    assert 0.92 <= held / 1000 <= 0.99
    # Not by being wide: a normal interval of known variance.
    known = np.sqrt(sum(p * (1 - p) / n for p, n in zip(shares, counts, strict=True))) / len(shares)
    assert wide / 1000 < 1.3 * 100 * 3.92 * known


def test_equal_shares_are_as_sure_as_all_their_images_together() -> None:
    low, high = wilson_of_mean([(80, 100)] * 4)
    assert (low, high) == pytest.approx(wilson(320, 400), abs=0.1)


@pytest.mark.parametrize(("right", "count"), [(0, 3), (3, 3), (0, 1), (1, 1)])
def test_all_or_nothing_is_not_certain(right: int, count: int) -> None:
    low, high = wilson_of_mean([(right, count), (right, count)])
    assert (low, high) == pytest.approx(wilson(2 * right, 2 * count))
