"""A folder of images on disk: which splits it has, which classes, which files. It lists names and opens no picture.

Layouts: `photos/CLASS/*.jpg`; `photos/train/CLASS/*.jpg` beside `val/` or `test/` or both, under any of their usual
names; `photos/CLASS/train/*.jpg`. What cannot be understood is refused with the line that says what was seen; whatever
is left out is counted, by reason.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from resnetkit.data import filenames
from resnetkit.data.classnames import describe_forms, same_in_other_form
from resnetkit.data.layout import (
    BESIDE,
    LAYOUT,
    NO_CLASS,
    NO_LABEL,
    OWN,
    Folders,
    Layout,
    Listing,
    Members,
    listed,
    listing_of,
    some,
)
from resnetkit.data.walk import HIDDEN, Found, files_in, hidden_folders, subfolders, walk
from resnetkit.errors import DataError, UsageError

IMBALANCE = 10
"""Images of the largest class for each of the smallest: above that, training is worth a word."""
FLAGS = {"train": "--data.train-folder", "validation": "--data.validation-folder", "test": "--data.test-folder"}


def survey(folder: Path, named: Mapping[str, str] | None = None) -> Layout:
    """The splits and classes of a folder.

    `named` says which subfolder is which split ("." is the folder itself); the others are found by their names.
    Raises `DataError` (exit code 3) where a folder cannot be read or its layout can be taken in two ways, `UsageError`
    (exit code 2) where `named` names a folder that is not there.
    """
    if not folder.is_dir():
        why = "it is a file" if folder.exists() else "no such folder"
        raise DataError("cannot read the images", file=folder, why=why, remedy=f"a folder with {LAYOUT}")
    try:
        return _Surveyor(folder, dict(named or {})).layout()
    except OSError as error:
        raise DataError("cannot read the images", file=error.filename or folder, why=error.strerror) from error


class _Surveyor:
    """Looks at one folder: first at what its subfolders are called, then at what is in them."""

    def __init__(self, folder: Path, named: dict[str, str]) -> None:
        self.folder, self.named = folder, named
        self.left_out: dict[str, list[Path]] = defaultdict(list)
        self._walked: dict[Path, Found] = {}
        self.children = [child for child in subfolders(folder) if not self._is_own(child)]

    def layout(self) -> Layout:
        top = files_in(self.folder)
        self._leave_out(top)
        self.left_out[NO_CLASS] += top.images
        for hidden in hidden_folders(self.folder):
            self.left_out[HIDDEN] += files_in(hidden).images
        roots = self._given() or self._splits()
        if roots:
            members, folders = self._of_splits(roots)
        else:
            members, folders = self._of_classes()
        left_out = {reason: sorted(paths) for reason, paths in self.left_out.items() if paths}
        return Layout(self.folder, members, folders, left_out, tuple(_in_one_form(members, folders)))

    def _given(self) -> dict[str, Path]:
        """The splits that the caller names, and those beside them that their names tell."""
        roots = {}
        for split, name in self.named.items():
            roots[split] = self.folder / name
            if not roots[split].is_dir():
                raise UsageError(
                    f"{FLAGS[split]} {name} cannot be",
                    file=self.folder,
                    why="there is no such folder",
                    remedy=some(child.name for child in self.children) or "a folder in it",
                )
        taken = {root.resolve() for root in roots.values()}
        if roots and self.folder.resolve() not in taken:
            for split, found in self._candidates().items():
                others = [child for child in found if child.resolve() not in taken and self._classes(child)]
                if split not in roots and len(others) == 1:
                    roots[split] = others[0]
        return roots

    def _candidates(self) -> dict[str, list[Path]]:
        """Subfolders that are called like a split. More words than that count where two splits share them."""
        spoken = {child: filenames.split_of(child.name) for child in self.children}
        by_rest: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for found in spoken.values():
            if found is not None:
                by_rest[found[1]].add(found[0])
        candidates: dict[str, list[Path]] = defaultdict(list)
        for child, found in spoken.items():
            if found is not None and (not found[1] or len(by_rest[found[1]]) > 1):
                candidates[found[0]].append(child)
        return candidates

    def _splits(self) -> dict[str, Path]:
        """The splits by their names; nothing where the subfolders are classes. Refuses what may be either."""
        candidates = self._candidates()
        with_classes = {
            split: [child for child in found if self._classes(child)] for split, found in candidates.items()
        }
        with_classes = {split: found for split, found in with_classes.items() if found}
        if not with_classes:
            flat = [found[0] for found in candidates.values() if files_in(found[0]).images]
            if len(flat) > 1:
                raise DataError(
                    "the splits have no class folders",
                    file=self.folder,
                    why=f"the images of {listed(flat)} lie in no folder that says what they are",
                    remedy=f"{flat[0].name}/CLASS/ and {flat[1].name}/CLASS/, a folder for each class",
                )
            return {}
        for split, found in with_classes.items():
            if len(found) > 1:
                raise DataError(
                    f"there are two folders for one split ({split})",
                    file=self.folder,
                    why=f"{listed(found)} may be either",
                    remedy=f"{FLAGS[split]} {found[0].name}, or rename one",
                )
        roots = {split: found[0] for split, found in with_classes.items()}
        others = [child for child in self.children if child not in roots.values() and self._walk(child).images]
        classes_beside = [child for child in others if filenames.split_of(child.name) is None]
        if len(roots) == 1 and classes_beside and len(self._flat_splits(candidates, roots)) == 0:
            split, root = next(iter(roots.items()))
            raise DataError(
                f"{root.name}/ may be a split or a class",
                file=self.folder,
                why=f"it holds the folders {listed(self._classes(root))}, and beside it is {listed(classes_beside)}",
                remedy=f"{FLAGS[split]} {root.name} if it is the split, or --data.train-folder . if it is a class",
            )
        return roots

    def _flat_splits(self, candidates: dict[str, list[Path]], roots: dict[str, Path]) -> list[Path]:
        return [child for found in candidates.values() for child in found if child not in roots.values()]

    def _walk(self, folder: Path) -> Found:
        if folder not in self._walked:
            self._walked[folder] = walk(folder)
        return self._walked[folder]

    def _classes(self, folder: Path) -> list[Path]:
        """Folders in a folder that hold images."""
        return [child for child in subfolders(folder) if self._walk(child).images]

    def _of_splits(self, roots: dict[str, Path]) -> tuple[Members, Folders]:
        members: Members = {}
        folders: Folders = {}
        taken = {root.resolve() for root in roots.values()}
        for split, root in roots.items():
            members[split] = {}
            for child in subfolders(root):
                if child.resolve() in taken or self._is_own(child):
                    continue
                members[split][child.name] = self._take(child)
                folders[split, child.name] = child
            if root != self.folder:
                beside = files_in(root)
                self.left_out[NO_CLASS] += beside.images
                self._leave_out(beside)
        if self.folder.resolve() not in taken:
            for child in self.children:
                if child.resolve() not in taken and not any(child in root.parents for root in roots.values()):
                    reason = NO_LABEL if filenames.split_of(child.name) else BESIDE
                    self.left_out[reason] += self._walk(child).images
        return members, folders

    def _of_classes(self) -> tuple[Members, Folders]:
        self._refuse_masks()
        self._refuse_wrapper()
        inside = {child: self._splits_inside(child) for child in self.children if self._walk(child).images}
        if inside and any(inside.values()):
            if not all(inside.values()):
                has = next(child for child, found in inside.items() if found)
                lacks = next(child for child, found in inside.items() if not found)
                raise DataError(
                    "some classes are split and some are not",
                    file=self.folder,
                    why=f"{has.name}/ holds {listed(inside[has].values())}, and {lacks.name}/ does not",
                    remedy="train/CLASS/ and test/CLASS/, or the images of a class in one folder",
                )
            members: Members = defaultdict(dict)
            folders: Folders = {}
            for child, found in inside.items():
                for split, place in found.items():
                    members[split][child.name] = self._take(place)
                    folders[split, child.name] = place
            return dict(members), folders
        classes = {child.name: self._take(child) for child in self.children}
        return {"all": classes}, {("all", child.name): child for child in self.children}

    def _splits_inside(self, child: Path) -> dict[str, Path]:
        """The splits that a class folder is cut into, where all of its images lie in such: cats/train, cats/test."""
        found: dict[str, Path] = {}
        for place in self._classes(child):
            spoken = filenames.split_of(place.name)
            if spoken is None or spoken[1] or spoken[0] in found:
                return {}
            found[spoken[0]] = place
        return found if "train" in found and len(found) > 1 and not files_in(child).images else {}

    def _refuse_masks(self) -> None:
        masks = [child for child in self.children if child.name.lower() in filenames.MASK_FOLDERS]
        pictures = [child for child in self.children if child.name.lower() in filenames.PICTURE_FOLDERS]
        if masks and pictures and len(self.children) == len(masks) + len(pictures):
            raise DataError(
                "these folders are no classes",
                file=self.folder,
                why=f"{listed(pictures)} and {listed(masks)} look like pictures and what was drawn over them",
                remedy=f"a folder with {LAYOUT}",
            )

    def _refuse_wrapper(self) -> None:
        """`photos/photos/cats`, as archives are unpacked: the folder inside is the one that is meant."""
        holding = [child for child in self.children if self._walk(child).images]
        if len(holding) == 1 and len(inner := self._classes(holding[0])) > 1 and not files_in(holding[0]).images:
            raise DataError(
                f"there is one class only ({holding[0].name})",
                file=self.folder,
                why=f"it holds folders of its own: {listed(inner)}",
                remedy=f"{holding[0]}, if these are the classes",
            )

    def _take(self, folder: Path) -> list[Path]:
        found = self._walk(folder)
        self._leave_out(found)
        return sorted(found.images)

    def _leave_out(self, found: Found) -> None:
        for reason, paths in found.left_out.items():
            self.left_out[reason] += paths

    def _is_own(self, folder: Path) -> bool:
        """Whether a folder is a run, or the folder in which runs are; what it holds was never there to learn from."""
        if not any(_is_run(place) for place in (folder, *subfolders(folder))):
            return False
        self.left_out[OWN] += self._walk(folder).images
        return True


def _in_one_form(members: Members, folders: Folders) -> Iterator[str]:
    """Call a class as train/ does where another split writes its name in another Unicode form; a line for each split.

    A zip from a Mac holds é as two code points, and the same name from elsewhere as one.
    """
    for split, of in members.items():
        forms = same_in_other_form(of, members.get("train", of))
        forms = {name: theirs for name, theirs in forms.items() if theirs not in of}
        for name, theirs in forms.items():
            of[theirs] = of.pop(name)
            folders[split, theirs] = folders.pop((split, name))
        if forms:
            yield describe_forms(forms, f"{folders[split, next(iter(forms.values()))].parent.name}/")


def _is_run(folder: Path) -> bool:
    # A folder that may not be entered is no run here; whoever reads it will name it.
    return all(os.path.isfile(folder / name) for name in ("recipe.toml", "metrics.jsonl"))  # noqa: PTH113


def list_folder(folder: Path, named: Mapping[str, str] | None = None) -> Listing:
    """A folder's classes and the images of each split. Raises `DataError` (exit code 3), naming what is expected."""
    return listing_of(survey(folder, named), folder)
