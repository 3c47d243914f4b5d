"""T17 to T24: other processes, clocks, limits and names around a run."""

import os
import re
import resource
import shlex
import shutil
import socket
from functools import partial
from pathlib import Path

import pytest

from faults import plants
from faults.harness import Case, run, start, unchanged, wait
from faults.runs import assert_same, begin, command, points, same_tensors, whole
from progress import until
from resnetkit.errors import UsageError
from resnetkit.runs import checkpoint
from resnetkit.runs.folder import open_run


def test_a_second_process_is_turned_away_by_name(home: Path) -> None:
    out, here, there = home / "two", home / "here", home / "there"
    at = points("memory", home).index("after update")
    first = start(Case(direct=begin("memory", home, out), plant=partial(plants.pause, out, at, here, there)))
    until(here.exists, first)
    second = run(direct=begin("memory", home, out) | {"resume": True})
    there.touch()
    assert wait(first).code == 0
    assert second.code == 2
    assert f"process {first} on {socket.gethostname()} trains there. Try: wait until it has ended" in second.error
    assert_same(out, whole("memory", home))


def test_the_lock_of_a_dead_process_is_none(home: Path) -> None:
    out = home / "stale"
    assert run(direct=begin("memory", home, out), plant=partial(plants.at, out, 60, plants.kill)).code == -9
    assert {".lock", ".owner.json"} <= {path.name for path in out.iterdir()}
    assert run(direct=begin("memory", home, out) | {"resume": True}).code == 0
    assert_same(out, whole("memory", home))


def test_who_comes_late_does_not_begin_a_run_that_another_process_has_ended(home: Path) -> None:
    out = home / "late"
    settings = begin("memory", home, out)
    late = open_run("digits", settings["recipe"], out=out, resume=False, changes={})
    assert run(direct=settings).code == 0
    with (
        unchanged(out),
        pytest.raises(UsageError, match=r"another process has been at work meanwhile .*Try: the same command again"),
        late.locked(),
    ):
        pytest.fail("it must not come to this")
    assert_same(out, whole("memory", home))


@pytest.mark.parametrize("plant", ["jumping clock", "times reversed"])
def test_clocks_and_times_of_files_decide_nothing(plant: str, home: Path) -> None:
    out = home / plant
    planted = plants.jumping_clock if plant == "jumping clock" else partial(plants.backwards, out)
    assert run(direct=begin("memory", home, out), plant=planted).code == 0
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-00000006", "step-00000009"]
    assert_same(out, whole("memory", home))


@pytest.mark.parametrize("flag", ["--epochs", "--steps", "--examples"])
def test_a_run_of_no_length_is_one_line(flag: str, home: Path) -> None:
    ended = run("train", "--out", home / "none", flag, 0)
    assert ended.code == 2
    assert re.match(rf"error: {flag} 0 cannot be: input should be greater than", ended.error)
    assert not (home / "none").exists()


@pytest.mark.parametrize("closed", [1, 2])
def test_a_reader_that_has_gone_does_not_end_training(closed: int, home: Path) -> None:
    out = home / f"closed {closed}"
    assert run(*command("memory", home, out), out=closed).code == 0
    assert_same(out, whole("memory", home))


@pytest.mark.parametrize("step", [4, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 3))])
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_any_number_of_workers_gives_the_same_weights_also_from_the_middle(workers: int, step: int, home: Path) -> None:
    theirs, out = whole("folder", home), home / f"{workers} workers {step}"
    at = points("folder", home)
    number = [number for number, label in enumerate(at) if label == "before backward"][step]
    settings = begin("folder", home, out)
    killed = run(direct=settings | {"data": {"workers": workers}}, plant=partial(plants.at, out, number, plants.kill))
    assert killed.code == -9
    ended = run(direct=settings | {"data": {"workers": {0: 2, 1: 4, 2: 0, 4: 1}[workers]}, "resume": True})
    assert ended.code == 0, ended.err
    found, expected = (checkpoint.newest(each / "checkpoints")[0] for each in (out, theirs))
    for group, tensors in found.tensors.items():
        same_tensors(tensors, expected.tensors[group])


SURROUNDINGS = {
    "no HOME": {"env": {"HOME": None}},
    "HOME that cannot be written": {"env": {"HOME": "/proc"}},
    "TMPDIR that is not there": {"env": {"TMPDIR": "/no/such/folder"}},
    "LANG=C": {"env": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"}},
    "an odd time zone": {"env": {"TZ": "Asia/Kathmandu"}},
    "no terminal type": {"env": {"TERM": None}},
    "few open files": {"limits": {resource.RLIMIT_NOFILE: 64}},
}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_odd_surroundings_do_not_matter(name: str, home: Path) -> None:
    out = home / name
    ended = run(*command("memory", home, out), **SURROUNDINGS[name])
    assert ended.code == 0, ended.err
    assert_same(out, whole("memory", home))


@pytest.mark.parametrize("workers", [0, 2])
def test_few_open_files_suffice_for_large_batches(workers: int, home: Path) -> None:
    """Each image that came by itself from a process that decodes took one of them."""
    changes = {"data": {"batch_size": 24, "workers": workers}, "epochs": 6}
    out = home / f"few {workers}"
    ended = run(direct=begin("folder", home, out, **changes), limits={resource.RLIMIT_NOFILE: 64})
    assert ended.code == 0, ended.err


NAMES = ["läuf 猫 \U0001f600", 'it\'s $HOME; "quoted"', "x" * 200, "[bold]red", "n\udcffot text"]


@pytest.mark.parametrize(("name", "relative"), [(name, number % 2 == 0) for number, name in enumerate(NAMES)])
def test_a_folder_may_have_any_name(name: str, relative: bool, home: Path) -> None:
    place = home / f"names {relative}"
    place.mkdir(exist_ok=True)
    out = place / name
    given = Path(name) if relative else out
    at = points("memory", home).index("after update")
    plant = partial(plants.at, out, at, partial(plants.send, 15))
    ended = run(*command("memory", home, given), cwd=str(place), plant=plant)
    assert ended.code == 143, ended.err
    if "\udcff" not in name:  # which a terminal cannot show
        again = shlex.split(ended.error.partition(" Try: resnetkit ")[2])
        assert run(*again, cwd=str(place)).code == 0
    else:
        assert run(direct=begin("memory", home, given) | {"resume": True}, cwd=str(place)).code == 0
    assert_same(out, whole("memory", home))
    shutil.rmtree(out)
    assert os.listdir(place) == []
