"""A folder of images on disk: which splits it has, which classes, which files, and which of them are no images.

Layouts: `photos/CLASS/*.jpg`, or `photos/train/CLASS/*.jpg` beside `val/` or `test/` or both.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from resnetkit.errors import DataError
from resnetkit.preprocess import check_header

SPLIT_FOLDERS = {"train": "train", "training": "train", "test": "test"} | dict.fromkeys(
    ("val", "valid", "validation"), "validation"
)
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"))
IMAGE_SUFFIXES |= {".ppm", ".pgm", ".pbm"}
LAYOUT = "one folder for each class, such as cats/ and dogs/, in the folder itself or in its train/ and val/"


@dataclass(frozen=True)
class Listing:
    """What a folder holds. `splits` maps "train", "validation", "test", or "all", to paths and labels."""

    classes: tuple[str, ...]
    splits: dict[str, tuple[list[Path], list[int]]]
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Width and height of every readable image."""
    unreadable: dict[str, str] = field(default_factory=dict)


def list_images(folder: Path) -> list[Path]:
    """All image files below a folder, sorted; hidden files and links back to a folder above are left out."""
    return sorted(_walk(folder, seen=set()))


def list_folder(folder: Path) -> Listing:
    """Read a folder's layout and every image's header. Raises `DataError` (exit code 3), naming what is expected."""
    if not folder.is_dir():
        why = "it is a file" if folder.exists() else "no such folder"
        raise DataError("cannot read the images", file=folder, why=why, remedy=f"a folder with {LAYOUT}")
    roots = {SPLIT_FOLDERS[child.name.lower()]: child for child in subfolders(folder) if is_split(child)}
    if "train" not in roots:
        roots = roots or {"all": folder}
    by_split = {split: {child.name: list_images(child) for child in subfolders(root)} for split, root in roots.items()}
    found = {name for classes in by_split.values() for name, paths in classes.items() if paths}
    if not found:
        flat = list_images(folder)
        why = f"its {len(flat)} images are in no class folder" if flat else "it holds no image"
        raise DataError("there is nothing to learn", file=folder, why=why, remedy=f"a folder with {LAYOUT}")
    for split in ("train", "all"):
        for name, paths in by_split.get(split, {}).items():
            if not paths:
                raise DataError(
                    "a class folder holds no image", file=roots[split] / name, remedy="add some, or remove the folder"
                )
    if "train" in by_split:
        names = {name for name, paths in by_split["train"].items() if paths}
        if strangers := sorted(found - names):
            raise DataError(
                f"the training split has no image of {', '.join(strangers[:5])}",
                file=roots["train"],
                why="another split holds that class",
                remedy=f"add images to {roots['train'] / strangers[0]}, or take the class out",
            )
    classes = tuple(sorted(found))
    label_of = {name: label for label, name in enumerate(classes)}
    return _read_headers(
        classes,
        {
            split: [(path, label_of[name]) for name in classes for path in members.get(name, [])]
            for split, members in by_split.items()
        },
    )


def _read_headers(classes: tuple[str, ...], members: dict[str, list[tuple[Path, int]]]) -> Listing:
    listing = Listing(classes, {})
    with ThreadPoolExecutor() as pool:
        for split, pairs in members.items():
            paths, labels = [], []
            for (path, label), outcome in zip(pairs, pool.map(_header, (path for path, _ in pairs)), strict=True):
                if isinstance(outcome, DataError):
                    listing.unreadable[str(path)] = outcome.why or outcome.what
                else:
                    paths.append(path)
                    labels.append(label)
                    listing.sizes.append(outcome)
            listing.splits[split] = (paths, labels)
    if not listing.sizes:
        path, why = next(iter(listing.unreadable.items()))
        raise DataError("no image can be read", file=path, why=why)
    return listing


def _header(path: Path) -> tuple[int, int] | DataError:
    try:
        return check_header(path)
    except DataError as error:
        return error


def is_split(folder: Path) -> bool:
    """Whether a folder is named like a split and holds class folders."""
    return folder.name.lower() in SPLIT_FOLDERS and any(True for _ in subfolders(folder))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith((".", "__")))


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith((".", "__MACOSX")):
                continue
            if entry.is_dir():
                yield from _walk(Path(entry.path), seen)
            elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES or "." not in entry.name:
                yield Path(entry.path)
