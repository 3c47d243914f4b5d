"""The images: named sets, folders and shards, each as a `Data` of train, validation and test splits.

Splits that have to be made are stratified and depend on `SPLIT_SEED` alone, so that runs with other seeds are scored
on the same images.
"""

import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from resnetkit.errors import DataError, UsageError
from resnetkit.folders import IMBALANCE, list_folder, twins
from resnetkit.preprocess import read_image, to_tensor
from resnetkit.recipe import DataRecipe
from resnetkit.scan import Entry, apart, copies, scan, shown
from resnetkit.shards import Shards, names_shards, open_shards
from resnetkit.splits import SPLIT_SEED, Files, Images, Listed, Split, hold_out, stratified_split

IN_MEMORY_SIDE = 64
IN_MEMORY_BYTES = 2**30
FEW_UNREADABLE = 3
"""Training leaves out so many unreadable images in any case; `data.max_unreadable` is the share beyond that."""
_COPIES = {
    "splits": "are in two splits, so scores are too good",
    "classes": "are in two classes, so labels are wrong",
    "": "are the same file twice",
}


@dataclass(frozen=True)
class Data:
    """A set of labelled images. `notes` say what was decided on the way; `unreadable` maps a file to the reason."""

    name: str
    classes: tuple[str, ...]
    train: Split | None = None
    validation: Split | None = None
    test: Split | None = None
    channels: int = 3
    notes: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)

    def held_out(self) -> tuple[str, Split]:
        """The split to report: test where there is one, else validation."""
        for name, split in (("test", self.test), ("validation", self.validation)):
            if split is not None:
                return name, split
        raise DataError("there is nothing to evaluate on", file=self.name, remedy="a folder val/ or test/")


def default_data_root() -> Path:
    """Where named sets live: RESNETKIT_DATA, else a folder in the user's cache."""
    if root := os.environ.get("RESNETKIT_DATA"):
        return Path(root)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "resnetkit" / "data"


def load_data(
    name: str, settings: DataRecipe | None = None, *, data_root: str | Path | None = None, whole: bool = False
) -> Data:
    """Load a named set, a folder of images with one folder a class, or shards: a folder of them, or a pattern.

    A named set that is missing is downloaded to the default root, never to a `data_root` that is given. `whole` takes a
    folder of class folders as one test split instead of splitting it.
    Raises `DataError` (exit code 3) or `UsageError` (exit code 2), naming the folder and the layout that is expected.
    """
    settings = settings or DataRecipe(name=name)
    if name in NAMED_SETS:
        data = NAMED_SETS[name](Path(data_root) if data_root else None, settings)
    elif names_shards(name):
        data = _load_shards(name, settings, whole=whole)
    else:
        data = _load_folder(Path(name), settings, whole=whole)
    if settings.limit is not None and data.train is not None and settings.limit < len(data.train):
        if isinstance(data.train, Shards):
            train: Split = data.train.limited(settings.limit)
        else:
            positions, _ = stratified_split(data.train.labels, 1 - settings.limit / len(data.train))
            train = data.train.take(positions)
        data = replace(data, train=train)
        data.notes.append(f"trains on {len(train)} images only, as data.limit says")
    return data


def _digits(_root: Path | None, settings: DataRecipe) -> Data:
    """1,797 handwritten digits, 8x8 grey, from scikit-learn: 20 % test, `validation` of the rest to choose by."""
    from sklearn.datasets import load_digits

    values, labels = (np.asarray(part) for part in load_digits(return_X_y=True))
    grey = np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    everything = Images(torch.from_numpy(grey), torch.from_numpy(labels.astype(np.int64)))
    rest, test = hold_out(everything, 0.2)
    train, validation = hold_out(rest, settings.validation)
    return Data("digits", tuple(str(digit) for digit in range(10)), train, validation, test, channels=1)


def _from_torchvision(name: str, kind: str, expected: str) -> Callable[[Path | None, DataRecipe], Data]:
    def load(root: Path | None, settings: DataRecipe) -> Data:
        from torchvision import datasets

        make = getattr(datasets, kind)
        where = root or default_data_root()
        try:
            train, test = (make(where, train=part, download=root is None) for part in (True, False))
        except (RuntimeError, OSError) as error:
            remedy = f"put {expected} into {where}"
            if root is not None:
                remedy += ", or leave out --data-root to download"
            raise DataError(f"{name} is not complete", file=where, why=_short(error), remedy=remedy) from error
        splits = []
        for part in (train, test):
            pixels = torch.as_tensor(part.data)
            pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
            splits.append(Images(pixels.contiguous(), torch.as_tensor(part.targets)))
        fit, validation = hold_out(splits[0], settings.validation)
        return Data(name, tuple(train.classes), fit, validation, splits[1], channels=splits[0].pixels.shape[1])

    return load


