"""What every study keeps to, whatever it asks: one protocol, tried on all of them."""

import csv
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from html import escape
from importlib import import_module
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from resnetkit.errors import StoppedError, UsageError
from resnetkit.studies.health import health
from resnetkit.studies.laboratory import STUDIES, load_study, run_study
from resnetkit.studies.study import Outcome, Place, Row
from studies import made_up
from studies.tiny import tiny_study

LINES = {
    "degradation": 4,
    "depth": 3,
    "gradients": 3 * (7 + 13),
    "lesion": 2 * (1 + 6 + 2 * 2) + 1 + 9 + 2 * 2,
    "responses": 6 * 7,
    "shortcuts": 4,
    "tutorials": 68,
    "unknown": 3 * 4,
}
"""Lines of results that the small form of each study gives: a line a run, a layer, a lesion or a figure."""


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_goes_on_row_by_row_and_ends_in_a_page(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped twice, by training that was asked to stop and by the user; every other row is measured once."""
    study, measured = tiny_study(monkeypatch, name), []
    rows = study.rows(Place(True, tmp_path))
    assert len(rows) >= 3
    stops = {1: StoppedError("stopped"), 3: KeyboardInterrupt()}

    def measure(row: Row, place: Place) -> object:
        measured.append(row)
        if error := stops.pop(len(measured) - 1, None):
            raise error
        return study.measure(row, place)

    monkeypatch.setattr(import_module(f"resnetkit.studies.{name}"), "STUDY", replace(study, measure=measure))
    out, books = tmp_path / "study", []
    for error in (StoppedError, KeyboardInterrupt):
        with pytest.raises(error):
            run_study(name, quick=True, out=out)
        books.append((out / "results.csv").read_text())
        assert not (out / "index.html").exists()
    outcome = run_study(name, quick=True, out=out)
    assert measured == [*rows[:2], rows[1], rows[2], *rows[2:]]

    head, *lines = csv.reader((out / "results.csv").read_text().splitlines())
    assert head == list(study.columns)
    assert len(lines) == len(outcome.results) == LINES[name]
    for book, done in zip(books, (1, 2), strict=True):
        assert (out / "results.csv").read_text().startswith(book)
        kept = {tuple(line[: len(study.settings)]) for line in csv.reader(book.splitlines()[1:])}
        assert kept == {tuple(str(row[column]) for column in study.settings) for row in rows[:done]}
    for line in outcome.results:
        assert list(line) == list(study.columns)

    assert outcome.folder == out
    assert outcome.answer == study.answer(outcome.results)
    assert ("a single run" in outcome.answer) == (len({row["seed"] for row in rows}) == 1)
    assert (out / "figure.png").stat().st_size > 10_000
    page = (out / "index.html").read_text()
    assert page.count("<h2>") == 2
    assert f"resnetkit study {name} --quick" in page
    for text in (study.title, study.question, study.source):
        assert escape(text) in page
    assert json.loads((out / "study.json").read_text()).items() >= {"study": name, "quick": True}.items()

    again = run_study(name, quick=True, out=out)
    assert len(measured) == len(rows) + 2
    assert again.answer == outcome.answer
    assert repr(again.results) == repr(outcome.results)  # a figure that is not a number equals itself nowhere else
    with pytest.raises(UsageError, match="another study"):
        run_study(name, out=out, data_root=tmp_path)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", STUDIES)
def test_a_grid_names_each_row_once_and_has_the_seeds_that_are_asked_for(name: str, quick: bool) -> None:
    study = load_study(name)
    assert study.name == name

    def seeds(asked: int | None) -> dict[tuple[object, ...], list[object]]:
        found: dict[tuple[object, ...], list[object]] = {}
        for row in study.rows(Place(quick, Path("nowhere"), seeds=asked)):
            assert tuple(row) == study.settings
            assert row.get("data", study.name) in (study.name, "digits" if quick else "cifar10")
            key = tuple(value for column, value in row.items() if column != "seed")
            found.setdefault(key, []).append(row["seed"])
        return found

    usual, fixed = seeds(None), {key for key, each in seeds(7).items() if each != list(range(7))}
    assert all(each == list(range(len(each))) for each in usual.values())
    assert all(len(each) >= 3 for key, each in usual.items() if key not in fixed)
    for asked in (1, 2):
        assert all(each == list(range(asked)) for key, each in seeds(asked).items() if key not in fixed)
        assert seeds(asked).keys() == usual.keys()
    # What no seed changes, or what would take a quick look out of minutes.
    allowed = {"tutorials": 1, "gradients": 12 if quick else 0}
    assert len(fixed) == allowed.get(name, 0)


HEALTHY, GONE = (0.01, 0.1), (1e-9, 0.1)
NETS = {(shape, norm): HEALTHY for shape in ("plain", "residual", "preactivation") for norm in (True, False)}
EITHER_WAY: dict[str, tuple[list[Row], list[Row], str, str]] = {
    "degradation": (
        made_up.degradation(made_up.DEGRADED),
        made_up.degradation(made_up.DEGRADED | {("plain", 44): (1.0, 2.0, 9.0)}),
        "That is the degradation of the paper",
        "Degradation is not seen here",
    ),
    "depth": (
        made_up.depth({20: (8.7, 8.8, 8.9), 110: (6.4, 6.6, 6.8)}),
        made_up.depth({20: (6.4, 6.6, 6.8), 110: (8.7, 8.8, 8.9)}),
        "110 layers are better than 20",
        "110 layers are worse than 20",
    ),
    "gradients": (
        made_up.gradients(NETS | {("plain", False): GONE}),
        made_up.gradients(NETS | {("plain", True): GONE}),
        "the paper (section 4.1) is confirmed",
        "section 4.1 is not confirmed here",
    ),
    "lesion": (
        made_up.lesion((4.0, 5.0, 6.0), (80.0, 85.0, 90.0)),
        made_up.lesion((80.0, 85.0, 90.0), (4.0, 5.0, 6.0)),
        "the residual net bears the loss of a block better",
        "the plain net bears the loss of a block better",
    ),
    "responses": (
        made_up.responses({("plain", 20): (1.0, 1.1, 1.2), ("residual", 20): (0.6, 0.7, 0.8)}),
        made_up.responses({("plain", 20): (1.0, 1.1, 1.2), ("residual", 20): (1.6, 1.7, 1.8)}),
        "as the paper says",
        "against the paper",
    ),
    "shortcuts": (
        made_up.shortcuts(made_up.SIMILAR),
        made_up.shortcuts(made_up.SIMILAR | {"none": (1.0, 1.5, 2.0)}),
        "A is better than none",
        "none is better than A",
    ),
    "tutorials": (
        made_up.tutorials(raw=(80.0, 81.0, 85.0)),
        made_up.tutorials(raw=(95.0, 96.0, 97.0)),
        "it costs 9.0 points",
        "it does not cost, but gains 5.0 points",
    ),
    "unknown": (
        made_up.unknown(made_up.SCORES),
        made_up.unknown(made_up.SCORES | {"neighbour": (90.0, 91.0, 92.0)}),
        "the score that classifiers keep, virtual-logit, catches the most here",
        "neighbour catches more here than virtual-logit, which classifiers keep (no seed",
    ),
}
"""Results for and against a claim, and what is then said."""


@pytest.mark.parametrize("name", STUDIES)
def test_an_answer_can_come_out_either_way(name: str) -> None:
    study = load_study(name)
    one, other, said, instead = EITHER_WAY[name]
    assert all(set(line) == set(study.columns) for line in (*one, *other))
    assert said in study.answer(one)
    assert instead not in study.answer(one)
    assert instead in study.answer(other)
    assert said not in study.answer(other)
    for results in (one, other):
        figure = Figure()
        study.draw(figure, results)
        assert figure.axes


def test_a_study_that_is_not_known_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="degradation"):
        load_study("degredation")


def _pixels_not_normalised_cost(outcome: Outcome) -> bool:
    told = next(part for part in outcome.answer.split("\n\n") if part.startswith("Pixels that are not normalised"))
    return "; it costs " in told.split("Together")[0]


def _vanishes_without_batchnorm_and_shortcuts(outcome: Outcome) -> bool:
    """Known from theory: with PyTorch's initialisation each plain layer passes on a sixth of the variance."""
    found = health(outcome.results)
    plain, residual = (found[shape, False, "torch", 110].state for shape in ("plain", "residual"))
    return (plain, residual) == ("vanishes", "healthy")


def _learns_at_each_depth(outcome: Outcome) -> bool:
    errors = [line["test_error"] for line in outcome.results if line["depth"] == 20]
    return {line["depth"] for line in outcome.results} == {8, 20, 44, 110} and max(errors) < 15  # chance is 90


def _responses_stay_near_one(outcome: Outcome) -> bool:
    """BatchNorm's own law: before training every response is 1, so short training stays near it, and nets learn."""
    top1 = statistics.mean(line["top1"] for line in outcome.results)
    return all(0.1 < line["std"] < 5 for line in outcome.results) and top1 > 60


def _most_strangers_are_caught(outcome: Outcome) -> bool:
    """Chance is what is refused of the known: 5 %."""
    caught = [line["caught"] for line in outcome.results if line["method"] == "virtual-logit"]
    refused = [line["refused"] for line in outcome.results if line["method"] == "virtual-logit"]
    return statistics.mean(caught) > 60 and statistics.mean(refused) < 10


SEEN: dict[str, Callable[[Outcome], bool]] = {
    "degradation": lambda outcome: "shortcuts take it away" in outcome.answer,
    "depth": _learns_at_each_depth,
    "gradients": _vanishes_without_batchnorm_and_shortcuts,
    "lesion": lambda outcome: "the residual net bears the loss of a block better" in outcome.answer,
    "responses": _responses_stay_near_one,
    "shortcuts": lambda outcome: "A is better than none (no seed" in outcome.answer,
    "tutorials": _pixels_not_normalised_cost,
    "unknown": _most_strangers_are_caught,
}
"""What a quick look has to see on real digits."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", STUDIES)
def test_a_quick_look_sees_on_real_digits_what_is_known(name: str, tmp_path: Path) -> None:
    began = time.monotonic()
    outcome = run_study(name, quick=True, out=tmp_path / "study")
    assert time.monotonic() - began < 1200  # some 60 to 250 s on two quiet cores
    assert SEEN[name](outcome), outcome.answer
    assert (tmp_path / "study" / "index.html").read_text().count("<h2>") == 2
