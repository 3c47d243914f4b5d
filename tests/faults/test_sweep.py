"""A sweep that is killed goes on: the same ranking, the same weights, and no row is run twice."""

import json
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from faults import plants
from faults.harness import Ended, run, unchanged
from faults.runs import begin, rows, without_times

STEPS = 4
"""Of each run; there are three."""


def command(home: Path, out: Path) -> tuple[object, ...]:
    recipe = begin("short", home, out, data={"batch_size": 25})["recipe"]
    return ("sweep", "--recipe", recipe, "--optim.lr", "0.001,0.05,0.1", "--out", out, "--json")


def told(ended: Ended, out: Path) -> Any:
    assert ended.code == 0, ended.err
    return without_times(json.loads(ended.out.replace(str(out), "OUT")))


@pytest.fixture(scope="module")
def whole(home: Path) -> tuple[Any, Path]:
    """What an undisturbed sweep says, and its folder."""
    out = home / "whole sweep"
    return told(run(*command(home, out)), out), out


def same_runs(out: Path, whole: Path) -> None:
    """Equal journals, and equal weights, row by row."""
    folders = sorted(path.parent.name for path in whole.glob("*/recipe.toml"))
    assert sorted(path.parent.name for path in out.glob("*/recipe.toml")) == folders
    for name in folders:
        assert rows(out / name) == rows(whole / name)
        weights = [(each / name / "model" / "model.safetensors").read_bytes() for each in (out, whole)]
        assert weights[0] == weights[1]


@pytest.mark.parametrize(
    "step", [STEPS + 2, pytest.param(1, marks=pytest.mark.slow), pytest.param(2 * STEPS, marks=pytest.mark.slow)]
)
def test_killed_within_a_row(step: int, whole: tuple[Any, Path], home: Path) -> None:
    expected, undisturbed = whole
    out = home / "killed sweep"
    shutil.rmtree(out, ignore_errors=True)
    killed = run(*command(home, out), plant=partial(plants.before_step_of_all, step, plants.kill))
    assert killed.code == -9
    done = [row["folder"] for row in json.loads((out / "sweep.json").read_text())["rows"].values()]
    assert len(done) == step // STEPS
    kept = {name: {file: file.read_bytes() for file in (out / name).rglob("*") if file.is_file()} for name in done}
    ended = run(*command(home, out))
    assert told(ended, out) == expected
    assert ended.err.count("row  ") == 3 - len(done)
    winner = Path(expected["best"]["run"]).name
    for name, files in kept.items():
        for file, content in files.items():
            assert file.read_bytes() == content or (name == winner and file.name == "config.json")
    same_runs(out, undisturbed)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_while_the_book_is_written(every: int, whole: tuple[Any, Path], home: Path) -> None:
    """Before and after each of its versions comes to the disk; by default after the first, and with the test open."""
    expected, undisturbed = whole
    log, recorded = home / "sweep.json", home / "recorded sweep"
    run(*command(home, recorded), plant=partial(plants.record, recorded, log))
    labels = json.loads(log.read_text())
    places = [number for number, label in enumerate(labels) if "sweep.json" in label and "replace" in label]
    assert len(places) == 2 * 6  # it begins, three rows, opening, figures: before and after each
    out = home / "killed sweep"
    for number in places[2::every]:
        shutil.rmtree(out, ignore_errors=True)
        assert run(*command(home, out), plant=partial(plants.at, out, number, plants.kill)).code == -9
        assert told(run(*command(home, out)), out) == expected, labels[number]
    same_runs(out, undisturbed)


def test_ctrl_c_keeps_all_and_says_what_goes_on(whole: tuple[Any, Path], home: Path) -> None:
    expected, _ = whole
    out = home / "stopped sweep"
    act = partial(plants.send, signal.SIGINT)
    stopped = run(*command(home, out), plant=partial(plants.before_step_of_all, STEPS + 2, act))
    assert (stopped.code, stopped.out) == (130, "")
    assert stopped.error.startswith("error: stopped: all rows, and the state of this one, are in")
    assert "the same command" in stopped.error
    assert told(run(*command(home, out)), out) == expected


def test_a_full_disk_ends_the_sweep_and_is_no_row(home: Path) -> None:
    out = home / "full sweep"
    full = run(*command(home, out), plant=partial(plants.fail, out, 60, 28, 10**6, "write"))
    assert (full.code, full.out) == (7, "")
    assert "no space left" in full.error
    shutil.rmtree(out)


def test_two_at_a_time_are_refused(home: Path) -> None:
    out = home / "busy sweep"
    out.mkdir()
    from filelock import FileLock

    with FileLock(out / ".lock"), unchanged(out):
        ended = run(*command(home, out))
    assert (ended.code, ended.out) == (2, "")
    assert "another sweep is at work" in ended.error
