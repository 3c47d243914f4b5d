"""A set of labelled images, and what it must hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from resnetkit.data.holdout import complete
from resnetkit.data.layout import LeftOut
from resnetkit.data.splits import Held, Split
from resnetkit.errors import DataError
from resnetkit.recipes.schema import DataRecipe


@dataclass(frozen=True)
class Data:
    """A set of labelled images. `notes` say what was decided on the way; `unreadable` maps a file to the reason.

    `left_out`: files that are passed over unread, by the reason; their lines are among the notes.
    """

    name: str
    classes: tuple[str, ...]
    train: Split | None = None
    validation: Split | None = None
    test: Split | None = None
    channels: int = 3
    notes: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    place: str | None = None
    """Folder below which its files have their names, where that is not the set itself."""

    @property
    def root(self) -> Path:
        """Below it, names of files count, so that a set may be moved."""
        return Path(self.name if self.place is None else self.place)

    def held_out(self) -> tuple[str, Split]:
        """The split to report: test where there is one, else validation."""
        for name, split in (("test", self.test), ("validation", self.validation)):
            if split is not None:
                return name, split
        raise DataError("there is nothing to evaluate on", file=self.name, remedy="a folder val/ or test/")


def refuse_single(source: str | Path, classes: Sequence[str]) -> None:
    """Raise `DataError` (exit code 3) for a set of one class."""
    if len(classes) < 2:
        raise DataError(
            f"there is one class only ({', '.join(classes)})", file=source, why="there is nothing to tell apart"
        )


def refuse_missing(source: str, classes: Sequence[str], counts: Mapping[str, Tensor | np.ndarray]) -> None:
    """Raise `DataError` (exit code 3) for a split that lacks a class; `counts` has the images of each, by split."""
    for split_name, present in counts.items():
        missing = [name for name, count in zip(classes, present.tolist(), strict=True) if not count]
        if missing:
            raise DataError(
                f"the {split_name} split has no image of {', '.join(missing[:5])}",
                file=source,
                why=f"the classes are {', '.join(classes[:10])}{', …' if len(classes) > 10 else ''}",
                remedy="add some, or accept it with --data.allow-missing",
            )


def refuse_lacking(source: str, classes: Sequence[str], splits: Mapping[str, Held]) -> None:
    """Raise `DataError` (exit code 3) for a split that lacks a class."""
    counts = {name: torch.bincount(part.labels, minlength=len(classes)) for name, part in splits.items()}
    refuse_missing(source, classes, counts)


def completed(
    name: str, classes: Sequence[str], splits: Mapping[str, Held], settings: DataRecipe, *, whole: bool
) -> tuple[dict[str, Held], list[str]]:
    """What Python holds, with the splits that it lacks, and what is to be said of them; or, `whole`, one test split.

    Raises `DataError` (exit code 3) for a single class, and for a split that lacks a class.
    """
    if whole:
        return {"test": next(splits[each] for each in ("test", "validation", "train", "all") if each in splits)}, []
    refuse_single(name, classes)
    if set(splits) == {"train"}:
        splits = {"all": splits["train"]}
    found = complete(splits, settings.validation, Path(name), settings.group_by)
    if not settings.allow_missing:
        refuse_lacking(name, classes, found)
    held = sorted(found.keys() - splits.keys() - {"train"})
    return found, [f"held out {len(found[split]):,} of the images for {split}" for split in held]
