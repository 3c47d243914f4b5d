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
        ("resnet20", get_arch("resnet20", **DIGITS), "resnet20"),  # which the recipe of the digits changes
        (VARIANTS["resnet20"], get_arch("resnet20", **DIGITS), "resnet20"),
        (get_arch("resnet32", **TINY["model"]), get_arch("resnet32", **TINY["model"], **DIGITS), None),
        ({"name": "resnet20", **TINY["model"]}, get_arch("resnet20", **TINY["model"], **DIGITS), "resnet20"),
    ],
    ids=["name", "name of the recipe", "variant", "arch", "dict"],
)
def test_a_network_is_what_it_is_called(model: object, arch: rk.Arch, name: str | None, tmp_path: Path) -> None:
    done = rk.train("digits", model=model, out=tmp_path / "run", **ONE_STEP)
    assert done.network.arch == arch
    assert name in (None, done.model)
    assert rk.load(tmp_path / "run").network.arch == arch


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
