"""Writing a folder of images as shards: the same pictures, byte by byte, in few large files instead of many small ones.

Each shard is written beside its place, then renamed; the description comes last. What is written depends on the folder
and the settings alone, so that a second run gives the same bytes, and an interrupted one goes on.
"""

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from PIL import Image

from resnetkit.arguments import checked
from resnetkit.data.holdout import complete
from resnetkit.data.labelling import Labelling
from resnetkit.data.layout import Listing, listing_of
from resnetkit.data.scan import scan
from resnetkit.data.shards.index import make_index
from resnetkit.data.shards.read import DESCRIPTION, FORMAT, JOURNAL
from resnetkit.data.sources import find_layout
from resnetkit.data.splits import below, listed_files
from resnetkit.data.unreadable import refuse_unreadable
from resnetkit.errors import DataError, StorageError, UsageError
from resnetkit.images.formats import SUFFIXES
from resnetkit.images.reading import FORMATS, read_image
from resnetkit.machine.storage import replace_file, sha256_file, sweep, sync_folder
from resnetkit.randomness import permutation
from resnetkit.recipes.ranges import require

SHARD_MEGABYTES = 256.0
PREFIXES = {"train": "train", "validation": "val", "test": "test"}
AHEAD = 64
"""Pictures that are checked while one is written."""

Pairs = list[tuple[Path, int]]


@dataclass(frozen=True)
class _Shard:
    """A shard that was written, or for which no picture was left that can be read."""

    file: str
    split: str
    begin: int
    """The first picture of the split's order that it might hold."""
    end: int
    """The first one that the next shard might hold."""
    samples: int
    left_out: dict[str, str]
    bytes: int = 0
    sha256: str = ""

    def stands(self, target: Path) -> bool:
        """Whether it is there."""
        path = target / self.file
        return not self.samples or (path.is_file() and path.stat().st_size == self.bytes)


@dataclass
class _Progress:
    """What is written so far of one set, a line for each shard, kept beside the shards."""

    plan: str
    shards: dict[str, _Shard] = field(default_factory=dict)

    def text(self) -> bytes:
        lines = [{"plan": self.plan}, *(asdict(shard) for shard in self.shards.values())]
        return "".join(json.dumps(line) + "\n" for line in lines).encode()


@checked("megabytes", "validation", "seed")
def shard(
    folder: str | Path,
    out: str | Path,
    *,
    megabytes: float = SHARD_MEGABYTES,
    validation: float = 0.1,
    seed: int = 0,
    labelling: Labelling | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, Any]:
    """Write a folder, table or archive of images as WebDataset shards in `out`, mixed across classes; describe them.

    The splits are those that training on the folder would see: `train/`, `val/` and `test/` where there are such, else
    a share of `validation` is held out in the same way. Pictures that cannot be decoded are left out and named in
    `left_out`. No file of `folder` is changed. `labelling` says how classes are found where no folder says them.
    `progress` gets the pictures behind us and those in all.
    Raises `DataError` (exit code 3) for the folder, `UsageError` (exit code 2) for a number that cannot be, and
    where `out` holds something else,
    `StorageError` (exit code 7).
    """
    source, target = Path(folder), Path(out)
    require(megabytes=megabytes, validation=validation, seed=seed)
    if target.resolve().is_relative_to(source.resolve()):
        raise UsageError("the shards cannot lie in the folder itself", file=target, remedy="an --out outside of it")
    layout = find_layout(source, labelling)
    listing, source = listing_of(layout, source), layout.root
    splits, left_out = _splits(source, listing, validation)
    plan = _plan(source, listing, splits, megabytes, seed)
    try:
        with _locked(target):
            state = _resume(target, plan)
            if not (target / DESCRIPTION).exists():
                before, total = 0, sum(map(len, splits.values()))
                for name, pairs in splits.items():
                    order = [pairs[place] for place in permutation(seed, 0, len(pairs), "shards", name)]
                    move = partial(_move, progress, before, total)
                    _Writer(source, target, megabytes, move).split(name, order, state)
                    before += len(pairs)
            return _finish(source, target, listing, state, left_out)
    except (OSError, StorageError) as error:
        if isinstance(error, OSError):
            error = StorageError.from_os(error, "cannot write the shards", error.filename or target)
        remedy = "room for it, then the same command once more: it goes on where it stopped"
        raise StorageError(error.what, file=error.file, why=error.why, remedy=remedy) from error


