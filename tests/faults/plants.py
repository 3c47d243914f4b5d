"""Faults that are planted in a child before its command begins: at the n-th of all the things that a run does.

A run's points are counted in the order in which they come: before and after each forward pass, backward pass, update,
batch and file-system call under the run's folder. The order is the same whenever the run is.
"""

import contextlib
import ctypes
import errno
import functools
import itertools
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

CALLS = ("open", "write", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "truncate", "ftruncate")
Act = Callable[[int, str], None]


class Points:
    """Counts a run's points and calls `act(number, label)` at each, such as `(17, "before fsync state.json")`."""

    def __init__(self, run: Path, act: Act) -> None:
        self.run, self.act, self.owner = os.path.abspath(run), act, os.getpid()
        self.number = 0
        self.heard: Callable[[tuple], None] = lambda _: None
        """Takes each call that succeeded: its name, path, the other arguments, and what it gave."""
        self.files: dict[int, str] = {}

    def point(self, label: str) -> None:
        if os.getpid() == self.owner:  # processes that decode inherit all this
            number, self.number = self.number, self.number + 1
            self.act(number, label)

    def hear(self, name: str, path: str, arguments: tuple, result: object) -> None:
        """Pass a call on with plain values: paths for their objects, and bytes for their views."""
        plain = [bytes(each) if isinstance(each, memoryview) else each for each in arguments]
        self.heard((name, path, [os.path.abspath(each) if isinstance(each, Path) else each for each in plain], result))

    @contextlib.contextmanager
    def around(self, label: str) -> Iterator[None]:
        self.point(f"before {label}")
        yield
        self.point(f"after {label}")

    def watch(self, *, network: bool = True) -> None:
        """Put the counting in place; without the network, where several threads use it and come in any order."""
        self._watch_files()
        if network:
            self._watch_network()

    def _watch_network(self) -> None:
        import torch

        from resnetkit.networks.resnet import ResNet
        from resnetkit.training import optim
        from resnetkit.training import plan as trainer
        from resnetkit.training import train as training

        def counted(original: Callable, label: Callable[..., str]) -> Callable:
            @functools.wraps(original)
            def call(*arguments: Any, **settings: Any) -> Any:
                with self.around(label(*arguments)):
                    return original(*arguments, **settings)

            return call

        ResNet.forward_features = counted(
            ResNet.forward_features, lambda net, *_: "forward" if net.training else "score"
        )
        torch.Tensor.backward = counted(torch.Tensor.backward, lambda *_: "backward")
        plain = optim.without_compiler

        def watched_optimizer(kind: type) -> type:
            made = plain(kind)
            made.step = counted(made.step, lambda *_: "update")
            return made

        optim.without_compiler = watched_optimizer
        training.load_data = counted(training.load_data, lambda *_: "load")
        original = trainer.training_batches

        def batches(*arguments: Any, **settings: Any) -> Iterator:
            source = original(*arguments, **settings)
            while True:
                with self.around("batch"):
                    item = next(source, None)
                if item is None:
                    return
                yield item

        trainer.training_batches = batches

    def _watch_files(self) -> None:
        originals = {name: getattr(os, name) for name in (*CALLS, "close")}

        def path_of(target: object, dir_fd: int | None) -> str | None:
            if isinstance(target, int):
                return self.files.get(target)
            path = os.fspath(target)
            if dir_fd is not None:
                return os.path.join(self.files[dir_fd], path) if dir_fd in self.files else None
            path = os.path.abspath(path)
            return path if path == self.run or path.startswith(self.run + os.sep) else None

        def watched(name: str) -> Callable:
            original = originals[name]

            @functools.wraps(original)
            def call(target: Any, *arguments: Any, **settings: Any) -> Any:
                path = path_of(target, settings.get("dir_fd"))
                if path is None:
                    return original(target, *arguments, **settings)
                with self.around(f"{name} {os.path.relpath(path, self.run)}"):
                    result = original(target, *arguments, **settings)
                if name == "open":
                    self.files[result] = path
                self.hear(name, path, arguments, result)
                return result

            return call

        def close(descriptor: int) -> None:
            self.files.pop(descriptor, None)
            originals["close"](descriptor)

        os.close = close
        for name in CALLS:
            setattr(os, name, watched(name))


def record(run: Path, log: Path, *, network: bool = True) -> Callable[[], None]:
    """Write the labels of all points, in their order, when the command has ended."""
    labels: list[str] = []
    Points(run, lambda _, label: labels.append(label)).watch(network=network)
    return lambda: log.write_text(json.dumps(labels)) and None


def at(run: Path, number: int, act: Callable[[], None], *, network: bool = True) -> None:
    """Do something at one point."""
    Points(run, lambda reached, _: act() if reached == number else None).watch(network=network)


def kill() -> None:
    """As a power cut, or the kernel short of memory, ends a process."""
    os.kill(os.getpid(), signal.SIGKILL)


def send(*numbers: int) -> None:
    """Signals to this process, one after the other."""
    for number in numbers:
        os.kill(os.getpid(), number)


def fail(run: Path, number: int, error: int, times: int = 1, every: str = "", *, network: bool = True) -> None:
    """The file-system call at a point, and at as many later points `every` as `times` says, gives an error."""
    left = times

    def act(reached: int, label: str) -> None:
        nonlocal left
        if left and label.startswith("before") and reached >= number and every in label:
            left -= 1
            raise OSError(error, os.strerror(error), label.split()[-1])

    Points(run, act).watch(network=network)


