"""A split: labelled images in memory or on disk, and what is asked of their labels.

Whoever is handed a `Split` asks what it can, not which kind it is. `Images` are uint8 pixels in memory, `Files` are
decoded when needed, and so are `Shards` (`data.shards.read`).
"""

import hashlib
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from resnetkit.data.scan import Entry
from resnetkit.data.survey import Listing
from resnetkit.errors import DataError, UsageError
from resnetkit.images.reading import read_image, with_image
from resnetkit.randomness import key

SPLIT_SEED = 0
"""Splits that have to be made depend on it alone, so that runs with other seeds are scored on the same images."""


Seen = TypeVar("Seen")


class Split(Protocol):
    """Labelled images, wherever they are."""

    @property
    def pixels(self) -> Tensor | None:
        """All images, uint8 (N, C, H, W), where they are in memory."""

    @property
    def labels(self) -> Tensor | None:
        """All labels, int64 (N,), where they are in memory."""

    @property
    def bounds(self) -> np.ndarray | None:
        """Where each run of neighbours that are best read together begins, and where the last ends, (runs + 1,).

        None where one image is as near as the other.
        """

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """An image, for people."""

    def content(self, index: int) -> bytes:
        """What an image is made of: equal bytes are equal pictures. Raises `DataError` (exit code 3)."""

    def image(self, index: int, channels: int, content: bytes | None = None) -> Image.Image:
        """A decoded picture, as `read_image` gives it, from its `content` where that has been read already.

        Raises `DataError` (exit code 3).
        """

    def with_image(
        self, index: int, use: Callable[[Image.Image], Seen], channels: int, content: bytes | None = None
    ) -> Seen:
        """What `use` makes of a decoded picture. Threads take turns where memory is too small for all of them.

        Raises `DataError` (exit code 3).
        """

    def labels_at(self, indices: np.ndarray) -> Tensor:
        """Labels of some images, int64, (N,)."""

    def relabelled(self, numbers: Sequence[int]) -> Self:
        """The same images, with `numbers[label]` for each label."""

    def limited(self, count: int) -> Self:
        """About `count` images, drawn from everywhere; all where there are no more."""

    def describe(self) -> str:
        """How many of what, for people."""

    def contents(self) -> np.ndarray:
        """A number for each image that only its content decides, int64 (N,); empty where that is not known."""

    def entries(self, split: str, root: Path) -> np.ndarray:
        """For the fingerprint: two numbers for each name and content, int64 (N, 2).

        `split` is what the set calls it; names are those below `root`, so that a set may be moved.
        """


