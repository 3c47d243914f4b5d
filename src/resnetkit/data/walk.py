"""Every file below a folder: which are images, by their names, and why the others are not. Opens no file."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from resnetkit.data import filenames
from resnetkit.images.formats import is_image_name, kind_of

MASKS, THUMBNAILS = "that are masks of others", "that are thumbnails of others"
HIDDEN, NO_IMAGE = "in hidden folders", "that are no images by their names"
"""Reasons for which files are passed over."""


@dataclass
class Found:
    """What lies in a folder, or below it."""

    images: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))

    def add(self, other: "Found") -> None:
        """Take in what another place holds."""
        self.images += other.images
        for reason, paths in other.left_out.items():
            self.left_out[reason] += paths


def list_images(folder: Path) -> list[Path]:
    """All image files below a folder, sorted; hidden files, thumbnails, masks and links back are left out."""
    return sorted(walk(folder).images)


def iter_files(folder: Path) -> Iterator[Path]:
    """Every file below a folder, as if sorted, whatever its name; hidden files and those of the system are left out.

    Each folder once, however many links lead to it. A folder that may not be read stands for what is in it. Names are
    held of one folder at a time and of those above it, so that trees of any size take little memory.
    """
    seen: set[tuple[int, int]] = set()
    open_folders = [_entries(folder, seen)]
    while open_folders:
        path, is_folder = next(open_folders[-1], (None, False))
        if path is None:
            open_folders.pop()
        elif is_folder:
            open_folders.append(_entries(path, seen))
        else:
            yield path


def _entries(folder: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, bool]]:
    """What is right in a folder, sorted, each with whether it is a folder; nothing where one was here before."""
    try:
        if _was_here(folder, seen):
            return
        with os.scandir(folder) as entries:
            inside = sorted((entry.name, _is_folder(entry)) for entry in entries)
    except OSError:
        yield folder, False
        return
    for name, is_folder in inside:
        if not (_is_system_folder(name) if is_folder else _is_systems(name)):
            yield folder / name, is_folder


def _was_here(folder: Path, seen: set[tuple[int, int]]) -> bool:
    """Whether a folder is among those that were `seen`, by whatever way one came; from now on it is."""
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        return True
    seen.add(identity)
    return False


def _is_systems(name: str) -> bool:
    """Whether a file is hidden, or one of those that systems put into folders."""
    return name.startswith(".") or name.lower() in filenames.SYSTEM_FILES


def is_aside(parts: Sequence[str]) -> bool:
    """Whether a file, of these folders and this name, is hidden or a system's own, or lies in such a folder."""
    return _is_systems(parts[-1]) or any(map(_is_system_folder, parts[:-1]))


def _is_system_folder(name: str) -> bool:
    return is_hidden(name) or name.lower() in filenames.SYSTEM_FOLDERS | {"@eadir"}


def walk(folder: Path) -> Found:
    """Everything below a folder, each folder once however many links lead to it."""
    found, waiting = Found(), [(folder, "")]
    seen: set[tuple[int, int]] = set()
    while waiting:
        place, reason = waiting.pop()
        if _was_here(place, seen):
            continue
        here = files_in(place)
        below = _folders_in(place)
        if reason:
            found.left_out[reason] += here.images
        else:
            found.add(here)
        pictures = bool(here.images) or any(child.name.lower() in filenames.PICTURE_FOLDERS for child in below)
        waiting += [(child, reason or _reason(child, beside_pictures=pictures)) for child in below]
    found.left_out = {reason: paths for reason, paths in found.left_out.items() if paths}
    return found


def _reason(folder: Path, *, beside_pictures: bool) -> str:
    """Why what is in a folder inside a class is no picture of the class; empty where it is."""
    name = folder.name.lower()
    if name in filenames.THUMBNAIL_FOLDERS:
        return THUMBNAILS
    if name in filenames.SYSTEM_FOLDERS or is_hidden(name):
        return HIDDEN
    return MASKS if beside_pictures and name in filenames.MASK_FOLDERS else ""


def files_in(folder: Path) -> Found:
    """The files right in a folder: images by their names, and what is left out."""
    found = Found()
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not _is_folder(entry)]
    stems = {os.path.splitext(name)[0] for name in names}  # noqa: PTH122 - a million of them
    for name in names:
        if _is_systems(name):
            continue
        path = folder / name
        if "." in name and not is_image_name(name):
            kind = kind_of(name)
            found.left_out[f"that are {kind}" if kind else NO_IMAGE].append(path)
        elif kind := filenames.derived(os.path.splitext(name)[0], stems):  # noqa: PTH122
            found.left_out[MASKS if kind == "mask" else THUMBNAILS].append(path)
        else:
            found.images.append(path)
    return found


def _folders_in(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if _is_folder(entry)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it will name it
        return False


def is_hidden(name: str) -> bool:
    """`.git` is, and `.5mm` is a class of screws."""
    return name.startswith(".") and not name[1:2].isdigit()


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder that may be splits or classes, sorted: not those of the system, nor hidden ones."""
    apart = filenames.SYSTEM_FOLDERS | filenames.THUMBNAIL_FOLDERS
    return sorted(
        child for child in _folders_in(folder) if child.name.lower() not in apart and not is_hidden(child.name)
    )


def hidden_folders(folder: Path) -> list[Path]:
    """The folders in a folder that are hidden, sorted."""
    return sorted(child for child in _folders_in(folder) if is_hidden(child.name))