def _short(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason).partition("\n")[0].rstrip(".")[:200]


def _imagenet(root: Path | None, settings: DataRecipe) -> Data:
    """ILSVRC 2012, folders train/ and val/ with one for each synset. Its validation images are the test split here."""
    folder = (root or default_data_root()) / "imagenet"
    if not folder.is_dir():
        raise DataError(
            "imagenet is not there",
            file=folder,
            why="it cannot be downloaded without an account",
            remedy="unpack ILSVRC 2012 into its train/ and val/, a folder such as n01440764/ for each class",
        )
    data = _load_folder(folder, settings, whole=False)
    data = replace(data, name="imagenet", test=data.test or data.validation, validation=None)
    if data.train is None:
        return data  # enough to be scored on
    fit, held = hold_out(cast("Files", data.train), settings.validation)
    return replace(data, train=fit, validation=held)


NAMED_SETS: dict[str, Callable[[Path | None, DataRecipe], Data]] = {
    "digits": _digits,
    "fashion-mnist": _from_torchvision(
        "fashion-mnist", "FashionMNIST", "the four files train-images-idx3-ubyte … under FashionMNIST/raw/"
    ),
    "cifar10": _from_torchvision("cifar10", "CIFAR10", "cifar-10-python.tar.gz, unpacked as cifar-10-batches-py/"),
    "cifar100": _from_torchvision("cifar100", "CIFAR100", "cifar-100-python.tar.gz, unpacked as cifar-100-python/"),
    "imagenet": _imagenet,
}

DEFAULT_RECIPES = {"cifar10": "cifar10-paper", "cifar100": "cifar10-paper", "imagenet": "imagenet-modern"}
"""Recipe of a named set where it is not the recipe of the same name."""


def default_recipe(name: str, *, weights: str | None = None) -> str:
    """The recipe that fits a data set when none is asked for: a folder is fine-tuned, unless `weights` is "none"."""
    if name in NAMED_SETS:
        return DEFAULT_RECIPES.get(name, name)
    return "scratch" if weights == "none" else "finetune"


def _load_folder(folder: Path, settings: DataRecipe, *, whole: bool) -> Data:
    if not folder.exists() and folder.name == str(folder):
        raise UsageError.unknown("data set", str(folder), NAMED_SETS, remedy="a name, or the path of a folder")
    listing = list_folder(folder)
    if not whole:
        _refuse_single(folder, listing.classes)
    paths = [path for members, _ in listing.splits.values() for path in members]
    entries = dict(zip(paths, scan(folder, paths), strict=True))
    unreadable = {str(path): entry.why for path, entry in entries.items() if entry.why}
    splits: dict[str, Files] = {}
    for name, (members, labels) in listing.splits.items():
        good = [position for position, path in enumerate(members) if not entries[path].why]
        marks = np.array([entries[path].content for path in members], dtype=np.int64)
        everything = Files(tuple(members), torch.tensor(labels, dtype=torch.int64), marks)
        splits[name] = everything.take(np.array(good, dtype=np.int64))
    allowed = len(entries) if whole else max(FEW_UNREADABLE, settings.max_unreadable * len(entries))
    _refuse_unreadable(folder, splits, unreadable, len(entries), allowed)
    notes = []
    if whole and "all" in splits:
        splits["test"] = splits.pop("all")
    elif "all" in splits:
        rest, splits["test"] = hold_out(splits.pop("all"), settings.validation)
        splits["train"], splits["validation"] = hold_out(rest, settings.validation)
        notes.append(
            f"no held-out folder in {folder}: held out {len(splits['validation'])} images for validation and "
            f"{len(splits['test'])} for the test, stratified (train on {len(splits['train'])})"
        )
    elif "validation" not in splits and "train" in splits:
        splits["train"], splits["validation"] = hold_out(splits["train"], settings.validation)
        notes.append(f"no folder val/ in {folder}: held out {len(splits['validation'])} of the training images")
    if not settings.allow_missing and not whole:
        counts = {split: torch.bincount(part.labels, minlength=len(listing.classes)) for split, part in splits.items()}
        _refuse_missing(str(folder), listing.classes, counts)
    if not whole:
        notes += _doubts(folder, listing.classes, splits, entries)
    held = _into_memory(splits, entries, unreadable)
    _refuse_unreadable(folder, held, unreadable, len(entries), allowed)
    return Data(
        str(folder),
        listing.classes,
        held.get("train"),
        held.get("validation"),
        held.get("test"),
        notes=notes,
        unreadable=unreadable,
    )