@dataclass(frozen=True)
class Images:
    """A split in memory."""

    pixels: Tensor
    """uint8, (N, C, H, W)."""
    labels: Tensor
    """int64, (N,)."""
    files: "Files | None" = None
    """Where they were read from, where that was files."""
    origin: str = ""
    """What else they were read from, such as "cifar10 train"."""
    numbers: np.ndarray | None = None
    """Of each image there, int64 (N,), where these are not all of them in order."""
    marks: np.ndarray | None = None
    """int64, (N,): a number for each image that its pixels decide, where somebody asks for it."""

    bounds = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray) -> "Images":
        """The images at `positions`, in that order."""
        chosen = torch.from_numpy(positions)
        files = self.files.take(positions) if self.files is not None else None
        numbers = positions if self.numbers is None else self.numbers[positions]
        marks = self.marks[positions] if self.marks is not None else None
        return Images(self.pixels[chosen], self.labels[chosen], files, self.origin, numbers, marks)

    def name(self, index: int) -> str:
        """The file it is from; else what it is an image of, and its number there, from 0: `cifar10 train #37`."""
        if self.files is not None:
            return self.files.name(index)
        number = index if self.numbers is None else int(self.numbers[index])
        return f"{self.origin} #{number}" if self.origin else str(number)

    def content(self, index: int) -> bytes:
        """The pixels of an image."""
        return self.pixels[index].numpy().tobytes()

    def image(self, index: int, channels: int, content: bytes | None = None) -> Image.Image:  # noqa: ARG002
        """A picture of as many channels as all of them have."""
        return Image.fromarray(self.pixels[index].permute(1, 2, 0).squeeze(2).numpy())

    def with_image(
        self, index: int, use: Callable[[Image.Image], Seen], channels: int, content: bytes | None = None
    ) -> Seen:
        """What `use` makes of a picture."""
        return use(self.image(index, channels, content))

    def labels_at(self, indices: np.ndarray) -> Tensor:
        """Labels of some images, int64, (N,)."""
        return self.labels[torch.from_numpy(indices)]

    def relabelled(self, numbers: Sequence[int]) -> "Images":
        """The same images, with `numbers[label]` for each label."""
        return replace(self, labels=torch.tensor(numbers, dtype=torch.int64)[self.labels])

    def limited(self, count: int) -> "Images":
        """About `count` images, the same share of every class; all where there are no more."""
        return self if count >= len(self) else self.take(_some_of(self.labels, count))

    def describe(self) -> str:
        """A count, with the size in pixels."""
        return f"{len(self):,} images of {self.pixels.shape[-1]} x {self.pixels.shape[-2]} px in memory"

    def contents(self) -> np.ndarray:
        """That of their files, or their marks. Of a named set nobody asks: its test split is never learnt from."""
        if self.marks is not None:
            return self.marks
        return self.files.contents() if self.files is not None else np.empty(0, dtype=np.int64)

    def entries(self, split: str, root: Path) -> np.ndarray:  # noqa: ARG002
        """Of each image its pixels, for it has no name, and its label."""
        pixels = (zlib.crc32(self.content(index), len(split)) for index in range(len(self)))
        return _pairs(zip(pixels, self.labels.tolist(), strict=True))


@dataclass(frozen=True)
class Listed:
    """A split whose pictures have names and are had when they are asked for."""

    paths: tuple[Path, ...]
    labels: Tensor
    """int64, (N,)."""
    marks: np.ndarray
    """int64, (N,): a number for each that its content decides."""

    pixels = bounds = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray) -> Self:
        """The pictures at `positions`, in that order."""
        paths = tuple(self.paths[i] for i in positions)
        return replace(self, paths=paths, labels=self.labels[torch.from_numpy(positions)], marks=self.marks[positions])

    def name(self, index: int) -> str:
        """A picture, for people."""
        return str(self.paths[index])

    def labels_at(self, indices: np.ndarray) -> Tensor:
        """Labels of some pictures, int64, (N,)."""
        return self.labels[torch.from_numpy(indices)]

    def relabelled(self, numbers: Sequence[int]) -> Self:
        """The same pictures, with `numbers[label]` for each label."""
        return replace(self, labels=torch.tensor(numbers, dtype=torch.int64)[self.labels])

    def limited(self, count: int) -> Self:
        """About `count` pictures, the same share of every class; all where there are no more."""
        return self if count >= len(self) else self.take(_some_of(self.labels, count))

    def contents(self) -> np.ndarray:
        """A number for each picture that its content decides."""
        return self.marks

    def entries(self, split: str, root: Path) -> np.ndarray:
        """Of each picture its path, and its label and its mark.

        To read a million files again would take longer than to go on.
        """
        rows = zip(self.paths, self.labels.tolist(), self.marks.tolist(), strict=True)
        return _pairs((key(split, below(path, root)), key(label, mark)) for path, label, mark in rows)


class Files(Listed):
    """A split on disk.

    Its marks are size and both ends of each file, as the scan saw them, so that another in its place is noticed.
    """

    def content(self, index: int) -> bytes:
        """The bytes of a file. Raises `DataError` (exit code 3)."""
        path = self.paths[index]
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError("cannot read the image", file=path, why=error.strerror or str(error)) from error

    def image(self, index: int, channels: int, content: bytes | None = None) -> Image.Image:
        """A decoded picture, as `read_image` gives it. Raises `DataError` (exit code 3)."""
        return read_image(self.paths[index], channels, BytesIO(content) if content is not None else None)

    def with_image(
        self, index: int, use: Callable[[Image.Image], Seen], channels: int, content: bytes | None = None
    ) -> Seen:
        """What `use` makes of a decoded picture, in one go. Raises `DataError` (exit code 3)."""
        return with_image(self.paths[index], use, channels, BytesIO(content) if content is not None else None)

    def describe(self) -> str:
        """A count."""
        return f"{len(self):,} files"


