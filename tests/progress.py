"""Waiting for other processes for as long as they get on, and not for as long as a free machine would need.

What is counted is the time that a process passes asleep, and the processor time that it uses: on a busy machine both
are what they are on a free one, and only the time that it waits for a processor is longer.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

LOOK = 0.05
"""Seconds between two looks at processes."""
TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True)
class Look:
    """What the kernel says of a process."""

    state: str
    parent: int
    session: int
    seconds: float
    """Of processor time, its own."""

    @property
    def alive(self) -> bool:
        return self.state not in "ZX"

    @property
    def at_work(self) -> bool:
        """Whether it works or would if it were let: it waits for a processor, or for a disk."""
        return self.state in "RD"


def look(pid: int) -> Look | None:
    """None where there is no such process, or no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return Look(fields[0], int(fields[1]), int(fields[3]), (int(fields[11]) + int(fields[12])) / TICK)


def everyone() -> dict[int, Look]:
    """All processes."""
    pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    return {pid: seen for pid in pids if (seen := look(pid)) is not None}


def children(pid: int) -> list[int]:
    return [each for each, seen in everyone().items() if seen.parent == pid]


def is_alive(pid: int) -> bool:
    seen = look(pid)
    return seen is not None and seen.alive


def tree(*roots: int) -> list[int]:
    """Processes and all that descend from them."""
    found = list(roots)
    for pid in found:
        with suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found


class StalledError(AssertionError):
    """Processes that were to get on do not."""


class Watch:
    """Whether processes get on.

    They do not where all of them together have slept for more than `asleep` seconds, or have used more than `work`
    seconds of processor time. Where there is no /proc, nothing is noticed, and pytest's own limit has to do.
    """

    def __init__(self, pids: Callable[[], Iterable[int]], *, asleep: float = 60, work: float = 600) -> None:
        self.pids, self.most_asleep, self.most_work = pids, asleep, work
        self.asleep = 0.0
        """Seconds in which none of them worked or wanted to."""
        self.work = 0.0
        """Seconds of processor time that they were seen to use."""
        self._used: dict[int, float] = {}
        self._last = time.monotonic()

    def look(self) -> None:
        """Look at the processes once. Raises `StalledError`."""
        now = time.monotonic()
        if now - self._last < LOOK:
            return
        seen = {pid: at for pid in self.pids() if (at := look(pid)) is not None}
        # One that has just been found is not charged with what it did before.
        used = sum(at.seconds - self._used.get(pid, at.seconds) for pid, at in seen.items())
        self._used = {pid: at.seconds for pid, at in seen.items()}
        if used <= 0 and not any(at.at_work for at in seen.values()):
            # The test itself may have been kept from looking meanwhile: one look stands for a few periods at most.
            self.asleep += min(now - self._last, 4 * LOOK)
        self.work += used
        self._last = now
        if self.asleep > self.most_asleep:
            raise StalledError(f"nothing moves: {self.asleep:.0f} s asleep after {self.work:.1f} s of work")
        if self.work > self.most_work:
            raise StalledError(f"no end: {self.work:.0f} s of processor time")


def until(condition: Callable[[], object], *roots: int, asleep: float = 60, work: float = 600) -> None:
    """Wait for something that processes, or those that descend from them, are to bring about.

    Raises `StalledError` where they do not get on, or have ended without it.
    """
    watch = Watch(lambda: tree(*roots), asleep=asleep, work=work)
    while not condition():
        watch.look()
        if sys.platform == "linux" and not any(map(is_alive, roots)) and not condition():
            raise StalledError("all have ended, and it has not come")
        time.sleep(0.005)


def until_asleep(*roots: int, seconds: float) -> None:
    """Wait until processes have slept for some time: on whatever machine, they had time enough to do what they do."""
    watch = Watch(lambda: tree(*roots))
    if sys.platform != "linux":
        time.sleep(4 * seconds)
        return
    while watch.asleep < seconds:
        watch.look()
        time.sleep(0.005)


def finish(process: subprocess.Popen, *, asleep: float = 60, work: float = 600) -> tuple[str, str]:
    """What a process still says until its end. Where it does not get on it is killed, and `StalledError` is raised."""
    watch = Watch(lambda: tree(process.pid), asleep=asleep, work=work)
    while True:
        try:
            return process.communicate(timeout=LOOK)
        except subprocess.TimeoutExpired:
            try:
                watch.look()
            except StalledError as stalled:
                for each in tree(process.pid):
                    with suppress(ProcessLookupError):
                        os.kill(each, signal.SIGKILL)
                stalled.add_note("".join(said or "" for said in process.communicate()))
                raise


def run(words: Iterable[object], *, asleep: float = 60, work: float = 600, **settings) -> subprocess.CompletedProcess:
    """A command from its start to its end, and what it said."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([str(word) for word in words], **pipes | settings)
    out, err = finish(process, asleep=asleep, work=work)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@contextmanager
def limited_to(seconds: float):
    """Within, this process may use so many seconds of processor time; then the test fails, whatever is going on."""
    import pytest  # which the warm process of the faults has no use for

    def stop(*_: object) -> None:
        pytest.fail(f"no end: {seconds} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
