"""A study: a question, a grid of settings, what is measured for each, a figure, and an answer in plain words.

Every row of the grid is measured once: `results.csv` grows row by row, and a study that was stopped goes on with the
rows that are missing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, str | int | float | bool]
"""The settings of one row of a grid, or one line of results: settings and figures together."""


@dataclass(frozen=True)
class Place:
    """Where a study measures: what is asked of it, and where it may write."""

    quick: bool
    """Answer in minutes on two cores, on the embedded digits or on a few images."""
    folder: Path
    """A folder of the study's own, for runs and the like."""
    data_root: Path | None = None
    """Where named sets lie."""
    seeds: int | None = None
    """How many seeds; none leaves it to the study."""

    @property
    def images(self) -> tuple[str, Path | None]:
        """The set or folder to learn from, and where named sets lie.

        That is digits in a quick look, else CIFAR-10: a `data_root` with a folder train/ is it as a folder of pictures.
        """
        if self.quick:
            return "digits", None
        if self.data_root is not None and (self.data_root / "train").is_dir():
            return str(self.data_root), None
        return "cifar10", self.data_root


@dataclass(frozen=True)
class Study:
    """One question and the way to its answer."""

    name: str
    title: str
    question: str
    source: str
    """Section, table or figure of the paper, or the tutorial, that makes the claim."""
    settings: tuple[str, ...]
    """Columns that name a row of the grid."""
    figures: tuple[str, ...]
    """Columns that are measured."""
    rows: Callable[[Place], Sequence[Row]]
    """The grid: the settings of every row, in the order in which they are measured."""
    measure: Callable[[Row, Place], Sequence[Row]]
    """One row's figures: one line or several, such as one for each epoch or layer, named in a column of `figures`."""
    draw: Callable[["Figure", Sequence[Row]], None]
    """Draw all results into an empty figure."""
    answer: Callable[[Sequence[Row]], str]
    """The verdict, in paragraphs of plain words, computed from the results."""


@dataclass(frozen=True)
class Outcome:
    """What a study gave."""

    folder: Path
    results: tuple[Row, ...]
    answer: str


def select(results: Sequence[Row], **wanted: object) -> Iterator[Row]:
    """The lines of results whose columns have these values."""
    return (line for line in results if all(line[name] == value for name, value in wanted.items()))
