"""T4, T5 and T6: asked to stop at any moment, killed, or left by a process that decodes."""

import re
import shlex
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest

from faults import plants
from faults.harness import run
from faults.runs import assert_same, begin, points, whole
from resnetkit.runs import checkpoint

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 143}
PHASES = {
    "while images are loaded": ("before load", 0, None),
    "before the run's folder is written": ("before open .recipe.toml", 0, None),
    "in the first save": ("before write checkpoints/.tmp-step-00000000/state.json", 0, 0),
    "before the first step": ("before batch", 0, 1),
    "in a forward pass": ("after forward", 3, 4),
    "in a backward pass": ("before backward", 4, 5),
    "in an update": ("before update", 7, 8),
    "in a save": ("before fsync checkpoints/.tmp-step-00000006/model.safetensors", 0, 7),
    "in an evaluation": ("before score", 0, 5),
    "in the last evaluation": ("before score", -1, 9),
    "while the model is written": ("before fsync model/.model.safetensors", 0, 9),
}
"""A point, which one of those of its kind, and the step that is saved: what has been begun is ended first."""


def place(phase: str, home: Path) -> int:
    """The number of a phase's point."""
    label, which, _ = PHASES[phase]
    numbers = [
        number for number, each in enumerate(points("memory", home)) if re.sub(r"\.\d+\.tmp$", "", each) == label
    ]
    return numbers[which]


def stop_and_resume(phase: str, number: signal.Signals, home: Path) -> None:
    out = home / f"stopped {phase} by {int(number)}"
    at = place(phase, home)
    plant = partial(plants.at, out, at, partial(plants.send, number))
    ended = run(direct=begin("memory", home, out), plant=plant, asleep=5)
    assert ended.code == CODES[number], ended.err
    assert ended.seconds < 5
    assert ended.error.startswith("error: stopped: ")
    found, damaged = checkpoint.newest(out / "checkpoints")
    assert damaged == []
    assert (found.step if found is not None else None) == PHASES[phase][2]
    if found is None:
        assert ended.error == "error: stopped: nothing had been begun that could be saved."
        ended = run(direct=begin("memory", home, out) | {"resume": True})
    else:
        words = shlex.split(ended.error.partition(" Try: resnetkit ")[2])
        assert words == ["train", "--resume", "--out", str(out)]
        ended = run(*words)
    assert ended.code == 0, ended.err
    assert_same(out, whole("memory", home))
    shutil.rmtree(out)


@pytest.mark.parametrize(("phase", "number"), list(zip(PHASES, list(CODES) * 4, strict=False)))
def test_a_signal_at_any_phase_is_saved_and_resumed_to_the_bit(phase: str, number: signal.Signals, home: Path) -> None:
    stop_and_resume(phase, number, home)


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("phase", PHASES)
def test_every_signal_at_every_phase(phase: str, number: signal.Signals, home: Path) -> None:
    stop_and_resume(phase, number, home)


@pytest.mark.parametrize(("phase", "saved"), [("in a save", 5), ("in an evaluation", 3), ("in a backward pass", 3)])
def test_a_second_signal_leaves_at_once(phase: str, saved: int, home: Path) -> None:
    out = home / f"left {phase}"
    act = partial(plants.send, signal.SIGINT, signal.SIGTERM)
    ended = run(direct=begin("memory", home, out), plant=partial(plants.at, out, place(phase, home), act))
    assert ended.code == 143
    assert "error: " not in ended.err
    found, damaged = checkpoint.newest(out / "checkpoints")
    assert found.step == saved
    assert damaged == []
    assert run(direct=begin("memory", home, out) | {"resume": True}).code == 0
    assert_same(out, whole("memory", home))


def test_stopped_while_files_are_decoded_nothing_is_left_over(home: Path) -> None:
    out = home / "decoding"
    at = points("workers", home).index("after forward")
    plant = partial(plants.at, out, at, partial(plants.send, signal.SIGINT))
    assert run(direct=begin("workers", home, out), plant=plant).code == 130
    assert run(direct=begin("workers", home, out) | {"resume": True}).code == 0
    assert_same(out, whole("workers", home))


def test_processes_that_decode_end_with_their_parent(home: Path) -> None:
    out = home / "orphans"
    at = points("workers", home).index("after forward")
    ended = run(direct=begin("workers", home, out), plant=partial(plants.kill_unseen, out, at))
    assert ended.code == -signal.SIGKILL
    assert ended.orphans < float("inf")
    print(f"gone after {ended.orphans:.2f} s")


def test_processes_that_decode_end_with_a_parent_that_died_before_they_asked(home: Path) -> None:
    """The kernel tells only of deaths to come, and PyTorch takes whoever has adopted a process for its parent."""
    ended = run(direct=begin("workers", home, home / "newborn"), plant=plants.kill_parent_of_newborn)
    assert ended.code == -signal.SIGKILL  # and `run` looks for processes that were left


@pytest.mark.parametrize(
    "label", ["before batch", "before forward", "before fsync checkpoints/.tmp-step-00000002/state.json"]
)
def test_a_process_that_decodes_and_is_killed_ends_the_run(label: str, home: Path) -> None:
    """As the kernel does that is short of memory. PyTorch raises it wherever the main process happens to be."""
    out = home / f"killed {label.replace('/', ' ')}"
    numbers = [number for number, each in enumerate(points("workers", home)) if each == label]
    plant = partial(plants.at, out, numbers[min(1, len(numbers) - 1)], plants.kill_a_worker)
    ended = run(direct=begin("workers", home, out), plant=plant)  # and it does not hang
    if ended.code == 0:  # it had decoded all that it was to decode, and nobody missed it
        assert_same(out, whole("workers", home))
        return
    assert ended.code == 7, ended.err
    assert "a process that decodes images has died or hangs" in ended.error
    assert "Try: fewer of them with --data.workers, more shared memory (--shm-size)" in ended.error
    assert run(direct=begin("workers", home, out) | {"resume": True}).code == 0
    assert_same(out, whole("workers", home))


def test_a_process_that_decodes_and_hangs_ends_the_run(home: Path) -> None:
    out = home / "hanging"
    ended = run(
        direct=begin("workers", home, out),
        plant=partial(plants.hang_in_a_worker, 12),
        env={"RESNETKIT_WORKER_SECONDS": "1"},
    )  # and it does not hang itself
    assert ended.code == 7, ended.err
    assert "has died or hangs" in ended.error
    assert run(direct=begin("workers", home, out) | {"resume": True}).code == 0
    assert_same(out, whole("workers", home))
