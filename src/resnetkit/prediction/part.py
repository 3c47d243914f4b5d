"""Answers on their way into a file: blocks of them in a folder beside it, each of which is whole or not there.

NAME.part/
├── job.json                        whose answers they are
├── 00000000-6f1c….rows             a block: a row of JSON for each of up to `BLOCK` inputs; named by its inputs
└── whole                           the file while it is put together, at the end
"""

import filecmp
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from resnetkit.errors import StorageError, UsageError
from resnetkit.machine.lock import alone_in
from resnetkit.machine.storage import replace_file, sweep
from resnetkit.prediction.answer import Prediction

BLOCK = 256
"""Inputs whose answers are kept together: a multiple of every `Classifier.chunk`, and what a kill may cost."""
JOB, WHOLE, ROWS = "job.json", "whole", ".rows"


@dataclass(frozen=True)
class Part:
    """The folder of a file that is not finished."""

    folder: Path
    kept: frozenset[str] = frozenset()
    """Names of the blocks that were there when it was opened."""
    overwrite: bool = False
    """Whether a file that is there is to be replaced at the end."""

    @property
    def whole(self) -> Path:
        """Where the file is put together."""
        return self.folder / WHOLE

    def write(self, block: str, rows: Sequence[Prediction]) -> None:
        """Keep the rows of a block. Raises `StorageError` (exit code 7)."""
        lines = [json.dumps([row.file, row.top, row.error, row.unknown, row.unknown_score]) for row in rows]
        replace_file(self.folder / f"{block}{ROWS}", "".join(f"{line}\n" for line in lines).encode())

    def read(self, block: str) -> list[Prediction]:
        """The rows of a block. Raises `StorageError` (exit code 7) where it is damaged, or has gone."""
        file = self.folder / f"{block}{ROWS}"
        try:
            rows = [_prediction(*json.loads(line)) for line in file.read_bytes().splitlines()]
            if not block.endswith(digest_of(row.file for row in rows)):
                raise ValueError("its rows are of other inputs")
        except (OSError, ValueError, TypeError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)[:100]
            remedy = "delete that file, and the same command with --resume"
            raise StorageError("answers that were kept are damaged", file=file, why=why, remedy=remedy) from error
        return rows

    def clear(self) -> None:
        """Remove what is ours, the job first: without it the folder says nothing of any file."""
        for name in (JOB, WHOLE):
            (self.folder / name).unlink(missing_ok=True)
        for block in self.folder.glob(f"*{ROWS}"):
            block.unlink(missing_ok=True)
        sweep(self.folder)


def digest_of(names: Iterator[str] | Collection[str]) -> str:
    """What stands for some names in a row, whatever is in them."""
    joined = "\0".join(names).encode(errors="surrogatepass")
    return hashlib.sha256(joined).hexdigest()[:16]


def _prediction(file: str, top: list[Any], error: str | None, unknown: bool | None, score: float | None) -> Prediction:
    best = tuple((label, share) for label, share in top)
    return Prediction(file, best, error, unknown=unknown, unknown_score=score)


def part_of(out: Path) -> Path:
    """The folder of what is on its way to a file."""
    return out.with_name(f"{out.name}.part")


def is_finished(out: Path, *, overwrite: bool, resume: bool) -> bool:
    """Whether there is nothing left to do, as far as can be seen without the job; writes nothing.

    Raises `UsageError` (exit code 2) where a file, or answers on their way to it, are in the way.
    """
    if out.is_dir():
        raise UsageError("the answers cannot go there", file=out, why="it is a folder", remedy="--out answers.csv")
    folder = part_of(out)
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError("something else is in the way", file=folder, remedy="another --out")
    if (folder / JOB).is_file():
        if not overwrite and not resume:
            remedy = "--resume to go on with them, or --overwrite to begin again"
            raise UsageError("there are unfinished answers", file=folder, remedy=remedy)
        return False
    if not os.path.lexists(out) or overwrite:
        return False
    if resume:
        return True
    raise _occupied(out)


def _occupied(out: Path) -> UsageError:
    return UsageError("there are answers already", file=out, remedy="--overwrite, or another --out")


@contextmanager
def opened(out: Path, job: Mapping[str, str], *, overwrite: bool, resume: bool) -> Iterator[Part]:
    """The folder of what is on its way to `out`, for this process alone; it goes when `out` is finished.

    `job` says, in a few words each, of which the answers depend. Raises `UsageError` (exit code 2) where the folder
    holds those of another job, or another process is at work there; `StorageError` (exit code 7).
    """
    part = Part(part_of(out))
    with _locked(part.folder):
        file = part.folder / JOB
        if overwrite and not resume:
            part.clear()
        if file.is_file():
            begun = _read(file)
            _require_same(part.folder, begun, job)
            overwrite = overwrite or begun.get("overwrite") is True
        else:
            part.clear()
            replace_file(file, json.dumps({**job, "overwrite": overwrite}).encode())
        sweep(part.folder)
        try:
            kept = frozenset(each.stem for each in part.folder.glob(f"*{ROWS}"))
            yield replace(part, kept=kept, overwrite=overwrite)
        except BaseException:
            if not any(part.folder.glob(f"*{ROWS}")):
                part.clear()  # there is nothing to go on with
            raise


def require_free(out: Path, part: Part) -> None:
    """Raise `UsageError` (exit code 2) where there is another file by now that this job was not told to replace.

    One with the same bytes is what this job has put there when it was killed.
    """
    if part.overwrite or not os.path.lexists(out):
        return
    if not out.is_file() or not filecmp.cmp(out, part.whole, shallow=False):
        raise _occupied(out)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    remedy = "wait until it has ended, or another --out"
    busy = partial(UsageError, "another process is at work", file=folder, remedy=remedy)
    try:
        with alone_in(folder, busy, "cannot write the answers"):
            yield
    finally:
        if not (folder / JOB).is_file():
            with suppress(OSError):
                folder.rmdir()  # of another process there is at least its lock in it


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _require_same(folder: Path, begun: Mapping[str, Any], job: Mapping[str, str]) -> None:
    for name, value in job.items():
        if begun.get(name) != value:
            raise UsageError(
                "there are unfinished answers of another job",
                file=folder,
                why=f"the {name} {'are' if name.endswith('s') else 'is'} not the same",
                remedy="the same command as before, or --overwrite without --resume to begin again",
            )
