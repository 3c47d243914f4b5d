"""Tests between classifiers. Oracles: counting with fractions, SciPy, plain loops, simulated pairs."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binomtest

from resnetkit.evaluation.answers import Answers
from resnetkit.evaluation.comparison import bootstrap_interval, compare_answers, holm, images_needed, sign_test


def counted(first: int, second: int) -> float:
    """McNemar's exact test by counting all ways in which coins could have fallen."""
    count, fewer = first + second, min(first, second)
    ways = sum(math.comb(count, each) for each in range(fewer + 1))
    return min(1.0, float(2 * Fraction(ways, 2**count)))


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 1), (5, 0), (0, 6), (3, 9), (12, 12), (40, 71), (310, 250)])
def test_the_sign_test_counts_ways(first: int, second: int) -> None:
    assert sign_test(first, second) == pytest.approx(counted(first, second), rel=1e-10)
    if first + second:
        assert sign_test(first, second) == pytest.approx(binomtest(first, first + second).pvalue, rel=1e-9)


def test_the_sign_test_bears_many_images() -> None:
    assert sign_test(24_000, 26_000) == pytest.approx(binomtest(24_000, 50_000).pvalue, rel=1e-6)


def test_holm_by_hand() -> None:
    """Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, and none below the one before."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def looped(differences: np.ndarray, replicates: int = 4000) -> tuple[float, float]:
    """The bootstrap in the plainest words: draw the images anew, one by one."""
    generator = np.random.default_rng(1)
    means = [generator.choice(differences, len(differences)).mean() for _ in range(replicates)]
    return tuple(np.percentile(means, [2.5, 97.5]))


@pytest.mark.parametrize("values", [[-1, 0, 1], [-1, -0.5, 0, 0.5, 1]])
def test_the_bootstrap_draws_images(values: list[float]) -> None:
    differences = np.random.default_rng(0).choice(values, 300)
    found, expected = bootstrap_interval(differences, seed=0), looped(differences)
    assert found == pytest.approx(expected, abs=0.006)
    assert found == bootstrap_interval(differences, seed=0)
    assert len({bootstrap_interval(differences, seed=seed) for seed in range(9)}) > 1


def test_the_interval_holds_in_95_of_100_cases() -> None:
    """500 images; the second is right on 12 % where the first is not, the first on 8 %: the truth is 4 points."""
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        low, high = bootstrap_interval(generator.choice([1, -1, 0], 500, p=[0.12, 0.08, 0.8]), seed=0)
        held += low <= 0.04 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_where_no_image_tells_them_apart_the_interval_is_no_point() -> None:
    low, high = bootstrap_interval(np.zeros(100), seed=0)
    assert (1 - high) ** 100 == pytest.approx(0.05)
    assert low == -high


def test_so_many_images_as_are_asked_for_show_the_difference_in_four_of_five_cases() -> None:
    second, first = 0.12, 0.08
    count = images_needed(second - first, second + first)
    generator = np.random.default_rng(0)
    draws = generator.multinomial(count, [second, first, 1 - second - first], size=1000)
    power = np.mean([sign_test(b, a) < 0.05 for b, a, _ in draws])
    assert 0.72 <= power <= 0.86


def made(right: list[bool]) -> Answers:
    """Answers that are right where that is said, and one class off elsewhere."""
    labels = np.arange(len(right)) % 3
    given = np.where(right, labels, (labels + 1) % 3)
    files = tuple(f"{number}.png" for number in range(len(right)))
    return Answers(files, labels, 5 * np.eye(3, dtype=np.float32)[given], ("a", "b", "c"))


def test_a_pair_is_told_in_words() -> None:
    worse, better = made([True] * 80 + [False] * 20), made([True] * 95 + [False] * 5)
    (pair,) = compare_answers([worse, better], ["A", "B"])
    assert (pair.both, pair.only_first, pair.only_second, pair.neither) == (80, 0, 15, 5)
    assert (pair.better, pair.difference, pair.images_needed) == ("B", pytest.approx(15), None)
    assert pair.verdict().startswith("B is better: +15.0 points (")
    (turned,) = compare_answers([better, worse], ["B", "A"])
    assert turned.verdict().partition("(")[0] == pair.verdict().partition("(")[0]


def test_what_these_images_cannot_show_is_not_called_a_difference() -> None:
    one, other = made([True] * 80 + [False] * 20), made([True] * 83 + [False] * 17)
    (pair,) = compare_answers([one, other], ["A", "B"])
    assert pair.p == pytest.approx(0.25)
    assert pair.better is None
    assert pair.verdict().startswith("no difference that these images can show: B +3.0 points (")
    assert pair.verdict().endswith("p = 0.25")
    assert pair.images_needed > 100
    assert pair.remedy() == f"to show a difference of 3.0 points you need about {pair.images_needed:,} images"


def test_of_many_pairs_each_has_to_show_more() -> None:
    """p = 0.03125 alone is below 0.05, and with the other two comparisons it is not."""
    one, other = made([True] * 80 + [False] * 20), made([True] * 86 + [False] * 14)
    assert compare_answers([one, other], ["A", "B"])[0].better == "B"
    assert [pair.better for pair in compare_answers([one, other, one], ["A", "B", "C"])] == [None, None, None]


def test_answers_that_are_wrong_in_different_ways_differ() -> None:
    one, other = made([True] * 8 + [False] * 2), made([True] * 8 + [False] * 2)
    other.logits[9] = 5 * np.eye(3)[(other.labels[9] + 2) % 3]
    (pair,) = compare_answers([one, other], ["A", "B"])
    assert (pair.differ, pair.neither, pair.p) == (1, 2, 1.0)
    assert pair.verdict() == "no difference that these images can show: both are right on the same 8"
