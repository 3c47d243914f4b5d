"""The study `degradation`: rows trained for real on the digits, verdicts on results of either outcome."""

import json
import math
import tomllib
from pathlib import Path

import pytest

from resnetkit.errors import DivergedError
from resnetkit.studies import degradation
from resnetkit.studies.degradation import STUDY
from resnetkit.studies.laboratory import run_study
from resnetkit.studies.study import Place, Study
from studies.made_up import DEGRADED
from studies.made_up import degradation as made_up
from studies.tiny import tiny_study


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Study:
    return tiny_study(monkeypatch, "degradation")


def test_plain_and_residual_nets_meet_the_same_settings() -> None:
    for quick in (True, False):
        rows = STUDY.rows(Place(quick, Path("nowhere")))
        plain, residual = (
            [{**row, "network": ""} for row in rows if row["network"] == network] for network in ("plain", "residual")
        )
        assert plain == residual
        assert len({row["seed"] for row in rows}) >= 3
    assert {row["depth"] for row in rows} == {20, 32, 44, 56, 110}


def test_the_two_runs_of_a_pair_differ_in_one_field_and_errors_are_those_of_the_journal(
    tiny: Study, tmp_path: Path
) -> None:
    outcome = run_study("degradation", quick=True, out=tmp_path / "study")
    work = tmp_path / "study" / "work"
    files = [work / f"{network}8-lr0.1-seed0" / "recipe.toml" for network in ("plain", "residual")]
    recipes = [tomllib.loads(file.read_text()) for file in files]
    assert [recipe["model"].pop("residual") for recipe in recipes] == [False, True]
    assert recipes[0] == recipes[1]

    for line in outcome.results:
        folder = work / "{network}{depth}-lr{lr}-seed{seed}".format(**line)
        epoch, end = (json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines())
        assert line["train_error"] == 100 - epoch["train_top1"]
        assert line["held_out_error"] == 100 - epoch["validation_top1"]
        assert line["test_error"] == 100 - end["top1"]
    assert "a single run" in outcome.answer


def test_degradation_is_said_where_it_is_and_nowhere_else() -> None:
    said = STUDY.answer(made_up(DEGRADED))
    assert "That is the degradation of the paper, and shortcuts take it away" in said
    assert "8 layers 2.5 % (3 seeds: 2.0 to 3.0), 44 layers 62.0 % (3 seeds: 60.0 to 65.0)" in said
    assert "1 time in 20" in said
    overlap = STUDY.answer(made_up(DEGRADED | {("plain", 44): (1.0, 2.0, 9.0)}))
    assert "Degradation is not seen here" in overlap
    both = STUDY.answer(made_up(DEGRADED | {("residual", 44): (50.0, 51.0, 52.0)}))
    assert "here residual ones do too" in both
    ends = {"plain": (5.0, 4.0), "residual": (1.0, 2.0)}
    reverse = STUDY.answer(
        made_up({(name, depth): (pair[depth > 8],) * 3 for name, pair in ends.items() for depth in (8, 44)})
    )
    assert "This is not what the paper describes" in reverse
    assert "With depth it gets better: the plain net" in reverse


def test_each_net_is_judged_at_its_own_best_learning_rate() -> None:
    # The deep plain net learns at 0.01 only, the others at 0.1 only: nobody degrades when each has its rate.
    good, bad = (1.0, 2.0, 3.0), (70.0, 71.0, 72.0)
    high = {key: bad if key == ("plain", 44) else good for key in DEGRADED}
    low = {key: good if key == ("plain", 44) else bad for key in DEGRADED}
    said = STUDY.answer(made_up(high) + made_up(low, rate=0.01))
    assert "Degradation is not seen here" in said
    assert "70" not in said


def test_a_run_that_diverges_is_a_result_and_is_named(
    tiny: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = degradation.fit

    def diverges(place: Place, name: str, **changes):
        if name.startswith("plain14"):
            raise DivergedError("the loss is no longer finite")
        return real(place, name, **changes)

    monkeypatch.setattr(degradation, "fit", diverges)
    outcome = run_study("degradation", quick=True, out=tmp_path / "study")
    assert [line["depth"] for line in outcome.results if math.isnan(line["train_error"])] == [14]
    assert "did not stay finite: plain 14 at 0.1" in outcome.answer
    assert "too few could be trained" in outcome.answer


def test_only_the_deepest_nets_warm_up_plain_and_residual_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AskedError(Exception):
        pass

    def ask(place: Place, name: str, **changes):
        raise AskedError(changes["optim"].get("warmup"))

    monkeypatch.setattr(degradation, "fit", ask)
    for row in STUDY.rows(Place(False, tmp_path)):
        with pytest.raises(AskedError) as asked:
            STUDY.measure(row, Place(False, tmp_path))
        assert asked.value.args == ("400 steps" if row["depth"] == 110 else None,)
