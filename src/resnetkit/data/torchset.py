"""Data sets of Python as a set of images: read through once, then held in memory or asked for each picture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import numpy as np
import torch
from PIL import Image

from resnetkit.data.dataset import Data, completed
from resnetkit.data.folder import IN_MEMORY_BYTES, IN_MEMORY_SIDE, load_layout
from resnetkit.data.items import NAME, DataSets, pair_of, picture_of
from resnetkit.data.splits import Files, Images, Listed, Split, mark_of
from resnetkit.data.unreadable import refuse_unreadable
from resnetkit.errors import DataError, UsageError
from resnetkit.images.preprocess import to_tensor
from resnetkit.machine.console import Reporter
from resnetkit.recipes.schema import DataRecipe

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Items(Listed):
    """A split whose pictures a data set gives when they are asked for; what decides their marks is their pixels."""

    dataset: Any
    places: np.ndarray
    """int64, (N,): the numbers of its items."""

    def take(self, positions: np.ndarray) -> Self:
        """The items at `positions`, in that order."""
        return replace(super().take(positions), places=self.places[positions])

    def content(self, index: int) -> bytes:
        """The pixels of a picture, behind its size. Raises `DataError` (exit code 3)."""
        picture = self.picture(index)
        return f"{picture.mode} {picture.width} {picture.height};".encode() + picture.tobytes()

    def image(self, index: int, channels: int, content: bytes | None = None) -> Image.Image:  # noqa: ARG002
        """A picture of so many channels. Raises `DataError` (exit code 3)."""
        picture, mode = self.picture(index), "RGB" if channels == 3 else "L"
        return picture if picture.mode == mode else picture.convert(mode)

    def with_image(
        self, index: int, use: Callable[[Image.Image], Seen], channels: int, content: bytes | None = None
    ) -> Seen:
        """What `use` makes of a picture. Raises `DataError` (exit code 3)."""
        return use(self.image(index, channels, content))

    def describe(self) -> str:
        """A count."""
        return f"{len(self):,} items"

    def picture(self, index: int) -> Image.Image:
        """A picture of as many channels as it has. Raises `DataError` (exit code 3)."""
        name = self.name(index)
        try:
            return picture_of(pair_of(self.dataset, int(self.places[index]), name)[0], name)
        except Exception as error:  # whatever a stranger's data set raises
            why = f"{type(error).__name__}: {error}"[:200]
            raise DataError("cannot read the image", file=name, why=why) from error


def load_datasets(
    given: DataSets,
    settings: DataRecipe,
    *,
    whole: bool = False,
    channels: int | None = None,
    reporter: Reporter | None = None,
) -> Data:
    """Data sets as a set: splits that lack are held out; `whole` takes a single one as one test split.

    Files that are shown as they are, as by an `ImageFolder` without a transform, are read as those of a folder. All
    others are read once, for their labels and what tells them apart. `channels` are those that are wanted, 1 or 3.
    Raises `UsageError` (exit code 2) for items that are no images with labels, or others each time; `DataError`
    (exit code 3) where there is nothing to learn.
    """
    layout = given.layout()
    if layout is not None:
        return load_layout(Path(NAME), layout, settings, whole=whole, channels=channels or 3)
    reader = _Reader(given, reporter or Reporter(quiet=True))
    splits = {split: reader.read(split) for split in given.given}
    classes = given.in_order(set(reader.classes))
    numbers = [classes.index(name) for name in reader.classes]
    total = sum(map(len, given.given.values()))
    share = 1.0 if whole else settings.max_unreadable
    refuse_unreadable(Path(NAME), splits, reader.unreadable, total, share)
    items = {split: part.relabelled(numbers) for split, part in splits.items()}
    # What is held out follows from names and contents, and these have both.
    held, notes = completed(NAME, classes, cast("Mapping[str, Files]", items), settings, whole=whole)
    wanted = channels or (1 if reader.grey else 3)
    parts = {split: reader.in_memory(cast("Items", each), wanted) for split, each in held.items()}
    splits_of = (parts.get(split) for split in ("train", "validation", "test"))
    return Data(NAME, classes, *splits_of, channels=wanted, notes=notes, unreadable=reader.unreadable)


class _Reader:
    """Reads data sets through, once."""

    def __init__(self, given: DataSets, reporter: Reporter) -> None:
        self.given, self.reporter = given, reporter
        self.classes: list[str] = []
        self.unreadable: dict[str, str] = {}
        self.grey = True
        self.sizes: set[tuple[int, int]] = set()
        self.pictures: dict[str, Image.Image] = {}
        """Those of a set that is kept in memory."""

    def read(self, split: str) -> Items:
        numbers: dict[str, int] = {name: number for number, name in enumerate(self.classes)}
        places, names, labels, marks = [], [], [], []
        dataset = self.given.given[split]
        with self.reporter.progress(len(dataset), 0, unit="images") as progress:
            for place, name, picture, label in self.given.items(split):
                if isinstance(picture, str):
                    self.unreadable[name] = picture
                    continue
                places.append(place)
                names.append(Path(name))
                labels.append(numbers.setdefault(label, len(numbers)))
                marks.append(mark_of(to_tensor(picture)))
                self._keep(name, picture)
                progress(place + 1)
        self.classes = list(numbers)
        listed = tuple(names), torch.tensor(labels), np.array(marks, np.int64)
        items = Items(*listed, dataset, np.array(places, dtype=np.int64))
        _refuse_random(items)
        return items

    def _keep(self, name: str, picture: Image.Image) -> None:
        self.grey = self.grey and picture.mode == "L"
        self.sizes.add(picture.size)
        width, height = picture.size
        small = len(self.sizes) == 1 and max(width, height) <= IN_MEMORY_SIDE
        if small and 3 * width * height * (len(self.pictures) + 1) <= IN_MEMORY_BYTES:
            self.pictures[name] = picture
        else:
            self.pictures.clear()

    def in_memory(self, items: Items, channels: int) -> Split:
        """Small pictures of one size, once and for all; others stay with the data set."""
        if not self.pictures or not all(items.name(index) in self.pictures for index in range(len(items))):
            return items
        mode = "RGB" if channels == 3 else "L"
        pixels = [to_tensor(self.pictures[items.name(index)].convert(mode)) for index in range(len(items))]
        if not pixels:
            return items
        return Images(torch.stack(pixels), items.labels, cast("Files", items))


def _refuse_random(items: Items) -> None:
    """Raise `UsageError` (exit code 2) for a data set that gives another picture each time."""
    for index in sorted({0, len(items) // 2, len(items) - 1} if len(items) else ()):
        if mark_of(to_tensor(items.picture(index))) != items.marks[index]:
            raise UsageError(
                f"{items.name(index)} is another picture each time",
                why="what is drawn in a data set cannot be drawn again when a run goes on",
                remedy="the data set without random transforms, and augment={…} in their place",
            )
