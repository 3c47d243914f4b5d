"""Networks trained for a study: against the product's own runs, and against counts made by hand."""

from pathlib import Path

import pytest

import resnetkit as rk
from conftest import TINY
from pictures import fill
from resnetkit.errors import DataError
from resnetkit.recipes.load import load_recipe
from resnetkit.studies.fit import PAPER, fit, stacked
from resnetkit.studies.spread import Spread, chance
from resnetkit.studies.study import Place


def test_a_fit_says_what_the_saved_model_scores_and_is_trained_once(tmp_path: Path) -> None:
    place = Place(True, tmp_path)
    done = fit(place, "one", epochs=2, seed=3, **TINY)
    assert done.end["top1"] == rk.evaluate(done.classifier, "digits")["top1"]
    assert [line["epoch"] for line in done.epochs] == pytest.approx([1, 2], abs=0.05)
    written = (tmp_path / "one" / "model" / "model.safetensors").stat().st_mtime_ns
    again = fit(place, "one", epochs=2, seed=3, **TINY)
    assert again.epochs == done.epochs
    assert again.classifier.compute == done.classifier.compute
    assert (tmp_path / "one" / "model" / "model.safetensors").stat().st_mtime_ns == written


def test_a_quick_fit_is_the_recipe_digits_with_changes_that_can_be_named(tmp_path: Path) -> None:
    fit(Place(True, tmp_path), "one", steps=1, model=stacked(8))
    ours, recipe = load_recipe(tmp_path / "one" / "recipe.toml"), load_recipe("digits")
    assert ours.precision == "fp32"
    assert (ours.optim.label_smoothing, ours.optim.ema) == (0, 0)
    same = ("lr", "momentum", "nesterov", "weight_decay", "schedule", "warmup")
    assert all(getattr(ours.optim, name) == getattr(recipe.optim, name) for name in same)
    assert ours.augment == recipe.augment


def test_in_full_the_images_come_from_a_folder_that_is_given_under_the_papers_recipe(tmp_path: Path) -> None:
    fill(tmp_path / "images" / "train", 4)
    fill(tmp_path / "images" / "test", 2, first=50)
    place = Place(False, tmp_path / "work", tmp_path / "images")
    done = fit(place, "one", steps=2, data={"batch_size": 4, "image_size": 16}, **TINY)
    assert done.end["split"] == "test"
    assert done.end["count"] == 6
    ours, paper = load_recipe(tmp_path / "work" / "one" / "recipe.toml"), load_recipe("cifar10-paper")
    assert ours.optim == paper.optim
    assert ours.augment == paper.augment
    assert ours.precision == "fp32" == PAPER.changes["precision"]


def test_in_full_nothing_is_trained_on_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cifar10 is not complete"):
        fit(Place(False, tmp_path / "work", tmp_path), "one", steps=1)


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110, 1202])
def test_depths_are_those_of_the_named_networks(depth: int) -> None:
    assert stacked(depth)["depths"] == rk.networks.arch.VARIANTS[f"resnet{depth}"].depths
    with pytest.raises(ValueError, match="6n"):
        stacked(depth + 1)


def test_groups_are_apart_where_no_value_of_one_reaches_the_other() -> None:
    low, high, between = Spread((1.0, 2.0, 3.0)), Spread((4.0, 5.0, 6.0)), Spread((3.0, 9.0, 9.0))
    assert high.above(low)
    assert not low.above(high)
    assert not between.above(low)
    assert not Spread(()).above(low)
    assert str(low) == "2.0 % (3 seeds: 1.0 to 3.0)"
    assert str(Spread((2.0,))) == "2.0 % (a single run)"
    # Of the 20 ways to choose 3 of 6 runs, one is this one.
    assert "1 time in 20" in chance(high, low)
    assert "chance" in chance(high, Spread((1.0,)))
