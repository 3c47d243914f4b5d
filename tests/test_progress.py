"""Processes that hang are told from those that are slow: real ones, of which some hang."""

import os
import signal
import subprocess
import sys

import pytest

import progress
from progress import StalledError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def begin(code: str) -> subprocess.Popen:
    words = [sys.executable, "-c", f"import os, subprocess, sys, time\n{code}"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_process_that_sleeps_has_stalled_and_is_killed_and_what_it_said_is_told() -> None:
    process = begin("print('so far', flush=True); time.sleep(600)")
    with pytest.raises(StalledError, match="nothing moves: 1 s asleep") as raised:
        progress.finish(process, asleep=1)
    assert raised.value.__notes__ == ["so far\n"]
    assert process.returncode == -signal.SIGKILL


def test_a_process_whose_child_works_gets_on_and_one_whose_child_sleeps_does_not() -> None:
    child = "subprocess.run([sys.executable, '-c', {!r}]); print('done')"
    works = "import time\nwhile time.process_time() < 1: pass"
    assert progress.finish(begin(child.format(works)), asleep=0.7)[0] == "done\n"
    with pytest.raises(StalledError, match="nothing moves"):
        progress.finish(begin(child.format("import time; time.sleep(600)")), asleep=0.7)


def test_a_process_that_never_ends_its_work_has_stalled() -> None:
    with pytest.raises(StalledError, match="no end: 1 s of processor time"):
        progress.finish(begin("while True: pass"), work=1)


def test_a_process_that_is_stopped_from_outside_has_stalled() -> None:
    process = begin("while True: pass")
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(StalledError, match="nothing moves"):
        progress.finish(process, asleep=1)


def test_waiting_for_what_ended_processes_have_not_brought_about_ends() -> None:
    with begin("") as process, pytest.raises(StalledError, match="all have ended"):
        progress.until(lambda: False, process.pid)


def test_time_asleep_is_waited_for() -> None:
    with begin("while time.process_time() < 1: pass\nprint('worked', flush=True); time.sleep(600)") as process:
        progress.until_asleep(process.pid, seconds=1)
        assert process.stdout.readline() == "worked\n"
        process.kill()


def work_for_ever() -> None:
    while True:
        pass


def test_endless_work_in_this_process_is_broken_off() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"no end: 0\.2 s"), progress.limited_to(0.2):
        work_for_ever()
