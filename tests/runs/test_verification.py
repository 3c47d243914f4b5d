"""`verify-resume` on real processes, and that it would notice."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from readme import COMMANDS_OF_THE_README
from resnetkit.errors import ResnetkitError
from resnetkit.runs import checkpoint, verification


def test_a_killed_run_is_found_to_go_on_exactly(cli) -> None:
    """By the command that the README has, on fewer images."""
    (line,) = (line for line in COMMANDS_OF_THE_README if "verify-resume" in line)
    done = cli(*line.split("#")[0].split()[1:], "--limit", 100, "--json")
    verdict = json.loads(done.out)
    assert done.code == 0
    assert verdict["exact"]
    assert verdict["differences"] == []
    assert 0 < verdict["resumed_from"] < verification.STEPS
    assert verdict["tensors"] > 100  # network, momentum, average and best weights


def test_one_bit_and_one_figure_are_noticed(digits_run: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_run, tmp_path / "run")
    first, _ = checkpoint.newest(digits_run / "checkpoints")
    second, _ = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert verification._differences(first, second) == []
    second.tensors["optimizer"]["0.momentum_buffer"].view(torch.int32).view(-1)[3] ^= 1
    assert verification._differences(first, second) == ["optimizer.0.momentum_buffer"]
    journal = tmp_path / "run" / "metrics.jsonl"
    assert verification._lines_that_differ(digits_run, tmp_path / "run") == []
    journal.write_text(journal.read_text().replace('"seconds": ', '"seconds": 1'))
    assert verification._lines_that_differ(digits_run, tmp_path / "run") == []
    journal.write_text(journal.read_text().replace('"train_loss": ', '"train_loss": 1', 1))
    assert verification._lines_that_differ(digits_run, tmp_path / "run") == ["line 1 of the journal"]


def test_a_recipe_that_cannot_run_says_why(tmp_path: Path) -> None:
    with pytest.raises(ResnetkitError, match=r"no such folder") as raised:
        verification.verify_resume("scratch", data=tmp_path / "nowhere")
    assert raised.value.exit_code == 3
