"""A run folder written by the former version (commit 2216ba6, torch 2.15) still loads, scores the same, and goes on.

resnetkit train digits --model resnet20 --model.shortcut B --model.depths 1 1 --model.widths 4 8 --model.strides 1 2
    --model.stem-width 4 --steps 8 --seed 3 --precision fp32 --device cpu --checkpoint.every-steps 4
    --data.batch-size 64 --out former
"""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

import resnetkit as rk
from conftest import TINY
from resnetkit.errors import CheckpointError
from resnetkit.runs.folder import open_run

FORMER = Path(__file__).parent / "former"


def test_its_model_scores_what_its_journal_says(tmp_path: Path) -> None:
    said = json.loads((FORMER / "metrics.jsonl").read_text().splitlines()[-1])
    run = shutil.copytree(FORMER, tmp_path / "run")  # which keeps a count of who opens its test split
    found = rk.evaluate(rk.load(run, device="cpu", precision="fp32"), "digits")
    assert {name: found[name] for name in ("count", "top1", "top5")} == {
        name: said[name] for name in ("count", "top1", "top5")
    }
    assert found["loss"] == pytest.approx(said["loss"], rel=1e-6)


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """As if killed behind step 4: the weights of step 8 are those that the former version reached."""
    run = tmp_path / "run"
    shutil.copytree(FORMER, run)
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / "step-00000008")
    done = rk.train(out=run, resume=True, quiet=True)
    assert done.metrics["steps"] == 8
    theirs, ours = (
        safetensors.torch.load_file(each / "checkpoints" / "step-00000008" / "model.safetensors")
        for each in (FORMER, run)
    )
    assert theirs.keys() == ours.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6)


def as_of_a_former_version(checkpoint: Path) -> None:
    """It did not write which run it is of."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    del manifest["run"]
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def former_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of two epochs that differ in their seed alone, stopped behind the first, as formerly."""
    home = tmp_path_factory.mktemp("former")
    for seed in (0, 1):
        settings = {"checkpoint": {"keep": 9}, "data": {"limit": 100, "batch_size": 20}, **TINY}
        rk.train("digits", out=home / str(seed), seed=seed, quiet=True, epochs=2, **settings)
        shutil.rmtree(home / str(seed) / "model")
        shutil.rmtree(home / str(seed) / "checkpoints" / "step-00000010")
        for each in (home / str(seed) / "checkpoints").iterdir():
            as_of_a_former_version(each)
        (home / str(seed) / "images.safetensors").unlink()
    return home / "0", home / "1"


def test_a_former_checkpoint_of_another_run_is_not_used(former_runs: tuple[Path, Path], tmp_path: Path) -> None:
    """What it says of the best epoch is not in our journal."""
    ours, theirs = former_runs
    copy = tmp_path / "run"
    shutil.copytree(ours, copy)
    assert open_run(None, None, out=copy, resume=True, changes={}).reached.step == 5
    shutil.rmtree(copy / "checkpoints" / "step-00000005")
    shutil.copytree(theirs / "checkpoints" / "step-00000005", copy / "checkpoints" / "step-00000005")
    opened = open_run(None, None, out=copy, resume=True, changes={})
    assert any("does not belong to the run" in note for note in opened.notes)
    shutil.rmtree(copy / "checkpoints" / "step-00000000")
    with pytest.raises(CheckpointError, match=r"the journal knows no epoch as it has it, of step 5.*start anew"):
        rk.train(out=copy, resume=True, quiet=True)


def test_a_former_checkpoint_of_before_the_first_epoch_cannot_come_behind_it(
    former_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    ours, theirs = former_runs
    copy = tmp_path / "run"
    shutil.copytree(ours, copy)
    shutil.rmtree(copy / "checkpoints")
    early = shutil.copytree(theirs / "checkpoints" / "step-00000000", copy / "checkpoints" / "step-00000007")
    manifest = json.loads((early / "manifest.json").read_text()) | {"step": 7}
    (early / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="it knows no epoch, and the journal one at step 5"):
        open_run(None, None, out=copy, resume=True, changes={})


def test_one_that_says_nothing_of_its_run_is_used_and_it_is_said(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(FORMER, run)
    shutil.rmtree(run / "checkpoints" / "step-00000008")
    (run / "metrics.jsonl").unlink()
    opened = open_run(None, None, out=run, resume=True, changes={})
    assert opened.reached.step == 4
    assert any("does not say of which run" in note for note in opened.notes)
