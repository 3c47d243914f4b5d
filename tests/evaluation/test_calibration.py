"""Temperature and figures of probabilities, against scikit-learn, SciPy, plain loops and a simulated truth."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import brier_score_loss, log_loss

import resnetkit as rk
from resnetkit.data.load import load_data
from resnetkit.evaluation.answers import Answers, answer
from resnetkit.evaluation.calibration import (
    COLDEST,
    FEWEST,
    HOTTEST,
    PRIOR,
    calibration,
    describe,
    equal_mass,
    fit_temperature,
    reliability,
)
from resnetkit.evaluation.intervals import wilson


def drawn(count: int, temperature: float = 1.0, classes: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that are drawn from what they say at a temperature: the truth is known."""
    draw = np.random.default_rng(seed)
    logits = 3 * draw.standard_normal((count, classes)).astype(np.float32)
    shares = softmax(logits.astype(np.float64) / temperature, axis=1)
    return logits, (shares.cumsum(1) < draw.random((count, 1))).sum(1).clip(max=classes - 1)


def answers(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> Answers:
    files = tuple(map(str, range(len(labels))))
    return Answers(files, labels, logits, tuple(map(str, range(logits.shape[1]))), temperature)


@pytest.mark.parametrize("truth", [0.4, 1.0, 2.5])
def test_the_temperature_is_the_one_that_the_labels_were_drawn_with(truth: float) -> None:
    assert fit_temperature(*drawn(20_000, truth)) == pytest.approx(truth, rel=0.03)


@pytest.mark.parametrize(("count", "truth"), [(25, 1.0), (300, 0.2), (300, 6.0), (9000, 1.5)])
def test_it_is_the_minimum_that_scipy_finds(count: int, truth: float) -> None:
    logits, labels = drawn(count, truth)

    def badness(inverse: float) -> float:
        own = log_softmax(inverse * logits.astype(np.float64), axis=1)[np.arange(count), labels]
        return -own.sum() + PRIOR * (inverse - np.log(inverse))

    found = minimize_scalar(badness, bounds=(1 / HOTTEST, 1 / COLDEST), method="bounded", options={"xatol": 1e-10})
    assert fit_temperature(logits, labels) == pytest.approx(1 / found.x, rel=1e-5)


def test_images_that_are_all_answered_rightly_do_not_make_it_nothing() -> None:
    labels = np.arange(500) % 5
    logits = np.eye(5, dtype=np.float32)[labels]
    few, many = (fit_temperature(logits[:count], labels[:count]) for count in (30, 500))
    assert COLDEST < many < few < 1
    assert reliability(answers(logits, labels, many)).nll > 0


def test_of_answers_that_are_worse_than_chance_it_makes_no_infinity() -> None:
    labels = np.arange(500) % 5
    assert 1 < fit_temperature(-100 * np.eye(5, dtype=np.float32)[labels], labels) <= HOTTEST


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_it_is_a_number_within_bounds_for_logits_of_any_size(scale: float) -> None:
    logits, labels = drawn(100)
    assert COLDEST <= fit_temperature((scale * logits).astype(np.float32), labels) <= HOTTEST


def test_few_images_are_no_reason_to_change_anything() -> None:
    logits, labels = drawn(FEWEST, 4.0)
    assert fit_temperature(logits[1:], labels[1:]) == 1
    assert fit_temperature(logits, labels) != 1


def test_images_of_which_the_network_makes_no_numbers_are_left_out() -> None:
    logits, labels = drawn(60, 2.0)
    broken = logits.copy()
    broken[::3, 2] = [np.nan, np.inf, -np.inf, np.nan] * 5
    good = np.isfinite(broken).all(1)
    assert fit_temperature(broken, labels) == fit_temperature(logits[good], labels[good])
    assert calibration(answers(broken, labels)) == calibration(answers(logits[good], labels[good]))
    assert calibration(answers(np.full((3, 2), np.nan), np.zeros(3, dtype=int))) is None
    assert calibration(answers(np.empty((0, 2)), np.zeros(0, dtype=int))) is None


def plain_error(confidence: np.ndarray, right: np.ndarray, bins: int) -> float:
    """The expected calibration error over bins of equal numbers, in the plainest words."""
    order = np.argsort(confidence)
    error = 0.0
    for chosen in np.array_split(order, bins):
        error += len(chosen) / len(order) * abs(right[chosen].mean() - confidence[chosen].mean())
    return 100 * error


@pytest.mark.parametrize(("count", "bins"), [(10, 1), (100, 5), (3000, 15)])
def test_the_error_is_that_of_plain_words(count: int, bins: int) -> None:
    logits, labels = drawn(count, 3.0)
    found = reliability(answers(logits, labels, 1.3))
    shares = softmax(logits.astype(np.float64) / 1.3, axis=1)
    right = shares.argmax(1) == labels
    assert found.ece == pytest.approx(plain_error(shares.max(1), right, bins))
    assert [each.count for each in found.bins] == [count // bins] * bins
    low = np.sort(shares.max(1))[: count // bins]
    good = int(right[np.argsort(shares.max(1))[: count // bins]].sum())
    first = found.bins[0]
    assert (first.confidence, first.accuracy) == pytest.approx((100 * low.mean(), 100 * good / len(low)), abs=1e-4)
    assert (first.low, first.high) == pytest.approx(wilson(good, len(low)), abs=1e-4)


@pytest.mark.parametrize("classes", [2, 7])
def test_brier_score_and_likelihood_are_scikit_learns(classes: int) -> None:
    logits, labels = drawn(500, 2.0, classes)
    shares = softmax(logits.astype(np.float64) / 1.7, axis=1)
    found, numbers = reliability(answers(logits, labels, 1.7)), list(range(classes))
    assert found.nll == pytest.approx(log_loss(labels, shares, labels=numbers))
    whole = brier_score_loss(labels, shares, labels=numbers, scale_by_half=False)
    assert found.brier == pytest.approx(whole)


def test_an_error_is_held_against_what_chance_makes_of_right_probabilities() -> None:
    found = [reliability(answers(*drawn(300, seed=seed))) for seed in range(40)]
    errors, by_chance = (np.mean([getattr(each, name) for each in found]) for name in ("ece", "ece_by_chance"))
    assert errors == pytest.approx(by_chance, rel=0.1)
    assert errors > 4  # percent, of probabilities that are all right: 300 images cannot tell
    assert sum(each.ece_within_chance for each in found) >= 35
    assert not reliability(answers(*drawn(300, 3.0))).ece_within_chance


def test_equal_confidence_shares_a_bin_so_that_the_order_of_images_does_not_matter() -> None:
    logits, labels = drawn(400, 2.0)
    logits[:, :] = logits[np.arange(400) // 90]
    order = np.random.default_rng(3).permutation(400)
    there, back = reliability(answers(logits, labels)), reliability(answers(logits[order], labels[order]))
    assert there.bins == back.bins
    assert (there.ece, there.ece_by_chance) == pytest.approx((back.ece, back.ece_by_chance))
    assert equal_mass(np.full(100, 0.5)).tolist() == [0] * 100


def test_figures_stand_beside_those_without_the_temperature() -> None:
    logits, labels = drawn(4000, 2.0)
    temperature = fit_temperature(logits, labels)
    report = calibration(answers(logits, labels, temperature))
    assert report["temperature"] == temperature
    assert report["ece"] < report["ece_uncalibrated"] / 4
    assert report["nll"] < report["nll_uncalibrated"]
    assert report["brier"] < report["brier_uncalibrated"]
    plain = calibration(answers(logits, labels))
    assert plain["ece"] == plain["ece_uncalibrated"] == report["ece_uncalibrated"]
    assert {"count", "bins", "bins_uncalibrated", "ece_by_chance", "ece_within_chance"} < set(report)


def test_what_is_said_of_it_is_said_in_one_line() -> None:
    logits, labels = drawn(4000, 3.0)
    sure = calibration(answers(logits, labels))
    near = min(sure["bins"], key=lambda each: abs(each["confidence"] - 90))
    assert describe(sure) == (
        f"When it says {near['confidence']:.0f} % it is right {near['accuracy']:.0f} % of the time: "
        f"off by {sure['ece']:.1f} points on average."
    )
    honest = describe(calibration(answers(logits, labels, 3.0)))
    assert honest.endswith(" % of the time, as near as these images tell.")
    sure["bins"], sure["ece"] = [{"confidence": 100.0, "accuracy": 100.0}], 9.9
    assert max(map(len, (describe(sure), describe(sure | {"ece_within_chance": True}), honest))) <= 80


@pytest.mark.parametrize("name", ["resnet8.digits", "resnet8.fashion-mnist", "resnet20.cifar10"])
def test_the_networks_that_come_along_bring_their_temperature(name: str) -> None:
    """They were trained with smoothed labels, and are less sure than they could be."""
    assert 0.3 < rk.load(name).temperature < 0.8


def test_the_digits_net_has_the_temperature_of_its_validation_split() -> None:
    classifier = rk.load("resnet8.digits", device="cpu", precision="fp32")
    found = answer(classifier, load_data("digits").validation)
    assert classifier.temperature == pytest.approx(fit_temperature(found.logits, found.labels), rel=1e-4)
