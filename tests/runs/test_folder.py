"""A run's folder is its own: no other run writes into it, and no other run's checkpoint is taken for its own."""

import shutil
from datetime import datetime
from pathlib import Path

import pytest

import resnetkit as rk
from conftest import TINY
from resnetkit.errors import CheckpointError
from resnetkit.runs import folder
from resnetkit.runs.folder import open_run

BRIEF = {"steps": 4, "checkpoint": {"every_steps": 2, "keep": 9}, "data": {"limit": 100, "batch_size": 20}, **TINY}


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs that differ in their seed alone."""
    home = tmp_path_factory.mktemp("seeds")
    for seed in (0, 1):
        rk.train("digits", out=home / str(seed), seed=seed, quiet=True, **BRIEF)
    return home / "0", home / "1"


def test_runs_that_begin_in_one_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Noon(datetime):
        @classmethod
        def now(cls, tz=None) -> datetime:
            return cls(2026, 1, 1, 12)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder, "datetime", Noon)
    opened = [open_run("digits", None, out=None, resume=False, changes={}) for _ in range(3)]
    assert not (tmp_path / "runs").exists()
    claimed = [run.claimed() for run in opened]
    names = ["digits-20260101-120000", "digits-20260101-120000-2", "digits-20260101-120000-3"]
    assert [run.folder for run in claimed] == [Path("runs") / name for name in names]
    trained = rk.train("digits", quiet=True, **BRIEF)
    assert trained.folder == Path("runs/digits-20260101-120000-4/model")
    assert claimed[1].claimed() == claimed[1]


def stopped_early(run: Path, copy: Path) -> Path:
    """A copy of a run as if it had been stopped behind its second step."""
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "model")
    shutil.rmtree(copy / "checkpoints" / "step-00000004")
    return copy


def test_checkpoints_of_another_run_are_refused(two_seeds: tuple[Path, Path], tmp_path: Path) -> None:
    ours, theirs = two_seeds
    copy = stopped_early(ours, tmp_path / "run")
    shutil.rmtree(copy / "checkpoints")
    shutil.copytree(theirs / "checkpoints", copy / "checkpoints")
    with pytest.raises(CheckpointError, match=r"does not belong to the run .* another run has written it"):
        rk.train(out=copy, resume=True, quiet=True)


def test_a_checkpoint_of_another_run_is_passed_over_for_an_older_one_of_our_own(
    two_seeds: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It ends in the weights of the run that was not disturbed."""
    ours, theirs = two_seeds
    copy = stopped_early(ours, tmp_path / "run")
    shutil.copytree(theirs / "checkpoints" / "step-00000004", copy / "checkpoints" / "step-00000004")
    rk.train(out=copy, resume=True)
    said = capfd.readouterr().err
    assert "left out: the checkpoint does not belong to the run" in said
    assert "resumed   at step 2" in said
    ends = [each / "checkpoints" / "step-00000004" / "model.safetensors" for each in (ours, copy)]
    assert ends[0].read_bytes() == ends[1].read_bytes()


def test_a_run_without_its_identity_goes_on_and_keeps_that_of_its_checkpoints(
    two_seeds: tuple[Path, Path], tmp_path: Path
) -> None:
    ours, theirs = two_seeds
    copy = stopped_early(ours, tmp_path / "run")
    (copy / "images.safetensors").unlink()
    rk.train(out=copy, resume=True, quiet=True)
    shutil.rmtree(copy / "checkpoints" / "step-00000004")
    shutil.copytree(theirs / "checkpoints" / "step-00000004", copy / "checkpoints" / "step-00000004")
    reopened = open_run(None, None, out=copy, resume=True, changes={})
    assert reopened.reached is not None
    assert reopened.reached.step == 2
    assert reopened.identity == reopened.reached.run != ""
