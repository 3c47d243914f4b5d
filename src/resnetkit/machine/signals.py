"""Being asked to stop: Ctrl-C, SIGTERM, and SIGUSR1, which batch systems send before they take a machine away.

While a run can save itself, the first signal is only noted and the loop looks at it between two batches. At any other
time, and at the second signal, it ends what is going on.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
_ALL_CLEAR = b"\0"
GRACE = 20.0
"""Seconds between the first signal and the end, whatever is going on. torchrun itself gives up after 30."""


class Stopped(BaseException):
    """Raised where a signal ends work that has nothing to save. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Stopping:
    """Whether a run has been asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.number = 0
        self._deferred = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the signals; what was done with them before is done again afterwards.

        Only a process's main thread can watch; in another one nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heard, bell = os.pipe()
        os.set_blocking(bell, False)
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        bell_before = signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        threading.Thread(target=_insist, args=(heard,), daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(bell_before)
            os.write(bell, _ALL_CLEAR)  # closing it would not do: processes that decode have it too
            os.close(bell)
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, a signal is noted only: whoever works here asks `number` at every place where it can stop."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.number:
            os._exit(exit_code(number))
        self.number = number
        if not self._deferred:
            raise Stopped(number)


def _insist(heard: int) -> None:
    """Leave at the second signal, or where the first has not been followed in time, if nobody else does.

    Python runs its handlers between two of its own instructions only; a main thread that waits inside a library, for
    another rank for instance, would never get to them. This thread is told by the system's own handler.
    """
    with open(heard, "rb", buffering=0) as stream:
        number, timer = 0, None
        while (byte := stream.read(1)) != _ALL_CLEAR:
            if byte[0] not in SIGNALS:
                continue
            if number:
                os._exit(exit_code(byte[0]))
            number = byte[0]
            timer = threading.Timer(GRACE, os._exit, (exit_code(number),))
            timer.daemon = True
            timer.start()
        if timer is not None:
            timer.cancel()


class Deaths:
    """The death of a child process, told only to whoever waits for it.

    PyTorch raises that of a process that decodes in the midst of whatever the main process is doing: an update, a save.
    """

    def __init__(self) -> None:
        self._handler: Callable[[int, FrameType | None], object] | None = None
        self._depth = 0
        self._waiting = self._missed = self._telling = False

    @contextmanager
    def postponed(self) -> Iterator[None]:
        """Within, deaths are told only within `told`; afterwards the handler of before is back.

        Only a process's main thread can change that; in another one nothing changes.
        """
        if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
            yield
            return
        before = signal.getsignal(signal.SIGCHLD)
        if before != self._note:
            self._handler = before if callable(before) else None
            signal.signal(signal.SIGCHLD, self._note)
        self._depth += 1
        try:
            yield
        except (RuntimeError, ConnectionError, EOFError):
            self._depth = 0  # and no handler of before: what is still to die would be told in the midst of the way out
            raise
        except BaseException:
            self._leave()
            raise
        self._leave()

    def _leave(self) -> None:
        self._depth -= 1
        # Another thread may be the one that collects what has been left unfinished; only the main one may change this.
        if not self._depth and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, self._handler or signal.SIG_DFL)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Within, the handler is called at once; and at the beginning where it should have been before."""
        self._waiting = True
        try:
            if self._missed:
                self._note(signal.SIGCHLD, None)
            yield
        finally:
            self._waiting = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._telling:
            return  # the handler of before has called the one that it had found, and that was this
        self._missed = not self._waiting
        if self._waiting and self._handler is not None:
            self._telling = True
            try:
                self._handler(number, frame)
            finally:
                self._telling = False


DEATHS = Deaths()
"""A process has one handler for all its children."""


def exit_code(number: int) -> int:
    """130 for Ctrl-C; 143 for the others, which all mean that somebody else wants the machine."""
    return 130 if number == signal.SIGINT else 143


def hear_of_parents_death(name: str, gone: Callable[[], bool]) -> None:
    """Where the kernel can, let it send us the signal of this name when our parent ends, for that may be killed.

    By name, for there are systems without SIGKILL. `gone` says whether the parent had ended before the kernel knew:
    then we send the signal ourselves.
    """
    if sys.platform == "linux":
        parent_death = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
        ctypes.CDLL(None).prctl(parent_death, getattr(signal, name))
        if gone():
            os.kill(os.getpid(), getattr(signal, name))


def _forked_by_the_dead() -> bool:
    """Whether the process that has started this one with `multiprocessing` has ended.

    PyTorch takes whatever parent it finds for that one, and would wait for its end.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return False
    # A sibling may hold the end of the pipe that `is_alive` listens to; a fork server stands between parent and child.
    between = multiprocessing.get_start_method() == "forkserver"
    return not parent.is_alive() or (not between and os.getppid() != parent.pid)


def leave_signals_to_parent(_worker: int = 0) -> None:
    """In a process that decodes: the parent decides what Ctrl-C means, and SIGTERM ends it as if we were not there."""
    hear_of_parents_death("SIGKILL", _forked_by_the_dead)
    signal.set_wakeup_fd(-1)
    sys.excepthook = lambda *_: None  # what fails here is told to the parent; its threads need not say it too
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
