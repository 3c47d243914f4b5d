"""What `evaluate` shows people of its figures, in 80 columns."""

import numpy as np
import pytest

from resnetkit.cli.figures import print_classes, print_figures
from resnetkit.evaluation.answers import Answers
from resnetkit.evaluation.figures import Figures
from resnetkit.evaluation.report import Report

LONG = "a very long name of a class that does not fit into any column at all, n02085620"


def report_of(names: tuple[str, ...], each: int, bad: str, given: str) -> Report:
    """All images right but half of those of one class, which are taken for another."""
    labels = np.repeat(np.arange(len(names)), each)
    answers = labels.copy()
    answers[np.flatnonzero(labels == names.index(bad))[: each // 2]] = names.index(given)
    logits = np.eye(len(names), dtype=np.float32)[answers] * 9
    figures = Figures.of(Answers(tuple(map(str, labels)), labels, logits, names)).to_dict()
    return Report({"data": "photos", "split": "test", "validation": None} | figures)


@pytest.mark.parametrize("count", [3, 100])
def test_the_worst_class_and_its_confusion_are_named_in_80_columns(count: int, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = ("cat", "dog", LONG, *(f"n{number:08d}" for number in range(count - 3)))
    report = report_of(names, 60, "dog", LONG)
    print_figures(report, "cpu, fp32")
    print_classes(report)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    heading = next(place for place, line in enumerate(lines) if "recall %" in line)
    assert ("worst of 100 classes" in lines[heading]) == (count == 100)
    assert lines[heading + 2].split() == ["dog", "60", "50.0", "38", "to", "62", "100.0", "66.7"]
    assert len([line for line in lines if " to " in line and "%" not in line]) == min(count, 10)
    assert "  dog answered as a very long name" in "\n".join(lines)
    assert "30 of 60" in "\n".join(lines)
    assert "its recall is sure" not in "\n".join(lines)


def test_few_images_are_said_to_say_little(capsys) -> None:
    print_classes(report_of(("cat", "dog", "cow"), 4, "dog", "cat"))
    assert "A class has 4 images (median): its recall is sure to about 24 points only." in capsys.readouterr().out


def test_names_do_nothing_to_the_terminal_nor_to_a_notebook(capsys) -> None:
    report = report_of(("cat", "\x1b[31mred\nline", "<b>[bold]x[/bold]"), 40, "<b>[bold]x[/bold]", "\x1b[31mred\nline")
    print_classes(report)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "<b>[bold]x[/bold] answered as \\x1b[31mred\\nline: 20 of 40" in out
    html = report._repr_html_()
    assert "<b>[bold]" not in html
    assert "&lt;b&gt;[bold]x[/bold] answered as" in html


def test_a_loss_without_bound_is_said(capsys) -> None:
    report = report_of(("cat", "dog"), 40, "dog", "cat")
    print_figures(Report(report | {"loss": None}), "cpu")
    assert "loss infinite" in capsys.readouterr().out
