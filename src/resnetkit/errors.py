"""The exception tree. Each class knows its exit code; each message says what, where, why and what to do.

ResnetkitError          1   a fault of ours
├── UsageError          2   a flag, a name or a recipe that cannot be
│   └── HookError       2   something of the user's own has failed: a callback, a loss, a plugin
├── DataError           3   images or folders
├── CheckpointError     4   weights and checkpoints
├── DivergedError       5   the loss is no longer finite
├── MemoryLimitError    6   out of memory
├── StorageError        7   disk full, read-only, failing
├── PeerError           8   another process of the same training has gone
└── StoppedError      130   interrupted by the user; 143 by the system
"""

import difflib
import errno
import re
import reprlib
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Self


def clipped(text: str) -> str:
    """A text in which no word is so long that it would fill the terminal."""
    return re.sub(r"\S{80,}", lambda word: f"{word[0][:40]}…{word[0][-20:]}", text)


def wrong_field(problem: Mapping[str, Any], names: Sequence[str]) -> tuple[str, str]:
    """What pydantic complains of in a dataclass with fields `names`: the field, and what was given for it, shortened.

    A field that was given by its position is named too; one that there is not keeps its name.
    """
    place = problem["loc"][0]
    given = "nothing" if problem["type"] in ("missing", "missing_argument") else reprlib.repr(problem["input"])
    return names[place] if isinstance(place, int) else str(place), given


def _first(names: Sequence[str], width: int = 160) -> str:
    """Names with commas between, as many as fit."""
    line = ", ".join(names)
    return line if len(line) <= width else f"{line[:width].rpartition(', ')[0]}, …"


class ResnetkitError(Exception):
    """Base of all errors that a caller may want to catch. `str()` is one line that ends with a remedy."""

    exit_code = 1
    said = False
    """Whether another process says it already."""

    def __init__(
        self, what: str, *, file: str | PathLike[str] | None = None, why: str | None = None, remedy: str | None = None
    ) -> None:
        self.what, self.file, self.why, self.remedy = what, file, why, remedy
        line = what
        if file is not None:
            line += f" in {file}"
        if why:
            line += f": {why}"
        line = line.rstrip(".?") + "."
        if remedy:
            line += f" Try: {remedy}"
        super().__init__(" ".join(line.split()))

    def brief(self, most: int) -> str:
        """The line in at most so many characters where a shorter `why`, or else `what`, suffices for that."""
        excess = len(str(self)) - most
        if excess <= 0:
            return str(self)
        text = str(self)
        for part in (" ".join((self.why or "").split()), " ".join(self.what.split())):
            if len(part) > excess + 40:
                return text.replace(part, f"{part[: len(part) - excess - 1].rstrip()}…", 1)
        return text


class UsageError(ResnetkitError):
    """A flag, a name or a recipe that cannot be."""

    exit_code = 2

    @classmethod
    def unknown(
        cls,
        kind: str,
        name: str,
        known: Iterable[str],
        *,
        file: str | PathLike[str] | None = None,
        remedy: str | None = None,
    ) -> Self:
        """`name` is not one of `known`: name the nearest, or as many as fit on two lines."""
        names, name = sorted(known), clipped(name)
        near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
        if near:
            return cls(f"unknown {kind} {name!r}", file=file, remedy=near[0])
        return cls(f"unknown {kind} {name!r}", file=file, why=f"known are {_first(names)}", remedy=remedy)


class HookError(UsageError):
    """Something of the user's own has failed. The message says what, and in which file and line."""

    @classmethod
    def of(cls, what: str, error: Exception, *, remedy: str | None = None) -> Self:
        """What an error in the user's own code means; the place is the last one that is neither ours nor a library's.

        `remedy` is for where the code may be right and what it was given is not what it is for.
        """
        file: str | None = None
        if isinstance(error, SyntaxError):
            file = f"{error.filename}, line {error.lineno}"
        else:
            frames = traceback.extract_tb(error.__traceback__)
            own = [each for each in frames if _is_users(each.filename)]
            if own:
                file = f"{own[-1].filename}, line {own[-1].lineno}"
        first = (str(error).strip().splitlines() or [""])[0]
        why = f"{type(error).__name__}: {clipped(first)[:200]}".rstrip(": ")
        return cls(f"{what} failed", file=file, why=why, remedy=remedy)


def _is_users(filename: str) -> bool:
    """Whether a file of a traceback is neither Python's, nor a library's, nor ours."""
    file, homes = Path(filename), (Path(__file__).parent, sysconfig.get_path("stdlib"))
    strange = {"site-packages", "dist-packages"} & {*file.parts} or filename.startswith("<frozen")
    return not strange and not any(map(file.is_relative_to, homes))


@contextmanager
def blaming(
    what: str, *, remedy: str | None = None, but: Callable[[Exception], bool] = lambda _: False
) -> Iterator[None]:
    """Within, code of the user's own runs: what goes wrong there is told of it, as a `HookError`, in one line.

    `but` says which errors are none of its own.
    """
    try:
        yield
    except ResnetkitError:
        raise
    except Exception as error:
        if but(error):
            raise
        raise HookError.of(what, error, remedy=remedy) from error


class DataError(ResnetkitError):
    """Images or folders of images that cannot be used."""

    exit_code = 3

    @property
    def reason(self) -> str:
        """Why, in the fewest words, for a list that names the file itself."""
        return self.why or self.what


class CheckpointError(ResnetkitError):
    """Weights or a checkpoint that cannot be used."""

    exit_code = 4


class DivergedError(ResnetkitError):
    """The loss is no longer finite."""

    exit_code = 5


class MemoryLimitError(ResnetkitError):
    """The machine or the accelerator has no memory left."""

    exit_code = 6


class StorageError(ResnetkitError):
    """The disk is full, read-only or failing."""

    exit_code = 7

    @classmethod
    def from_os(cls, error: OSError, doing: str, file: str | PathLike[str]) -> Self:
        """What an `OSError` met while writing `file` means to the user."""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return cls(
            doing,
            file=file,
            why="no space left" if full else (error.strerror or str(error)),
            remedy="free some space and run again with --resume" if full else "another folder with --out",
        )


class PeerError(ResnetkitError):
    """Another process of the same training has gone or cannot be reached."""

    exit_code = 8


class StoppedError(ResnetkitError):
    """Interrupted by the user, or by a system that wants its machine back."""

    exit_code = 130