def mark_of(pixels: Tensor) -> int:
    """A number of 63 bits that the pixels of a picture, uint8 (C, H, W), decide."""
    return int.from_bytes(hashlib.blake2b(pixels.numpy().tobytes(), digest_size=8).digest(), "little") >> 1


Held = TypeVar("Held", Images, Files)


def _pairs(pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    return np.array(list(pairs), dtype=np.int64).reshape(-1, 2)


def below(path: Path, root: Path) -> str:
    """The path inside the set, so that a set may be moved."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def stratified_split(labels: Tensor, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions to keep and positions to hold out; about `share` of every class is held out.

    A class of two images or more keeps one and gives one at least; a class of one image keeps it.
    """
    array = labels.numpy()
    held = [np.empty(0, dtype=np.int64)]
    for label in np.unique(array):
        members = np.flatnonzero(array == label)
        order = np.random.Generator(np.random.PCG64(key(SPLIT_SEED, "split", int(label)))).permutation(len(members))
        count = min(max(1, round(len(members) * share)), len(members) - 1)
        held.append(members[order[:count]])
    out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(array)), out), out


def hold_out(train: Held, share: float) -> tuple[Held, Held]:
    """What is kept and what is held out, as `stratified_split` has it."""
    keep, out = stratified_split(train.labels, share)
    return train.take(keep), train.take(out)


def _some_of(labels: Tensor, count: int) -> np.ndarray:
    """About `count` positions, the same share of every class."""
    return stratified_split(labels, 1 - count / len(labels))[0]


def listed_files(listing: Listing, entries: Mapping[Path, Entry]) -> dict[str, Files]:
    """The splits of a folder as it lists them, without the files that its scan could not read."""
    splits = {}
    for name, (paths, labels) in listing.splits.items():
        marks = np.array([entries[path].content for path in paths], dtype=np.int64)
        good = [position for position, path in enumerate(paths) if not entries[path].why]
        everything = Files(tuple(paths), torch.tensor(labels, dtype=torch.int64), marks)
        splits[name] = everything.take(np.array(good, dtype=np.int64))
    return splits


def class_weights(split: Split, classes: int) -> Tensor:
    """A weight for each class, (classes,), that makes all of them count the same; 1 on average over the images.

    Raises `UsageError` (exit code 2) for shards.
    """
    if split.labels is None:
        raise UsageError(
            "shards cannot be weighed by class", why="their labels are not in memory", remedy="leave it out"
        )
    counts = torch.bincount(split.labels, minlength=classes)
    present = counts > 0
    return torch.where(present, len(split) / (present.sum() * counts.clamp(min=1)), 0.0)


CONSTANT = 1.0
"""Stands for the deviation of a channel that has none: more than any can have, so what else comes there stays small."""
LEAST_STD = 0.0039
"""One level of 256: a channel with less is not made larger than that."""


def measure(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 (N, C, H, W), in 0-1; rounded to four decimals.

    The deviation is `LEAST_STD` at least, and `CONSTANT` for a channel that is the same everywhere.
    """
    mean, std = [], []
    for channel in range(pixels.shape[1]):
        counts = torch.bincount(pixels[:, channel].flatten().int(), minlength=256).double()
        values = torch.arange(256, dtype=torch.float64) / 255
        share = counts / counts.sum()
        average = float((share * values).sum())
        mean.append(round(average, 4))
        deviation = round(math.sqrt(float((share * (values - average) ** 2).sum())), 4)
        std.append(CONSTANT if counts.count_nonzero() == 1 else max(deviation, LEAST_STD))
    return tuple(mean), tuple(std)
