"""Sets too large for a folder: WebDataset shards, found by name; their samples have numbers, and stay on the disk.

A set of shards is a folder of them, a pattern such as `shards/train-{000..099}.tar` or `shards/*.tar`, or one file.
`dataset.json` beside the shards, which `resnetkit shard` writes, says the classes and what each shard holds; without
it, class names come from `classes.txt`, one a line, or are numbers.
"""

import glob
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from resnetkit.data.filenames import SPLIT_OF_WORD
from resnetkit.data.layout import LeftOut
from resnetkit.data.shards.index import MOST_CLASSES, TarIndex, find_index, make_index
from resnetkit.data.walk import subfolders
from resnetkit.errors import DataError
from resnetkit.images.reading import with_image
from resnetkit.machine.console import Reporter
from resnetkit.machine.documents import read_json, read_lines, validated
from resnetkit.randomness import key, uniform

DESCRIPTION = "dataset.json"
JOURNAL = ".shard.jsonl"
"""Beside the shards: what `resnetkit shard` has written so far."""
FORMAT = "resnetkit shards 1"
Seen = TypeVar("Seen")
MOST_SHARDS = 1_000_000
_NAMED = re.compile(r"\.(tar|tgz)\b", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Shards:
    """A split in shards. Its size in memory depends on the number of shards, not of samples."""

    files: tuple[TarIndex, ...]
    one_in: int = 0
    """Of every `one_in` neighbours in a shard one is held out, drawn by `seed`; 0: none is."""
    held: bool = False
    """Whether this split is what was held out, or what was kept."""
    seed: int = 0
    limit: int | None = None
    """Only so many samples, one drawn from each of as many stretches of equal length."""
    numbers: tuple[int, ...] | None = None
    """The label to give for each label in the shards, where they differ."""

    pixels = labels = None
    """They stay on the disk, however few."""

    def __len__(self) -> int:
        return int(self.bounds[-1])

    @cached_property
    def bounds(self) -> np.ndarray:
        """Where each shard begins among the samples of the split, and where the last ends: (shards + 1,).

        With a limit, to within one sample.
        """
        whole = int(self._ends[-1]) if len(self._ends) else 0
        ends = self._ends if self.limit is None else self._ends * self.limit // max(1, whole)
        return np.concatenate([[0], ends])

    def name(self, index: int) -> str:
        """`shard.tar:member`, for people."""
        file, row = self._sample(index)
        return file.name(row)

    def content(self, index: int) -> bytes:
        """The bytes of a picture. Raises `DataError` (exit code 3)."""
        file, row = self._sample(index)
        return file.read(row)

    def image(self, index: int, channels: int, content: bytes | None = None) -> Image.Image:
        """A decoded picture, as `read_image` gives it. Raises `DataError` (exit code 3)."""
        return self.with_image(index, lambda image: image, channels, content)

    def with_image(
        self, index: int, use: Callable[[Image.Image], Seen], channels: int, content: bytes | None = None
    ) -> Seen:
        """What `use` makes of a decoded picture, in one go. Raises `DataError` (exit code 3)."""
        file, row = self._sample(index)
        content = file.read(row) if content is None else content
        try:
            return with_image(f"{file.path}:sample {row}", use, channels, BytesIO(content))
        except DataError as error:
            raise DataError(error.what, file=file.name(row), why=error.why, remedy=error.remedy) from error

    def labels_at(self, indices: np.ndarray) -> Tensor:
        """Labels of some samples, int64, (N,)."""
        files, rows = self._locate(indices)
        labels = np.empty(len(indices), dtype=np.int64)
        for file in np.unique(files):
            inside = files == file
            labels[inside] = self.files[file].records()["label"][rows[inside]]
        if self.numbers is not None:
            labels = np.array(self.numbers, dtype=np.int64)[labels]
        return torch.from_numpy(labels)

    def hold_out(self, share: float, seed: int) -> tuple["Shards", "Shards"]:
        """What to keep and what to hold out: about `share`, at most half, of every shard, spread over its length.

        Of every `round(1 / share)` neighbours in a shard one is drawn; fewer neighbours at its end are kept. Shards
        that are sorted by class are so divided like shards that are mixed, and no list of samples is needed.
        """
        one_in = max(2, round(1 / share))
        kept = replace(self, one_in=one_in, seed=seed)
        return kept, replace(kept, held=True)

    def limited(self, count: int) -> "Shards":
        """Only `count` samples, drawn from everywhere."""
        return replace(self, limit=count) if count < len(self) else self

    def relabelled(self, numbers: Sequence[int]) -> "Shards":
        """The same samples, with `numbers[label]` for each label."""
        return replace(self, numbers=tuple(numbers))

    def describe(self) -> str:
        """A count, and that of the shards."""
        return f"{len(self):,} images in {len(self.files):,} shards"

    def contents(self) -> np.ndarray:
        """Not known: to look at every sample would be to read the shards."""
        return np.empty(0, dtype=np.int64)

    def entries(self, split: str, root: Path) -> np.ndarray:  # noqa: ARG002
        """Of each shard its name, and the places, sizes and labels of its samples."""
        pairs = [(key(split, file.path.name), file.checksum) for file in self.files]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    @cached_property
    def _groups(self) -> np.ndarray:
        """In each shard, the complete groups of neighbours of which one is held out."""
        return np.array([file.count // max(1, self.one_in) for file in self.files], dtype=np.int64)

    @cached_property
    def _ends(self) -> np.ndarray:
        """Where each shard ends among the samples of the split, before the limit."""
        if self.one_in and self.held:
            return np.cumsum(self._groups)
        counts = np.array([file.count for file in self.files], dtype=np.int64)
        return np.cumsum(counts - self._groups if self.one_in else counts)

    def _sample(self, index: int) -> tuple[TarIndex, int]:
        files, rows = self._locate(np.array([index]))
        return self.files[files[0]], int(rows[0])

    def _locate(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shard and row of some samples."""
        if self.limit is not None:
            whole = int(self._ends[-1])
            low, high = indices * whole // self.limit, (indices + 1) * whole // self.limit
            draw = uniform(self.seed, "limit", np.zeros_like(indices), indices)
            indices = low + (draw * (high - low)).astype(np.int64)
        files = np.searchsorted(self._ends, indices, side="right")
        places = indices - np.where(files, self._ends[files - 1], 0)
        if not self.one_in:
            return files, places
        groups, inside = (places, places * 0) if self.held else np.divmod(places, self.one_in - 1)
        drawn = (uniform(self.seed, "hold out", files, groups) * self.one_in).astype(np.int64)
        if self.held:
            return files, groups * self.one_in + drawn
        passed = (inside >= drawn) & (groups < self._groups[files])
        return files, groups * self.one_in + inside + passed


class _Entry(BaseModel):
    """One shard, as its description has it."""

    model_config = ConfigDict(strict=True)
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9._ -]{1,200}$")]
    samples: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]


class _Description(BaseModel):
    """What our writer says of the shards in a folder."""

    model_config = ConfigDict(strict=True)
    classes: Annotated[list[Annotated[str, Field(max_length=1024)]], Field(max_length=MOST_CLASSES, fail_fast=True)]
    splits: Annotated[dict[str, Annotated[list[_Entry], Field(fail_fast=True)]], Field(max_length=16)]

    @property
    def entries(self) -> dict[str, _Entry]:
        """Shards by file name."""
        return {entry.file: entry for entries in self.splits.values() for entry in entries}


@dataclass(frozen=True)
class ShardSet:
    """A set of shards: its splits by name ("train", "validation", "test"), its classes, what there is to say of it."""

    classes: tuple[str, ...]
    splits: dict[str, Shards]
    counts: dict[str, np.ndarray]
    """Samples of each class in each split, (classes,)."""
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    """Pictures that are passed over, by the reason; `notes` has their lines."""


def names_shards(source: str) -> bool:
    """Whether `source` means shards: a pattern or file of .tar, or a folder with such files and without folders."""
    folder = Path(source)
    if folder.is_dir():
        return bool(_tars(folder)) and not subfolders(folder)
    return _NAMED.search(source) is not None


def open_shards(source: str, *, reporter: Reporter | None = None) -> ShardSet:
    """Find the shards of a set, index those that are not yet indexed, and check them against their description.

    `reporter` shows how far the indexing is; without one nothing is shown.
    Raises `DataError` (exit code 3), naming the shard, for one that is missing, no complete tar file, empty, or without
    labels, and for labels that have no class.
    """
    by_split = _by_split(source)
    paths = [path for members in by_split.values() for path in members]
    parents = sorted({path.parent for path in paths})
    described = {parent: _description(parent) for parent in parents}
    for parent, description in described.items():
        if Path(source).is_dir() and description:
            _refuse_missing([parent / file for file in description.entries])
    indexes, notes = _indexes(paths, reporter or Reporter(quiet=True))
    for parent, description in described.items():
        _refuse_others(parent, description, indexes)
    classes = _classes(parents, described, max(indexes.values(), key=lambda index: index.top))
    splits = {split: Shards(tuple(indexes[path] for path in members)) for split, members in by_split.items()}
    counts = {split: np.zeros(len(classes), dtype=np.int64) for split in splits}
    for split, shards in splits.items():
        for file in shards.files:
            counts[split][: file.top + 1] += file.label_counts()
    left_out = _left_out(indexes.values())
    return ShardSet(classes, splits, counts, [*notes, *(each.line for each in left_out.values())], left_out)


def expand(pattern: str) -> list[Path]:
    """The files that a pattern means, sorted: `{000..099}` and `{a,b}` name them, `*`, `?` and `[a-z]` find them.

    Raises `DataError` (exit code 3) for a file that is named and missing, and where nothing is found.
    """
    if Path(pattern).exists():
        return [Path(pattern)]
    parts = _BRACES.split(pattern)
    choices = [_choices(part) if number % 2 else [part] for number, part in enumerate(parts)]
    many = int(np.prod([float(len(choice)) for choice in choices]))
    if many > MOST_SHARDS:
        raise DataError(f"the pattern names {many:,} shards", file=pattern, remedy=f"no more than {MOST_SHARDS:,}")
    found: set[Path] = set()
    named = []
    for words in product(*choices):
        word = "".join(words)
        if glob.has_magic(word):
            found.update(map(Path, glob.glob(word)))  # noqa: PTH207 - a pattern may be absolute
        else:
            named.append(Path(word))
    _refuse_missing(named)
    found.update(named)
    if not found:
        raise DataError("no shard has such a name", file=pattern, remedy="the right folder, or another pattern")
    return sorted(found)


def _tars(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))


def _choices(braces: str) -> list[str]:
    span = re.fullmatch(r"(\d+)\.\.(\d+)", braces)
    if span is None:
        return braces.split(",")
    first, last = int(span[1]), int(span[2])
    if last - first >= MOST_SHARDS:
        raise DataError(f"the pattern names {last - first + 1:,} shards", remedy=f"no more than {MOST_SHARDS:,}")
    return [f"{number:0{len(span[1])}d}" for number in range(first, last + 1)]


def _refuse_missing(paths: list[Path]) -> None:
    missing = [path for path in paths if not path.exists()]
    if missing:
        names = ", ".join(path.name for path in missing[:3]) + (", …" if len(missing) > 3 else "")
        raise DataError(
            f"{len(missing)} of {len(paths)} shards {'is' if len(missing) == 1 else 'are'} missing",
            file=missing[0].parent,
            why=f"there is no {names}",
            remedy="copy them again, or a pattern that names those that there are",
        )


def _by_split(source: str) -> dict[str, list[Path]]:
    folder = Path(source)
    if folder.is_dir():
        if (folder / JOURNAL).exists() and not (folder / DESCRIPTION).exists():
            raise DataError(
                "the set is not finished",
                file=folder,
                why="`resnetkit shard` was interrupted",
                remedy="the same `resnetkit shard` once more: it goes on where it stopped",
            )
        paths = _tars(folder)
    else:
        paths = expand(source)
    by_split: dict[str, list[Path]] = {}
    for path in paths:
        words = re.findall(r"[a-z]+", path.name.lower())
        split = next((SPLIT_OF_WORD[word] for word in words if word in SPLIT_OF_WORD), "")
        by_split.setdefault(split, []).append(path)
    if "" in by_split and len(by_split) > 1:
        raise DataError(
            "it is not said which split a shard belongs to",
            file=by_split[""][0],
            why="others have train, val or test in their names",
            remedy="a pattern that names the shards to use",
        )
    return {split or "train": members for split, members in by_split.items()}


def _description(folder: Path) -> _Description | None:
    """What our writer says of the shards in a folder; nothing where another file has the name."""
    file = folder / DESCRIPTION
    try:
        found = read_json(file)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            return None
        return validated(_Description, found)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(
            "cannot read the description of the shards", file=file, why=str(error), remedy="write the set again"
        ) from error


def _indexes(paths: list[Path], reporter: Reporter) -> tuple[dict[Path, TarIndex], list[str]]:
    """The index of every shard, and what to say of those that had to be made."""
    with ThreadPoolExecutor() as pool:
        found = dict(zip(paths, pool.map(find_index, paths), strict=True))
        missing = [path for path in paths if found[path] is None]
        samples = 0
        with reporter.progress(None, 0, unit="images indexed") as progress:
            waiting = {pool.submit(make_index, path): path for path in missing}
            try:
                for done, future in enumerate(as_completed(waiting), start=1):
                    index = found[waiting[future]] = future.result()
                    samples += index.count
                    progress(samples, samples * len(missing) // done)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    notes = [f"indexed {len(missing):,} shards, {samples:,} images, for this and later runs"] if missing else []
    return {path: index for path, index in found.items() if index is not None}, notes


def _left_out(indexes: Iterable[TarIndex]) -> dict[str, LeftOut]:
    short = [index for index in indexes if index.left_out]
    if not short:
        return {}
    name, count = short[0].name_at(short[0].first_left_out), sum(index.left_out for index in short)
    line = f"{count:,} pictures in the shards have no label of their own and are left out, such as {name}"
    return {"that have no label of their own": LeftOut(count, line)}


def _refuse_others(folder: Path, description: _Description | None, indexes: dict[Path, TarIndex]) -> None:
    """A shard that its description does not know, or knows as another."""
    if description is None:
        return
    entries = description.entries
    for path, index in indexes.items():
        entry = entries.get(path.name)
        if path.parent == folder and (entry is None or (entry.bytes, entry.samples) != (index.size, index.count)):
            why = "it is not named there" if entry is None else "its size or number of samples differs"
            raise DataError(
                f"the shard is not one of those in {DESCRIPTION}",
                file=path,
                why=why,
                remedy="copy it again, or write the set again into another folder",
            )


def _classes(parents: list[Path], described: dict[Path, _Description | None], highest: TarIndex) -> tuple[str, ...]:
    """Class names in the order of the labels, the same for all folders of the set."""
    known: dict[tuple[str, ...], Path] = {}
    for parent in parents:
        description, listed = described[parent], parent / "classes.txt"
        if description is not None:
            known[tuple(description.classes)] = parent / DESCRIPTION
        elif listed.is_file():
            try:
                known[tuple(read_lines(listed, errors="replace"))] = listed
            except (OSError, ValueError) as error:
                raise DataError("cannot read the class names", file=listed, why=str(error)) from error
    if len(known) > 1:
        one, other = list(known.values())[:2]
        raise DataError("the shards have different classes", file=one, why=f"{other} names others")
    if not known:
        return tuple(str(label) for label in range(highest.top + 1))
    (classes, file), *_ = known.items()
    if highest.top >= len(classes):
        raise DataError(
            f"the shard has the label {highest.top}",
            file=highest.path,
            why=f"{file} names {len(classes)} classes, 0 to {len(classes) - 1}",
            remedy="name all classes there, one a line, in the order of the labels",
        )
    return classes
