"""What every image file holds, read once by several processes and remembered, and which files hold the same picture.

Helpers are plain programs that talk JSON over pipes. A forked process would inherit the locks of torch's threads; those
of `multiprocessing` import the caller's script again and leave a tracker behind. A helper that a damaged file kills is
replaced, and that file is named.
"""

import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from resnetkit.errors import DataError, ResnetkitError
from resnetkit.preprocess import FORMATS, Stream, orientation, read_file, read_image
from resnetkit.scan import AUTO, Entry, Memory, mark_of, stamp_of, values_of

Progress = Callable[[int, int], None]

FLAT = 8
"""Grey levels, of 256, between the darkest and the lightest of 72 cells; below that, a dHash is a hash of noise."""
CHUNK = 16
LOOK_ROUND = 2.0
WORTH_HELP = 5.0
"""Seconds of reading still to do that make it worth starting helpers, judged after `LOOK_ROUND` seconds."""
MOST_PAIRS = 1_000_000
MOST_COMPARISONS = 2_000_000_000
_HELPER = """
import signal, sys, types
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = sys.argv[1:]
for name in ("torch", "torch.nn", "torch.nn.functional"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["torch"].Tensor = object
sys.modules["torch.nn"].functional = sys.modules["torch.nn.functional"]
from resnetkit.duplicates import help_out
help_out()
"""
"""To read an image takes no torch, but `preprocess` imports it: seconds and 600 MB for each helper, so it gets none."""


def read_entries(
    folder: Path,
    paths: Sequence[Path],
    *,
    progress: Progress | None = None,
    workers: int | None = None,
    cache: Path | None = AUTO,
) -> dict[str, Entry]:
    """An `Entry` for each of `paths`, by its name relative to `folder`; files that have not changed are not read."""
    names = [os.path.relpath(path, folder) for path in paths]
    memory = Memory(folder, cache)
    entries, todo = {}, []
    for name, path in zip(names, paths, strict=True):
        entry = memory.recall(name, stamp_of(path))
        if entry is not None and entry.pixels:
            entries[name] = entry
        else:
            todo.append((name, path))
    report = progress or (lambda _done, _total: None)
    report(len(entries), len(paths))
    fresh = _examine_all([path for _, path in todo], workers)
    try:
        for (name, _), entry in zip(todo, fresh, strict=True):
            entries[name] = entry
            report(len(entries), len(paths))
    finally:  # whoever stops half-way need not begin again
        fresh.close()
        memory.keep(memory.entries | entries if len(entries) < len(paths) else entries)
    return {name: entries[name] for name in names}


def examine(path: Path) -> Entry:
    """Read one file. Never raises for what is wrong with the file: `Entry.why` says it."""
    stamp = stamp_of(path)
    try:
        return Entry(*stamp, **read_file(path, _everything))
    except DataError as error:
        return Entry(*stamp, why=error.why or error.what)


def _everything(path: Path, stream: Stream) -> dict[str, Any]:
    upright = read_image(path, stream=stream)
    width, height = upright.size
    pixels = hashlib.sha256(f"{width}x{height};".encode())
    pixels.update(upright.tobytes())
    seen: dict[str, Any] = {"width": width, "height": height, "pixels": pixels.hexdigest(), "dhash": dhash(upright)}
    stream.seek(0)
    seen["sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
    seen["mark"] = mark_of(stream)
    stream.seek(0)
    head = stream.read(25)
    stream.seek(0)
    with Image.open(stream, formats=FORMATS) as image:
        seen |= {"format": image.format or "", "mode": image.mode, "bits": _bits(image, head)}
        seen |= {"alpha": image.has_transparency_data, "orientation": orientation(image)}
        with suppress(Exception):  # a chain of frames that leads nowhere: the first one is good
            # A telephone's JPEG of several pictures is a JPEG, and only its first counts.
            seen["animated"] = image.format != "MPO" and bool(getattr(image, "is_animated", False))
    return seen


def dhash(image: Image.Image) -> int | None:
    """The difference hash of an image, 64 bits; None where the image is too flat to have one."""
    cells = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BILINEAR), dtype=np.int16)
    if cells.max() - cells.min() < FLAT:
        return None
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")


def near_pairs(hashes: np.ndarray, near: int) -> tuple[np.ndarray, bool]:
    """Positions (N, 2) of all pairs of uint64 hashes that differ in at most `near` bits, and whether that is all.

    Two such hashes agree in one of `near + 1` bands of bits, so only those that share a band are compared. It stops
    at a million pairs or two thousand million comparisons: then the hash does not tell these images apart.
    """
    found, masks, compared, count = [np.empty((0, 2), dtype=np.int64)], [], 0, 0
    for bits in np.array_split(np.arange(64, dtype=np.uint64), near + 1):
        mask = np.bitwise_or.reduce(np.uint64(1) << bits)
        order = np.argsort(hashes & mask, kind="stable")
        ordered = hashes[order]
        # Those of equal bands lie side by side: compare each with its next, then with the one after that, and so on.
        left, step = np.arange(len(hashes)), 1
        while len(left := left[: np.searchsorted(left, len(hashes) - step)]):
            differ = ordered[left] ^ ordered[left + step]
            alike = (differ & mask) == 0
            left, differ = left[alike], differ[alike]
            close = _popcount(differ) <= near
            for earlier in masks:  # a pair that shares two bands counts once
                close &= (differ & earlier) != 0
            pairs = np.stack([order[left[close]], order[left[close] + step]], axis=1)
            found.append(np.sort(pairs, axis=1))
            compared, count, step = compared + len(left), count + len(pairs), step + 1
            if count > MOST_PAIRS or compared > MOST_COMPARISONS:
                return _in_order(found)[:MOST_PAIRS], False
        masks.append(mask)
    return _in_order(found), True


