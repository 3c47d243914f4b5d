"""A network trained for a study: on the digits in a quick look, else on CIFAR-10 as the paper trains it.

The training is the product's own, in a run of the study's folder; one that was stopped goes on exactly.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetkit.classifier import Classifier
from resnetkit.data.dataset import Data
from resnetkit.data.load import load_data
from resnetkit.data.splits import Split
from resnetkit.studies.study import Place, Row
from resnetkit.training.train import train

QUICK: dict[str, Any] = {
    "precision": "fp32",
    "data": {"batch_size": 64},
    "model": {"name": "resnet20", "widths": (8, 16, 32), "strides": (1, 2, 2), "stem_width": 8, "shortcut": "A"},
    "optim": {"label_smoothing": 0.0, "ema": 0.0},
    "checkpoint": {"every_epochs": 1000},
}
"""The recipe `digits` at half the paper's widths, without smoothing and averaging, which would blur a comparison.

Runs take seconds, so they are saved at their beginning and at their end only.
"""
FULL: dict[str, Any] = {"precision": "fp32", "model": {"name": "resnet20"}, "checkpoint": {"keep": 1}}


@dataclass(frozen=True)
class Grid:
    """What is trained: every net at every depth and learning rate."""

    depths: tuple[int, ...]
    rates: tuple[float, ...]
    seeds: int
    epochs: int | None = None
    """None leaves the length to the recipe."""

    def rows(self, place: Place, column: str, nets: Iterable[str]) -> list[Row]:
        """All settings, of which `column` names the net, seed by seed."""
        return [
            {"data": data_of(place), column: net, "depth": depth, "lr": rate, "seed": seed}
            for seed in range(place.seeds or self.seeds)
            for depth in self.depths
            for rate in self.rates
            for net in nets
        ]


@dataclass(frozen=True)
class Fit:
    """A finished run."""

    classifier: Classifier
    epochs: tuple[dict[str, Any], ...]
    """What the journal says of every epoch; accuracies in percent."""
    end: dict[str, Any]
    """What it says at the end: `top1` is that of the test split."""

    @property
    def parameters(self) -> int:
        """Trained numbers of the network."""
        return sum(parameter.numel() for parameter in self.classifier.network.parameters())

    def figures(self) -> dict[str, int | float]:
        """The parameters, and errors in percent: on training images at the end, on held-out ones the best, on test."""
        return {
            "parameters": self.parameters,
            "train_error": 100 - self.epochs[-1]["train_top1"],
            "held_out_error": 100 - max(line["validation_top1"] for line in self.epochs),
            "test_error": 100 - self.end["top1"],
        }


LOST: dict[str, int | float] = {
    "parameters": 0,
    "train_error": math.nan,
    "held_out_error": math.nan,
    "test_error": math.nan,
}
"""In the place of `Fit.figures` where a loss did not stay finite: that is a result too, and does not end a study."""


def data_of(place: Place) -> str:
    """What a study learns from, for its results: "digits" or "cifar10"."""
    return "digits" if place.quick else "cifar10"


def stacked(depth: int) -> dict[str, Any]:
    """The model of 6n + 2 weighted layers in three stages (paper, section 4.2): depth 8, 14, 20, and so on."""
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"depth {depth} is not 6n + 2")
    return {"depths": (blocks,) * 3}


def warmup(place: Place, depth: int) -> dict[str, Any]:
    """Changes to the recipe: as in the paper, nets of 110 layers or more begin with a tenth of the learning rate."""
    return {"optim": {"warmup": "400 steps"}} if depth >= 110 and not place.quick else {}


def fit(place: Place, name: str, *, images: Path | None = None, **changes: Any) -> Fit:
    """Train in the study's folder under `name`, or go on where a run of that name stopped, and read its journal.

    `changes` are keys of the recipe, nested as for `resnetkit.train`. It learns from `images`, a folder, or from the
    study's own: CIFAR-10 is looked for in `place.data_root`, a folder with train/ and test/ in class folders, or
    torchvision's layout. Raises what `resnetkit.train` raises.
    """
    folder = place.folder / name
    data, root = place.images if images is None else (str(images), None)
    recipe = "digits" if place.quick else "cifar10-paper"
    settings = _over(QUICK if place.quick else FULL, changes)
    classifier = train(data, recipe, out=folder, resume=True, data_root=root, quiet=True, **settings)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    epochs = tuple(line for line in lines if line["event"] == "epoch")
    return Fit(classifier, epochs, next(line for line in lines if line["event"] == "end"))


def images_of(place: Place) -> Data:
    """What a study learns from and tests on. Raises the errors of `resnetkit.data.load_data`."""
    data, root = place.images
    return load_data(data, data_root=root)


def images_to_test(place: Place) -> Split:
    """What the networks of a study are tested on. Raises the errors of `resnetkit.data.load_data`."""
    return images_of(place).held_out()[1]


def _over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` laid over `base`, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        merged[key] = {**base.get(key, {}), **value} if isinstance(value, Mapping) else value
    return merged
