"""The study `depth`: parameters against the paper's Table 6, rows trained for real, verdicts on made-up results."""

import math
from pathlib import Path

import pytest

import resnetkit as rk
from resnetkit.recipes.load import load_recipe
from resnetkit.studies import depth, fit
from resnetkit.studies.depth import PAPER, STUDY, by_depth
from resnetkit.studies.laboratory import run_study
from resnetkit.studies.study import Place
from studies.made_up import depth as made_up
from studies.tiny import shrink


def test_the_full_grid_is_table_6_with_five_seeds_for_110_layers() -> None:
    rows = STUDY.rows(Place(False, Path("nowhere")))
    seeds = {layers: len([row for row in rows if row["depth"] == layers]) for layers in PAPER}
    assert set(seeds) == {row["depth"] for row in rows}
    assert seeds[110] == 5
    assert min(seeds.values()) >= 3
    assert len(STUDY.rows(Place(False, Path("nowhere"), seeds=1))) == len(PAPER)


def test_runs_whose_loss_was_lost_are_left_out_by_name() -> None:
    lost = {"parameters": 0, "train_error": math.nan, "held_out_error": math.nan, "test_error": math.nan}
    results = made_up({20: (9.0, 9.1, 9.2), 56: (7.0, 7.1, 7.2), 110: (6.0, 6.1)}, data="digits")
    gone = {(56, 0), (110, 0), (110, 1)}
    results = [line | lost if (line["depth"], line["seed"]) in gone else line for line in results]
    said = STUDY.answer(results)
    assert "56 layers are better than 20 (no seed" in said
    assert "56 layers 7.2 % (2 seeds: 7.1 to 7.2), 56,000 parameters" in said
    assert "did not stay finite: 56 layers, seed 0, 110 layers, seed 0, 110 layers, seed 1." in said


@pytest.mark.parametrize(
    ("layers", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7), (1202, 19.4)]
)
def test_networks_of_the_full_grid_have_the_papers_parameters(layers: int, millions: float) -> None:
    arch = rk.networks.arch.get_arch(fit.PAPER.changes["model"]["name"], **fit.stacked(layers))
    count = sum(parameter.numel() for parameter in rk.ResNet(arch, initialise=False).parameters())
    assert round(count / 1e6, 1 if millions > 1 else 2) == millions


def test_the_extremely_deep_net_is_trained_in_bounded_memory_and_warmed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of 1202 layers, really trained for one step of the digits, in the settings of the full study."""
    asked: dict[str, dict] = {}
    real = depth.fit

    def watched(place: Place, name: str, **changes):
        asked[name] = changes
        return real(Place(True, place.folder), name, steps=1, data={"limit": 16, "batch_size": 16}, **changes)

    monkeypatch.setattr(depth, "fit", watched)
    place = Place(False, tmp_path)
    for layers in (20, 110, 1202):
        (line,) = STUDY.measure({"data": "cifar10", "depth": layers, "seed": 0}, place)
        assert line["paper_error"] == PAPER[layers]
    recipes = {layers: load_recipe(tmp_path / f"resnet{layers}-seed0" / "recipe.toml") for layers in (20, 110, 1202)}
    assert [recipe.recompute for recipe in recipes.values()] == [False, False, True]
    assert [changes.get("optim") for changes in asked.values()] == [None, *[{"warmup": "400 steps"}] * 2]
    assert recipes[1202].model.depths == (200, 200, 200)


def test_a_quick_row_says_what_the_saved_model_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch, "depth", sweeps=by_depth({8: 2, 20: 1}), recipe={"epochs": 1})
    outcome = run_study("depth", quick=True, out=tmp_path / "study")
    assert [(line["depth"], line["seed"]) for line in outcome.results] == [(8, 0), (8, 1), (20, 0)]
    for line in outcome.results:
        saved = rk.load(str(tmp_path / "study" / "work" / "resnet{depth}-seed{seed}".format(**line)), precision="fp32")
        assert line["test_error"] == 100 - rk.evaluate(saved, "digits")["top1"]
        assert line["paper_error"] == ""  # the paper has 20 layers too, but not on digits
        assert line["parameters"] == sum(p.numel() for p in saved.network.parameters())
    assert "not to be compared" in outcome.answer


PAPER_LIKE = {20: (8.7, 8.8, 8.9), 110: (6.4, 6.6, 6.8), 1202: (7.8, 7.9, 8.0)}


def test_depth_is_said_to_help_or_to_harm_only_where_seeds_are_apart() -> None:
    said = STUDY.answer(made_up(PAPER_LIKE))
    assert "110 layers are better than 20 (no seed" in said
    assert "1202 layers are worse than 110 (no seed" in said
    assert "on training images, 110 and 1202 layers cannot be told apart" in said
    assert "20 layers 8.75 % there, 8.80 % here" in said
    said = STUDY.answer(made_up(PAPER_LIKE | {20: (6.4, 6.6, 6.8), 1202: (5.0, 5.1, 5.2)}))
    assert "20 and 110 layers cannot be told apart: their means differ by 0.0 points" in said
    assert "1202 layers are better than 110" in said
    alone = STUDY.answer(made_up({20: (8.8,), 110: (6.6,)}))
    assert "run only once, so this may be chance" in alone


def test_a_deep_net_that_is_worse_overfits_only_where_it_fits_its_training_images() -> None:
    worse = {8: (2.0, 2.1, 2.2), 44: (5.0, 6.0, 7.0)}
    assert "carry over: overfitting" in STUDY.answer(made_up(worse, data="digits"))
    assert "this is no overfitting" in STUDY.answer(made_up(worse, data="digits", train={44: 9.0}))
    better = STUDY.answer(made_up({8: worse[44], 44: worse[8]}, data="digits", train={44: 9.0}))
    assert "overfitting" not in better


def test_the_papers_figures_do_not_stand_beside_those_of_other_images() -> None:
    said = STUDY.answer(made_up({8: (3.0,), 20: (2.0,)}, data="digits"))
    assert "not to be compared with these figures" in said
    assert "here" not in said.partition("The paper's Table 6")[2].partition("\n")[0]
