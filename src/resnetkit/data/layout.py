"""What a source of pictures holds, as far as names and tables say it: splits, classes, files. It opens no picture.

A folder (`survey`), a table (`table`) and names of files (`namepattern`) each give a `Layout`; what is then asked of it
is the same for all.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from resnetkit.data.classnames import told_apart
from resnetkit.data.walk import NO_IMAGE
from resnetkit.errors import DataError
from resnetkit.machine.console import shown

LAYOUT = "one folder for each class, such as cats/ and dogs/, in the folder itself or in its train/ and val/"
SEEN = 3
"""Folders that a message names before it says that there are more."""

NO_CLASS, NO_LABEL = "in no class folder", "in a split that has no class folders"
BESIDE, OWN = "in folders beside the splits", "in the folder of a run"
UNLABELLED, NO_MATCH = "without a label in the table", "whose names the pattern does not match"
"""Reasons for which files are passed over."""


Members = dict[str, dict[str, list[Path]]]
Folders = dict[tuple[str, str], Path]


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a table. The doctor lists all of it; training refuses the first that is `grave`."""

    kind: str
    """A key of `doctor.report.OF_TABLES`."""
    files: tuple[str, ...]
    why: str
    """With the number of the row."""
    what: str
    remedy: str = ""
    grave: bool = True


@dataclass(frozen=True)
class Layout:
    """What a source holds, whether it can be used or not. The splits are "train", "validation", "test", or "all"."""

    root: Path
    members: Members
    """For each split and class, the images, sorted."""
    folders: Folders
    """For each split and class, where its images lie; empty where no folder says the class."""
    left_out: dict[str, list[Path]] = field(default_factory=dict)
    """Files that are passed over, by the reason."""
    notes: tuple[str, ...] = ()
    """What was decided about names."""
    rows: Mapping[Path, str] = field(default_factory=dict)
    """Where a table names each image, for people, such as "row 7 of labels.csv"."""
    troubles: tuple[Trouble, ...] = ()
    """What is wrong with the table."""

    def place(self, split: str, name: str) -> Path:
        """Where the images of a class lie in a split, or should."""
        if (split, name) in self.folders:
            return self.folders[split, name]
        return next((place.parent for (other, _), place in self.folders.items() if other == split), self.root) / name

    def images(self) -> Iterator[tuple[str, str, Path]]:
        """Split, class and path of every image."""
        for split, of in self.members.items():
            for name, paths in of.items():
                for path in paths:
                    yield split, name, path

    def said(self, path: Path, why: str) -> str:
        """Why something is wrong with an image, and the row that names it."""
        return f"{why} ({self.rows[path]})" if path in self.rows else why


class LeftOut(NamedTuple):
    """Files that are passed over for one reason: how many, and a line that names the first."""

    count: int
    line: str


