"""How many files that cannot be read are too many: a few are left out, many are a mistake not to be papered over."""

import shlex
from collections.abc import Mapping, Sized
from pathlib import Path

from resnetkit.errors import DataError

FEW = 3
"""So many are left out in any case; `data.max_unreadable` is the share beyond that."""


def too_many(lost: int, share: float, count: int, ranks: int = 1) -> bool:
    """Whether `lost` files are more than a few, and more than a `share` of the `count` that there are.

    Of several ranks, each loses only files of its own part.
    """
    return lost > max(FEW, share * count / ranks)


def whole_batch_lost(lost: Mapping[str, str]) -> DataError:
    """What ends training however few they are: a batch of which nothing is left to learn from."""
    return DataError("no image of a whole batch can be read", file=next(iter(lost)))


def refuse_unreadable(
    folder: Path, splits: Mapping[str, Sized], unreadable: Mapping[str, str], total: int, share: float
) -> None:
    """Raise `DataError` (exit code 3) where too many files of a folder cannot be read, or none of a split can."""
    empty = [name for name, split in splits.items() if not len(split)]
    if not empty and not too_many(len(unreadable), share, total):
        return
    what = f"{len(unreadable):,} of {total:,} images cannot be read"
    if empty:
        what = "no image can be read" if empty == ["all"] else f"the {empty[0]} split has no image"
    raise DataError(
        what,
        file=folder,
        why="the first is {}: {}".format(*next(iter(unreadable.items()))) if unreadable else None,
        remedy=f"{check_command(folder)}, which names each; replace or delete them",
    )


def check_command(folder: Path) -> str:
    """What tells more of the images of a folder."""
    return f"resnetkit check {shlex.quote(str(folder))}"
