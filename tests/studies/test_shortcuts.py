"""The study `shortcuts`: parameters against the paper's count, errors against the saved models, verdicts made up."""

import math
from pathlib import Path

import pytest

import resnetkit as rk
from resnetkit.networks.arch import get_arch
from resnetkit.studies.laboratory import run_study
from resnetkit.studies.shortcuts import OPTIONS, STUDY
from resnetkit.studies.study import Place, combinations
from studies.made_up import SIMILAR
from studies.made_up import shortcuts as made_up
from studies.tiny import shrink, tiny_study


def test_every_option_meets_the_same_settings() -> None:
    for quick in (True, False):
        rows = STUDY.rows(Place(quick, Path("nowhere")))
        groups = [[{**row, "shortcut": ""} for row in rows if row["shortcut"] == option] for option in OPTIONS]
        assert all(group == groups[0] for group in groups)
        assert len({row["seed"] for row in rows}) >= 3


def test_options_cost_the_parameters_that_their_projections_have() -> None:
    """Table 3's options on ResNet-34; a 1x1 projection from a to b channels and its BatchNorm have ab + 2b numbers."""

    def count(option: str) -> int:
        return sum(p.numel() for p in rk.ResNet(get_arch("resnet34", **OPTIONS[option][1])).parameters())

    grow = [64 * 128 + 2 * 128, 128 * 256 + 2 * 256, 256 * 512 + 2 * 512]
    keep = {64: 3, 128: 3, 256: 5, 512: 2}
    assert count("none") == count("A")
    assert count("B") == count("A") + sum(grow)
    assert count("C") == count("B") + sum(blocks * (width * width + 2 * width) for width, blocks in keep.items())


def test_a_row_says_what_the_saved_model_has_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_study(monkeypatch, "shortcuts")
    outcome = run_study("shortcuts", quick=True, out=tmp_path / "study")
    assert [line["shortcut"] for line in outcome.results] == list(OPTIONS)
    for line in outcome.results:
        run = tmp_path / "study" / "work" / "{shortcut}8-lr0.1-seed0".format(**line)
        saved = rk.load(str(run), precision="fp32")
        assert line["parameters"] == sum(p.numel() for p in saved.network.parameters())
        assert line["test_error"] == 100 - rk.evaluate(saved, "digits")["top1"]
        asked = OPTIONS[line["shortcut"]][1]
        assert {name: getattr(saved.network.arch, name) for name in asked} == asked
    assert outcome.answer.count("a single run") >= 4


def test_a_rate_at_which_the_loss_is_lost_does_not_end_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = combinations(depth=(8,), lr=(1e30, 0.1), shortcut=tuple(OPTIONS))
    shrink(monkeypatch, "shortcuts", *grid, recipe={"epochs": 1})
    outcome = run_study("shortcuts", quick=True, out=tmp_path / "study")
    lost = [line for line in outcome.results if math.isnan(line["test_error"])]
    assert [line["lr"] for line in lost] == [1e30] * 4
    assert "did not stay finite: none 8 at 1e+30, A 8 at 1e+30, B 8 at 1e+30, C 8 at 1e+30." in outcome.answer
    assert " 0 parameters" not in outcome.answer
    assert run_study("shortcuts", quick=True, out=tmp_path / "study").answer == outcome.answer
    lost_b = {"test_error": math.nan, "train_error": math.nan}
    nowhere = STUDY.answer([line | lost_b if line["shortcut"] == "B" else line for line in made_up(SIMILAR)])
    assert "B could not be trained at any rate" in nowhere


def test_options_are_told_apart_only_where_their_seeds_are() -> None:
    said = STUDY.answer(made_up(SIMILAR))
    assert "A and B cannot be told apart: their means differ by 0.5 points" in said
    assert "A is better than none (no seed" in said
    said = STUDY.answer(made_up(SIMILAR | {"B": (1.0, 2.0, 3.0)}))
    assert "B is better than A (no seed of one reaches a seed of the other" in said
    assert "B is better than C" in said
    said = STUDY.answer(made_up(dict.fromkeys(OPTIONS, (3.0, 4.0))))
    assert "A and none cannot be told apart" in said


def test_the_learning_rate_is_chosen_on_held_out_images_and_not_on_test_images() -> None:
    worse_on_test = made_up(dict.fromkeys(OPTIONS, (20.0, 21.0, 22.0)), held_out=2.0)
    better_on_test = made_up(SIMILAR, rate=0.03, held_out=9.0)
    assert "A (identity, padded with zeros) 21.0 %" in STUDY.answer(worse_on_test + better_on_test)