@dataclass(frozen=True)
class Listing:
    """What a source holds that can be used. `splits` maps "train", "validation", "test", "all" to paths and labels."""

    classes: tuple[str, ...]
    splits: dict[str, tuple[list[Path], list[int]]]
    left_out: dict[str, list[Path]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def listing_of(layout: Layout, source: Path) -> Listing:
    """The classes of a layout and the images of each split.

    Raises `DataError` (exit code 3), naming what is expected, where there is nothing to learn, and for the first grave
    trouble of a table.
    """
    for trouble in layout.troubles:
        if trouble.grave:
            raise DataError(trouble.what, file=source, why=trouble.why, remedy=trouble.remedy)
    members = layout.members
    found = {name for classes in members.values() for name, paths in classes.items() if paths}
    if not found:
        raise nothing_to_learn(layout, source)
    for split in ("train", "all"):
        empty = [layout.folders[split, name] for name, paths in members.get(split, {}).items() if not paths]
        if empty:
            why = [f"it holds {line}" for line in describe_left_out(_below(empty[0], layout.left_out), layout.root)]
            why += [f"so do {listed(empty[1:])}"] if empty[1:] else []
            remedy = "add some, or remove the folder" + "s" * bool(empty[1:])
            raise DataError("a class folder holds no image", file=empty[0], why="; ".join(why), remedy=remedy)
    if "train" in members:
        names = {name for name, paths in members["train"].items() if paths}
        if strangers := sorted(found - names):
            home = next((place for (split, _), place in layout.folders.items() if split == "train"), None)
            where = home.parent if home is not None else source
            remedy = f"add images to {where / strangers[0]}" if home is not None else "rows of it that are of train"
            raise DataError(
                f"the training split has no image of {', '.join(told_apart(strangers[:5], names))}",
                file=where,
                why="another split holds that class",
                remedy=f"{remedy}, or take the class out",
            )
    classes = tuple(sorted(found) if layout.folders else in_natural_order(found))
    label_of = {name: label for label, name in enumerate(classes)}
    splits = {}
    for split, of in members.items():
        pairs = [(path, label_of[name]) for name in classes for path in of.get(name, [])]
        splits[split] = ([path for path, _ in pairs], [label for _, label in pairs])
    return Listing(classes, splits, layout.left_out, layout.notes)


def nothing_to_learn(layout: Layout, source: Path) -> DataError:
    """What is said of a source without an image in a class, with what it holds instead."""
    reason = next((reason for reason in (NO_MATCH, UNLABELLED) if layout.left_out.get(reason)), None)
    if reason is not None:
        paths = layout.left_out[reason]
        why = f"it has {len(paths):,} files {reason}, such as {shown(os.path.relpath(paths[0], layout.root))}"
        remedy = "another --data.label-from" if reason == NO_MATCH else "another --data.label-column"
        return DataError("there is nothing to learn", file=source, why=why, remedy=remedy)
    flat, instead = layout.left_out.get(NO_CLASS), list(describe_left_out(layout.left_out, layout.root))
    why = f"its {len(flat)} images are in no class folder" if flat else f"it holds {', '.join(instead) or 'no image'}"
    return DataError("there is nothing to learn", file=source, why=why, remedy=f"a folder with {LAYOUT}")


def _below(folder: Path, left_out: Mapping[str, list[Path]]) -> dict[str, list[Path]]:
    inside = {reason: [path for path in paths if folder in path.parents] for reason, paths in left_out.items()}
    return {reason: paths for reason, paths in inside.items() if paths}


_NUMBER = re.compile(r"[+-]?\d{1,15}(?:\.\d{1,15})?", re.ASCII)


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Names in the order of their numbers where all of them are numbers, so that 10 comes behind 9."""
    known = sorted(names)
    return sorted(known, key=float) if all(_NUMBER.fullmatch(name) for name in known) else known


def describe_left_out(
    left_out: Mapping[str, list[Path]], root: Path, rows: Mapping[Path, str] | None = None
) -> Iterator[str]:
    """A line for each reason: how many files are passed over, and the first of them."""
    for reason, paths in left_out.items():
        first = shown(os.path.relpath(paths[0], root))
        kinds = ""
        if reason == NO_IMAGE:
            counts: dict[str, int] = defaultdict(int)
            for path in paths:
                counts[path.suffix.lower()] += 1
            kinds = f" ({', '.join(f'{count:,} {suffix}' for suffix, count in sorted(counts.items())[:5])})"
        row = f" ({rows[paths[0]]})" if rows and paths[0] in rows else ""
        yield f"{len(paths):,} files {reason}{kinds}, such as {first}{row}"


def describe_troubles(troubles: Iterable[Trouble]) -> Iterator[str]:
    """A line for each kind that is borne: how often, and the first of them."""
    of: dict[str, list[Trouble]] = defaultdict(list)
    for trouble in troubles:
        of[trouble.what].append(trouble)
    for what, found in of.items():
        yield f"{len(found):,} {what}: {found[0].why}"


def listed(folders: Iterable[Path]) -> str:
    """Folders for people."""
    return some(f"{folder.name}/" for folder in folders)


def some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    known = list(names)
    return ", ".join(known[:SEEN]) + (f" and {len(known) - SEEN} more" if len(known) > SEEN else "")
