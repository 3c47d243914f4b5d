"""Files sorted into folders by what is on them: copies or links, which never take the place of another file."""

import errno
import filecmp
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from resnetkit.errors import StorageError, UsageError
from resnetkit.prediction.answer import Prediction

UNKNOWN = "unknown"
LONGEST = 255
"""Bytes of a name that every system takes."""
LONGEST_FOLDER = 100
_UNSAFE = re.compile(r'[<>:"/\\|?*]')
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that Windows keeps for itself."""
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES)


@dataclass
class Sorter:
    """Puts files into `folder/CLASS/`, in the order of their answers.

    A name that is taken gets a number. A file of the same name and content that was there before counts as the copy
    that an interrupted command has left, so that the same command may be given again.
    """

    folder: Path
    classes: Sequence[str]
    link: bool = False
    reject: bool = False
    """Whether what is unknown has a folder of its own."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Files that are in no folder, and why."""
    _numbers: dict[int, int] = field(default_factory=dict)
    """The last number that was given to a name in a folder, by the hash of both."""

    def __post_init__(self) -> None:
        *names, unknown = safe_names([*self.classes, UNKNOWN])
        self._folders, self._unknown = dict(zip(self.classes, names, strict=True)), unknown

    def place(self, row: Prediction) -> Path | None:
        """Where the file is now; None where it has no answer, or is no file. Raises `StorageError` (exit code 7)."""
        if row.error is not None or not row.top:
            self.left_out[row.file] = row.error or "there is no answer"
            return None
        source = Path(row.file)
        folder = self.folder / (self._unknown if self.reject and row.unknown else self._folders[row.top[0][0]])
        if not source.is_file():
            packed = next((each for each in source.parents if each.is_file()), None)
            inside = f"it is inside of {packed.name}: unpack that first" if packed else ""
            self.left_out[row.file] = inside or "no such file by now"
            return None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return self._put(source, folder)
        except OSError as error:
            if error.filename is not None and Path(os.fsdecode(error.filename)) == source:
                self.left_out[row.file] = error.strerror or str(error)
                return None
            raise StorageError.from_os(error, "cannot sort the files", folder) from error

    def _put(self, source: Path, folder: Path) -> Path:
        key = hash((folder.name, source.name))
        number = self._numbers.get(key, 0)
        beside = folder / f".sorting-{os.getpid()}.tmp"
        try:
            while True:
                number += 1
                target = folder / _numbered(source.name, number)
                if os.path.lexists(target):
                    if not self._is_ours(source, target):
                        continue
                elif not self._make(source, target, beside):
                    continue
                self._numbers[key] = number
                return target
        finally:
            beside.unlink(missing_ok=True)

    def _is_ours(self, source: Path, target: Path) -> bool:
        """Whether that is what would be put there."""
        with suppress(OSError):
            if target.samefile(source):
                return True
            return not self.link and target.is_file() and filecmp.cmp(source, target, shallow=False)
        return False

    def _make(self, source: Path, target: Path, beside: Path) -> bool:
        """Whether the name was still free."""
        try:
            if self.link:
                _link(source, target)
                return True
            if not beside.exists():
                shutil.copy2(source, beside)
            try:
                os.link(beside, target)  # unlike a rename it takes no other file's place
            except OSError as error:
                if error.errno not in _NO_LINK or os.path.lexists(target):
                    raise
                beside.rename(target)
        except FileExistsError:
            return False
        return True


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        target.symlink_to(source.resolve())


def _numbered(name: str, number: int) -> str:
    """A file's name with a number before its ending, the first without one."""
    if number == 1:
        return name
    stem, dot, ending = name.rpartition(".")
    if not stem:
        stem, dot, ending = name, "", ""
    suffix = f"-{number}{dot}{ending}"
    while len(os.fsencode(stem + suffix)) > LONGEST and len(stem) > 1:
        stem = stem[:-1]
    return stem + suffix


def safe_names(labels: Sequence[str]) -> list[str]:
    """Names of folders that every system takes, one for each class, no two alike where case does not count."""
    taken: set[str] = set()
    names = []
    for label in labels:
        plain = "".join(letter if letter.isprintable() else "_" for letter in _UNSAFE.sub("_", label))
        plain = plain.encode()[:LONGEST_FOLDER].decode(errors="ignore").rstrip(" .").lstrip(" ")
        if not plain or plain.startswith(".") or _DEVICES.fullmatch(plain):
            plain = f"_{plain}"
        name, number = plain, 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def require_apart(folder: Path, given: Sequence[str | Path]) -> None:
    """Raise `UsageError` (exit code 2) where files would be sorted into a folder that holds what is looked at."""
    if folder.exists() and not folder.is_dir():
        raise UsageError("files cannot be sorted there", file=folder, why="it is a file", remedy="another --sort-into")
    target = folder.resolve()
    inside = next((each for each in given if Path(each).resolve().is_relative_to(target)), None)
    if inside is not None:
        why, remedy = f"it holds {inside}, which is looked at", "another --sort-into"
        raise UsageError("files cannot be sorted there", file=folder, why=why, remedy=remedy)
