"""The image-folder doctor: what in a folder of images stops training, spoils its scores, or is worth knowing.

It reads every image and changes nothing. Files are named relative to the folder.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from resnetkit.arguments import checked, refusal
from resnetkit.data.classnames import twins
from resnetkit.data.labelling import Labelling
from resnetkit.data.layout import BESIDE, NO_CLASS, NO_LABEL, NO_MATCH, UNLABELLED, Layout, nothing_to_learn
from resnetkit.data.scan import AUTO, Entry, apart
from resnetkit.data.sources import find_layout, holds_saved
from resnetkit.data.survey import IMBALANCE
from resnetkit.data.walk import NO_IMAGE
from resnetkit.doctor.appearance import appearances
from resnetkit.doctor.examine import read_entries
from resnetkit.doctor.report import ENORMOUS, EVERY_KIND, FEW_IMAGES, TINY, Finding, Report, found
from resnetkit.doctor.thumbnail import BITS
from resnetkit.images.formats import SUFFIXES
from resnetkit.recipes.ranges import RANGES, require

MOST_FINDINGS = 10_000
"""Near duplicates listed of each kind; a folder with more has pictures that a hash cannot tell apart."""

NEAR = int(RANGES["near"][1])
"""Bits that near duplicates may differ in. Of 79,003 pairs of different photographs none is as near as that."""

NEAR_SMALL = 6
"""The same where the median shorter side is under `SMALL`: pictures of so few pixels are often alike by chance."""

SMALL = 64

FEW_HASHES = 1000
"""So many are compared pair by pair sooner than NumPy is imported."""


_Places = dict[str, tuple[str, str]]
_SAME_FORMAT = {"MPO": "JPEG", "DIB": "BMP"}


@checked("workers", "near")
def check(
    folder: Any,
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    near: int | None = None,
    cache: Path | None = AUTO,
    labelling: Labelling | None = None,
) -> Report:
    """Read every image of a folder, a table or an archive, and report what is wrong. Changes no file of yours.

    `folder` may be a `torch.utils.data.Dataset` of (image, label) too, or a dict of such by "train", "val" and "test";
    pictures that are no files are called by their numbers.
    `progress` is told the files read and the files in all. `workers` processes read; None chooses. Near duplicates
    differ in at most `near` of 63 bits, 0-10; None takes 10, or 6 where the median shorter side is under 64 pixels.
    `cache` is a folder for what was read, so that the next run reads only what has changed: None keeps nothing.
    `labelling` says how classes are found where no folder says them. Layout problems are findings.
    Raises `DataError` (exit code 3) where there is no such folder or no image in it, and
    `UsageError` (exit code 2) for `near` and `workers`.
    """
    require(near=near, workers=workers)
    if isinstance(folder, str | Path) and not holds_saved(Path(folder)):
        return _checked(Path(folder), _survey(Path(folder), labelling), progress, workers, near, cache)
    from resnetkit.data.items import NAME, read_datasets, saved_datasets  # with NumPy, which files do not need

    named = isinstance(folder, str | Path)
    source, given = (Path(folder), saved_datasets(Path(folder))) if named else (Path(NAME), read_datasets(folder))
    if given is None:
        raise refusal("check", "folder", folder, "a folder, a table, an archive, or a torch.utils.data.Dataset")
    if (layout := given.layout()) is not None:
        return _checked(source, layout, progress, workers, near, cache)
    with TemporaryDirectory() as place:
        return _checked(source, given.write(Path(place)), progress, workers, near, None)


def _checked(
    source: Path, layout: Layout, progress: Any, workers: int | None, near: int | None, cache: Path | None
) -> Report:
    folder = layout.root
    entries = _read(layout, progress, workers, cache)
    if near is None:
        near = NEAR_SMALL if _middle(entries) < SMALL else NEAR
    findings = [
        *_layout_findings(folder, layout),
        *_file_findings(entries, {os.path.relpath(path, folder): row for path, row in layout.rows.items()}),
        *appearances(entries),
        *_duplicates(folder, layout, entries, near),
    ]
    ranks = {kind: rank for rank, kind in enumerate(EVERY_KIND)}
    findings.sort(key=lambda finding: (ranks[finding.kind], finding.files))
    classes = {split: {name: len(paths) for name, paths in of.items()} for split, of in layout.members.items()}
    return Report(str(source), len(entries), classes, tuple(findings))


@checked("workers")
def manifest(
    folder: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    cache: Path | None = AUTO,
    labelling: Labelling | None = None,
) -> dict[str, Entry]:
    """What each image that has a class holds, SHA-256 included, by its name relative to `folder`. As `check` reads it.

    Raises `DataError` (exit code 3) where there is no such folder or no image in it.
    """
    return _read(_survey(Path(folder), labelling), progress, workers, cache)


def _survey(folder: Path, labelling: Labelling | None) -> Layout:
    layout = find_layout(folder, labelling)
    told = layout.troubles or any(layout.left_out.get(reason) for reason in (NO_CLASS, UNLABELLED, NO_MATCH))
    if not told and not any(paths for of in layout.members.values() for paths in of.values()):
        raise nothing_to_learn(layout, folder)
    return layout


def _read(layout: Layout, progress: Any, workers: int | None, cache: Path | None) -> dict[str, Entry]:
    require(workers=workers)
    paths = [path for _, _, path in layout.images()]
    return read_entries(layout.root, paths, progress=progress, workers=workers, cache=cache)


def _layout_findings(folder: Path, layout: Layout) -> Iterator[Finding]:
    def name_of(path: Path) -> str:
        return os.path.relpath(path, folder)

    for trouble in layout.troubles:
        yield found(trouble.kind, trouble.files, trouble.why)
    for reason, paths in layout.left_out.items():
        if reason == UNLABELLED:
            yield from (found("no-label", [name_of(path)], layout.said(path, "no label")) for path in paths)
        elif reason == NO_IMAGE:
            yield from (found("ignored", [name_of(path)], "it is not an image") for path in paths)
        elif reason in (NO_CLASS, NO_LABEL, BESIDE):
            yield from (found("outside-classes", [name_of(path)], f"it is {reason}") for path in paths)
        else:
            yield found("left-out", [name_of(path) for path in paths], f"files {reason}: {len(paths):,}")
    with_images = {name for of in layout.members.values() for name, paths in of.items() if paths}
    if len(with_images) == 1:
        yield found("one-class", sorted(with_images), "there is nothing to tell apart")
    for split, of in layout.members.items():
        for name in sorted(of.keys() | with_images):
            where = name_of(layout.place(split, name))
            if name not in of:
                yield found("missing-class", [where], f"the {split} split has no image of the class")
            elif not of[name]:
                yield found("empty-class", [where], "the folder holds no image")
    for group in twins({name for of in layout.members.values() for name in of}):
        yield found("class-twins", group, "the names differ in case, spaces or Unicode form only")
    for split in ("train", "all"):
        members = layout.members.get(split, {}).items()
        yield from _sizes({name_of(layout.place(split, name)): len(paths) for name, paths in members if paths})


def _sizes(sizes: dict[str, int]) -> Iterator[Finding]:
    for name, size in sizes.items():
        if size < FEW_IMAGES:
            yield found("few-images", [name], f"it has {size} image{'s' * (size > 1)}")
    if sizes and max(sizes.values()) > IMBALANCE * min(sizes.values()):
        least, most = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
        yield found("imbalance", [most, least], f"{sizes[most]:,} images and {sizes[least]:,}")


def _middle(entries: dict[str, Entry]) -> float:
    """The median shorter side of what can be read, in pixels."""
    sides = [min(entry.width, entry.height) for entry in entries.values() if not entry.why]
    return median(sides) if sides else 0


def _file_findings(entries: dict[str, Entry], rows: dict[str, str]) -> Iterator[Finding]:
    middle = _middle(entries)
    for name, entry in entries.items():
        if entry.why:
            yield found("unreadable", [name], f"{entry.why} ({rows[name]})" if name in rows else entry.why)
            continue
        format_ = _SAME_FORMAT.get(entry.format, entry.format)
        suffix = Path(name).suffix.lower()
        if SUFFIXES.get(suffix, suffix[1:].upper()) != format_:
            yield found("wrongly-named", [name], f"it is a {format_}")
        if entry.mode == "CMYK":
            yield found("cmyk", [name], "its colours are CMYK")
        if entry.bits > 8:
            yield found("sixteen-bit", [name], "it has more than 8 bits per channel")
        if entry.alpha:
            yield found("alpha", [name], "it is transparent in places, or may be")
        if entry.animated:
            yield found("animated", [name], "it has several frames or pages")
        if entry.orientation != 1:
            yield found("exif-rotated", [name], f"its EXIF orientation is {entry.orientation}")
        size = f"{entry.width:,} x {entry.height:,} pixels"
        if entry.width * entry.height > ENORMOUS:
            yield found("enormous", [name], size)
        if min(entry.width, entry.height) < TINY and middle > 2 * TINY:
            yield found("tiny", [name], f"{size}; the median shorter side is {middle:,.0f}")


def _duplicates(folder: Path, layout: Layout, entries: dict[str, Entry], near: int) -> Iterator[Finding]:
    """Each pair in its strongest kind: copies by the first of them, same pixels by the first of those."""
    places = {os.path.relpath(path, folder): (split, name) for split, name, path in layout.images()}
    names = [name for name in sorted(entries) if not entries[name].why]
    for kind, key, text in (("exact", "sha256", "the bytes"), ("pixels", "pixels", "the pixels, not the bytes,")):
        groups = defaultdict(list)
        for name in names:
            groups[getattr(entries[name], key) or name].append(name)
        for group in groups.values():
            if len(group) > 1:
                yield _same(kind, group, places, f"{text} are the same")
        names = [group[0] for group in groups.values()]
    hashes = {name: phash for name in names if (phash := entries[name].phash) is not None}
    yield from _near(hashes, places, near)


def _near(hashes_of: dict[str, int], places: _Places, near: int) -> Iterator[Finding]:
    names, hashes = list(hashes_of), list(hashes_of.values())
    pairs, complete = _near_pairs(hashes, near)
    listed: Counter[str] = Counter()
    for left, right in pairs:
        differ = (hashes[left] ^ hashes[right]).bit_count()
        finding = _same("near", [names[left], names[right]], places, f"{differ} of {BITS} bits differ")
        listed[finding.kind] += 1
        if listed[finding.kind] <= MOST_FINDINGS:
            yield finding
    if not complete or max(listed.values(), default=0) > MOST_FINDINGS:
        yield found("near-incomplete", [], f"there are more than {MOST_FINDINGS:,} pairs; the first are listed")


def _near_pairs(hashes: list[int], near: int) -> tuple[list[list[int]], bool]:
    """As `near_pairs`. Of few hashes, every pair is compared, without NumPy."""
    if len(hashes) <= FEW_HASHES:
        pairs = combinations(enumerate(hashes), 2)
        return [[left, right] for (left, a), (right, b) in pairs if (a ^ b).bit_count() <= near], True
    import numpy as np

    from resnetkit.doctor.near import near_pairs

    close, complete = near_pairs(np.array(hashes, dtype=np.uint64), near)
    return close.tolist(), complete


def _same(kind: str, files: list[str], places: _Places, text: str) -> Finding:
    far = apart(places[file] for file in files)
    return found(f"{kind}-across-{far}" if far else kind, files, text)
