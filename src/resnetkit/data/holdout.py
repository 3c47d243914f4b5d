"""What a set is held out of itself, where it has no split for it: whole groups of pictures, by their content.

Whether a picture is held out follows from its content alone, so that adding pictures moves no others across. Files that
belong together (copies, crops and frames of one thing, by their names and by their bytes) lie on one side.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from resnetkit.data.filenames import group_of
from resnetkit.data.splits import SPLIT_SEED, Files, Held, Images, Split, below
from resnetkit.errors import UsageError
from resnetkit.randomness import key


def complete(splits: Mapping[str, Held], share: float, root: Path, group_by: str | None = None) -> dict[str, Held]:
    """The splits of a set with those that it lacks: train, validation and test of "all", validation of "train".

    `group_by` is a regular expression: files of which it finds the same, in the path below `root`, belong together.
    Raises `UsageError` (exit code 2) where it cannot be one.
    """
    whole = dict(splits)
    if "all" in whole:
        everything = whole.pop("all")
        groups = groups_of(everything, root, group_by)
        held = _held_out(everything, groups, share, "test")
        whole["test"], train = everything.take(np.flatnonzero(held)), everything.take(np.flatnonzero(~held))
        groups = groups[~held]  # whole groups have gone, so those that are left are what they were
    elif "train" in whole and "validation" not in whole:
        train = whole["train"]
        groups = groups_of(train, root, group_by)
    else:
        return whole
    held = _held_out(train, groups, share, "validation")
    whole["train"], whole["validation"] = train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held))
    return whole


def _held_out(files: Held, groups: np.ndarray, share: float, use: str) -> np.ndarray:
    """Which files are held out, bool (N,): about `share` of the groups of each class.

    A class of two groups or more keeps one and gives one at least; a class of one group keeps it.
    """
    # One member draws for its group, the same one whatever the order: a draw of each would hold out the large groups.
    speaker = np.full(groups.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(speaker, groups, files.contents())
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
    return held[groups]


def groups_of(files: Held, root: Path, group_by: str | None = None) -> np.ndarray:
    """The number of the group that each file belongs to, int64 (N,): by name, or by `group_by`; and by content."""
    names = _named_groups(files.paths, root, group_by) if isinstance(files, Files) else ()
    joined = _Joined(len(files))
    for keys in (names, files.contents().tolist()):
        first: dict[str | int, int] = {}
        for place, each in enumerate(keys):
            joined.join(first.setdefault(each, place), place)
    return np.unique([joined.root(place) for place in range(len(files))], return_inverse=True)[1]


def group_by_name(parts: Sequence[Split], root: Path, group_by: str | None = None) -> dict[str, int]:
    """The group of every file of some splits together, by its name; empty where they were not read from files."""
    held = [part.files if isinstance(part, Images) else part for part in parts]
    files = [part for part in held if isinstance(part, Files)]
    if len(files) < len(parts):
        return {}
    paths = tuple(path for part in files for path in part.paths)
    marks = np.concatenate([part.marks for part in files])
    groups = groups_of(Files(paths, torch.cat([part.labels for part in files]), marks), root, group_by)
    return dict(zip(map(str, paths), groups.tolist(), strict=True))


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
        name = below(path, root)
        match = pattern.search(path.name) or pattern.search(name)
        names.append(name if match is None else match[1] if pattern.groups else match[0])
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
