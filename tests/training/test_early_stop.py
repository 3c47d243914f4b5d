"""Early stopping: against a count by hand over the journal of the same run without it."""

import json
import shutil
from pathlib import Path

import pytest

import resnetkit as rk
from conftest import TINY
from faults.harness import run
from faults.runs import assert_same
from resnetkit.errors import UsageError
from resnetkit.training.early_stop import EarlyStop

WILD = {
    "data": {"limit": 100, "batch_size": 25},
    "epochs": 12,
    "quiet": True,
    "optim": {"lr": 0.5, "schedule": "constant", "warmup": "0%", "ema": 0.0},
    **TINY,
}
"""At such a rate validation goes up and down."""


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def expected_end(epochs: list[dict], patience: int, min_delta: float) -> tuple[int, int]:
    """The epoch that a run ends with, and the last that counted, both from 1, in the plainest words."""
    counted, best_top1, best_loss = 0, -1000.0, 0.0
    for number, row in enumerate(epochs, 1):
        top1, loss = row["validation_top1"], row["validation_loss"]
        if min_delta:
            better = top1 > best_top1 + min_delta
        else:
            better = top1 > best_top1 or (top1 == best_top1 and loss < best_loss)
        if better:
            counted, best_top1, best_loss = number, top1, loss
        elif number - counted == patience:
            return number, counted
    return len(epochs), counted


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    rk.train("digits", out=folder, **WILD)
    return rows(folder)[:-1]


@pytest.mark.parametrize(("patience", "min_delta"), [(1, 0.0), (2, 0.0), (2, 20.0)])
def test_a_run_ends_where_a_count_by_hand_says(patience: int, min_delta: float, whole, tmp_path: Path, capfd) -> None:
    ends, counted = expected_end(whole, patience, min_delta)
    assert ends < 12
    stop = {"patience": patience, "min_delta": min_delta}
    trained = rk.train("digits", out=tmp_path / "run", early_stop=stop, **WILD | {"quiet": False})
    assert trained.metrics["steps"] == 4 * ends
    times = f"{patience} validation" + "s" * (patience > 1)
    why = f"no better than epoch {counted} for {times}"
    assert rows(tmp_path / "run")[-2]["why"] == why
    assert f"stopped at epoch {ends}: {why}" in capfd.readouterr().err
    before = [row | {"seconds": 0, "images_per_second": 0} for row in whole[:ends]]
    assert [row | {"seconds": 0, "images_per_second": 0} for row in rows(tmp_path / "run")[:ends]] == before


def test_a_longer_patience_goes_on_with_leave(tmp_path: Path) -> None:
    first = rk.train("digits", out=tmp_path / "run", early_stop={"patience": 1}, **WILD)
    again = {"out": tmp_path / "run", "resume": True, "quiet": True, "early_stop": {"patience": 50}}
    with pytest.raises(UsageError, match=r"early_stop.patience has changed .*--allow-change early_stop.patience"):
        rk.train(**again)
    longer = rk.train(**again, allow_change=["early_stop.patience"])
    assert longer.metrics["steps"] == 48 > first.metrics["steps"]


def test_what_has_been_waited_for_is_kept_when_the_run_is_killed(whole, tmp_path: Path) -> None:
    """The oracle: the same run, not interrupted; the checkpoint before its last is where the other goes on."""
    ends, _ = expected_end(whole, 2, 0.0)
    settings = {**WILD, "early_stop": {"patience": 2}, "checkpoint": {"keep": 20}}
    done = run(direct={"out": tmp_path / "whole", **settings})
    assert done.code == 0, done.err
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "model")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / f"step-{4 * ends:08d}")
    done = run(direct={"out": tmp_path / "killed", "resume": True, **settings})
    assert done.code == 0, done.err
    assert_same(tmp_path / "killed", tmp_path / "whole")


def test_the_head_alone_is_what_fine_tuning_has_to_beat() -> None:
    stop = EarlyStop(2)
    view = type("View", (), {"epoch": 1.0})
    assert stop.on_validation(view, {"top1": 50.0, "best": False}) is None
    assert (
        stop.on_validation(view, {"top1": 60.0, "best": False}).why == "no better than the head alone for 2 validations"
    )
