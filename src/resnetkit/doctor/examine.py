"""What every image file holds, read by several processes and remembered, and which files hold the same picture.

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
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from PIL import Image

from resnetkit.data.scan import AUTO, Entry, Memory, mark_of, stamp_of, values_of
from resnetkit.doctor.thumbnail import seen_in
from resnetkit.errors import DataError, ResnetkitError
from resnetkit.images.budget import Stream
from resnetkit.images.cost import bands
from resnetkit.images.reading import FORMATS, orientation, read_file, read_image, with_image
from resnetkit.machine.storage import sha256_file

Progress = Callable[[int, int], None]

CHUNK = 16
LOOK_ROUND = 2.0
WORTH_HELP = 5.0
"""Seconds of reading still to do that make it worth starting helpers, judged after `LOOK_ROUND` seconds."""
_HELPER = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = sys.argv[1:]
from resnetkit.doctor.examine import help_out
help_out()
"""
"""A helper: to read an image takes no torch, so it starts at once and stays small."""


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
        if entry is not None and entry.mode:  # more than its header was read
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
        _tell_alike_apart(folder, entries)
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
        return Entry(*stamp, why=error.reason)


def _tell_alike_apart(folder: Path, entries: dict[str, Entry]) -> None:
    """Hash the pixels where they may be the same: in different files, but of one size and one perceptual hash.

    They are few, so decoding them once more costs less than a hash of every picture's pixels.
    """
    alike = defaultdict(list)
    for name, entry in entries.items():
        if not entry.why:
            alike[entry.width, entry.height, entry.phash].append(name)
    for names in alike.values():
        if len({entries[name].sha256 for name in names}) > 1:
            for name in names:
                entries[name] = _with_pixels(folder / name, entries[name])


def _with_pixels(path: Path, entry: Entry) -> Entry:
    if entry.pixels:
        return entry
    try:
        return replace(entry, pixels=hash_pixels(path))
    except DataError as error:  # it was readable a moment ago
        return Entry(*entry.stamp, why=error.reason)


def hash_pixels(path: Path) -> str:
    """`Entry.pixels` of a file. Raises `DataError` (exit code 3) where it cannot be read."""
    return with_image(path, _hash)


def _hash(upright: Image.Image) -> str:
    pixels = hashlib.sha256(f"{upright.width}x{upright.height};".encode())
    for box in bands(*upright.size):  # all bytes at once would be two more copies of a large picture
        pixels.update(upright.crop(box).tobytes())
    return pixels.hexdigest()


def _everything(path: Path, stream: Stream) -> dict[str, Any]:
    upright = read_image(path, stream=stream)
    seen: dict[str, Any] = {"width": upright.width, "height": upright.height, **seen_in(upright)}
    stream.seek(0)
    seen["sha256"] = sha256_file(stream)
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
