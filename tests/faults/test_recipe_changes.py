"""T15 and T16: what may differ when a run goes on, and what is then said and written down."""

import itertools
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from faults import plants
from faults.harness import run
from faults.runs import begin, rows, sign, stopped, whole
from resnetkit.errors import UsageError
from resnetkit.recipes.load import load_recipe
from resnetkit.recipes.schema import OnResume, Recipe, keys_on_resume
from resnetkit.runs.folder import flat, open_run

FREE, WITH_LEAVE, REFUSED = (tuple(key for key, said in keys_on_resume().items() if said is each) for each in OnResume)
DEFAULTS = flat(Recipe().model_dump())
LENGTHS = ("epochs", "steps", "examples")
OTHER: dict[str, Any] = {
    **dict.fromkeys(("data.image_size", "data.resize", "data.limit", "data.micro_batch", "data.workers"), 7),
    "data.mean": (0.3,),
    "data.std": (0.2,),
    "data.name": "cifar10",
    "data.sampling": "balanced",
    **dict.fromkeys(("data.train_folder", "data.validation_folder", "data.test_folder", "data.group_by"), "x"),
    "class_weights": "balanced",
    "max_steps": 9,
    "epochs": 5,
    "steps": 77,
    "examples": 999,
    "device": "cpu:0",
    "precision": "bf16",
    "freeze": "layer1",
    "model.name": "resnet32",
    "model.weights": "elsewhere",
    "model.block": "bottleneck",
    "model.stem": "imagenet",
    **dict.fromkeys(("model.depths", "model.widths", "model.strides"), (2, 3)),
    "model.residual": False,
    "model.shortcut": "C",
    "model.stride_on": "1x1",
    "model.init": "torch",
    **dict.fromkeys(("model.preactivation", "model.zero_init_residual", "model.conv_bias"), True),
    "model.stem_padding": False,
    "model.projection_norm": False,
    "model.groups": 2,
    "model.group_width": 4,
    "model.drop_path": 0.2,
    "augment.crop_scale": (0.5, 1.0),
    "augment.extra": [["RandomInvert"]],
    "data.path_column": "file",
    "data.label_column": "kind",
    "data.split_column": "part",
    "data.image_root": "pictures",
    "data.label_from": "(a|b)",
    "transfer.which": "raw",
    "early_stop.patience": 3,
    "optim.name": "adam",
    "optim.schedule": "constant",
    "optim.clip": 1.0,
    "optim.milestones": ("50%",),
    "optim.warmup": "3 steps",
    "optim.warmup_shape": "constant",
    "transfer.mode": "finetune",
    "transfer.class_weights": "balanced",
    "checkpoint.every_steps": 7,
    "expect.top1": 1.0,
    "expect.seconds": 1.0,
    "expect.runs": 9,
    "optim.gamma": 0.5,
    "optim.layer_decay": 0.5,
}
"""A value of each key that is not the run's; numbers and switches not named here are moved by themselves."""


def test_every_key_of_a_recipe_is_in_one_class() -> None:
    assert sorted((*FREE, *WITH_LEAVE, *REFUSED)) == sorted(DEFAULTS)


def test_the_keys_that_may_change_are_these_and_no_others() -> None:
    """Written out by hand once more: a key becomes free, or needs leave, on purpose only."""
    free = "device recompute sync_batchnorm data.workers data.max_unreadable checkpoint.every_epochs "
    free += "checkpoint.every_steps checkpoint.every_minutes checkpoint.keep expect.top1 expect.seconds expect.runs"
    leave = "epochs steps examples min_steps max_steps precision data.batch_size data.micro_batch augment.flip "
    leave += "augment.pad_crop augment.random_resized_crop augment.crop_scale augment.trivial_augment "
    leave += "augment.extra early_stop.patience early_stop.min_delta "
    leave += "augment.random_erasing augment.mixup augment.cutmix optim.lr optim.momentum optim.nesterov "
    leave += "optim.weight_decay optim.schedule optim.milestones optim.gamma optim.warmup optim.warmup_shape "
    leave += "optim.warmup_factor optim.label_smoothing optim.clip optim.layer_decay"
    assert (set(FREE), set(WITH_LEAVE)) == (set(free.split()), set(leave.split()))


