"""Keys that would change nothing."""

import pytest

from resnetkit.errors import UsageError
from resnetkit.recipes.effects import NEEDS, refuse_idle, without_effect
from resnetkit.recipes.load import list_recipes, load_recipe
from resnetkit.recipes.schema import keys_on_resume

IDLE = {
    "momentum of adam": ("digits", {"optim": {"name": "adamw", "momentum": 0.5}}, "optim.momentum"),
    "gamma of a cosine": ("digits", {"optim": {"schedule": "cosine", "gamma": 0.5}}, "optim.gamma"),
    "no warm-up": ("digits", {"optim": {"warmup": "0 steps", "warmup_factor": 0.5}}, "optim.warmup_factor"),
    "no crop": ("digits", {"augment": {"crop_scale": (0.5, 1.0)}}, "augment.crop_scale"),
    "no decay": ("digits", {"optim": {"weight_decay": 0.0, "decay_all": True}}, "optim.decay_all"),
    "bounds of steps": ("digits", {"steps": 9, "max_steps": 3}, "max_steps"),
    "no head": ("digits", {"transfer": {"folds": 3}}, "transfer.folds"),
    "no steps": ("head", {"optim": {"lr": 0.5}}, "optim.lr"),
    "no epochs": ("head", {"epochs": 5}, "epochs"),
    "mean alone": ("digits", {"data": {"mean": (0.5,)}}, "data.mean"),
    "basic block": ("digits", {"model": {"stride_on": "1x1"}}, "model.stride_on"),
    "plain net": ("digits", {"model": {"residual": False, "shortcut": "B"}}, "model.shortcut"),
}
ACTIVE = {
    "momentum of sgd": ("digits", {"optim": {"name": "sgd", "momentum": 0.5}}),
    "gamma of steps": ("digits", {"optim": {"schedule": "steps", "gamma": 0.5, "milestones": ("50%",)}}),
    "warm-up of ten steps": ("digits", {"optim": {"warmup": "10 steps", "warmup_factor": 0.5}}),
    "crop": ("digits", {"augment": {"random_resized_crop": True, "crop_scale": (0.5, 1.0)}}),
    "bounds of epochs": ("digits", {"epochs": 9, "max_steps": 3}),
    "head": ("head", {"transfer": {"folds": 3, "mirror": True}, "class_weights": "balanced"}),
    "fine-tuning": ("finetune", {"optim": {"lr": 0.5}, "transfer": {"folds": 3}, "epochs": 3}),
    "both": ("digits", {"data": {"mean": (0.5,), "std": (1.0,)}}),
    "bottleneck": ("imagenet-modern", {"model": {"stride_on": "1x1", "shortcut": "C"}}),
}


def asked(changes: dict) -> set[str]:
    return {
        name
        for key, value in changes.items()
        for name in ([f"{key}.{each}" for each in value] if isinstance(value, dict) else [key])
    }


@pytest.mark.parametrize("name", IDLE)
def test_a_key_that_would_change_nothing_is_refused_with_what_it_needs(name: str) -> None:
    recipe, changes, key = IDLE[name]
    with pytest.raises(
        UsageError, match=rf"^--{key.replace('_', '-')} would change nothing here: it needs --"
    ) as raised:
        refuse_idle(load_recipe(recipe, changes), asked(changes))
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("name", ACTIVE)
def test_a_key_that_has_an_effect_is_let_pass(name: str) -> None:
    recipe, changes = ACTIVE[name]
    refuse_idle(load_recipe(recipe, changes), asked(changes))


def test_the_table_names_keys_that_there_are() -> None:
    assert {key for need in NEEDS for key in need.keys} <= keys_on_resume().keys()


@pytest.mark.parametrize("name", list_recipes())
def test_what_nobody_asked_for_is_never_refused(name: str) -> None:
    assert list(without_effect(load_recipe(name), ())) == []
