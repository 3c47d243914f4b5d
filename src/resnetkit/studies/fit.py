"""The networks of studies: what they are, and how they are trained, by the product's own training.

A quick look trains on the digits, the full study on CIFAR-10 as the paper does. A run lies in the study's own folder;
one that was stopped goes on exactly.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resnetkit.classifier import Classifier
from resnetkit.data.batches import training_batches
from resnetkit.data.dataset import Data
from resnetkit.data.load import load_data
from resnetkit.data.order import order_of
from resnetkit.data.splits import Images, Split
from resnetkit.errors import DataError
from resnetkit.evaluation.score import score
from resnetkit.images.augment import Augment
from resnetkit.machine import device
from resnetkit.machine.ranks import ALONE
from resnetkit.networks.resnet import ResNet, build
from resnetkit.randomness import permutation, torch_seed
from resnetkit.recipes.schema import Recipe
from resnetkit.studies.study import Place
from resnetkit.training.optim import Schedule
from resnetkit.training.setup import training_preprocess
from resnetkit.training.step import Stepper
from resnetkit.training.train import train

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"residual": False},
    "residual": {"residual": True},
    "preactivation": {"preactivation": True},
}
"""Fields of `Arch` that tell the nets of a comparison apart."""


@dataclass(frozen=True)
class Base:
    """A recipe by name, and what a study changes in it for every net that it trains: the precision at least."""

    recipe: str
    changes: Mapping[str, Any]


QUICK = Base(
    "digits",
    {
        "precision": "fp32",
        "data": {"batch_size": 64},
        "model": {"name": "resnet20", "widths": (8, 16, 32), "strides": (1, 2, 2), "stem_width": 8, "shortcut": "A"},
        "optim": {"label_smoothing": 0.0, "ema": 0.0},
        "checkpoint": {"every_epochs": 1000},
    },
)
"""The recipe `digits` at half the paper's widths, without smoothing and averaging, which would blur a comparison.

Runs take seconds, so they are saved at their beginning and at their end only.
"""
PAPER = Base("cifar10-paper", {"precision": "fp32", "model": {"name": "resnet20"}, "checkpoint": {"keep": 1}})
"""As the paper trains on CIFAR-10."""


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


def stacked(depth: int) -> dict[str, Any]:
    """Fields of `Arch` that make the CIFAR family of either paper `depth` weighted layers deep, in three stages.

    6n+2 layers are the first paper's basic blocks (8, 14, 20, 56, 110); other depths of the form 9n+2 are the second
    paper's bottlenecks (1001) with a quarter of its width, so that all stages end in 16, 32 and 64 channels. Raises
    `ValueError` for other depths.
    """
    if depth > 2 and depth % 6 == 2:
        return {"depths": ((depth - 2) // 6,) * 3}
    if depth > 2 and depth % 9 == 2:
        return {"depths": ((depth - 2) // 9,) * 3, "block": "bottleneck", "widths": (4, 8, 16)}
    raise ValueError(f"no net of the papers has {depth} layers: 6n+2 or 9n+2")


def warmup(place: Place, depth: int) -> dict[str, Any]:
    """Changes to the recipe: as in the paper, nets of 110 layers or more begin with a tenth of the learning rate.

    Residual and plain ones alike, so that they stay comparable.
    """
    return {"optim": {"warmup": "400 steps"}} if depth >= 110 and not place.quick else {}


def fit(place: Place, name: str, *, base: Base | None = None, images: Any = None, **changes: Any) -> Fit:
    """Train in the study's folder under `name`, or go on where a run of that name stopped, and read its journal.

    `base` is `QUICK` in a quick look and else `PAPER`, where nothing is said; `changes` are keys of the recipe, nested
    as for `resnetkit.train`, and go before those of the base. It learns from `images`, a folder or what Python holds,
    or from the study's own: CIFAR-10 is looked for in `place.data_root`, a folder with train/ and test/ in class
    folders, or torchvision's layout. Raises what `resnetkit.train` raises.
    """
    folder = place.folder / name
    data, root = place.images if images is None else (str(images) if isinstance(images, Path) else images, None)
    base = base or (QUICK if place.quick else PAPER)
    settings = _over(base.changes, changes)
    classifier = train(data, base.recipe, out=folder, resume=True, data_root=root, quiet=True, **settings)
    # A run that was finished before comes back in bf16 where the hardware has it, whatever it was trained in.
    classifier = replace(classifier, compute=replace(classifier.compute, precision=settings["precision"]))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    epochs = tuple(line for line in lines if line["event"] == "epoch")
    return Fit(classifier, epochs, next(line for line in lines if line["event"] == "end"))


def _over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` laid over `base`, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        merged[key] = {**base.get(key, {}), **value} if isinstance(value, Mapping) else value
    return merged


def images_of(place: Place) -> Data:
    """What a study learns from and tests on. Raises the errors of `resnetkit.data.load_data`."""
    data, root = place.images
    return load_data(data, data_root=root)


def in_memory(data: Data, split: Split | None) -> Images:
    """A split whose images are small and of one size. Raises `DataError` (exit code 3) for any other."""
    if not isinstance(split, Images):
        raise DataError("the study needs small images of one size", file=data.name, remedy="CIFAR-10, or --quick")
    return split


def accuracy(classifier: Classifier, images: Split) -> float:
    """Top-1 in percent."""
    return score(classifier, images).top1


def build_network(shape: str, depth: int, data: Data, *, seed: int, init: str = "he", batchnorm: bool = True) -> ResNet:
    """A net of `SHAPES` for the classes and channels of some data; its parameters depend on the seed alone."""
    fields = {"in_channels": data.channels, "num_classes": len(data.classes), "init": init}
    with torch_seed(seed, "parameters"):
        network = build("resnet20", **stacked(depth), **SHAPES[shape], **fields)
    return network if batchnorm else without_norm(network)


def without_norm(network: ResNet) -> ResNet:
    """Take every BatchNorm out of a network, in place; no field of `Arch` says this, for no paper's net is like it."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    return network


def train_with_stops(
    network: ResNet, data: Data, recipe: Recipe, stops: Sequence[int], count: int
) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Train a network step by step, and stop before each step of `stops`: the step, how many were applied, some images.

    `count` images (N, C, H, W), normalised, and their labels (N,) are the same at every stop. A step that is not finite
    is not applied, and the next is tried. Raises `DataError` (exit code 3) for images that are not small.
    """
    split = in_memory(data, data.train)
    compute = device.choose("auto" if torch.cuda.is_available() else "cpu", "fp32")
    preprocess = training_preprocess(recipe, data)
    compute.network(network)
    chosen = split.take(permutation(recipe.seed, 0, len(split), "gradients")[:count])
    images = preprocess.normalise(preprocess.batch(compute.tensor(chosen.pixels)))
    labels = compute.tensor(chosen.labels)
    order = order_of(split, recipe.data.batch_size, recipe.seed)
    schedule = Schedule(recipe.optim, recipe.total_steps(len(split)), len(split), order.batch_size)
    stepper = Stepper(network, recipe, schedule, compute, [], ALONE)
    augment = Augment(recipe.augment, preprocess, num_classes=len(data.classes), seed=recipe.seed)
    batches = training_batches(split, order, augment, compute, start=0, stop=stops[-1])
    stepper.train_mode()
    applied = 0
    for step in range(stops[-1] + 1):
        if step in stops:
            yield step, applied, images, labels
        if step < stops[-1]:
            applied += stepper(next(batches), step).applied
