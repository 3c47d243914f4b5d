"""A folder of images on disk: which splits it has, which classes, which files. It lists names and opens no file.

Layouts: `photos/CLASS/*.jpg`, or `photos/train/CLASS/*.jpg` beside `val/` or `test/` or both.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from resnetkit.errors import DataError
from resnetkit.images.formats import SUFFIXES

SPLIT_FOLDERS = {"train": "train", "training": "train", "test": "test"} | dict.fromkeys(
    ("val", "valid", "validation"), "validation"
)
IMAGE_SUFFIXES = frozenset(SUFFIXES)
LAYOUT = "one folder for each class, such as cats/ and dogs/, in the folder itself or in its train/ and val/"
IMBALANCE = 10
"""Images of the largest class for each of the smallest: above that, training is worth a word."""


@dataclass(frozen=True)
class Layout:
    """What a folder holds, whether it can be used or not. The keys are "train", "validation", "test", or "all"."""

    roots: dict[str, Path]
    members: dict[str, dict[str, list[Path]]]
    """For each split and class, the images."""


@dataclass(frozen=True)
class Listing:
    """What a folder holds that can be used. `splits` maps "train", "validation", "test", "all" to paths and labels."""

    classes: tuple[str, ...]
    splits: dict[str, tuple[list[Path], list[int]]]


def survey(folder: Path) -> Layout:
    """The splits and classes of a folder. Raises `DataError` (exit code 3) where a folder cannot be read."""
    if not folder.is_dir():
        why = "it is a file" if folder.exists() else "no such folder"
        raise DataError("cannot read the images", file=folder, why=why, remedy=f"a folder with {LAYOUT}")
    try:
        roots = {SPLIT_FOLDERS[child.name.lower()]: child for child in subfolders(folder) if is_split(child)}
        if "train" not in roots:
            roots = roots or {"all": folder}
        members = {
            split: {child.name: list_images(child) for child in subfolders(root)} for split, root in roots.items()
        }
    except OSError as error:
        raise DataError("cannot read the images", file=error.filename or folder, why=error.strerror) from error
    return Layout(roots, members)


def list_folder(folder: Path) -> Listing:
    """A folder's classes and the images of each split. Raises `DataError` (exit code 3), naming what is expected."""
    layout = survey(folder)
    roots, members = layout.roots, layout.members
    found = {name for classes in members.values() for name, paths in classes.items() if paths}
    if not found:
        flat = list_images(folder)
        why = f"its {len(flat)} images are in no class folder" if flat else "it holds no image"
        raise DataError("there is nothing to learn", file=folder, why=why, remedy=f"a folder with {LAYOUT}")
    for split in ("train", "all"):
        for name, paths in members.get(split, {}).items():
            if not paths:
                raise DataError(
                    "a class folder holds no image", file=roots[split] / name, remedy="add some, or remove the folder"
                )
    if "train" in members:
        names = {name for name, paths in members["train"].items() if paths}
        if strangers := sorted(found - names):
            raise DataError(
                f"the training split has no image of {', '.join(strangers[:5])}",
                file=roots["train"],
                why="another split holds that class",
                remedy=f"add images to {roots['train'] / strangers[0]}, or take the class out",
            )
    classes = tuple(sorted(found))
    label_of = {name: label for label, name in enumerate(classes)}
    splits = {}
    for split, of in members.items():
        pairs = [(path, label_of[name]) for name in classes for path in of.get(name, [])]
        splits[split] = ([path for path, _ in pairs], [label for _, label in pairs])
    return Listing(classes, splits)


def list_images(folder: Path) -> list[Path]:
    """All image files below a folder, sorted; hidden files and links back to a folder above are left out."""
    seen, images, waiting = set(), [], [os.fspath(folder)]
    while waiting:
        place = waiting.pop()
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith((".", "__MACOSX")):
                    continue
                if _is_folder(entry):
                    waiting.append(entry.path)
                elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES or "." not in entry.name:
                    images.append(Path(entry.path))
    return sorted(images)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it will name it
        return False


def is_split(folder: Path) -> bool:
    """Whether a folder is named like a split and holds class folders."""
    return folder.name.lower() in SPLIT_FOLDERS and any(True for _ in subfolders(folder))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith((".", "__")))


def twins(names: Iterable[str]) -> list[list[str]]:
    """Groups of class names that a person, or another file system, takes for one."""
    alike = defaultdict(list)
    for name in sorted(names):
        alike[re.sub(r"\s", "", unicodedata.normalize("NFC", name).casefold())].append(name)
    return [group for group in alike.values() if len(group) > 1]
