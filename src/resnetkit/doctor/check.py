"""The image-folder doctor: what in a folder of images stops training, spoils its scores, or is worth knowing.

It reads every image once and changes nothing. Files are named relative to the folder.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from resnetkit.data.scan import AUTO, Entry, apart
from resnetkit.data.survey import IMAGE_SUFFIXES, IMBALANCE, LAYOUT, Layout, list_images, subfolders, survey, twins
from resnetkit.doctor.examine import read_entries
from resnetkit.doctor.near import near_pairs
from resnetkit.doctor.report import ENORMOUS, FEW_IMAGES, KINDS, TINY, Finding, Report
from resnetkit.errors import DataError, UsageError
from resnetkit.images.formats import SUFFIXES

MOST_FINDINGS = 10_000
"""Near duplicates listed of each kind; a folder with more has pictures that a dHash cannot tell apart."""


_Places = dict[str, tuple[str, str]]
_SAME_FORMAT = {"MPO": "JPEG", "DIB": "BMP"}


def check(
    folder: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    near: int = 3,
    cache: Path | None = AUTO,
) -> Report:
    """Read every image of a folder once, and report what is wrong with files, classes and splits. Changes nothing.

    `progress` is told the files read and the files in all. `workers` processes read; None chooses. Near duplicates
    differ in at most `near` of 64 bits, 0-7. `cache` is a folder for what was read, so that the next run reads only
    what has changed: None keeps nothing. Layout problems are findings. Raises `DataError` (exit code 3) where there
    is no such folder or no image in it, and `UsageError` (exit code 2) for `near`.
    """
    if near not in range(8):
        raise UsageError(f"near cannot be {near}", why="it is a number of bits", remedy="0 to 7")
    folder = Path(folder)
    layout = _survey(folder)
    entries = _read(folder, layout, progress, workers, cache)
    findings = [
        *_layout_findings(folder, layout),
        *_file_findings(entries),
        *_duplicates(folder, layout, entries, near),
    ]
    ranks = {kind: rank for rank, kind in enumerate(KINDS)}
    findings.sort(key=lambda finding: (ranks[finding.kind], finding.files))
    classes = {split: {name: len(paths) for name, paths in of.items()} for split, of in layout.members.items()}
    return Report(str(folder), len(entries), classes, tuple(findings))


def manifest(
    folder: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    cache: Path | None = AUTO,
) -> dict[str, Entry]:
    """What each image in a class folder holds, SHA-256 included, by its name relative to `folder`. As `check` reads it.

    Raises `DataError` (exit code 3) where there is no such folder or no image in it.
    """
    folder = Path(folder)
    return _read(folder, _survey(folder), progress, workers, cache)


@dataclass(frozen=True)
class _Survey(Layout):
    outside: list[Path]
    ignored: list[Path]

    def images(self) -> Iterator[tuple[str, str, Path]]:
        for split, of in self.members.items():
            for name, paths in of.items():
                for path in paths:
                    yield split, name, path


def _survey(folder: Path) -> _Survey:
    """The layout, and what lies beside it."""
    layout = survey(folder)
    try:
        outside = [path for place in {folder, *layout.roots.values()} for path in place.iterdir() if _is_image(path)]
        if "all" not in layout.roots:
            strangers = [child for child in subfolders(folder) if child not in layout.roots.values()]
            outside += [path for child in strangers for path in list_images(child) if _is_image(path)]
    except OSError as error:
        raise DataError("cannot read the images", file=error.filename or folder, why=error.strerror) from error
    if not outside and not any(paths for of in layout.members.values() for paths in of.values()):
        remedy = f"a folder with {LAYOUT}"
        raise DataError("there is nothing to learn", file=folder, why="it holds no image", remedy=remedy)
    return _Survey(layout.roots, layout.members, sorted(outside), sorted(_others(folder)))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _others(folder: Path) -> Iterator[Path]:
    """Files that are neither images nor hidden."""
    for place, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith((".", "__"))]
        for name in names:
            if not name.startswith(".") and "." in name and Path(name).suffix.lower() not in IMAGE_SUFFIXES:
                yield Path(place, name)


def _read(folder: Path, layout: _Survey, progress: Any, workers: int | None, cache: Path | None) -> dict[str, Entry]:
    paths = [path for _, _, path in layout.images()]
    return read_entries(folder, paths, progress=progress, workers=workers, cache=cache)


def _found(kind: str, files: Iterable[str], text: str) -> Finding:
    return Finding(kind, KINDS[kind][0], tuple(files), text)


def _layout_findings(folder: Path, layout: _Survey) -> Iterator[Finding]:
    def name_of(path: Path) -> str:
        return os.path.relpath(path, folder)

    for path in layout.outside:
        yield _found("outside-classes", [name_of(path)], "it is in no class folder")
    for path in layout.ignored:
        yield _found("ignored", [name_of(path)], "it is not an image")
    with_images = {name for of in layout.members.values() for name, paths in of.items() if paths}
    if len(with_images) == 1:
        yield _found("one-class", sorted(with_images), "there is nothing to tell apart")
    for split, of in layout.members.items():
        for name in sorted(of.keys() | with_images):
            where = name_of(layout.roots[split] / name)
            if name not in of:
                yield _found("missing-class", [where], f"the {split} split has no image of the class")
            elif not of[name]:
                yield _found("empty-class", [where], "the folder holds no image")
    for group in twins({name for of in layout.members.values() for name in of}):
        yield _found("class-twins", group, "the names differ in case, spaces or Unicode form only")
    for split in ("train", "all"):
        members = layout.members.get(split, {}).items()
        yield from _sizes({name_of(layout.roots[split] / name): len(paths) for name, paths in members if paths})


def _sizes(sizes: dict[str, int]) -> Iterator[Finding]:
    for name, size in sizes.items():
        if size < FEW_IMAGES:
            yield _found("few-images", [name], f"it has {size} image{'s' * (size > 1)}")
    if sizes and max(sizes.values()) > IMBALANCE * min(sizes.values()):
        least, most = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
        yield _found("imbalance", [most, least], f"{sizes[most]:,} images and {sizes[least]:,}")


def _file_findings(entries: dict[str, Entry]) -> Iterator[Finding]:
    sides = [min(entry.width, entry.height) for entry in entries.values() if not entry.why]
    middle = median(sides) if sides else 0
    for name, entry in entries.items():
        if entry.why:
            yield _found("unreadable", [name], entry.why)
            continue
        format_ = _SAME_FORMAT.get(entry.format, entry.format)
        suffix = Path(name).suffix.lower()
        if SUFFIXES.get(suffix, suffix[1:].upper()) != format_:
            yield _found("wrongly-named", [name], f"it is a {format_}")
        if entry.mode == "CMYK":
            yield _found("cmyk", [name], "its colours are CMYK")
        if entry.bits > 8:
            yield _found("sixteen-bit", [name], "it has more than 8 bits per channel")
        if entry.alpha:
            yield _found("alpha", [name], "it is transparent in places, or may be")
        if entry.animated:
            yield _found("animated", [name], "it has several frames or pages")
        if entry.orientation != 1:
            yield _found("exif-rotated", [name], f"its EXIF orientation is {entry.orientation}")
        size = f"{entry.width:,} x {entry.height:,} pixels"
        if entry.width * entry.height > ENORMOUS:
            yield _found("enormous", [name], size)
        if min(entry.width, entry.height) < TINY and middle > 2 * TINY:
            yield _found("tiny", [name], f"{size}; the median shorter side is {middle:,.0f}")


def _duplicates(folder: Path, layout: _Survey, entries: dict[str, Entry], near: int) -> Iterator[Finding]:
    """Each pair in its strongest kind: copies by the first of them, same pixels by the first of those."""
    places = {os.path.relpath(path, folder): (split, name) for split, name, path in layout.images()}
    names = [name for name in sorted(entries) if not entries[name].why]
    for kind, key, text in (("exact", "sha256", "the bytes"), ("pixels", "pixels", "the pixels, not the bytes,")):
        groups = defaultdict(list)
        for name in names:
            groups[getattr(entries[name], key)].append(name)
        for group in groups.values():
            if len(group) > 1:
                yield _same(kind, group, places, f"{text} are the same")
        names = [group[0] for group in groups.values()]
    yield from _near([name for name in names if entries[name].dhash is not None], entries, places, near)


def _near(names: list[str], entries: dict[str, Entry], places: _Places, near: int) -> Iterator[Finding]:
    hashes = np.array([entries[name].dhash for name in names], dtype=np.uint64)
    pairs, complete = near_pairs(hashes, near)
    listed: Counter[str] = Counter()
    for left, right in pairs.tolist():
        differ = int(hashes[left] ^ hashes[right]).bit_count()
        finding = _same("near", [names[left], names[right]], places, f"{differ} of 64 bits differ")
        listed[finding.kind] += 1
        if listed[finding.kind] <= MOST_FINDINGS:
            yield finding
    if not complete or max(listed.values(), default=0) > MOST_FINDINGS:
        yield _found("near-incomplete", [], f"there are more than {MOST_FINDINGS:,} pairs; the first are listed")


def _same(kind: str, files: list[str], places: _Places, text: str) -> Finding:
    far = apart(places[file] for file in files)
    return _found(f"{kind}-across-{far}" if far else kind, files, text)
