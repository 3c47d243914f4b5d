"""Data sets that Python holds: whatever has a length and gives an image and its label at each number.

That is what torch calls a map-style data set: torchvision's own, `Subset`, `ConcatDataset`, one of yours, and those of
the library datasets, whose items are dicts. It is asked by what it can, so nothing here needs torch.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from os.path import commonpath
from pathlib import Path
from typing import Any

from PIL import Image

from resnetkit.data.filenames import by_split
from resnetkit.data.layout import Layout, in_natural_order
from resnetkit.data.sources import holds_saved
from resnetkit.errors import DataError, ResnetkitError, UsageError
from resnetkit.images.memory import is_grey, is_picture, picture

NAME = "dataset"
"""What a recipe calls it: it has no name of its own."""
SMALL = 64
"""Side in pixels up to which a small network from nothing is a better start than one for photographs."""
_IMAGES, _LABELS = ("image", "img", "picture"), ("label", "labels", "class", "target")
"""Keys of items that are dicts."""


@dataclass(frozen=True)
class DataSets:
    """Data sets as they were handed over: those of "train", "validation" and "test", or one of "all"."""

    given: Mapping[str, Any]

    def __str__(self) -> str:
        return NAME

    @cached_property
    def names(self) -> tuple[str, ...] | None:
        """What the classes are called, in the order of their numbers, where any of them says it."""
        return next((names for each in self.given.values() if (names := _names(each))), None)

    @property
    def small(self) -> bool:
        """Whether the first picture is so small that a network for photographs is not for it."""
        first = next((picture for split in self.given for _, _, picture, _ in self.items(split)), None)
        return isinstance(first, Image.Image) and min(first.size) <= SMALL

    def layout(self) -> Layout | None:
        """Where all pictures lie, where that is files which are shown as they are; else nothing."""
        found = {split: _files(each) for split, each in self.given.items()}
        members: dict[str, dict[str, list[Path]]] = {split: defaultdict(list) for split in found}
        for split, files in found.items():
            if not files:
                return None
            for path, label in files:
                members[split][self.label(label, path.name)].append(path)
        parents = [str(path.parent.absolute()) for files in found.values() for path, _ in files or ()]
        root = Path(commonpath(parents))
        plain = {split: {name: sorted(paths) for name, paths in of.items()} for split, of in members.items()}
        return Layout(root, plain, {})

    def write(self, folder: Path) -> Layout:
        """Write every picture to a folder, called by its number. An item that cannot be had leaves an empty file."""
        members: dict[str, dict[str, list[Path]]] = {}
        for split in self.given:
            of: dict[str, list[Path]] = defaultdict(list)
            for number, _, image, label in self.items(split):
                path = folder / ("" if split == "all" else split) / f"{number:06d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(image, str):
                    path.touch()
                else:
                    image.save(path, compress_level=1)
                of[label].append(path)
            members[split] = dict(of)
        return Layout(folder, members, {})

    def items(self, split: str) -> Iterator[tuple[int, str, Image.Image | str, str]]:
        """Number, name, picture, and class of each item; in place of a picture that cannot be had, why.

        Raises `UsageError` (exit code 2) for what is no image with its label.
        """
        for number in range(len(self.given[split])):
            name = self.name(split, number)
            try:
                image, label = pair_of(self.given[split], number, name)
            except ResnetkitError:
                raise
            except Exception as error:  # whatever a stranger's data set raises
                yield number, name, f"{type(error).__name__}: {error}"[:200], ""
                continue
            yield number, name, picture_of(image, name), self.label(label, name)

    def name(self, split: str, number: int) -> str:
        """An item, for people."""
        return f"{NAME if split == 'all' else split}[{number}]"

    def label(self, label: Any, where: str) -> str:
        """The name of a class. Raises `UsageError` (exit code 2) for what is neither a number nor a name."""
        if (hasattr(label, "item") and getattr(label, "size", 1) in (1, ())) or getattr(label, "ndim", 1) == 0:
            label = label.item()
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if isinstance(label, str) and label.strip():
            return label.strip()
        if isinstance(label, int):
            if self.names is None:
                return str(int(label))
            if 0 <= label < len(self.names):
                return self.names[label]
            why = f"its classes are {len(self.names)}"
            raise UsageError(f"the label of {where} cannot be {label}", why=why, remedy="a number from 0 on")
        kind = f"{type(label).__name__}{list(label.shape) if hasattr(label, 'shape') else ''}"
        why = f"it is a {kind}"
        raise UsageError(f"{where} has no label", why=why, remedy="(image, label) with a whole number or a name")

    def in_order(self, found: set[str]) -> tuple[str, ...]:
        """Classes in the order of the data set, or of their names."""
        if self.names is not None:
            return tuple(dict.fromkeys(name for name in self.names if name in found))
        return tuple(in_natural_order(found))


def is_dataset(value: Any) -> bool:
    """Whether something has a length and items by number, and is neither a list nor an array nor a name."""
    if isinstance(value, str | bytes | Path | Sequence | Mapping) or hasattr(value, "__array__"):
        return False
    return hasattr(value, "__getitem__") and hasattr(value, "__len__")


def read_datasets(value: Any) -> DataSets | None:
    """A data set, or a dict of them by the names of splits; None for anything else.

    Raises `UsageError` (exit code 2) for splits that are not known, and for what gives its items in a row only.
    """
    if hasattr(value, "dataset") and hasattr(value, "batch_size"):
        why = "it mixes and batches what resnetkit does itself"
        raise UsageError("a DataLoader is no data set", why=why, remedy="loader.dataset")
    if hasattr(value, "__iter__") and hasattr(value, "__getitem__") and not hasattr(value, "__len__"):
        why = "it has no length, and gives its items in one order only"
        raise UsageError(
            "an IterableDataset cannot be learnt from", why=why, remedy="one with items by number, or shards"
        )
    if is_dataset(value):
        return DataSets({"all": value})
    if not (isinstance(value, Mapping) and value and all(map(is_dataset, value.values()))):
        return None
    return DataSets(by_split(value))


def saved_datasets(folder: Path) -> DataSets | None:
    """What the library datasets has saved in a folder; None where that is something else.

    Raises `UsageError` (exit code 2) without the library, `DataError` (exit code 3) for a folder that it cannot read.
    """
    if not holds_saved(folder):
        return None
    try:
        library = import_module("datasets")
    except ImportError as error:
        what, remedy = "a folder of the library datasets needs the library", "pip install datasets"
        raise UsageError(what, file=folder, why="its pictures are in Arrow files", remedy=remedy) from error
    try:
        return read_datasets(library.load_from_disk(str(folder)))
    except ResnetkitError:
        raise
    except Exception as error:  # whatever the library raises
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
        raise DataError("cannot read the data set", file=folder, why=why) from error


def pair_of(dataset: Any, number: int, name: str) -> tuple[Any, Any]:
    """Image and label of an item. Raises `UsageError` (exit code 2) for one that has none."""
    item = dataset[number]
    if isinstance(item, Mapping):
        image = next((item[key] for key in _IMAGES if key in item), None)
        label = next((item[key] for key in _LABELS if key in item), None)
        if image is not None and label is not None:
            return image, label
        given = f"a dict of {', '.join(map(str, item))}"
    elif isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1]
    else:
        given = type(item).__name__
    raise UsageError(f"{name} is no image with its label", why=f"it is {given}"[:200], remedy="(image, label)")


def picture_of(image: Any, name: str) -> Image.Image:
    """An image as an upright 8-bit picture, mode "L" or "RGB", by the rule for pictures in memory.

    Raises `UsageError` (exit code 2) for what is none, `DataError` (exit code 3) for numbers that cannot be colours,
    such as those of one that was normalised.
    """
    if not is_picture(image):
        why = f"it is a {type(image).__name__} {list(image.shape) if hasattr(image, 'shape') else ''}".rstrip()
        remedy = "a picture of Pillow, a tensor (C, H, W), an array"
        raise UsageError(f"{name} is no image", why=why, remedy=remedy)
    return picture(image, 1 if is_grey(image) else 3, name)


def _names(dataset: Any) -> tuple[str, ...] | None:
    """Class names of a data set, or of those that it is made of."""
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        return _names(dataset.dataset)
    if hasattr(dataset, "cumulative_sizes") and hasattr(dataset, "datasets"):
        known = {names for each in dataset.datasets if (names := _names(each))}
        if len(known) > 1:
            raise DataError("the data sets have different classes", why=" and ".join(map(str, sorted(known)))[:200])
        return known.pop() if known else None
    listed, numbers = getattr(dataset, "classes", None), getattr(dataset, "class_to_idx", None)
    if isinstance(listed, list | tuple) and listed:
        return tuple(", ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in listed)
    if isinstance(numbers, Mapping) and numbers:
        return tuple(str(name) for name in sorted(numbers, key=lambda name: numbers[name]))
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):
        found = next((features[key] for key in _LABELS if key in features), None)
        listed = getattr(found, "names", None)
        return tuple(map(str, listed)) if isinstance(listed, list | tuple) and listed else None
    return None


def _files(dataset: Any) -> list[tuple[Path, int]] | None:
    """The files of a data set that opens them as we do and changes nothing; None for any other."""
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        whole = _files(dataset.dataset)
        return [whole[int(number)] for number in dataset.indices] if whole is not None else None
    if hasattr(dataset, "cumulative_sizes") and hasattr(dataset, "datasets"):
        parts = [_files(each) for each in dataset.datasets]
        return [file for part in parts for file in part or ()] if all(part is not None for part in parts) else None
    changed = any(getattr(dataset, name, None) is not None for name in ("transform", "target_transform", "transforms"))
    module = type(dataset).__module__, getattr(getattr(dataset, "loader", None), "__module__", "")
    if changed or module != ("torchvision.datasets.folder", "torchvision.datasets.folder"):
        return None
    return [(Path(path), int(label)) for path, label in dataset.samples]
