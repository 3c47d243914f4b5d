"""Figures against scikit-learn's on the same answers, and against counting by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics

import resnetkit as rk
from resnetkit.data.load import load_data
from resnetkit.errors import CheckpointError
from resnetkit.evaluation.answers import Answers, answer
from resnetkit.evaluation.figures import Figures
from resnetkit.evaluation.intervals import wilson


def made(labels: list[int], logits: list[list[float]]) -> Answers:
    names = tuple(f"class {place}" for place in range(len(logits[0])))
    files = tuple(f"{place}.png" for place in range(len(labels)))
    return Answers(files, np.array(labels), np.array(logits, dtype=np.float32), names)


def drawn(classes: int, count: int, seed: int = 0, only: int | None = None) -> Answers:
    """Random answers, right more often than not, to images of the first `only` classes."""
    random = np.random.default_rng(seed)
    labels, logits = random.integers(only or classes, size=count), random.normal(size=(count, classes))
    logits[np.arange(count), labels] += 1.5
    return made(labels.tolist(), logits.tolist())


def assert_like_scikit_learn(answers: Answers) -> None:
    found, labels, given = Figures.of(answers).to_dict(), answers.labels, answers.logits.argmax(1)
    every = np.arange(len(answers.classes))
    assert found["count"] == len(labels)
    assert found["top1"] == round(100 * metrics.accuracy_score(labels, given), 4)
    if len(every) > 5:
        best = metrics.top_k_accuracy_score(labels, answers.logits, k=5, labels=every)
        assert found["top5"] == round(100 * best, 4)
    assert found["loss"] == pytest.approx(
        metrics.log_loss(labels, softmax(answers.logits.astype(np.float64), 1), labels=every), rel=1e-12
    )
    assert found["confusion"] == metrics.confusion_matrix(labels, given, labels=every).tolist()
    assert found["balanced_accuracy"] == pytest.approx(
        100 * metrics.recall_score(labels, given, labels=np.unique(labels), average="macro"), abs=5e-5
    )
    columns = metrics.precision_recall_fscore_support(labels, given, labels=every, zero_division=np.nan)
    for row, precision, recall, f1, support in zip(found["classes"], *columns, strict=True):
        assert row["support"] == support
        for name, value in (("precision", precision), ("recall", recall), ("f1", f1)):
            assert row[name] == (None if np.isnan(value) else pytest.approx(100 * value, abs=5e-5)), row


def test_figures_of_a_trained_network_equal_scikit_learns(digits_run: Path) -> None:
    answers = answer(rk.load(digits_run), load_data("digits").test)
    assert_like_scikit_learn(answers)


@pytest.mark.parametrize(("classes", "count", "only"), [(2, 30, 2), (7, 200, 7), (12, 40, 9), (40, 25, 40)])
def test_figures_of_few_images_and_absent_classes_equal_scikit_learns(classes: int, count: int, only: int) -> None:
    assert_like_scikit_learn(drawn(classes, count, only=only))


def test_what_is_a_share_of_nothing_is_none() -> None:
    """Class 1 has no image and one answer, class 2 an image and no answer, class 3 neither."""
    answers = made([0, 0, 2], [[9, 0, 0, 0], [0, 9, 0, 0], [9, 0, 0, 0]])
    found = Figures.of(answers).to_dict()
    told = [(row["support"], row["answered"], row["precision"], row["recall"], row["f1"]) for row in found["classes"]]
    assert told == [(2, 2, 50, 50, 50), (0, 1, 0, None, 0), (1, 0, None, 0, 0), (0, 0, None, None, None)]
    assert [row["interval"]["recall"] is None for row in found["classes"]] == [False, True, False, True]
    assert found["balanced_accuracy"] == 25
    assert found["worst"] == ["class 2", "class 0"]
    json.dumps(found, allow_nan=False)


def test_every_accuracy_has_its_interval() -> None:
    found = Figures.of(drawn(8, 300)).to_dict()
    right = round(3 * found["top1"])
    assert found["interval"]["top1"] == pytest.approx(wilson(right, 300), abs=5e-5)
    low, high = found["interval"]["balanced_accuracy"]
    assert low < found["balanced_accuracy"] < high
    for row, name in ((row, name) for row in found["classes"] for name in ("precision", "recall")):
        low, high = row["interval"][name]
        assert 0 <= low <= row[name] <= high <= 100


def test_of_equal_logits_the_first_class_counts_as_the_more_probable() -> None:
    found = Figures.of(made([0, 1, 5, 4], [[1.0] * 6] * 4)).to_dict()
    assert (found["top1"], found["top5"]) == (25, 75)
    assert [row["answered"] for row in found["classes"]] == [4, 0, 0, 0, 0, 0]


def test_the_worst_class_is_the_one_that_is_surely_bad() -> None:
    """One image that was missed says less than twenty of a hundred that were right."""
    right, wrong = [9.0, 0, 0], [0, 9.0, 0]
    labels = [0] * 100 + [1] * 50 + [2]
    found = Figures.of(made(labels, [right] * 20 + [wrong] * 80 + [wrong] * 50 + [right]))
    assert [row.name for row in found.worst] == ["class 0", "class 2", "class 1"]


def test_confusions_are_counted_by_hand() -> None:
    answers = made([0, 0, 0, 1, 1, 1, 1, 2], [[0, 5, 0]] * 2 + [[5, 0, 0]] + [[0, 0, 5]] * 2 + [[0, 5, 0]] * 3)
    told = [tuple(each.to_dict().values()) for each in Figures.of(answers).confusions]
    assert told == [
        ("class 0", "class 1", 2, 3),
        ("class 1", "class 2", 2, 4),
        ("class 2", "class 1", 1, 1),
    ]


def test_a_class_without_any_probability_makes_no_invalid_json() -> None:
    found = Figures.of(made([1, 0], [[0, -np.inf], [0, 0]])).to_dict()
    assert found["loss"] is None
    json.dumps(found, allow_nan=False)


def test_answers_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"not numbers for 1 of 2 images in 1\.png: NaN\. Try: --precision fp32"):
        Figures.of(made([0, 1], [[1, 0], [np.nan, 0]]))


def test_a_matrix_of_very_many_classes_stays_out_of_json() -> None:
    answers = drawn(1001, 60)
    found = Figures.of(answers)
    assert found.to_dict()["confusion"] is None
    assert found.confusion.tolist() == metrics.confusion_matrix(
        answers.labels, answers.logits.argmax(1), labels=np.arange(1001)
    ).tolist()  # fmt: skip
    assert len(Figures.of(drawn(1000, 60)).to_dict()["confusion"]) == 1000
