"""What a folder is held out of itself, where it has no split for it: whole groups of files, by their content.

Whether a picture is held out follows from its content alone, so that adding pictures moves no others across. Files that
belong together (copies, crops and frames of one thing, by their names and by their bytes) lie on one side.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from resnetkit.data.filenames import group_of
from resnetkit.data.splits import SPLIT_SEED, Files
from resnetkit.errors import UsageError
from resnetkit.randomness import key


def complete(splits: Mapping[str, Files], share: float, root: Path, group_by: str | None = None) -> dict[str, Files]:
    """The splits of a folder with those that it lacks: train, validation and test of "all", validation of "train".

    `group_by` is a regular expression: files of which it finds the same, in the path below `root`, belong together.
    Raises `UsageError` (exit code 2) where it cannot be one.
    """
    whole = dict(splits)
    if "all" in whole:
        rest, whole["test"] = _hold_out(whole.pop("all"), share, "test", root, group_by)
        whole["train"], whole["validation"] = _hold_out(rest, share, "validation", root, group_by)
    elif "train" in whole and "validation" not in whole:
        whole["train"], whole["validation"] = _hold_out(whole["train"], share, "validation", root, group_by)
    return whole


def _hold_out(files: Files, share: float, use: str, root: Path, group_by: str | None) -> tuple[Files, Files]:
    """What is kept and what is held out: about `share` of the groups of each class.

    A class of two groups or more keeps one and gives one at least; a class of one group keeps it.
    """
    groups = groups_of(files, root, group_by)
    # One member draws for its group, the same one whatever the order: a draw of each would hold out the large groups.
    speaker = np.full(groups.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(speaker, groups, files.marks)
    draw_of = np.array([key(SPLIT_SEED, use, mark) for mark in speaker.tolist()], dtype=np.float64) / 2.0**63
    held = draw_of < share
    labels = files.labels.numpy()
    for label in np.unique(labels):
        own = np.unique(groups[labels == label])
        if len(own) > 1:
            held[own[np.argmin(draw_of[own])]] = True
            if held[own].all():
                held[own[np.argmax(draw_of[own])]] = False
        else:
            held[own] = False
    out = held[groups]
    return files.take(np.flatnonzero(~out)), files.take(np.flatnonzero(out))


def groups_of(files: Files, root: Path, group_by: str | None = None) -> np.ndarray:
    """The number of the group that each file belongs to, int64 (N,): by name, or by `group_by`; and by content."""
    names = _named_groups(files.paths, root, group_by)
    joined = _Joined(len(files))
    for keys in (names, files.marks.tolist()):
        first: dict[str | int, int] = {}
        for place, each in enumerate(keys):
            joined.join(first.setdefault(each, place), place)
    return np.unique([joined.root(place) for place in range(len(files))], return_inverse=True)[1]


def _named_groups(paths: tuple[Path, ...], root: Path, group_by: str | None) -> list[str]:
    if group_by is None:
        stems: dict[Path, set[str]] = defaultdict(set)
        for path in paths:
            stems[path.parent].add(path.stem)
        return [group_of(path, stems[path.parent]) for path in paths]
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UsageError(
            f"--data.group-by {group_by} cannot be", why=str(error), remedy=r"a regular expression, such as '^[^_]+'"
        ) from error
    names = []
    for path in paths:
        below = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
        match = pattern.search(path.name) or pattern.search(below)
        names.append(below if match is None else match[1] if pattern.groups else match[0])
    return names


class _Joined:
    """Sets that are joined pair by pair."""

    def __init__(self, count: int) -> None:
        self.above = list(range(count))

    def root(self, place: int) -> int:
        """The place that stands for its set."""
        while self.above[place] != place:
            self.above[place] = self.above[self.above[place]]
            place = self.above[place]
        return place

    def join(self, one: int, other: int) -> None:
        """Make one set of two."""
        self.above[self.root(other)] = self.root(one)
