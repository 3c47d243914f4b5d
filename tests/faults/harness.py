"""A warm process that forks one child for each case; the child runs the real command line with a fault planted in it.

The warm process has imported all that a run needs, has one thread, and does nothing but fork and wait: a case costs
what its steps cost. It is a process of its own because pytest-xdist's workers have threads, and a fork of a process
with threads may hang.
"""

import atexit
import contextlib
import functools
import gc
import os
import pickle
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from progress import StalledError, Watch, everyone, tree

GRACE = 10.0
"""Seconds that a process which has lost its parent may sleep, or work, before it counts as an orphan."""


@dataclass(frozen=True)
class Case:
    """One command in a child."""

    words: tuple[object, ...] = ()
    """Of the command line, without `resnetkit`."""
    direct: dict[str, Any] | None = None
    """Instead of words: arguments of `resnetkit.train`, which spares the parsing of some seventy flags."""
    plant: Callable[[], Callable[[], None] | None] | None = None
    """Called in the child before the command; what it returns is called after it. It has to be picklable."""
    env: dict[str, str | None] = field(default_factory=dict)
    """None removes a variable."""
    cwd: str | None = None
    asleep: float = 60.0
    """Seconds that it may sleep before it counts as hanging; see `progress`."""
    limits: dict[int, int] = field(default_factory=dict)
    """Of the `resource` module."""
    out: int | None = None
    """A name for a closed reader: 1 or 2 is then a pipe that nobody reads."""


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int
    """Negative where a signal ended it."""
    out: str
    err: str
    seconds: float
    """Of processor time, which is the same on a busy machine."""
    hung: bool
    orphans: float
    """Seconds until the last of its children was gone; infinite where one was left."""
    peak_bytes: int

    @property
    def error(self) -> str:
        """The last line of stderr."""
        return (self.err.splitlines() or [""])[-1]


class Warm:
    """The warm process, seen from a test."""

    def __init__(self) -> None:
        env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "faults.harness"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            start_new_session=True,
        )

    def ask(self, *request: object) -> Any:
        _send(self.process.stdin, request)
        return _receive(self.process.stdout)

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@functools.cache
def warm() -> Warm:
    process = Warm()
    atexit.register(process.end)
    return process


def start(case: Case) -> int:
    """Begin a case; `wait` takes what this gives."""
    return warm().ask("start", case)


def wait(child: int) -> Ended:
    """The end of a case: no hang, no process left over, and no traceback."""
    ended = warm().ask("wait", child)
    assert not ended.hung, f"it hangs:\n{ended.err}"
    assert "Traceback" not in ended.err, ended.err
    assert ended.orphans < float("inf"), f"processes were left over:\n{ended.err}"
    return ended


def run(*words: object, **settings: Any) -> Ended:
    """One command from start to end."""
    return wait(start(Case(words, **settings)))


def _send(stream: Any, message: object) -> None:
    content = pickle.dumps(message)
    stream.write(struct.pack("<Q", len(content)) + content)
    stream.flush()


def _receive(stream: Any) -> Any:
    return pickle.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))


class _Child:
    """One child, seen from the warm process."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.folder = Path(tempfile.mkdtemp(prefix="faults-"))
        self.pid = os.fork()

    def wait(self) -> Ended:
        hung = False
        watch = Watch(lambda: tree(self.pid), asleep=self.case.asleep)
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                break
            try:
                watch.look()
            except StalledError:
                hung = True
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.002)
        ended = time.monotonic()
        watch = Watch(lambda: left, asleep=GRACE, work=GRACE)
        with contextlib.suppress(StalledError):
            while left := _session(self.pid):
                watch.look()
                time.sleep(0.02)
        orphans = time.monotonic() - ended
        for each in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        out, err = ((self.folder / name).read_text(errors="replace") for name in ("out", "err"))
        shutil.rmtree(self.folder)
        return Ended(
            os.waitstatus_to_exitcode(status),
            out,
            err,
            usage.ru_utime + usage.ru_stime,
            hung,
            float("inf") if left else orphans,
            usage.ru_maxrss * 1024,
        )

    def become(self) -> int:
        """In the child: run the case and give its exit code."""
        case = self.case
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        if case.out is not None:
            reader, writer = os.pipe()
            os.close(reader)
            os.dup2(writer, case.out)
            os.close(writer)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        for name, value in case.env.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        if case.cwd is not None:
            os.chdir(case.cwd)
        for kind, most in case.limits.items():
            resource.setrlimit(kind, (most, most))
        from resnetkit import train
        from resnetkit.cli import app as cli
        from resnetkit.machine import torchrun

        torchrun._AGENT = os.getppid()  # it was imported by the warm process, whose own parent is another
        finish = None
        try:
            finish = case.plant() if case.plant is not None else None
            if case.direct is None:
                cli.main([str(word) for word in case.words])
            else:
                train(**case.direct)
        except BaseException as error:
            return cli._report(error)
        finally:
            if finish is not None:
                finish()
        return 0


def _session(leader: int) -> list[int]:
    """Living processes of a child's session."""
    return [pid for pid, seen in everyone().items() if seen.session == leader and seen.alive]


def serve() -> int:
    """The warm process: fork a child for each request until there are no more."""
    requests, answers = open(os.dup(0), "rb"), open(os.dup(1), "wb")  # noqa: SIM115
    os.dup2(2, 1)
    _warm_up()
    children: dict[int, _Child] = {}
    while header := requests.read(8):
        verb, value = pickle.loads(requests.read(struct.unpack("<Q", header)[0]))
        if verb == "start":
            child = _Child(value)
            if not child.pid:
                requests.close()
                answers.close()
                return child.become()
            children[child.pid] = child
            _send(answers, child.pid)
        else:
            _send(answers, children.pop(value).wait())
    return 0


def _warm_up() -> None:
    import sklearn.datasets
    import torch
    import torch._dynamo
    import torchvision.transforms.v2  # noqa: F401

    import resnetkit.prediction.into
    import resnetkit.weights.load  # noqa: F401
    from resnetkit.cli.app import app

    torch.set_num_threads(1)
    sklearn.datasets.load_digits()
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    with contextlib.suppress(Exception):
        app(["train", "--no-such-flag"], exit_on_error=False, print_error=False)
    gc.collect()
    gc.freeze()  # or a child's collector would touch, and so copy, everything that it shares with this process
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise RuntimeError(f"the warm process has {threads} threads")


@contextlib.contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Nothing within is to change a file of the user's."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    yield
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


if __name__ == "__main__":
    # The module that pickles name is the one by this name, not __main__.
    from faults.harness import serve as serve_by_name

    code = serve_by_name()
    # All that an interpreter does on its way out, but for taking itself apart: of all of torch that costs a second.
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = 120
    os._exit(code)
