"""Signals to a process of its own, with the system's own delivery."""

import sys

import pytest

import progress

HEAD = """
import os, signal, sys, time
from resnetkit.machine import signals
"""


def run(body: str, grace: float = 0.5) -> tuple[int, str]:
    done = progress.run([sys.executable, "-c", f"{HEAD}signals.GRACE = {grace}\n{body}"], asleep=10)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 143)])
def test_a_process_that_waits_inside_a_library_ends_in_time(name: str, code: int) -> None:
    body = f"""
with signals.Stopping().watched():
    import ctypes, threading
    # As a library waits that knows nothing of Python: for a lock that nobody gives back, whatever signal comes.
    library, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    library.pthread_mutex_lock(lock)
    def waits():
        return sys.platform != "linux" or open("/proc/self/stat").read().rpartition(")")[2].split()[0] == "S"
    def ask():
        looks = 0
        while looks < 20:
            time.sleep(0.01)
            looks = looks + 1 if waits() else 0
        os.kill(os.getpid(), signal.{name})
    threading.Thread(target=ask).start()
    library.pthread_mutex_lock(lock)
"""
    assert run(body)[0] == code


def test_the_second_signal_leaves_at_once() -> None:
    body = """
stopping = signals.Stopping()
with stopping.watched(), stopping.deferred():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
    print("saving", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
    print("never")
"""
    assert run(body, grace=60) == (130, "saving\n")


def test_a_program_that_goes_on_after_a_stop_is_left_alone() -> None:
    """A notebook, for instance, with processes that decode still there and the pipe open in them."""
    body = """
stopping = signals.Stopping()
try:
    with stopping.watched():
        child = os.fork()
        if not child:
            signals.leave_signals_to_parent()
            time.sleep(600)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
except signals.Stopped as stop:
    print("stopped by", stop.number, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
time.sleep(1.5)
print("alive")
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""
    assert run(body) == (0, "stopped by 2 True\nalive\n")


def test_outside_of_the_main_thread_nothing_is_watched() -> None:
    body = """
import threading
def work():
    with signals.Stopping().watched():
        print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    assert run(body) == (0, "True\n")


def test_deaths_are_told_once_where_pytorch_has_found_our_handler() -> None:
    """A run without processes that decode ends badly and leaves it; the next has some, and PyTorch calls it back."""
    body = """
from torch.utils.data import DataLoader
try:
    with signals.DEATHS.postponed():
        raise RuntimeError
except RuntimeError:
    pass
batches = iter(DataLoader(list(range(4)), num_workers=1))
with signals.DEATHS.postponed():
    seen = 0
    while True:
        with signals.DEATHS.told():
            if next(batches, None) is None:
                break
        seen += 1
print(seen)
"""
    assert run(body) == (0, "4\n")


def test_what_was_left_unfinished_may_be_collected_by_another_thread() -> None:
    body = """
import threading
def batches():
    with signals.DEATHS.postponed():
        yield 1
def close():
    try:
        unfinished.close()
        print("closed")
    except ValueError as error:
        print(error)
unfinished = batches()
next(unfinished)
thread = threading.Thread(target=close)
thread.start()
thread.join()
with signals.DEATHS.postponed():
    pass
print(signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL)
"""
    assert run(body) == (0, "closed\nTrue\n")
