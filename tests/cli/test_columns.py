"""What every command really says, on a terminal of 80 columns: nothing is wider, and nothing is cut off.

Paths and names are short here; one that is longer than a line stays whole.
"""

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

import progress
import resnetkit as rk
from pictures import draw, fill
from resnetkit.cli.app import COMMANDS
from resnetkit.training.progress import EPOCHS, epoch_line

SMALL = ("--model.depths", "1,1", "--model.widths", "8,16", "--model.strides", "1,2", "--model.stem-width", 8)
LOOK = ("--data.image-size", 32, "--data.resize", 32)
SAID = {
    "train digits": ("train", "--out", "new", "--epochs", 2, *SMALL),
    "train in a folder of its own": ("train", "--epochs", 1, *SMALL),
    "train a folder": (
        *("train", "photos", "--recipe", "scratch", "--model", "resnet20", "--out", "own", "--steps", 3),
        *("--augment.mixup", 0.2, *LOOK, *SMALL),
    ),
    "head": ("train", "photos", "--weights", "resnet20.cifar10", "--recipe", "head", "--out", "head", *LOOK),
    "finetune": ("train", "photos", "--weights", "resnet20.cifar10", "--out", "tuned", "--steps", 2, *LOOK),
    "resume": ("train", "--resume", "--out", "run", "--epochs", 5, "--allow-change", "epochs"),
    "sweep": ("sweep", "--out", "swept", "--steps", 2, *SMALL, "--optim.lr", "0.01,0.1", "--seed", "0,1"),
    "evaluate": ("evaluate", "run", "digits"),
    "compare": ("compare", "run", "resnet8.digits", "digits"),
    "evaluate what is broken": ("evaluate", "resnet20.cifar10", "broken"),
    "predict what is broken": ("predict", "resnet20.cifar10", "broken"),
    "predict": ("predict", "resnet20.cifar10", "photos"),
    "check": ("check", "photos"),
    "shard": ("shard", "photos", "--out", "shards"),
    "summary": ("summary", "resnet152"),
    "summary of a run": ("summary", "run"),
    "list models": ("list", "models"),
    "list recipes": ("list", "recipes"),
    "list weights": ("list", "weights"),
    "list data": ("list", "data"),
}
LONG = {"study", "verify-resume", "demo", "push"}
"""Commands that take half a minute and more, or a hub: they say what others say."""


@pytest.fixture
def here(digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pictures and a run."""
    shutil.copytree(digits_run, tmp_path / "run")
    fill(tmp_path / "photos" / "train", 6)
    fill(tmp_path / "photos" / "val", 3, first=100)
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "broken" / name).mkdir(parents=True)
        draw("red", number, (32, 32)).save(tmp_path / "broken" / name / "0.png")
    (tmp_path / "broken" / "cat" / "a picture whose download broke off.png").write_bytes(b"rubbish")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESNETKIT_DATA", "data")
    return tmp_path


@pytest.mark.parametrize("name", SAID)
def test_nothing_is_wider_than_80_columns(name: str, here: Path, cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = cli(*SAID[name])
    assert done.code == 0, done.err
    lines = [*done.out.splitlines(), *done.err.splitlines()]
    assert lines
    assert not [line for line in lines if len(line.rstrip()) > 80]


def test_all_commands_are_looked_at() -> None:
    assert {words[0] for words in SAID.values()} | LONG >= set(COMMANDS)


def test_lists_are_whole_at_80_columns(here: Path, cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name can be typed as it stands: it loads, or the table of weights has it."""
    from resnetkit.weights.table import OWN, WEIGHTS

    monkeypatch.setenv("COLUMNS", "80")
    models, weights = cli("list", "models").out, cli("list", "weights").out
    assert set(rk.list_models()) <= set(models.split())
    named = [name for name in (*WEIGHTS, *OWN) if name.partition(".")[0] in rk.list_models()]
    assert set(named) <= set(models.split())
    assert {*WEIGHTS, *OWN, "torchvision", "cached"} <= set(weights.split())
    assert set(models.split()) & set(WEIGHTS) == set(WEIGHTS)


def test_the_longest_line_of_an_epoch_fits() -> None:
    row = {"train_loss": 1234.567, "train_top1": 100.0, "validation_loss": 1234.567, "validation_top1": 100.0}
    line = epoch_line(row | {"images_per_second": 123_456.7, "seconds": 5e5}, "12345", "12345", best=True)
    assert len(line) <= 80
    assert len(EPOCHS) == len(line)


def test_the_result_is_told_once(here: Path, cli) -> None:
    told = cli(*SAID["train digits"])
    assert told.out.count("top-1") == 2
    assert told.out.count("test top-1") == told.out.count("validation top-1") == 1
    assert "test top-1" not in told.err


def test_python_is_told_the_result_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    small = {"depths": (1, 1), "widths": (8, 16), "strides": (1, 2), "stem_width": 8}
    rk.train("digits", out=tmp_path / "run", steps=1, model=small)
    said = capfd.readouterr()
    assert (said.err.count("test top-1"), said.out) == (1, "")


def test_whole_epochs_are_whole_numbers_and_the_validation_loss_is_there(here: Path, cli) -> None:
    """The digits' 1,295 images make 20.2 batches of 64: the step that ends an epoch is a little beyond it."""
    said = cli(*SAID["train digits"]).err.splitlines()
    heading = next(place for place, line in enumerate(said) if "validation loss" in line)
    rows = [line.split() for line in said[heading + 1 :] if "/" in line and "about" not in line]
    assert [row[0] for row in rows] == ["1/2", "2/2"]
    journal = map(json.loads, (here / "new" / "metrics.jsonl").read_text().splitlines())
    losses = [f"{row['validation_loss']:.3f}" for row in journal if row["event"] == "epoch"]
    assert [row[3] for row in rows] == losses


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no terminals")
def test_on_a_real_terminal_of_80_columns_long_lines_are_set_in(here: Path) -> None:
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    words = [sys.executable, "-m", "resnetkit", "summary", "resnet8.digits"]
    surroundings = {key: value for key, value in os.environ.items() if key != "COLUMNS"} | {"TERM": "xterm"}
    process = subprocess.Popen(words, stdout=child, stderr=child, env=surroundings)
    os.close(child)
    said = b""
    try:
        while part := os.read(parent, 4096):
            said += part
    except OSError:  # its other end has been closed
        pass
    progress.finish(process)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", said.decode()).splitlines()
    assert lines[0].startswith("resnet8.digits: resnet20 changed: depths 1,1,1")
    assert lines[1].startswith("  ")
    assert max(map(len, lines)) <= 80


def test_a_file_has_no_columns(here: Path) -> None:
    surroundings = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    done = progress.run([sys.executable, "-m", "resnetkit", "summary", "resnet8.digits"], env=surroundings)
    assert done.stdout.splitlines()[0].endswith("input 1 x 8 x 8")