def _in_order(found: list[np.ndarray]) -> np.ndarray:
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _popcount(values: np.ndarray) -> np.ndarray:
    """Set bits of each uint64; `np.bitwise_count` came with NumPy 2, and 1.26 is allowed."""
    odd, pairs, nibbles = (np.uint64(mask) for mask in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F))
    values = values - ((values >> np.uint64(1)) & odd)
    values = (values & pairs) + ((values >> np.uint64(2)) & pairs)
    values = (values + (values >> np.uint64(4))) & nibbles
    return (values * np.uint64(0x0101010101010101)) >> np.uint64(56)


def _bits(image: Image.Image, head: bytes) -> int:
    if image.mode.startswith("I") or image.mode == "F":
        return 16
    if image.format == "PNG":
        # Pillow opens 16-bit RGB as 8-bit; a byte of the header is the only trace.
        return 16 if head[24:25] == b"\x10" else 8
    depths = getattr(image, "tag_v2", {}).get(258, (8,))
    return 16 if max(depths if isinstance(depths, tuple) else (depths,)) > 8 else 8


def _examine_all(paths: list[Path], workers: int | None) -> Generator[Entry, None, None]:
    """Entries in the order of `paths`.

    Helpers take a second to start. So one process begins, and calls for help where that will pay.
    """
    done = 0
    if workers is None:
        workers, began = min(_cores(), 8), time.monotonic()
        for path in paths:
            yield examine(path)
            done, spent = done + 1, time.monotonic() - began
            if workers > 1 and spent > LOOK_ROUND and spent * (len(paths) - done) > WORTH_HELP * done:
                break
    rest = paths[done:]
    chunks = [rest[start : start + CHUNK] for start in range(0, len(rest), CHUNK)]
    if workers > 1 and chunks:
        with _Helpers(min(workers, len(chunks))) as helpers:
            if helpers.ready:
                yield from helpers.examine(chunks)
                return
    yield from map(examine, rest)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Helpers:
    """Some processes that examine files; none is left when the block ends."""

    def __init__(self, count: int) -> None:
        self._count, self._idle, self._closed = count, queue.SimpleQueue[subprocess.Popen[bytes]](), threading.Event()
        self._all: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            for _ in range(self._count):
                self._start()
            self.ready = all(_greets(process) for process in self._all)
        except OSError:  # no more processes, or no Python to start
            self.ready = False
        except BaseException:  # Ctrl-C while they start
            self.__exit__()
            raise
        for process in self._all:
            self._idle.put(process)
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        for process in list(self._all):
            _end(process)

    def examine(self, chunks: list[list[Path]]) -> Iterator[Entry]:
        pool = ThreadPoolExecutor(self._count)
        try:
            for future in [pool.submit(self._ask, chunk) for chunk in chunks]:
                yield from future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            self.__exit__()  # a thread waits for its helper's answer
            pool.shutdown()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _HELPER, *(os.fspath(Path(place).absolute()) for place in sys.path)]
        process = subprocess.Popen(  # noqa: S603 - this very Python, with words of ours
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._all.append(process)
        return process

    def _ask(self, chunk: list[Path]) -> list[Entry]:
        process = self._idle.get()
        try:
            answer = _talk(process, [os.fspath(path.absolute()) for path in chunk])
            if answer is not None:
                return [Entry(*values) for values in answer]
            _end(process)
            if self._closed.is_set():
                return []
            process = self._start()
            if not _greets(process):
                raise ResnetkitError("a helper process cannot start", remedy="one worker")
        finally:
            self._idle.put(process)
        if len(chunk) == 1:
            return [Entry(*stamp_of(chunk[0]), why="its decoder crashed")]
        return [entry for path in chunk for entry in self._ask([path])]


def _talk(process: subprocess.Popen[bytes], question: list[str]) -> list[list[Any]] | None:
    """The helper's answer; None where it died over the question."""
    try:
        if process.stdin is None or process.stdout is None:
            return None
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())
    except (OSError, ValueError):
        return None


def _greets(process: subprocess.Popen[bytes]) -> bool:
    return _talk(process, []) == []


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        with suppress(OSError):  # what was left to send has nobody to read it
            if stream is not None:
                stream.close()


def help_out() -> None:
    """A helper's life: a JSON line of paths in, a JSON line of entries out, until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not land among the answers
    for line in sys.stdin.buffer:
        entries = [values_of(examine(Path(name))) for name in json.loads(line)]
        answers.write(json.dumps(entries).encode() + b"\n")
        answers.flush()
