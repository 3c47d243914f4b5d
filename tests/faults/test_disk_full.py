"""T12: a save that cannot be written costs nothing but itself; what had been saved stays, and training goes on."""

import errno
import re
import resource
import shutil
import subprocess
import sys
from functools import partial
from itertools import chain
from pathlib import Path

import pytest

from faults import plants
from faults.harness import run
from faults.runs import assert_same, begin, points, whole
from resnetkit.runs import checkpoint

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)
SMALL_FILES = {resource.RLIMIT_FSIZE: 8192}
IN_A_SAVE = re.compile(r"before (open|write|fsync|rename|mkdir|unlink|rmdir) checkpoints(?<!mkdir checkpoints)")


def calls_of_saves(labels: list[str]) -> list[list[int]]:
    """Points before the calls of each save, but for the first and the last, which must succeed."""
    saves: list[list[int]] = [[]]
    for number, label in enumerate(labels):
        if label == "before forward" and saves[-1]:
            saves.append([])
        elif IN_A_SAVE.match(label):
            saves[-1].append(number)
    return saves[1:-1]


def fail_once(variant: str, number: int, error: int, home: Path) -> None:
    labels, out = points(variant, home), home / "full"
    where = f"{errno.errorcode[error]} at point {number}: {labels[number]}"
    ended = run(direct=begin(variant, home, out), plant=partial(plants.fail, out, number, error))
    assert ended.code == 0, f"{where}\n{ended.err}"
    assert "Training goes on, and the next save tries again." in ended.err, where
    assert ("no space left" in ended.err) == (error in (errno.ENOSPC, errno.EDQUOT)), where
    assert_same(out, whole(variant, home))
    shutil.rmtree(out)


def test_one_failing_call_of_a_save_does_not_change_the_result(home: Path) -> None:
    (calls,) = calls_of_saves(points("short", home))
    assert len(calls) > 25
    for each, number in enumerate(calls):
        fail_once("short", number, ERRORS[each % len(ERRORS)], home)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: errno.errorcode[error])
def test_any_error_of_any_call_of_any_save_does_not_change_the_result(error: int, home: Path) -> None:
    for number in chain.from_iterable(calls_of_saves(points("memory", home))):
        fail_once("memory", number, error, home)


def test_after_three_saves_that_fail_training_ends_and_can_go_on(home: Path) -> None:
    labels, out = points("memory", home), home / "thrice"
    settings = begin("memory", home, out)
    first = calls_of_saves(labels)[0][0]
    plant = partial(plants.fail, out, first, errno.ENOSPC, times=10**6, every="checkpoints")
    ended = run(direct=settings, plant=plant)
    assert ended.code == 7
    assert ended.err.count("Training goes on") == 2
    assert re.match(r"error: cannot save the checkpoint in .*: no space left\. Try: free some space", ended.error)
    assert checkpoint.newest(out / "checkpoints")[0].step == 0
    assert run(direct=settings | {"resume": True}).code == 0
    assert_same(out, whole("memory", home))


@pytest.mark.parametrize(
    "label", ["open checkpoints/", "write metrics.jsonl", "write .recipe.toml", "mkdir checkpoints"]
)
def test_what_must_be_written_ends_the_run_in_one_line(label: str, home: Path) -> None:
    """The first save, the journal, the recipe: exit code 7, and the same command with --resume goes on."""
    out = home / f"must {label.replace('/', ' ')}"
    plant = partial(plants.fail, out, 0, errno.EROFS, every=f"before {label}")
    ended = run(direct=begin("memory", home, out), plant=plant)
    assert ended.code == 7, ended.err
    assert re.match(r"error: cannot .*read-only file system\. Try: another folder with --out$", ended.error, re.I)
    assert not list(out.glob("checkpoints/.*"))
    assert run(direct=begin("memory", home, out) | {"resume": True}).code == 0
    assert_same(out, whole("memory", home))


def test_a_line_of_the_journal_is_there_whole_or_not_at_all(home: Path) -> None:
    """The disk is full after half of the line."""
    out = home / "half a line"
    ended = run(direct=begin("memory", home, out), plant=partial(plants.tear, out, "metrics.jsonl"))
    assert ended.code == 7
    assert "cannot write the journal" in ended.error
    assert (out / "metrics.jsonl").read_bytes() == b""
    assert run(direct=begin("memory", home, out) | {"resume": True}).code == 0
    assert_same(out, whole("memory", home))


def test_an_evaluation_is_written_whole_or_not_at_all(home: Path) -> None:
    """The disk is full at the second of two files, or, by a limit of the system's own, at the first: both stay."""
    out = home / "evaluation"
    out.mkdir()
    for name in ("predictions.csv", "evaluation.json"):
        (out / name).write_text("mine")
    words = ("evaluate", whole("short", home), "digits", "--out", out, "--overwrite")
    second = partial(plants.fail, out, 0, errno.ENOSPC, every="before write .evaluation.json")
    for name, fault in (("evaluation.json", {"plant": second}), ("predictions.csv", {"limits": SMALL_FILES})):
        ended = run(*words, **fault)
        assert (ended.code, ended.out) == (7, ""), ended.err
        assert ended.error.endswith(f"{name}: no space left. Try: free some space, or another --out")
        assert {path.name: path.read_text() for path in out.iterdir()} == dict.fromkeys(
            ("predictions.csv", "evaluation.json"), "mine"
        )


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("unshare"), reason="needs a small disk of its own")
def test_on_a_real_disk_that_is_full_the_last_checkpoint_stays(home: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "none", home]
    if subprocess.run(["unshare", "-Urm", *mount], check=False).returncode:
        pytest.skip("not permitted here")
    disk, copy = home / "disk", home / "copy" / "run"
    disk.mkdir()
    plant = partial(plants.small_disk, disk, "260k", home / "copy")
    done = run(direct=begin("memory", home, disk / "run"), plant=plant)
    assert done.code == 7, done.err
    assert "no space left. Try: free some space and run again with --resume" in done.err
    assert list(disk.iterdir()) == []  # here it is a folder like any other, and empty
    found, damaged = checkpoint.newest(copy / "checkpoints")
    assert found is not None
    assert damaged == []
    assert (copy / "metrics.jsonl").read_bytes()[-1:] in (b"", b"\n")
    assert run(direct=begin("memory", home, copy) | {"resume": True}).code == 0
    assert_same(copy, whole("memory", home))
