"""What `train` takes from Python. The oracle is the network that the name or the numbers stand for."""

from pathlib import Path

import pytest

import resnetkit as rk
from conftest import TINY
from resnetkit.networks.arch import VARIANTS, get_arch

ONE_STEP = {"quiet": True, "steps": 1, "data": {"batch_size": 4}}
DIGITS = {"in_channels": 1, "num_classes": 10}


@pytest.mark.parametrize(
    ("model", "arch", "name"),
    [
        ("resnet18", get_arch("resnet18", **DIGITS), "resnet18"),
        (VARIANTS["resnet20"], get_arch("resnet20", **DIGITS), "resnet20"),
        (get_arch("resnet32", **TINY["model"]), get_arch("resnet32", **TINY["model"], **DIGITS), None),
        ({"name": "resnet20", **TINY["model"]}, get_arch("resnet20", **TINY["model"], **DIGITS), "resnet20"),
    ],
    ids=["name", "variant", "arch", "dict"],
)
def test_a_network_is_what_it_is_called(model: object, arch: rk.Arch, name: str | None, tmp_path: Path) -> None:
    done = rk.train("digits", model=model, out=tmp_path / "run", **ONE_STEP)
    assert done.network.arch == arch
    assert name in (None, done.model)
    assert rk.load(tmp_path / "run").network.arch == arch


OWN = {"depths": (1, 1, 1), "widths": (32, 64, 128), "stem_width": 32}
"""What the recipe of the digits changes in its resnet20."""
DOORS = {
    "another network": (
        ("--model", "plain20"),
        {"model": "plain20"},
        get_arch("plain20", **DIGITS),
        "depths, widths, strides, stem_width",
    ),
    "and a key beside it": (
        ("--model", "plain20", "--model.widths", 8, 8, 8, "--model.stem-width", 8),
        {"model": {"name": "plain20", "widths": (8, 8, 8), "stem_width": 8}},
        get_arch("plain20", widths=(8, 8, 8), stem_width=8, **DIGITS),
        "depths, strides",
    ),
    "the recipe's own": (("--model", "resnet20"), {"model": "resnet20"}, get_arch("resnet20", **OWN, **DIGITS), None),
    "that of weights": (
        ("--weights", "resnet20.cifar10"),
        {"model": {"weights": "resnet20.cifar10"}},
        get_arch("resnet20", **DIGITS),
        "depths, widths, stem_width",
    ),
}


@pytest.mark.parametrize("case", DOORS)
def test_a_network_by_name_is_the_same_from_the_command_line(case: str, tmp_path: Path, cli, caplog) -> None:
    """What a recipe changes in a network it changes in its own; what is left out of it is said."""
    flags, keys, arch, left_out = DOORS[case]
    line = f"left out  {left_out}: the recipe has them for resnet20"
    with caplog.at_level("INFO", logger="resnetkit"):
        called = rk.train("digits", out=tmp_path / "run", **ONE_STEP, **keys)
    assert called.network.arch == arch
    assert (line in caplog.messages) == (left_out is not None)
    same = ("train", "digits", *flags, "--steps", 1, "--data.batch-size", 4, "--out", tmp_path / "run", "--resume")
    done = cli(*same)
    assert "is finished: nothing to do" in done.err  # to it, this is the same recipe
    assert done.err.count("left out  ") == done.err.count(line) == (left_out is not None)
    assert done.code == 0
    differs = cli(*same, "--model.conv-bias")
    assert (differs.code, "model.conv_bias has changed since the run began" in differs.err) == (2, True)


def test_a_recipe_that_names_another_network_than_its_base_has_it_as_it_is(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('base = "imagenet-modern"\n[model]\nname = "resnet18"\n')
    assert rk.load_recipe(mine).model.zero_init_residual  # how it begins, not what it is
    mine.write_text('base = "digits"\n[model]\nname = "resnet18"\n')
    model = rk.load_recipe(mine).model
    assert (model.name, model.depths, model.widths) == ("resnet18", None, None)
    assert rk.load_recipe(mine, {"model": {"depths": (2, 2, 2, 1)}}).model.depths == (2, 2, 2, 1)


def test_a_recipe_that_is_loaded_is_that_recipe(tmp_path: Path) -> None:
    changes = {"steps": 3, **TINY}
    ours = rk.load_recipe("digits", changes)
    done = rk.train("digits", ours, out=tmp_path / "run", quiet=True)
    named = rk.train("digits", "digits", out=tmp_path / "named", quiet=True, **changes)
    assert done.recipe == named.recipe
    assert done.metrics["loss"] == named.metrics["loss"]
    assert rk.load_recipe(ours, {"seed": 4}).seed == 4
    longer = rk.load_recipe(ours, {"epochs": 2})
    assert (longer.steps, longer.epochs) == (None, 2)


def test_data_may_be_given_by_name(tmp_path: Path) -> None:
    done = rk.train(data="digits", out=tmp_path / "run", quiet=True, steps=1, **TINY)
    assert done.origin.data == "digits"
