"""What people type who know other tools: the answer is one line with the name that is meant."""

import pytest

import resnetkit as rk
from conftest import TINY
from resnetkit.cli.app import COMMANDS
from resnetkit.cli.slips import COMMANDS as OTHER_COMMANDS
from resnetkit.cli.slips import FLAGS, with_lists_apart

TRAIN = {
    "--lr": "--optim.lr",
    "--learning-rate": "--optim.lr",
    "--learning_rate": "--optim.lr",
    "--batch": "--data.batch-size",
    "--bs": "--data.batch-size",
    "--batch_size": "--data.batch-size",
    "--batch-size": "--data.batch-size",
    "--workers": "--data.workers",
    "--num_workers": "--data.workers",
    "--size": "--data.image-size",
    "--imgsz": "--data.image-size",
    "--img-size": "--data.image-size",
    "--wd": "--optim.weight-decay",
    "--weight-decay": "--optim.weight-decay",
    "--optimizer": "--optim.name",
    "--optimzer": "--optim.name",
    "--momentum": "--optim.momentum",
    "--label-smoothing": "--optim.label-smoothing",
    "--arch": "--model",
    "--pretrained": "--weights",
    "--gpu": "--device",
    "--output": "--out",
    "--name": "--out",
    "--epoch": "--epochs",
    "--optim.lrr": "--optim.lr",
}
COMMAND = {
    "trian": "train",
    "fit": "train",
    "eval": "evaluate",
    "test": "evaluate",
    "val": "evaluate",
    "inference": "predict",
    "info": "summary",
    "Train": "train",
}


@pytest.mark.parametrize("equals", [True, False])
@pytest.mark.parametrize("typed", TRAIN)
def test_a_flag_of_another_tool_is_answered_with_ours(typed: str, equals: bool, cli) -> None:
    done = cli("train", *([f"{typed}=3"] if equals else [typed, 3]))
    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: unknown option {typed}. Did you mean {TRAIN[typed]}. Try: resnetkit train --help\n"


@pytest.mark.parametrize(
    ("command", "typed", "meant"),
    [
        ("evaluate", "--bs", "--batch-size"),
        ("evaluate", "--num-workers", "--workers"),
        ("predict", "--arch", "--model"),
        ("predict", "--imgsz", "--size"),
        ("predict", "--topk", "--top"),
        ("shard", "--output", "--out"),
    ],
)
def test_each_command_answers_with_a_flag_that_it_has(command: str, typed: str, meant: str, cli) -> None:
    assert f"Did you mean {meant}." in cli(command, "run", "photos", typed, 3).err


@pytest.mark.parametrize("typed", COMMAND)
def test_a_command_of_another_tool_is_answered_with_ours(typed: str, cli) -> None:
    done = cli(typed, "photos")
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert f'Did you mean "{COMMAND[typed]}"' in done.err


def test_what_is_like_nothing_is_answered_with_what_there_is(cli) -> None:
    done = cli("frobnicate")
    assert all(name in done.err for name in COMMANDS)
    assert "Did you mean" not in cli("train", "--xyzzy-plugh", 3).err


def test_the_tables_name_commands_that_there_are_and_say_nothing_twice() -> None:
    assert set(COMMANDS) >= OTHER_COMMANDS.keys()
    others = [other for names in OTHER_COMMANDS.values() for other in names]
    assert len(others) == len(set(others))
    assert not set(others) & set(COMMANDS)
    assert all(name.startswith("--") for name in FLAGS)
    assert all(name.lstrip("-") not in names for name, names in FLAGS.items())


LISTS = {
    "commas": ("--model.depths", "1,1", "--model.widths", "8,16", "--model.strides", "1,2"),
    "words": ("--model.depths", "1", "1", "--model.widths", "8", "16", "--model.strides", "1", "2"),
    "equals": ("--model.depths=1,1", "--model.widths=8, 16", "--model.strides=[1, 2]"),
    "repeated": tuple(f"--model.{key}={n}" for key in ("depths", "widths", "strides") for n in TINY["model"][key]),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_written_with_commas_or_without(name: str, cli, tmp_path) -> None:
    more = ("--model.stem-width", 8, "--steps", 1, "--data.limit", 64)
    milestones = {"words": ("30%", "60 steps")}.get(name, ("30%,60 steps",))
    schedule = ("--optim.schedule", "steps", "--optim.milestones", *milestones)
    done = cli(
        "train", "--out", tmp_path / "run", *LISTS[name], *more, *schedule, "--data.mean", "0.5", "--data.std=1,"
    )
    assert done.code == 0, done.err
    saved = rk.load_recipe(tmp_path / "run" / "recipe.toml")
    assert {key: getattr(saved.model, key) for key in TINY["model"]} == TINY["model"]
    assert (saved.optim.milestones, saved.data.mean, saved.data.std) == (("30%", "60 steps"), (0.5,), (1.0,))


def test_only_lists_are_taken_apart() -> None:
    words = ["train", "a,b", "--recipe", "c,d", "--x", "1,2", "3", "--out", "e,f", "--x=[4,5]", "--out=g,h"]
    apart = ["train", "a,b", "--recipe", "c,d", "--x", "1", "2", "3", "--out", "e,f", "--x", "4", "5", "--out=g,h"]
    assert list(with_lists_apart(words, frozenset({"--x"}))) == apart
