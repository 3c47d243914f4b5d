"""How many files that cannot be read are too many: a few are left out, many are a mistake not to be papered over."""

from collections.abc import Mapping

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
