import ast
import dataclasses
import inspect
import itertools
import tomllib
from importlib import resources
from pathlib import Path

import pytest
from pydantic import BaseModel

from resnetkit.errors import UsageError
from resnetkit.networks import arch
from resnetkit.networks.arch import Arch, get_arch
from resnetkit.recipes.load import list_recipes, load_recipe
from resnetkit.recipes.schema import ModelRecipe, Recipe, duration_steps
from resnetkit.runs.folder import flat


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_loads_and_survives_saving(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    fields = recipe.model.model_dump(exclude={"name", "weights"}, exclude_none=True)
    get_arch(recipe.model.name, **fields)
    saved = tmp_path / "recipe.toml"
    saved.write_text(recipe.to_toml())
    assert load_recipe(saved) == recipe


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_opens_with_its_command(name: str) -> None:
    lines = resources.files("resnetkit").joinpath("recipes", f"{name}.toml").read_text().splitlines()
    assert lines[0].startswith("# ")
    assert any(line.startswith("#   resnetkit train") for line in lines)


def test_model_keys_are_the_fields_of_an_arch() -> None:
    of_arch = {field.name for field in dataclasses.fields(Arch)} - {"in_channels", "num_classes"}
    assert set(ModelRecipe.model_fields) == of_arch | {"name", "weights"}


def test_every_key_has_its_sentence_and_the_networks_are_those_in_the_source_of_arch() -> None:
    def sentences(section: type[BaseModel]) -> dict[str, str | None]:
        found = {}
        for name, field in section.model_fields.items():
            inner = (
                sentences(field.annotation) if hasattr(field.annotation, "model_fields") else {"": field.description}
            )
            found |= {f"{name}.{key}".rstrip("."): text for key, text in inner.items()}
        return found

    found = sentences(Recipe)
    assert len(found) == len(flat(Recipe().model_dump()))
    assert [key for key, text in found.items() if not text] == []
    body = next(node.body for node in ast.parse(inspect.getsource(arch)).body if getattr(node, "name", "") == "Arch")
    written = {
        field.target.id: text.value.value
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and field.target.id not in ("in_channels", "num_classes")
    }
    own = {key: text for key, text in found.items() if key.startswith("model.")}
    assert own == {f"model.{name}": text for name, text in written.items()} | {
        key: own[key] for key in ("model.name", "model.weights")
    }


def test_a_key_of_the_network_has_the_bounds_of_its_field() -> None:
    for key, value in {"groups": 0, "stem_width": 0, "drop_path": 1.0, "depths": (0, 1), "shortcut": "D"}.items():
        with pytest.raises(UsageError, match=f"model.{key}.* cannot be: input should be"):
            load_recipe("digits", {"model": {key: value}})
        with pytest.raises(UsageError, match=f"{key} = .* cannot be: Input should be"):
            get_arch("resnext50_32x4d", **{key: value})


def test_changes_override_the_file_and_a_new_length_replaces_the_old() -> None:
    recipe = load_recipe("digits", {"steps": 7, "optim": {"lr": 0.05}})
    assert (recipe.steps, recipe.epochs, recipe.optim.lr) == (7, None, 0.05)
    assert load_recipe("finetune").total_steps(50) == 100
    assert load_recipe("finetune", {"epochs": 2}).total_steps(64) == 4  # the bounds went with the old length
    assert recipe.optim.weight_decay == load_recipe("digits").optim.weight_decay


def test_a_base_is_refined(tmp_path: Path) -> None:
    child = tmp_path / "mine.toml"
    child.write_text('base = "cifar10-paper"\nepochs = 2\n[model]\nresidual = false\n')
    recipe = load_recipe(child)
    assert (recipe.epochs, recipe.steps, recipe.model.residual, recipe.model.name) == (2, None, False, "resnet20")
    assert recipe.optim == load_recipe("cifar10-paper").optim


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_recipe("digits").optim.lr = 1.0


BAD = {
    "[optim]\nlrr = 0.1": r"unknown key 'optim.lrr' in .*mine.toml. Try: optim.lr",
    "epoch = 3": r"unknown key 'epoch' in .*mine.toml. Try: epochs",
    "[optim]\nlr = -1.0": r"optim.lr = -1.0 cannot be in .*mine.toml: input should be greater than 0",
    '[optim]\nlr = "fast"': r"optim.lr = 'fast' cannot be",
    '[optim]\nwarmup = "5 hours"': r"optim.warmup = '5 hours' cannot be.*number and a unit",
    "epochs = 1\nsteps = 5": r"a recipe has one length in .*: it sets epochs and steps",
    "epochs = ": r"the recipe is not TOML in .*mine.toml: Invalid value",
    'base = "digit"': r"unknown recipe 'digit' in .*mine.toml. Try: digits",
    'base = "mine.toml"': r"a recipe is its own base",
}


@pytest.mark.parametrize(("text", "message"), BAD.items())
def test_a_bad_recipe_is_refused_by_name(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_recipe(path)


def test_unknown_recipes_and_missing_files() -> None:
    with pytest.raises(UsageError, match=r"unknown recipe 'digitz'. Try: digits"):
        load_recipe("digitz")
    with pytest.raises(UsageError, match=r"cannot read the recipe in nowhere.toml: No such file"):
        load_recipe("nowhere.toml")


@pytest.mark.parametrize(
    ("text", "steps"), [("400 steps", 400), ("1 step", 1), ("10%", 200), ("2 epochs", 200), ("256 examples", 4)]
)
def test_durations_in_steps_by_hand(text: str, steps: int) -> None:
    assert duration_steps(text, total_steps=2000, images=6400, batch_size=64) == steps


def test_length_in_steps_by_hand() -> None:
    assert Recipe(epochs=2.5).total_steps(1000) == 20  # 2,500 images in batches of 128
    assert Recipe(examples=129).total_steps(1000) == 2
    assert Recipe(steps=64_000).total_steps(45_000) == 64_000
    bounded = Recipe(epochs=2, min_steps=10, max_steps=30)
    assert [bounded.total_steps(images) for images in (100, 1280, 100_000)] == [10, 20, 30]
    assert Recipe(epochs=3).total_steps(10) == 3  # a batch is never larger than the set


def test_the_papers_schedule_is_in_the_recipe() -> None:
    raw = tomllib.loads(resources.files("resnetkit").joinpath("recipes/cifar10-paper.toml").read_text())
    assert raw["steps"] == 64_000
    assert raw["data"] == {"name": "cifar10", "batch_size": 128, "validation": 0.1}
    assert raw["augment"] == {"flip": True, "pad_crop": 4}
    assert raw["optim"]["milestones"] == ["32000 steps", "48000 steps"]
    assert (raw["optim"]["lr"], raw["optim"]["gamma"], raw["optim"]["weight_decay"]) == (0.1, 0.1, 1e-4)
