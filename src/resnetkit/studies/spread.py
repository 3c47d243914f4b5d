"""What several seeds say together: mean, spread, and whether two groups are apart."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from resnetkit.studies.study import Row


@dataclass(frozen=True)
class Spread:
    """A figure measured once for each seed: as text in percent, or with a format such as `.3f` as it is."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, lines: Iterable[Row], column: str) -> "Spread":
        """A column of some lines of results; what is not finite is left out."""
        values = (float(line[column]) for line in lines)
        return cls(tuple(value for value in values if math.isfinite(value)))

    @property
    def mean(self) -> float:
        """Mean over the seeds; not a number where there is none."""
        return sum(self.values) / len(self.values) if self.values else math.nan

    @property
    def low(self) -> float:
        """The smallest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.values)

    def __str__(self) -> str:
        return self._told(".1f", " %")

    def __format__(self, spec: str) -> str:
        return self._told(spec) if spec else str(self)

    def _told(self, spec: str, unit: str = "") -> str:
        if not self.values:
            return "nothing"
        if len(self.values) == 1:
            return f"{self.mean:{spec}}{unit} (a single run)"
        return f"{self.mean:{spec}}{unit} ({len(self.values)} seeds: {self.low:{spec}} to {self.high:{spec}})"

    def above(self, other: "Spread") -> bool:
        """Whether every seed of this group lies above every seed of the other."""
        return bool(self.values and other.values) and self.low > other.high


def chance(above: Spread, below: Spread) -> str:
    """How often such groups would lie apart if there were no difference between them, in words."""
    if min(len(above.values), len(below.values)) < 2:
        return "one of them was run only once, so this may be chance"
    ways = math.comb(len(above.values) + len(below.values), len(above.values))
    return f"no seed of one reaches a seed of the other, which without any difference happens 1 time in {ways}"


def overlap(one: Spread, other: Spread) -> str:
    """What there is to say of two groups that are not apart."""
    return f"their means differ by {abs(one.mean - other.mean):.1f} points, and their seeds overlap"


def at_best_rate(lines: Sequence[Row], *, by: str) -> list[Row]:
    """The lines of the learning rate `lr` at which the column `by` is lowest, mean over its lines.

    A rate at which any line is not finite is out: a net that is lost there is not trained well there. Empty where none
    is left.
    """
    at: dict[float, list[Row]] = {}
    for line in lines:
        at.setdefault(float(line["lr"]), []).append(line)
    whole = [each for each in at.values() if all(math.isfinite(float(line[by])) for line in each)]
    return min(whole, key=lambda each: Spread.of(each, by).mean, default=[])


def left_out(results: Sequence[Row], name: str) -> list[str]:
    """A paragraph for the runs whose loss did not stay finite, where there are any; `name` says which, as a format."""
    lost = [line for line in results if not math.isfinite(float(line["train_error"]))]
    named = ", ".join(dict.fromkeys(name.format(**line) for line in lost))
    return [f"Left out, because the loss did not stay finite: {named}."] if lost else []
