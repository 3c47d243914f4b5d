"""A split: labelled images in memory or on disk, and what is asked of their labels.

`Images` are uint8 pixels in memory; `Files` and `Shards` are decoded when needed.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from resnetkit.data.shards.read import Shards
from resnetkit.errors import UsageError
from resnetkit.images.reading import read_image
from resnetkit.randomness import key

SPLIT_SEED = 0
"""Splits that have to be made depend on it alone, so that runs with other seeds are scored on the same images."""


@dataclass(frozen=True)
class Images:
    """A split in memory."""

    pixels: Tensor
    """uint8, (N, C, H, W)."""
    labels: Tensor
    """int64, (N,)."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray) -> "Images":
        """The images at `positions`, in that order."""
        chosen = torch.from_numpy(positions)
        return Images(self.pixels[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Files:
    """A split on disk."""

    paths: tuple[Path, ...]
    labels: Tensor
    """int64, (N,)."""
    marks: np.ndarray
    """int64, (N,): size and both ends of each file, as the scan saw them, so that another in its place is noticed."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray) -> "Files":
        """The files at `positions`, in that order."""
        paths = tuple(self.paths[i] for i in positions)
        return Files(paths, self.labels[torch.from_numpy(positions)], self.marks[positions])

    def name(self, index: int) -> str:
        """A file, for people."""
        return str(self.paths[index])

    def image(self, index: int, channels: int) -> Image.Image:
        """A decoded picture, as `read_image` gives it. Raises `DataError` (exit code 3)."""
        return read_image(self.paths[index], channels)

    def labels_at(self, indices: np.ndarray) -> Tensor:
        """Labels of some files, int64, (N,)."""
        return self.labels[torch.from_numpy(indices)]


Listed = Images | Files
"""A split of which every image is listed in memory."""
Split = Listed | Shards
Held = TypeVar("Held", Images, Files)


def stratified_split(labels: Tensor, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions to keep and positions to hold out; about `share` of every class is held out.

    A class of two images or more keeps one and gives one at least; a class of one image keeps it.
    """
    array = labels.numpy()
    held = []
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


def class_weights(split: Split, classes: int) -> Tensor:
    """A weight for each class, (classes,), that makes all of them count the same; 1 on average over the images.

    Raises `UsageError` (exit code 2) for shards.
    """
    if isinstance(split, Shards):
        raise UsageError(
            "shards cannot be weighed by class", why="their labels are not in memory", remedy="leave it out"
        )
    counts = torch.bincount(split.labels, minlength=classes)
    present = counts > 0
    return torch.where(present, len(split) / (present.sum() * counts.clamp(min=1)), 0.0)


def describe_split(split: Split | None) -> str:
    """A count for people, with the pixels of images in memory."""
    if split is None:
        return "none"
    if isinstance(split, Images):
        return f"{len(split):,} images of {split.pixels.shape[-1]} x {split.pixels.shape[-2]} px in memory"
    return f"{len(split):,} {'files' if isinstance(split, Files) else f'images in {len(split.files):,} shards'}"


CONSTANT = 1.0
"""Stands for the deviation of a channel that has none: more than any can have, so what else comes there stays small."""
LEAST_STD = 0.0039
"""One level of 256: a channel with less is not made larger than that."""


def measure(split: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, in 0-1, over all pixels; rounded to four decimals.

    The deviation is `LEAST_STD` at least, and `CONSTANT` for a channel that is the same everywhere.
    """
    mean, std = [], []
    for channel in range(split.pixels.shape[1]):
        counts = torch.bincount(split.pixels[:, channel].flatten().int(), minlength=256).double()
        values = torch.arange(256, dtype=torch.float64) / 255
        share = counts / counts.sum()
        average = float((share * values).sum())
        mean.append(round(average, 4))
        deviation = round(math.sqrt(float((share * (values - average) ** 2).sum())), 4)
        std.append(CONSTANT if counts.count_nonzero() == 1 else max(deviation, LEAST_STD))
    return tuple(mean), tuple(std)
