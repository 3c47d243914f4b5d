"""A folder of images, a table of them, or an archive, as a set."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from resnetkit.data.classnames import told_apart, twins
from resnetkit.data.dataset import Data, refuse_lacking, refuse_single
from resnetkit.data.holdout import complete
from resnetkit.data.labelling import Labelling
from resnetkit.data.layout import Layout, LeftOut, describe_left_out, describe_troubles, listing_of
from resnetkit.data.scan import Entry, apart, copies, scan
from resnetkit.data.sources import find_layout
from resnetkit.data.splits import Files, Images, Split, listed_files
from resnetkit.data.survey import IMBALANCE
from resnetkit.data.unreadable import check_command, refuse_unreadable
from resnetkit.errors import DataError
from resnetkit.images.preprocess import to_tensor
from resnetkit.machine.console import shown
from resnetkit.recipes.schema import DataRecipe

IN_MEMORY_SIDE = 64


IN_MEMORY_BYTES = 2**30


_COPIES = {
    "splits": "are in two splits, so scores are too good",
    "classes": "are in two classes, so labels are wrong",
    "": "are the same file twice",
}


def named_splits(settings: DataRecipe) -> dict[str, str]:
    """The splits whose folders a recipe names."""
    named = {"train": settings.train_folder, "validation": settings.validation_folder, "test": settings.test_folder}
    return {split: name for split, name in named.items() if name is not None}


def labelling(settings: DataRecipe) -> Labelling:
    """How a recipe finds classes where no folder says them."""
    return Labelling(**{each.name: getattr(settings, each.name) for each in fields(Labelling)})


def load_folder(source: Path, settings: DataRecipe, *, whole: bool, channels: int = 3) -> Data:
    """A folder of images with one folder a class, a table, or an archive; `whole` takes it as one test split.

    `channels` are those of the images that are kept in memory, 1 or 3.

    Raises `DataError` (exit code 3), and the errors of `find_layout`.
    """
    layout = find_layout(source, labelling(settings), named_splits(settings))
    return load_layout(source, layout, settings, whole=whole, channels=channels)


def load_layout(source: Path, layout: Layout, settings: DataRecipe, *, whole: bool, channels: int = 3) -> Data:
    """The images of a layout, as a set that is called `source`. Raises `DataError` (exit code 3)."""
    listing, root = listing_of(layout, source), layout.root
    if not whole:
        refuse_single(source, listing.classes)
    paths = [path for members, _ in listing.splits.values() for path in members]
    entries = dict(zip(paths, scan(root, paths), strict=True))
    unreadable = {str(path): layout.said(path, entry.why) for path, entry in entries.items() if entry.why}
    splits = listed_files(listing, entries)
    share = 1.0 if whole else settings.max_unreadable  # a score says how many images it counts
    refuse_unreadable(source, splits, unreadable, len(entries), share)
    if whole and "all" in splits:
        splits["test"] = splits.pop("all")
    found, splits = set(splits), complete(splits, settings.validation, root, settings.group_by)
    passed = list(describe_left_out(layout.left_out, root, layout.rows))
    left_out = {
        reason: LeftOut(len(paths), line) for (reason, paths), line in zip(layout.left_out.items(), passed, strict=True)
    }
    lacks = "folder" if layout.folders else "rows" if layout.rows else "split"
    notes = [*(listing.notes if layout.rows else ()), *passed, *describe_troubles(layout.troubles)]
    if "all" in found:
        notes.append(
            f"no held-out {lacks} in {source}: held out "
            f"{len(splits['validation'])} images for validation and "
            f"{len(splits['test'])} for the test, of every class (train on {len(splits['train'])})"
        )
    elif "validation" in splits.keys() - found:
        validation = f"{lacks} of validation" if lacks != "folder" else "folder val/"
        notes.append(f"no {validation} in {source}: held out {len(splits['validation'])} of the training images")
    notes += [] if layout.rows else listing.notes
    if not settings.allow_missing and not whole:
        refuse_lacking(str(source), listing.classes, splits)
    if not whole:
        notes += _doubts(source, layout, listing.classes, splits, entries)
    held, damaged = _into_memory(splits, entries, channels)
    unreadable |= damaged
    refuse_unreadable(source, held, unreadable, len(entries), share)
    return Data(
        str(source),
        listing.classes,
        held.get("train"),
        held.get("validation"),
        held.get("test"),
        channels=channels,
        notes=notes,
        unreadable=unreadable,
        left_out=left_out,
        place=str(root),
    )


def _doubts(
    source: Path, layout: Layout, classes: Sequence[str], splits: dict[str, Files], entries: dict[Path, Entry]
) -> Iterator[str]:
    """The quick part of `resnetkit check`: a line for each kind of trouble, with its first example."""
    for group in twins(classes)[:1]:
        yield f"the classes {' and '.join(told_apart(group))} look alike; if they are one, use one folder"
    if "train" in splits:
        sizes = Counter(splits["train"].labels.tolist())
        (most, many), (least, few) = sizes.most_common()[0], sizes.most_common()[-1]
        if many > IMBALANCE * few:
            rare, common = shown(classes[least]), shown(classes[most])
            yield f"{common} has {many:,} images to train on and {rare} {few:,}; add some, or judge by per-class scores"
    places = {
        path: (split, str(label))
        for split, files in splits.items()
        for path, label in zip(files.paths, files.labels.tolist(), strict=True)
    }
    found = defaultdict(list)
    for group in copies(entries):
        found[apart(places[path] for path in group)].append(group)
    for far, what in _COPIES.items():
        if far in found:
            first, *others = found[far][0]
            other = next((path for path in others if places[path] != places[first]), others[0])
            names = " and ".join(
                layout.said(path, shown(os.path.relpath(path, layout.root))) for path in (first, other)
            )
            count = sum(len(group) for group in found[far])
            yield f"{count:,} images {what}, such as {names}: {check_command(source)}"


def _into_memory(
    splits: dict[str, Files], entries: dict[Path, Entry], channels: int
) -> tuple[Mapping[str, Split], dict[str, str]]:
    """Decode a set of small images of one size once and for all, or leave it on disk; and what could not be decoded."""
    sizes = {(entry.width, entry.height) for entry in entries.values() if not entry.why}
    if len(sizes) != 1 or max(next(iter(sizes))) > IN_MEMORY_SIDE:
        return splits, {}
    width, height = sizes.pop()
    if len(entries) * channels * width * height > IN_MEMORY_BYTES:
        return splits, {}
    loaded: dict[str, Split] = {}
    damaged: dict[str, str] = {}
    for name, split in splits.items():
        pixels = torch.empty(len(split), channels, height, width, dtype=torch.uint8)
        good = []

        def decode(position: int, split: Files = split, pixels: Tensor = pixels) -> bool | str:
            """Whether the image is of the size that its header says, or why it cannot be read."""
            try:
                image = to_tensor(split.image(position, channels))
            except DataError as error:
                return error.reason
            if image.shape != pixels.shape[1:]:
                return False
            pixels[position] = image
            return True

        with ThreadPoolExecutor() as pool:
            for position, outcome in enumerate(pool.map(decode, range(len(split)))):
                if outcome is False:
                    return splits, damaged  # a picture whose header does not say that it is turned
                if isinstance(outcome, str):
                    damaged[split.name(position)] = outcome
                else:
                    good.append(position)
        loaded[name] = Images(pixels, split.labels, split).take(np.array(good, dtype=np.int64))
    return loaded, damaged