def _refuse_unreadable(
    folder: Path, splits: Mapping[str, Split], unreadable: dict[str, str], total: int, allowed: float
) -> None:
    """A few bad files are left out; many are a mistake that training should not paper over. A score says its count."""
    count = len(unreadable)
    empty = [name for name, split in splits.items() if not len(split)]
    if not empty and count <= allowed:
        return
    what = f"{count:,} of {total:,} images cannot be read"
    if empty:
        what = "no image can be read" if empty == ["all"] else f"the {empty[0]} split has no image"
    raise DataError(
        what,
        file=folder,
        why="the first is {}: {}".format(*next(iter(unreadable.items()))) if unreadable else None,
        remedy=f"{_check(folder)}, which names each; replace or delete them",
    )


def _check(folder: Path) -> str:
    return f"resnetkit check {shlex.quote(str(folder))}"


def _doubts(
    folder: Path, classes: Sequence[str], splits: dict[str, Files], entries: dict[Path, Entry]
) -> Iterator[str]:
    """The quick part of `resnetkit check`: a line for each kind of trouble, with its first example."""
    for group in twins(classes)[:1]:
        yield f"the classes {' and '.join(map(shown, group))} look alike; if they are one, use one folder"
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
            names = " and ".join(shown(os.path.relpath(path, folder)) for path in (first, other))
            count = sum(len(group) for group in found[far])
            yield f"{count:,} images {what}, such as {names}: {_check(folder)}"


def _load_shards(source: str, settings: DataRecipe, *, whole: bool) -> Data:
    found = open_shards(source)
    splits, notes = dict(found.splits), list(found.notes)
    if not whole:
        _refuse_single(source, found.classes)
    if not settings.allow_missing and not whole:
        _refuse_missing(source, found.classes, found.counts)
    if whole and set(splits) == {"train"}:
        splits["test"] = splits.pop("train")
    elif "train" in splits and "validation" not in splits:
        splits["train"], splits["validation"] = splits["train"].hold_out(settings.validation, SPLIT_SEED)
        if not len(splits["validation"]):
            raise DataError(
                "nothing can be held out to choose the best weights by",
                file=source,
                why=f"no shard has {round(1 / settings.validation)} images",
                remedy="val-*.tar shards, or a larger --data.validation",
            )
        notes.append(f"no val shards in {source}: held out {len(splits['validation']):,} of the training images")
    return Data(source, found.classes, splits.get("train"), splits.get("validation"), splits.get("test"), notes=notes)


def _refuse_single(source: str | Path, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise DataError(
            f"there is one class only ({', '.join(classes)})", file=source, why="there is nothing to tell apart"
        )


def _refuse_missing(source: str, classes: Sequence[str], counts: Mapping[str, Tensor | np.ndarray]) -> None:
    for split_name, present in counts.items():
        missing = [name for name, count in zip(classes, present.tolist(), strict=True) if not count]
        if missing:
            raise DataError(
                f"the {split_name} split has no image of {', '.join(missing[:5])}",
                file=source,
                why=f"the classes are {', '.join(classes[:10])}{', …' if len(classes) > 10 else ''}",
                remedy="add some, or accept it with --data.allow-missing",
            )


def _into_memory(
    splits: dict[str, Files], entries: dict[Path, Entry], unreadable: dict[str, str]
) -> Mapping[str, Listed]:
    """Decode a set of small images of one size once and for all; leave anything else on disk."""
    sizes = {(entry.width, entry.height) for entry in entries.values() if not entry.why}
    if len(sizes) != 1 or max(next(iter(sizes))) > IN_MEMORY_SIDE:
        return splits
    width, height = sizes.pop()
    if len(entries) * 3 * width * height > IN_MEMORY_BYTES:
        return splits
    loaded: dict[str, Listed] = {}
    for name, split in splits.items():
        pixels = torch.empty(len(split), 3, height, width, dtype=torch.uint8)
        good = np.ones(len(split), dtype=bool)

        def decode(position: int, split: Files = split, pixels: Tensor = pixels, good: np.ndarray = good) -> bool:
            try:
                image = to_tensor(read_image(split.paths[position]))
            except DataError as error:
                unreadable[str(split.paths[position])] = error.why or error.what
                good[position] = False
                return True
            if image.shape != pixels.shape[1:]:
                return False
            pixels[position] = image
            return True

        with ThreadPoolExecutor() as pool:
            if not all(pool.map(decode, range(len(split)))):
                return splits  # a picture whose header does not say that it is turned
        loaded[name] = Images(pixels, split.labels).take(np.flatnonzero(good))
    return loaded
