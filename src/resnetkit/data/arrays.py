"""Labelled images that Python holds: arrays, tensors or lists of pictures, with a label for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from resnetkit.arguments import shortened
from resnetkit.data.dataset import Data, completed
from resnetkit.data.filenames import by_split
from resnetkit.data.items import SMALL
from resnetkit.data.layout import in_natural_order
from resnetkit.data.splits import Images, mark_of
from resnetkit.errors import UsageError
from resnetkit.images.memory import array_of, batch_of, is_array, is_picture, picture
from resnetkit.images.preprocess import to_tensor
from resnetkit.recipes.schema import DataRecipe

NAME = "arrays"
"""What a recipe calls them: they have no name of their own."""
TAKES = "(images, labels), two such pairs for train and validation, a torch data set, or a dict of train, val, test"


@dataclass(frozen=True)
class Arrays:
    """Images in memory as they were handed over, checked and in one form."""

    splits: dict[str, Images]
    """One or more of train, validation and test."""
    classes: tuple[str, ...]
    channels: int

    def __str__(self) -> str:
        return NAME

    @property
    def small(self) -> bool:
        """Whether they are so small that a network for photographs is not for them."""
        return all(min(split.pixels.shape[-2:]) <= SMALL for split in self.splits.values())

    def load(self, settings: DataRecipe, *, whole: bool) -> Data:
        """As a set: what it lacks is held out of `train`, as of a folder; `whole` takes it as one test split.

        Raises `DataError` (exit code 3) for a single class, and for a split that lacks a class.
        """
        splits, notes = completed(NAME, self.classes, self.splits, settings, whole=whole)
        three = (splits.get(name) for name in ("train", "validation", "test"))
        return Data(NAME, self.classes, *three, channels=self.channels, notes=notes)


def read_arrays(given: Any, *, channels: int | None = None, known: Sequence[str] | None = None) -> Arrays:
    """Images and labels as they were handed over: a pair, two pairs, or a dict of pairs by the names of splits.

    Images are (N, H, W), (N, H, W, C) or (N, C, H, W); their numbers are read as those of files. Labels are whole
    numbers or names. `channels` are those that are wanted, 1 or 3, where not all that there are. `known` are classes
    that somebody knows already: whole numbers are places among them, where none of them is a number.
    Raises `UsageError` (exit code 2) for anything else, `DataError` (exit code 3) for numbers that cannot be colours.
    """
    pairs = _pairs(given)
    pixels = {split: _pixels(images, _named(split, "images"), channels) for split, (images, _) in pairs.items()}
    most = max(each.shape[1] for each in pixels.values())
    labels = {split: _labels(each, _named(split, "labels"), known or ()) for split, (_, each) in pairs.items()}
    classes = tuple(in_natural_order({name for each in labels.values() for name in each}))
    number = {name: place for place, name in enumerate(classes)}
    splits = {}
    for split, names in labels.items():
        images = pixels[split] if pixels[split].shape[1] == most else pixels[split].repeat(1, most, 1, 1)
        if len(images) != len(names):
            raise UsageError(
                f"{_named(split, 'images')} are {len(images):,} and {_named(split, 'labels')} {len(names):,}",
                remedy="a label for each image",
            )
        marks = np.array([mark_of(image) for image in images], dtype=np.int64)
        splits[split] = Images(images, torch.tensor([number[name] for name in names], dtype=torch.int64), marks=marks)
    return Arrays(splits, classes, most)


def _named(split: str, what: str) -> str:
    return what if split == "train" else f"{split} {what}"


def _pairs(given: Any) -> dict[str, tuple[Any, Any]]:
    """What was handed over, by split."""
    if isinstance(given, Mapping):
        found = {split: value for split, value in by_split(given).items() if value is not None}
        if not found:
            raise UsageError("there are no images", why="the dict has no split", remedy='{"train": (images, labels)}')
        return {split: _pair(value, split) for split, value in found.items()}
    if isinstance(given, list | tuple) and len(given) == 2 and all(map(_is_pair, given)):
        return {"train": _pair(given[0], "train"), "validation": _pair(given[1], "validation")}
    return {"train": _pair(given, "train")}


def _is_pair(value: Any) -> bool:
    """Whether something is images and labels, and not images alone: two arrays are, two pictures are not."""
    if not isinstance(value, list | tuple) or len(value) != 2 or isinstance(value[1], str):
        return False
    images, labels = value
    holds_pictures = is_array(images) or (isinstance(images, list | tuple) and all(map(is_picture, images)))
    return holds_pictures and (isinstance(labels, list | tuple) or (is_array(labels) and len(labels.shape) <= 2))


def _pair(value: Any, split: str) -> tuple[Any, Any]:
    if isinstance(value, list | tuple) and len(value) == 2:
        return value[0], value[1]
    remedy = "(images, labels)" if is_array(value) else None
    given = "images without labels" if is_array(value) else shortened(value)
    where = f"the data of {split}" if split != "train" else "the data"
    raise UsageError(f"{where} cannot be {given}", why=f"in memory they are {TAKES}", remedy=remedy)


def _pixels(images: Any, name: str, channels: int | None) -> torch.Tensor:
    """uint8 (N, C, H, W)."""
    array = array_of(images, name)
    if array.ndim < 2 or not array.size:
        raise UsageError(f"{name} of the shape {array.shape} are none", remedy="(N, H, W), (N, H, W, C), (N, C, H, W)")
    values = batch_of(array, name)
    wanted = channels or (1 if values.shape[-1] == 1 else 3)
    if values.shape[-1] == wanted:
        return torch.from_numpy(values.transpose(0, 3, 1, 2).copy())
    return torch.stack([to_tensor(picture(each, wanted, f"{name}[{place}]")) for place, each in enumerate(values)])


def _labels(given: Any, name: str, known: Sequence[str]) -> list[str]:
    """The names of classes, one for each image."""
    array = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    takes = "whole numbers or names, one for each image"
    if array.ndim == 2 and array.dtype.kind in "buif" and array.shape[1] > 1:
        raise UsageError(f"{name} of the shape {array.shape} cannot be", why=f"they are {takes}", remedy="y.argmax(1)")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype == object and all(isinstance(each, str) for each in array.flat):
        array = array.astype(str)
    if array.ndim != 1 or array.dtype.kind not in "biuU":
        remedy = "y.astype(int)" if array.dtype.kind == "f" and array.ndim == 1 else None
        what = shortened(given) if array.ndim != 1 else f"of type {array.dtype}"
        raise UsageError(f"{name} cannot be {what}", why=f"they are {takes}", remedy=remedy)
    found = [str(each) for each in array.tolist()]
    if array.dtype.kind in "iu" and known and not any(each.lstrip("-").isdecimal() for each in known):
        if not 0 <= array.min(initial=0) <= array.max(initial=0) < len(known):
            raise UsageError(f"{name} are up to {array.max()}", why=f"the classifier knows {len(known)} classes")
        found = [known[place] for place in array.tolist()]
    return found
