"""What reaches a terminal, and what a stream that is closed, full or not UTF-8 gets.

Names are those of real files and folders; the streams are real ones too.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import progress
import resnetkit as rk
from conftest import TINY
from pictures import draw

SMALL = ("--model.depths", 1, "--model.depths", 1, "--model.widths", 8, "--model.widths", 16, "--model.strides", 1)
SMALL += ("--model.strides", 2, "--model.stem-width", 8, "--data.image-size", 16, "--data.resize", 16, "--steps", 2)
SMALL += ("--data.workers", 0, "--recipe", "cifar10-paper", "--data.max-unreadable", 0.5)

TITLE = "title\x1b]0;owned\x07\x9b31m"
LINE = "new\nline"
RIGHT = "\u202eright\u2066[bold]:cat:"
NOT_UTF8 = "caf\udce9"
CLASSES = (TITLE, LINE, RIGHT, NOT_UTF8)
BROKEN = "\x1b[2J\u202e.png"


def album(root: Path, classes: tuple[str, ...], count: int = 5) -> Path:
    """A folder with a few pictures of each class."""
    for place, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(count):
            draw("red", 10 * place + number, (16, 16)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in folders that a stranger has named, and a run on them, in folders of such names."""
    root = tmp_path_factory.mktemp("wild")
    photos = album(root / "photos\x1b[8m", CLASSES)
    (photos / TITLE / BROKEN).write_bytes(b"rubbish")
    settings = {"data": {"image_size": 16, "resize": 16, "workers": 0, "max_unreadable": 0.5}} | TINY
    rk.train(photos, "cifar10-paper", out=root / f"run{NOT_UTF8}\x1b[7m", quiet=True, steps=2, **settings)
    return root


def harmless(text: str) -> bool:
    """Whether it does no more than to be read, line by line."""
    return all(line.isprintable() for line in text.split("\n"))


COMMANDS = {
    "train": ("train", "{photos}", "--out", "{out}", *SMALL),
    "evaluate": ("evaluate", "{run}", "{photos}", "--include-seen", "--workers", 0),
    "predict": ("predict", "{run}", "{photos}"),
    "check": ("check", "{photos}", "--workers", 1),
    "shard": ("shard", "{photos}", "--out", "{out}"),
    "summary": ("summary", "{run}"),
    "no such folder": ("train", "{out}"),
    "no model": ("predict", "{photos}", "{photos}"),
    "unknown command": ("{out}",),
    "not a number": ("train", "--steps", "{out}"),
}


@pytest.mark.parametrize("kind", [(), ("--json",)])
@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_stranger_named_does_nothing_to_a_terminal(name: str, kind: tuple, wild: Path, tmp_path: Path, cli):
    places = {
        "photos": wild / "photos\x1b[8m",
        "run": wild / f"run{NOT_UTF8}\x1b[7m",
        "out": tmp_path / f"out\x1b]0;owned\x07\u202e{NOT_UTF8}",
    }
    done = cli(*(str(word).format(**places) for word in COMMANDS[name]), *kind)
    assert harmless(done.out + done.err)
    assert done.code == (2 if name in ("no model", "unknown command", "not a number") else 3 * (name[:2] == "no"))
    assert len(done.err.splitlines()) == 1 or not done.code
    if kind and not done.code:
        rows = [json.loads(line) for line in done.out.splitlines()]
        assert rows
        told = json.dumps(rows)
        expected = {"train": places["out"], "shard": TITLE, "check": BROKEN, "predict": LINE, "evaluate": BROKEN}
        assert json.dumps(str(expected.get(name, places["run"])))[1:-1] in told


def test_a_name_is_not_taken_for_markup_or_for_an_emoji(wild: Path, cli) -> None:
    done = cli("predict", wild / f"run{NOT_UTF8}\x1b[7m", wild / "photos\x1b[8m" / RIGHT / "0.png")
    assert r"\u202eright\u2066[bold]:cat:" in "".join(done.out.split())


def test_a_class_whose_name_is_not_utf8_is_trained_saved_and_answered(wild: Path, cli) -> None:
    """Linux allows any bytes in a name. What Python makes of them is what `os.fsencode` turns back."""
    run = wild / f"run{NOT_UTF8}\x1b[7m"
    classifier = rk.load(run)
    assert set(classifier.classes) == set(CLASSES)
    (row,) = map(json.loads, cli("predict", run, wild / "photos\x1b[8m" / NOT_UTF8 / "0.png", "--json").out.splitlines())
    assert {each["label"] for each in row["top"]} <= set(CLASSES)
    assert b"caf\xe9" in os.fsencode(row["file"])
