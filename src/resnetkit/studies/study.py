"""What a study is: a question, a grid, what is measured for each row of it, a figure, and an answer in plain words."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Value = str | int | float | bool
Row = Mapping[str, Value]
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
    def data(self) -> str:
        """The set that is learnt from, by name."""
        return "digits" if self.quick else "cifar10"

    @property
    def images(self) -> tuple[str, Path | None]:
        """The set or folder to learn from, and where named sets lie.

        In full, a `data_root` with a folder train/ is CIFAR-10 as a folder of pictures.
        """
        if self.quick:
            return self.data, None
        if self.data_root is not None and (self.data_root / "train").is_dir():
            return str(self.data_root), None
        return self.data, self.data_root


@dataclass(frozen=True)
class Sweep:
    """Settings that are measured one after the other with the first seed, then with the second, and so on."""

    settings: Sequence[Row]
    seeds: int = 3
    fixed: bool = False
    """Whether it keeps its number of seeds where another is asked for: too costly to repeat, or without chance."""

    def rows(self, seeds: int | None) -> Iterator[dict[str, Value]]:
        """Every setting with every seed; with `seeds` of them, where a number is asked for."""
        count = self.seeds if self.fixed else seeds or self.seeds
        return ({**setting, "seed": seed} for seed in range(count) for setting in self.settings)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is measured, in this order, and how the networks of a study are trained for it.

    A study whose measurement has a size of its own adds fields.
    """

    sweeps: tuple[Sweep, ...]
    recipe: dict[str, Any] = field(default_factory=dict)
    """Changes to the recipe, the same for every row."""


G = TypeVar("G", bound=Grid)


def combinations(**values: Sequence[Value]) -> list[Row]:
    """All combinations of some settings; the last one named varies fastest."""
    return [dict(zip(values, each, strict=True)) for each in product(*values.values())]


@dataclass(frozen=True)
class Study(Generic[G]):
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
    quick: G
    """What is measured in a quick look."""
    full: G
    measure: Callable[[Row, Place], Sequence[Row]]
    """One row's figures: one line or several, such as one for each epoch or layer, named in a column of `figures`."""
    draw: Callable[["Figure", Sequence[Row]], None]
    """Draw all results into an empty figure."""
    answer: Callable[[Sequence[Row]], str]
    """The verdict, in paragraphs of plain words, computed from the results."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a line of results: settings, then figures."""
        return (*self.settings, *self.figures)

    def grid(self, place: Place) -> G:
        """What is measured there."""
        return self.quick if place.quick else self.full

    def rows(self, place: Place) -> list[Row]:
        """The settings of every row, in the order in which they are measured."""
        found = (row | {"data": place.data} for sweep in self.grid(place).sweeps for row in sweep.rows(place.seeds))
        return [{column: row[column] for column in self.settings} for row in found]


@dataclass(frozen=True)
class Outcome:
    """What a study gave."""

    folder: Path
    results: tuple[Row, ...]
    answer: str


def select(results: Sequence[Row], **wanted: object) -> Iterator[Row]:
    """The lines of results whose columns have these values."""
    return (line for line in results if all(line[name] == value for name, value in wanted.items()))
