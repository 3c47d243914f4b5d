"""The health of a gradient: whether it vanishes or explodes in any layer of a net, held against the layer's weights."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from resnetkit.studies.study import Row, select

RATE, STEPS = 0.1, 64_000
"""The paper's learning rate and length of training (section 4.2), which give the two bounds their meaning."""
VANISHED = 0.1 / (RATE * STEPS)
"""Gradient over weights: below this the paper's whole training moves a layer by less than a tenth of its length."""
EXPLODED = 1 / RATE
"""Gradient over weights: above this a single step is longer than the layer's weights."""
Key = tuple[str, bool, str, int]
"""Shape, whether there is BatchNorm, initialisation, depth."""


@dataclass(frozen=True)
class Health:
    """The weakest and the strongest layer of a net, as gradient over weights; medians over seeds."""

    weakest: float
    strongest: float
    seeds: int

    @property
    def state(self) -> str:
        """healthy, vanishes, explodes, or both."""
        low, high = self.weakest < VANISHED, not self.strongest <= EXPLODED
        return ("both" if high else "vanishes") if low else ("explodes" if high else "healthy")


def health(results: Sequence[Row], step: int = 0) -> dict[Key, Health]:
    """The state of every net before a step of training."""
    found: dict[Key, dict[Any, list[float]]] = {}
    for line in select(results, step=step):
        key = (str(line["shape"]), bool(line["batchnorm"]), str(line["init"]), int(line["depth"]))
        found.setdefault(key, {}).setdefault(line["seed"], []).append(float(line["relative"]))
    return {
        key: Health(
            statistics.median(min(seed) for seed in seeds.values()),
            statistics.median(max(seed) for seed in seeds.values()),
            len(seeds),
        )
        for key, seeds in found.items()
    }


def verdict(plain: str, residual: str) -> str:
    """What two states say about the sentence that shortcuts cure vanishing gradients."""
    if plain in ("vanishes", "both"):
        return {
            "healthy": "right: the gradient vanishes without shortcuts and does not with them",
            "explodes": "half right: with shortcuts the gradient no longer vanishes but explodes instead",
        }.get(residual, "wrong: with shortcuts it vanishes too")
    if plain == "explodes":
        return "beside the point: without shortcuts the gradient explodes" + (
            ", and shortcuts cure that" if residual == "healthy" else f"; with shortcuts it {in_words(residual)}"
        )
    return "beside the point: without shortcuts there is nothing to cure" + (
        "" if residual == "healthy" else f"; with them the gradient {in_words(residual)}"
    )


def in_words(state: str) -> str:
    """A state as a verb."""
    return {"healthy": "is healthy", "both": "vanishes in one layer and explodes in another"}.get(state, state)