def log_calls(run: Path, log: Path) -> Callable[[], None]:
    """Write all file-system calls under the run's folder that succeeded, with what they wrote."""
    calls: list[tuple] = []
    points = Points(run, lambda *_: None)
    points.heard = calls.append
    points.watch()
    return lambda: log.write_bytes(pickle.dumps(calls)) and None


def tear(run: Path, name: str) -> None:
    """The first write to a file is half done, and the next one finds the disk full."""
    Points(run, lambda *_: None).watch()
    original, state = os.write, {"torn": False}

    def write(descriptor: int, content: Any) -> int:
        if os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")) != name:
            return original(descriptor, content)
        if state["torn"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        state["torn"] = True
        return original(descriptor, content[: len(content) // 2])

    os.write = write


def kill_in_write(run: Path, number: int) -> None:
    """The n-th write under the run's folder is half done when the process is killed."""
    original, writes = os.write, itertools.count()

    def write(descriptor: int, content: Any) -> int:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.startswith(f"{os.path.abspath(run)}{os.sep}") and next(writes) == number:
            original(descriptor, content[: len(content) // 2])
            kill()
        return original(descriptor, content)

    os.write = write


def before_step(which: int | None, act: Callable[[], object]) -> None:
    """Do something before one step of training, or before each; the network and the files are not counted."""
    from resnetkit.training.step import Stepper

    take = Stepper.__call__

    def step(self: Stepper, batch: Any, number: int) -> Any:
        if which in (number, None):
            act()
        return take(self, batch, number)

    Stepper.__call__ = step


def before_step_of_all(number: int, act: Callable[[], object]) -> None:
    """Do something before the n-th of all steps, of however many runs."""
    steps = itertools.count()
    before_step(None, lambda: act() if next(steps) == number else None)


def wait_to_be_asked() -> None:
    """Wait until somebody has asked this process to stop, which goes on then."""
    while not signal.getsignal(signal.SIGTERM).__self__.number:
        time.sleep(0.01)


def small_disk(place: Path, size: str, copy: Path) -> Callable[[], None]:
    """A folder is a disk of its own of so many bytes, that of this process only; at the end all on it is copied."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    new_namespaces = 0x10000000 | 0x00020000  # CLONE_NEWUSER | CLONE_NEWNS of <linux/sched.h>
    if libc.unshare(new_namespaces):
        raise OSError(ctypes.get_errno(), "unshare")
    for name, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path("/proc/self", name).write_text(line)
    if libc.mount(b"none", os.fsencode(place), b"tmpfs", 0, f"size={size}".encode()):
        raise OSError(ctypes.get_errno(), "mount")
    return lambda: shutil.copytree(place, copy) and None


def kill_a_worker() -> None:
    """One of the processes that decode images."""
    for child in multiprocessing.active_children()[:1]:
        os.kill(child.pid, signal.SIGKILL)


def kill_unseen(run: Path, number: int) -> None:
    """As `kill`; and processes that decode would look for themselves whether their parent is there in an hour only."""
    from torch.utils.data._utils import worker

    worker.MP_STATUS_CHECK_INTERVAL = 3600.0
    at(run, number, kill)


def hang_in_a_worker(after: int) -> None:
    """A process that decodes images does not come back, as where a network disk has gone."""
    from torch.utils.data import _utils

    from resnetkit.data import splits

    _utils.MP_STATUS_CHECK_INTERVAL = 0.5  # so long PyTorch waits for each such process before it ends it
    original, owner, calls = splits.read_image, os.getpid(), itertools.count()

    def read(*arguments: Any) -> Any:
        if os.getpid() != owner and next(calls) == after:
            time.sleep(3600)
        return original(*arguments)

    splits.read_image = read


def kill_parent_of_newborn() -> None:
    """The run is killed when its processes that decode have been forked, and before they ask to be told of its end."""
    from resnetkit.data import batches

    original = batches.leave_signals_to_parent

    def begin(worker: int) -> None:
        parent = multiprocessing.parent_process().pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(parent, signal.SIGKILL)
        while os.getppid() == parent:
            time.sleep(0.001)
        original(worker)

    batches.leave_signals_to_parent = begin


def poison(*steps: int) -> None:
    """Images of some steps are not finite."""
    from resnetkit.training import plan as trainer

    original = trainer.training_batches

    def batches(*arguments: Any, start: int, **settings: Any) -> Iterator:
        for step, batch in enumerate(original(*arguments, start=start, **settings), start):
            yield replace(batch, images=batch.images * float("nan")) if step in steps else batch

    trainer.training_batches = batches


def small_memory(most: int) -> None:
    """No more than so many images at a time can be learnt from."""
    import torch

    from resnetkit.networks.resnet import ResNet

    original = ResNet.forward

    def forward(network: ResNet, images: torch.Tensor) -> torch.Tensor:
        logits = original(network, images)  # BatchNorm's statistics have moved when memory ends
        if network.training and len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return logits

    ResNet.forward = forward


def jumping_clock() -> None:
    """The wall clock is a day ahead or behind, differently at each look; and folders are younger the older they are."""
    original, looks = time.time, itertools.count()
    time.time = lambda: original() + 86_400 * (-1) ** next(looks)


def backwards(run: Path) -> None:
    """Before each call on a checkpoint, the later ones are given the earlier times."""

    def act(_: int, label: str) -> None:
        if label.startswith("before rename"):
            for number, folder in enumerate(sorted((run / "checkpoints").glob("step-*"))):
                os.utime(folder, (10**9 - number, 10**9 - number))

    Points(run, act).watch()


def pause(run: Path, number: int, here: Path, there: Path) -> None:
    """Say that a point is reached, and wait there to be told to go on."""

    def act() -> None:
        here.touch()
        while not there.exists():
            time.sleep(0.01)

    at(run, number, act)