def other(key: str, value: Any) -> Any:
    if key in OTHER:
        return OTHER[key]
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else 0.5 + value / 4


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_key_that_has_changed(key: str, home: Path) -> None:
    """Free, or refused without leave, or refused: by its class; and the message has the old and the new value."""
    folder = whole("memory", home)
    before = flat(load_recipe(folder / "recipe.toml").model_dump())
    value = other(key, before[key])
    assert value != before[key]
    section, _, name = key.rpartition(".")
    request = {"out": folder, "resume": True, "changes": {section: {name: value}} if section else {name: value}}
    # Another unit of length takes the place of the old one, and so changes two keys.
    allow = (key, "epochs") if key in LENGTHS else (key,)
    if key in FREE:
        assert open_run(None, None, **request).changed == ()
        return
    with pytest.raises(UsageError, match=r"has changed since the run began .* it was .* and is now ") as caught:
        open_run(None, None, **request)
    if key in WITH_LEAVE:
        assert f"--allow-change {key if key not in LENGTHS else 'epochs'}" in str(caught.value)
        run = open_run(None, None, **request, allow=allow)
        assert key in [each for each, _, _ in run.changed]
    else:
        assert str(caught.value).startswith(f"{key} has changed")
        assert str(caught.value).endswith("Try: the old value, or another --out")
        with pytest.raises(UsageError, match="unknown key to change"):
            open_run(None, None, **request, allow=[key])


def test_what_was_changed_stays_in_the_journal_also_when_killed_before_the_next_save(home: Path) -> None:
    out = stopped(home)
    changed = {"resume": True, "optim": {"lr": 0.02}, "epochs": 3, "allow_change": ["optim.lr", "epochs"]}
    settings = begin("memory", home, out)
    assert run(direct=settings | changed, plant=partial(kill_in_forward, out, 1)).code == -9
    assert run(direct={"out": out, "resume": True}).code == 0
    told = {row["key"]: (row["step"], row["before"], row["now"]) for row in rows(out) if row["event"] == "changed"}
    assert told == {"optim.lr": (9, 0.05, 0.02), "epochs": (9, 2.0, 3.0)}
    assert rows(out)[-1]["steps"] == 13


def kill_in_forward(out: Path, which: int) -> None:
    seen = itertools.count()
    plants.Points(
        out, lambda _, label: plants.kill() if label == "before forward" and next(seen) == which else None
    ).watch()


def test_another_batch_size_goes_on_where_the_images_were_also_when_killed(home: Path) -> None:
    """9 steps of 24 images are 18 of 12: an older checkpoint must never be taken for one of the new steps."""
    out = stopped(home)
    changed = {"resume": True, "data": {"batch_size": 12}, "epochs": 4, "allow_change": ["data.batch_size", "epochs"]}
    settings = begin("memory", home, out)
    assert run(direct=settings | changed, plant=partial(kill_in_forward, out, 1)).code == -9
    ended = run(direct={"out": out, "resume": True})
    assert ended.code == 0
    assert "at step 18 from" in ended.err
    out = stopped(home)
    larger = changed | {"data": {"batch_size": 48}}
    assert run(direct=settings | larger, plant=partial(kill_in_forward, out, 0)).code == -9
    ended = run(direct={"out": out, "resume": True})
    assert ended.code == 0
    assert "at step 4 from" in ended.err
    assert max(path.name for path in (out / "checkpoints").iterdir()) == "step-00000009"
    assert rows(out)[-1]["steps"] == 9


def test_a_finished_run_that_is_made_longer_and_killed_before_its_model_gets_the_longer_runs(home: Path) -> None:
    """T20. The shorter run's model lies there all the while, and must not be taken for the result."""
    out = home / "longer"
    shutil.copytree(whole("memory", home), out)
    longer = {"resume": True, "epochs": 3, "allow_change": ["epochs"]}
    ended = run(direct=begin("memory", home, out) | longer, plant=partial(kill_before_the_model, out))
    assert ended.code == -9
    assert run(direct={"out": out, "resume": True}).code == 0
    assert rows(out)[-1]["event"] == "end"
    assert rows(out)[-1]["steps"] == 13
    config = json.loads((out / "model" / "config.json").read_bytes())
    assert config["resnetkit"]["metrics"]["steps"] == 13


def kill_before_the_model(out: Path) -> None:
    plants.Points(out, lambda _, label: plants.kill() if "open model/" in label else None).watch()


def test_another_version_of_torch_is_said_and_goes_on(home: Path) -> None:
    out = stopped(home)
    for folder in (out / "checkpoints").iterdir():
        state = json.loads((folder / "state.json").read_bytes()) | {"torch": "2.0.1"}
        (folder / "state.json").write_text(json.dumps(state))
        sign(folder)
    ended = run(direct=begin("memory", home, out) | {"resume": True})
    assert ended.code == 0
    assert "note      begun with torch 2.0.1: it goes on alike, but not equal to the bit" in ended.err
    assert (out / "model" / "config.json").is_file()
