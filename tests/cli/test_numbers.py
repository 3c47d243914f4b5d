"""No number that a flag, an argument or a recipe can be given ends in anything but one line that says what it may be.

Which numbers there are is read from the commands and the recipe themselves, so that a new one cannot be forgotten.
"""

import inspect
import math
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import BaseModel

import resnetkit as rk
from resnetkit.cli.app import COMMANDS
from resnetkit.data.shards.write import shard
from resnetkit.doctor.check import check
from resnetkit.errors import UsageError
from resnetkit.evaluation.evaluate import evaluate
from resnetkit.networks.arch import get_arch
from resnetkit.networks.summary import summarise
from resnetkit.recipes.ranges import RANGES
from resnetkit.recipes.schema import Recipe
from resnetkit.runs.verification import verify_resume
from resnetkit.studies.laboratory import run_study

WORDS = {
    "evaluate": ("resnet20.cifar10", "digits"),
    "compare": ("resnet20.cifar10", "resnet8.digits", "digits"),
    "predict": ("resnet20.cifar10", "photos"),
    "check": ("photos",),
    "shard": ("photos", "--out", "shards"),
    "study": ("depth",),
    "summary": ("resnet20",),
}


def kinds(annotation: Any) -> set[type]:
    """Of the types that an annotation is made of, those of numbers."""
    if annotation in (int, float):
        return {annotation}
    return set().union(*(kinds(part) for part in get_args(annotation) if not isinstance(part, int | float)), set())


def numeric_flags() -> Iterator[tuple[str, str, bool]]:
    for command in COMMANDS:
        module = command.replace("-", "_")
        function = getattr(import_module(f"resnetkit.cli.{module}"), f"{module}_command")
        hints = get_type_hints(function)
        for name in inspect.signature(function).parameters:
            if found := kinds(hints[name]):
                yield command, name, float in found
        if "hints" in hints:
            yield command, "size", False


FLAGS = list(numeric_flags())
ABSURD = ["-1", "1" + 30 * "0", "1e400", "nan", "x"]


def test_the_numbers_of_all_commands_are_found() -> None:
    names = {name for _, name, _ in FLAGS}
    assert {"batch_size", "top", "workers", "megabytes", "seeds", "image_size", "limit", "size", "seed"} <= names
    assert names - {"image_size"} <= RANGES.keys()


@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize(("command", "name"), [flag[:2] for flag in FLAGS])
def test_a_flag_says_in_one_line_what_number_it_takes(
    command: str, name: str, value: str, photos: Path, cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    flag = f"--{name.replace('_', '-')}"
    done = cli(command, *WORDS.get(command, ()), f"{flag}={value}")
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert flag in done.err or "px cannot be" in done.err
    assert len(done.err) < 320
    assert sorted(path.name for path in photos.parent.iterdir()) == ["photos"]


@pytest.mark.parametrize(("command", "name"), [flag[:2] for flag in FLAGS if RANGES.get(flag[1], (0,))[0] == 1])
def test_what_is_counted_from_one_is_never_none(command: str, name: str, photos: Path, cli, monkeypatch) -> None:
    monkeypatch.chdir(photos.parent)
    flag = f"--{name.replace('_', '-')}"
    done = cli(command, *WORDS.get(command, ()), flag, 0)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {flag} 0 cannot be: it is a whole number from 1 to ")


@pytest.mark.parametrize("value", [-1, 10**30, math.nan, "7"])
def test_callers_from_python_are_told_too(value: Any, photos: Path, tmp_path: Path) -> None:
    classifier, out = rk.load("resnet20.cifar10"), tmp_path / "out"
    calls = [
        lambda: rk.predict(classifier, photos, top=value),
        lambda: rk.predict(classifier, photos, batch_size=value),
        lambda: rk.load("resnet20.cifar10", size=value),
        lambda: evaluate(classifier, "digits", batch_size=value),
        lambda: evaluate(classifier, "digits", workers=value),
        lambda: rk.compare([classifier, classifier], "digits", batch_size=value),
        lambda: check(photos, workers=value),
        lambda: shard(photos, out, megabytes=value),
        lambda: shard(photos, out, validation=value),
        lambda: shard(photos, out, seed=value),
        lambda: run_study("depth", out=out, seeds=value),
        lambda: verify_resume(limit=value),
    ]
    for call in calls:
        with pytest.raises(UsageError, match=r"^--[a-z-]+ .* cannot be: it is a .*number from"):
            call()
    assert not out.exists()


@pytest.mark.parametrize(("flag", "value"), [("mean", "nan,0,0"), ("std", "0,1,1"), ("std", "1,-1,1"), ("std", "inf")])
def test_a_mean_and_a_deviation_are_numbers_of_pixels(flag: str, value: str, photos: Path, cli) -> None:
    done = cli("predict", "resnet20.cifar10", photos, f"--{flag}", value)
    assert done.code == 2
    assert done.err.startswith(f"error: --{flag} ")


def numeric_keys(section: type[BaseModel] = Recipe, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple, Any]]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from numeric_keys(field.annotation, (*prefix, name))
        elif found := kinds(field.annotation):
            yield (*prefix, name), (field.annotation, float in found)


def test_every_number_of_a_recipe_is_finite_and_whole_ones_have_an_end() -> None:
    keys = dict(numeric_keys())
    assert {("seed",), ("data", "std"), ("optim", "lr"), ("model", "depths"), ("checkpoint", "keep")} <= keys.keys()
    for place, (annotation, real) in keys.items():
        for value in (math.inf, -math.inf, math.nan, -(10**30), *([] if real else [10**30])):
            changes: Any = (value, value) if "tuple" in str(annotation) else value
            for name in reversed(place):
                changes = {name: changes}
            with pytest.raises(UsageError, match=" cannot be"):
                rk.load_recipe("digits", {"epochs": None} | changes)


def test_a_duration_beyond_all_bounds_is_refused() -> None:
    with pytest.raises(UsageError, match="a duration is a number and a unit"):
        rk.load_recipe("digits", {"optim": {"warmup": "9" * 400 + " epochs"}})


@pytest.mark.parametrize("size", [0, -3, 10**9, 10**400])
def test_a_picture_has_a_size(size: int) -> None:
    with pytest.raises(UsageError, match="px cannot be"):
        summarise(get_arch("resnet18"), size)