def _move(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _splits(source: Path, listing: Listing, validation: float) -> tuple[dict[str, Pairs], dict[str, str]]:
    """The splits of a folder, made as training makes them where there are none, and what is left out and why."""
    paths = [path for members, _ in listing.splits.values() for path in members]
    entries = dict(zip(paths, scan(source, paths), strict=True))
    unreadable = {below(path, source): entry.why for path, entry in entries.items() if entry.why}
    listed = listed_files(listing, entries)
    refuse_unreadable(source, listed, unreadable, len(paths), share=1.0)
    splits = complete(listed, validation, source)
    pairs = {
        name: list(zip(splits[name].paths, splits[name].labels.tolist(), strict=True))
        for name in PREFIXES
        if name in splits and len(splits[name])
    }
    return pairs, unreadable


def _plan(source: Path, listing: Listing, splits: dict[str, Pairs], megabytes: float, seed: int) -> str:
    """What decides the shards, in short. Files count by name, size and time."""
    digest = hashlib.sha256(repr((FORMAT, listing.classes, megabytes, seed)).encode())
    for name, pairs in splits.items():
        for path, label in pairs:
            status = path.stat()
            entry = (name, below(path, source), label, status.st_size, status.st_mtime_ns)
            digest.update(repr(entry).encode(errors="surrogateescape"))
    return digest.hexdigest()


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    target.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target / ".shard.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError("another process writes there", file=target, remedy="wait for it, or another --out") from None
    try:
        yield
    finally:
        lock.release()


def _resume(target: Path, plan: str) -> _Progress:
    """What a former run has left in the output folder. Raises `UsageError` for anything that is not ours."""
    journal = target / JOURNAL
    occupied = any(not path.name.startswith(".shard.") for path in target.iterdir())
    if not journal.exists():
        if occupied:
            raise UsageError("the output folder holds other files", file=target, remedy="another --out")
        state = _Progress(plan)
        replace_file(journal, state.text())
        return state
    first, *lines = (json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines())
    if first["plan"] != plan:
        raise UsageError(
            "the output folder holds another set",
            file=target,
            why="it was written from other images or with other settings",
            remedy="another --out",
        )
    sweep(target)
    shards = [_Shard(**line) for line in lines]
    good = {shard.file: shard for shard in shards if shard.stands(target)}
    if len(good) < len(shards):
        (target / DESCRIPTION).unlink(missing_ok=True)
    return _Progress(plan, good)


@dataclass(frozen=True)
class _Writer:
    source: Path
    target: Path
    megabytes: float
    progress: Callable[[int], None]

    def split(self, name: str, order: Pairs, state: _Progress) -> None:
        """Write the shards of a split that are not there yet."""
        position = number = samples = 0
        while position < len(order):
            file = f"{PREFIXES[name]}-{number:06d}.tar"
            written = state.shards.get(file)
            if written is None:
                written = state.shards[file] = self.shard(file, name, order, position, samples)
                replace_file(self.target / JOURNAL, state.text())
            position, samples, number = written.end, samples + written.samples, number + 1
            self.progress(position)

    def shard(self, file: str, split: str, order: Pairs, begin: int, first: int) -> _Shard:
        """Fill one shard with the pictures from `begin` on; its first key is `first`."""
        path, beside = self.target / file, self.target / f".{file}.{os.getpid()}.tmp"
        end, samples, left_out = begin, 0, {}
        try:
            with tarfile.open(beside, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for picture, label, content in _checked(order[begin:]):
                    end += 1
                    self.progress(end)
                    if isinstance(content, str):
                        left_out[below(picture, self.source)] = content
                        continue
                    _add(tar, f"{first + samples:09d}{_suffix(picture, content)}", content)
                    _add(tar, f"{first + samples:09d}.cls", str(label).encode())
                    samples += 1
                    if tar.offset >= self.megabytes * 1e6:
                        break
            if not samples:
                return _Shard(file, split, begin, end, samples, left_out)
            with beside.open("rb") as stream:
                os.fsync(stream.fileno())
                digest = sha256_file(stream)
            beside.replace(path)
            sync_folder(self.target)
            make_index(path)  # for the next reader, and a proof that the shard can be read
            return _Shard(file, split, begin, end, samples, left_out, path.stat().st_size, digest)
        finally:
            beside.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """A member that depends on its name and content alone."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), 0o444, 0
    tar.addfile(member, BytesIO(content))
    # `tarfile` keeps a list of all that it has written, which would grow with the shard.
    tar.members.clear()  # pyrefly: ignore [missing-attribute]


def _checked(order: Pairs) -> Iterator[tuple[Path, int, bytes | str]]:
    """Each picture's bytes, or why it cannot be decoded, in order; decodes some ahead of whoever asks."""

    def read(path: Path) -> bytes | str:
        try:
            content = path.read_bytes()
            read_image(path, stream=BytesIO(content))
        except DataError as error:
            return error.reason
        except OSError as error:
            return error.strerror or str(error)
        return content

    waiting: list[tuple[Path, int, Future[bytes | str]]] = []
    with ThreadPoolExecutor() as pool:
        try:
            for path, label in order:
                waiting.append((path, label, pool.submit(read, path)))
                if len(waiting) > AHEAD:
                    file, number, future = waiting.pop(0)
                    yield file, number, future.result()
            for file, number, future in waiting:
                yield file, number, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _suffix(path: Path, content: bytes) -> str:
    """A file's own suffix where readers of shards know it as a picture's, else that of its format."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return suffix
    with Image.open(BytesIO(content), formats=FORMATS) as image:
        return f".{(image.format or 'png').lower()}"


def _finish(source: Path, target: Path, listing: Listing, state: _Progress, left_out: dict[str, str]) -> dict[str, Any]:
    """Write the description, unless it is there. Raises `DataError` (exit code 3) where no picture can be decoded."""
    splits: dict[str, list[dict[str, Any]]] = {}
    left_out = dict(left_out)
    for _, written in sorted(state.shards.items()):
        left_out |= written.left_out
        if written.samples:
            entry = {name: getattr(written, name) for name in ("file", "samples", "bytes", "sha256")}
            splits.setdefault(written.split, []).append(entry)
    refuse_unreadable(source, {"all": splits}, left_out, len(left_out), share=1.0)
    description = {"format": FORMAT, "classes": list(listing.classes), "splits": splits, "left_out": left_out}
    if not (target / DESCRIPTION).exists():
        replace_file(target / DESCRIPTION, (json.dumps(description, indent=1) + "\n").encode())
    return description
