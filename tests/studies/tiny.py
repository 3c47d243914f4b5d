"""Studies made small enough for a test: the quick look of each measures what it is told to."""

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest

from resnetkit.studies.study import Row, Study, Sweep, combinations

NETS = {"depths": (1, 1), "widths": (8, 16), "strides": (1, 2), "stem_width": 8}


def shrink(monkeypatch: pytest.MonkeyPatch, name: str, *settings: Row, seeds: int = 1, **fields: Any) -> Study:
    """Let a study's quick look measure some settings, each with so many seeds; `fields` are other ones of its grid."""
    sweeps = fields.pop("sweeps", (Sweep(settings, seeds),))
    module = import_module(f"resnetkit.studies.{name}")
    study = replace(module.STUDY, quick=replace(module.STUDY.quick, sweeps=sweeps, **fields))
    monkeypatch.setattr(module, "STUDY", study)
    return study


def tiny_study(monkeypatch: pytest.MonkeyPatch, name: str) -> Study:
    """Any of the studies with three rows or more that take seconds each; all but `responses` with a single seed."""
    match name:
        case "degradation":
            grid = combinations(depth=(8, 14), lr=(0.1,), network=("plain", "residual"))
            return shrink(monkeypatch, name, *grid, recipe={"epochs": 1})
        case "depth":
            return shrink(monkeypatch, name, *combinations(depth=(8, 14, 20)), recipe={"epochs": 1})
        case "gradients":
            shapes = ("plain", "residual", "preactivation")
            grid = combinations(batchnorm=(True,), init=("he",), depth=(8, 14), shape=shapes)
            return shrink(monkeypatch, name, *grid)
        case "lesion":
            grid = [*combinations(network=("residual", "plain"), depth=(14,)), {"network": "residual", "depth": 20}]
            return shrink(monkeypatch, name, *grid, counts=(2,), draws=2, recipe={"epochs": 1})
        case "responses":
            recipe = {"steps": 3, "data": {"batch_size": 32}, "augment": {"flip": False}}
            nets = combinations(shape=("plain", "residual"), depth=(8,))
            return shrink(monkeypatch, name, *nets, seeds=3, recipe=recipe)
        case "shortcuts":
            grid = combinations(depth=(8,), lr=(0.1,), shortcut=("none", "A", "B", "C"))
            return shrink(monkeypatch, name, *grid, recipe={"epochs": 1})
        case "tutorials":
            return tiny_tutorials(monkeypatch)
        case "unknown":
            grid = combinations(left_out=("0", "1", "none"))
            return shrink(monkeypatch, name, *grid, recipe={"epochs": 1, "model": NETS})
    raise ValueError(f"{name} has no small form: every study needs one here")


def tiny_tutorials(monkeypatch: pytest.MonkeyPatch) -> Study:
    """The whole of it, for a single seed."""
    from resnetkit.studies.tutorials import D2L, SWEEPS

    forward, trained = SWEEPS
    # Not narrower: with one thread, oneDNN corrupts the heap in strided 1x1 convolutions of less than 8 channels.
    own = {"epochs": 1, "model": D2L | {"widths": (8,) * 4, "stem_width": 8}}
    borrowed = {"epochs": 1, "model": {"name": "resnet20"} | NETS}
    sweeps = (forward, Sweep(trained.settings, 1))
    return shrink(monkeypatch, "tutorials", sweeps=sweeps, size=16, borrowed=borrowed, recipe=own, learnt=60)
