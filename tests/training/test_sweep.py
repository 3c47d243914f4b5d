"""Sweeps of tiny runs. Oracles: plain runs with the same settings, `evaluate`, and the files that are left."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import resnetkit as rk
from conftest import TINY
from resnetkit.data.load import load_data
from resnetkit.errors import CheckpointError, DivergedError, UsageError
from resnetkit.evaluation.intervals import wilson
from resnetkit.training import sweep as sweeping
from resnetkit.training import train as training

FEW = {"steps": 8, "data": {"limit": 200, "batch_size": 32}, "precision": "fp32", **TINY}
GRID = {"optim.lr": [0.001, 0.1], "seed": [0, 1]}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> rk.training.sweep.Sweep:
    return rk.sweep("digits", GRID, out=tmp_path_factory.mktemp("sweeps") / "one", quiet=True, **FEW)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Nothing is to be trained; what would be is noted."""
    begun: list[Path] = []

    def train(*_: Any, out: Path, **__: Any) -> None:
        begun.append(out)
        raise DivergedError("it was to be trained")

    monkeypatch.setattr(sweeping, "train", train)
    return begun


def test_a_row_is_the_run_that_train_makes_but_for_the_test_split(swept, tmp_path: Path) -> None:
    row = next(row for standing in swept.ranking for row in standing.rows if row.settings["optim.lr"] == 0.1)
    alone = rk.train("digits", out=tmp_path / "alone", quiet=True, seed=row.settings["seed"], optim={"lr": 0.1}, **FEW)
    same = rk.load(swept.folder / row.folder)
    assert row.top1 == pytest.approx(alone.metrics["validation"]["top1"], abs=1e-4)
    assert row.loss == pytest.approx(alone.metrics["validation"]["loss"], rel=1e-5)
    mine, theirs = same.network.state_dict(), alone.network.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_settings_are_ranked_by_the_mean_over_their_seeds(swept) -> None:
    assert [standing.settings["optim.lr"] for standing in swept.ranking] == [0.1, 0.001]
    for standing in swept.ranking:
        assert sorted(row.settings["seed"] for row in standing.rows) == [0, 1]
        assert standing.top1 == pytest.approx(sum(row.top1 for row in standing.rows) / 2)
        assert (standing.low, standing.high) == wilson(standing.top1 / 100 * swept.count, swept.count)
    assert swept.ranking[0].p is None
    assert 0 <= swept.ranking[1].p <= 1


def test_the_winner_alone_has_figures_of_the_test_split(swept) -> None:
    winner = rk.load(swept.best)
    figures = rk.evaluate(winner, "digits")
    assert swept.opened == 1
    assert (swept.test["count"], swept.test["top1"]) == (359, figures["top1"])
    assert (winner.metrics["split"], winner.metrics["top1"]) == ("test", figures["top1"])
    assert winner.metrics["validation"]["top1"] == pytest.approx(swept.ranking[0].rows[0].top1, abs=1e-4)
    runs = [swept.folder / row.folder for standing in swept.ranking for row in standing.rows]
    others = [folder for folder in runs if folder != swept.best]
    assert len(others) == 3
    for folder in others:
        assert rk.load(folder).metrics["split"] == "validation"
        assert "test" not in (folder / "metrics.jsonl").read_text()


def test_the_table_has_a_line_for_each_row(swept) -> None:
    rows = list(csv.DictReader((swept.folder / "rows.csv").read_text().splitlines()))
    assert [(float(row["optim.lr"]), row["run"]) for row in rows] == [
        (row.settings["optim.lr"], row.folder) for standing in swept.ranking for row in standing.rows
    ]


def test_the_same_sweep_again_trains_nothing_and_opens_nothing(swept, no_training, monkeypatch) -> None:
    monkeypatch.setattr(sweeping, "score", None)
    again = rk.sweep("digits", GRID, out=swept.folder, quiet=True, **FEW)
    assert json.dumps(again.to_dict()) == json.dumps(swept.to_dict())
    assert no_training == []


def test_another_grid_adds_its_rows_to_those_that_are_there(swept, no_training) -> None:
    before = {path: path.read_bytes() for path in swept.folder.glob("*-*/model/*")}
    kept = (swept.folder / "sweep.json").read_bytes()
    more = rk.sweep("digits", {"seed": [1, 0], "optim.lr": [0.1, 0.02, 0.001]}, out=swept.folder, quiet=True, **FEW)
    assert [folder.name.rpartition("-")[0] for folder in no_training] == ["lr-0.02_seed-1", "lr-0.02_seed-0"]
    assert (more.rows, len(more.ranking), len(more.failed), more.opened) == (6, 2, 2, 1)
    assert {path: path.read_bytes() for path in before} == before
    (swept.folder / "sweep.json").write_bytes(kept)


