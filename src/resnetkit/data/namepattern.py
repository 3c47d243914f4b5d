"""Classes from the names of files, by a regular expression: `(cat|dog)` for `cat_001.jpg` and `holiday/dog-2.jpg`."""

import re
from collections import defaultdict
from pathlib import Path

from resnetkit.data import filenames
from resnetkit.data.layout import NO_MATCH, Layout, Members
from resnetkit.data.walk import subfolders, walk
from resnetkit.errors import DataError, UsageError

LABEL = "label"
"""The group that is the class; where there is none of that name, the first is."""


def survey_names(folder: Path, pattern: str, named: dict[str, str] | None = None) -> Layout:
    """The splits and classes of a folder, by the names of its files, then by their paths in it.

    Splits are the subfolders that are `named`, or called, so; where there are none, all is one. Files that do not match
    are left out. Raises `UsageError` (exit code 2) for a pattern that cannot be, `DataError` (exit code 3) for a folder
    that cannot be read.
    """
    known = _compiled(pattern)
    try:
        roots = {split: folder / name for split, name in (named or {}).items()} or _splits(folder)
        found = {split: walk(root) for split, root in (roots or {"all": folder}).items()}
    except OSError as error:
        raise DataError("cannot read the images", file=error.filename or folder, why=error.strerror) from error
    members: Members = {}
    left_out: dict[str, list[Path]] = defaultdict(list)
    for split, files in found.items():
        classes: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(files.images):
            label = _label(known, path, folder)
            (classes[label] if label else left_out[NO_MATCH]).append(path)
        for reason, paths in files.left_out.items():
            left_out[reason] += paths
        members[split] = dict(classes)
    return Layout(folder, members, {}, {reason: sorted(paths) for reason, paths in left_out.items()})


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        known = re.compile(pattern)
        why = "" if known.groups else "it has no group, so nothing says which part is the class"
    except (re.error, RecursionError, OverflowError) as error:
        known, why = None, str(error) or "it is nested too deeply"
    if known is None or why:
        raise UsageError(
            f"--data.label-from {pattern} cannot be",
            why=why,
            remedy="a regular expression with the class in brackets, such as '(cat|dog)' or '^([a-z]+)_'",
        )
    return known


def _label(pattern: re.Pattern[str], path: Path, folder: Path) -> str:
    match = pattern.search(path.name) or pattern.search(path.relative_to(folder).as_posix())
    if match is None:
        return ""
    return (match[LABEL if LABEL in pattern.groupindex else 1] or "").strip()


def _splits(folder: Path) -> dict[str, Path]:
    """Subfolders that are called like splits, where there are several and each has its own."""
    found: dict[str, Path] = {}
    for child in subfolders(folder):
        spoken = filenames.split_of(child.name)
        if spoken is not None and not spoken[1]:
            if spoken[0] in found:
                return {}
            found[spoken[0]] = child
    return found if "train" in found and len(found) > 1 else {}
