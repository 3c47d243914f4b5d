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

FORMER = Path(__file__).parent / "former"


def test_its_model_scores_what_its_journal_says() -> None:
    said = json.loads((FORMER / "metrics.jsonl").read_text().splitlines()[-1])
    found = rk.evaluate(rk.load(FORMER, device="cpu", precision="fp32"), "digits")
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