class Sealed:
    """A test split that nobody may look at."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the test split was opened: {name}")

    def __len__(self) -> int:
        raise AssertionError("the test split was opened")


@pytest.mark.parametrize("recipe", ["digits", "head"])
def test_the_test_split_is_not_read_before_all_rows_are_done(recipe: str, tmp_path: Path, monkeypatch) -> None:
    for module in (training, sweeping):
        monkeypatch.setattr(module, "load_data", lambda *given, **how: replace(load_data(*given, **how), test=Sealed()))
    grid, few = ({"seed": [0, 1]}, FEW) if recipe == "digits" else ({"weights": ["resnet8.digits"]}, {})
    with pytest.raises(AssertionError, match="the test split was opened"):
        rk.sweep("digits", grid, recipe, out=tmp_path / "out", quiet=True, **few)
    kept = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [row["count"] for row in kept["rows"].values()] == [143] * len(next(iter(grid.values())))
    assert len(kept["opened"]) == 1
    assert kept["test"] == {}


def test_a_row_that_fails_is_a_row_with_its_reason(tmp_path: Path, capfd) -> None:
    grid = {"weights": ["none", "gone.safetensors"], "optim.lr": [0.1, 1e30]}
    found = rk.sweep("digits", grid, out=tmp_path / "out", **{**FEW, "data": {"batch_size": 32, "limit": 100}})
    assert (found.rows, len(found.ranking), len(found.failed)) == (4, 1, 3)
    assert sorted(why.partition(":")[0] for why in found.failed.values()) == [
        "the loss is no longer finite by step 3",
        *2 * ["there is no model in gone.safetensors"],
    ]
    said = capfd.readouterr().err
    assert "for the 3 rows that are left" in said
    rk.sweep("digits", grid, out=tmp_path / "out", **{**FEW, "data": {"batch_size": 32, "limit": 100}})
    assert capfd.readouterr().err.count("failed:") == 2  # it would diverge again; the file may have come


def test_where_no_row_comes_to_its_end_the_sweep_has_failed(tmp_path: Path) -> None:
    for name, grid, kind in (("one", {"optim.lr": 1e30}, DivergedError), ("two", {"weights": "gone.pth"}, UsageError)):
        with pytest.raises(kind, match="no row came to its end"):
            rk.sweep("digits", grid, out=tmp_path / name, quiet=True, **FEW)


def test_other_images_are_another_sweep(swept, tmp_path: Path) -> None:
    with pytest.raises(rk.errors.DataError, match="the validation images are others"):
        rk.sweep("digits", GRID, out=swept.folder, quiet=True, **{**FEW, "data": {"validation": 0.2}})


MISTAKES = {
    "no key": ({"optim.lrr": [1]}, {}, "optim.lr"),
    "no value": ({"optim.lr": []}, {}, "optim.lr has no value"),
    "decides nothing": ({"data.workers": [0, 2]}, {}, "it decides nothing of the result"),
    "other images": ({"data.validation": [0.1, 0.2]}, {}, "data.validation is not swept"),
    "out of range": ({"optim.lr": [0.1, -1]}, {}, "optim.lr = -1 cannot be"),
    "idle in every row": ({"optim.gamma": [0.1, 0.2]}, {}, "--optim.gamma would change nothing here"),
    "two names": ({"model": ["resnet20"], "model.name": ["resnet32"]}, {}, "model and model.name are two"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_grid_that_cannot_be_is_refused_before_anything_is_trained(name: str, tmp_path: Path, no_training) -> None:
    grid, changes, line = MISTAKES[name]
    with pytest.raises(UsageError, match=line):
        rk.sweep("digits", grid, out=tmp_path / "out", quiet=True, **changes)
    assert not (tmp_path / "out").exists()
    assert no_training == []


def test_folders_of_others_are_left_alone(tmp_path: Path, digits_run: Path) -> None:
    with pytest.raises(UsageError, match="holds other files"):
        rk.sweep("digits", GRID, out=digits_run, quiet=True, **FEW)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="it is a file"):
        rk.sweep("digits", GRID, out=tmp_path / "file", quiet=True, **FEW)


@pytest.mark.parametrize("content", ["", "[]", '{"rows": {}}', "x"])
def test_a_damaged_book_is_told_in_a_line(content: str, tmp_path: Path, no_training) -> None:
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"the sweep's book is damaged in .*sweep\.json"):
        rk.sweep("digits", GRID, out=tmp_path, quiet=True, **FEW)
    assert (tmp_path / "sweep.json").read_text() == content


def test_several_processes_are_refused_in_a_line(tmp_path: Path, cli, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="a sweep runs in one process"):
        rk.sweep("digits", GRID, out=tmp_path / "out", **FEW)
