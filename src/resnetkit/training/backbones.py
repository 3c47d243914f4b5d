"""Which backbone a run gets where that is left to us: each is tried on the images, by cross-validation of its head.

What is tried is what the recipe `head` does, features once and a head solved on them, so that it takes seconds each.
The most accurate one is kept; of equals, the one that costs less. A cheaper one that is a little worse is not
preferred: nobody asked for speed, on few images a standard error is some points, and the table names the price. Heads
of several backbones are not averaged: no model folder could hold that.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from textwrap import shorten
from typing import Any

import torch

from resnetkit.classifier import Classifier
from resnetkit.data.dataset import Data
from resnetkit.data.splits import Split
from resnetkit.errors import CheckpointError, UsageError
from resnetkit.machine.console import Reporter, shown
from resnetkit.machine.device import Compute, choose, one_thread
from resnetkit.networks.arch import VARIANTS
from resnetkit.networks.folding import fold
from resnetkit.recipes.schema import ModelRecipe, Recipe
from resnetkit.runs.choice import AUTO, published_for
from resnetkit.runs.folder import Run
from resnetkit.training.setup import create_network, training_preprocess
from resnetkit.transfer.backbone import TorchEngine
from resnetkit.transfer.head import Head
from resnetkit.transfer.probe import features_of, solve
from resnetkit.transfer.published import Published
from resnetkit.weights.hints import Hints
from resnetkit.weights.sources import Source, read_source
from resnetkit.weights.table import OWN, WEIGHTS

MOST_IMAGES = 500
"""Images that backbones are tried on; of a larger set a part, the same share of every class."""
EACH = 5
"""But so many of a class, where there are."""
TIMED = 8
"""Images in the batch that is timed."""
NAME = 30
"""Letters of a backbone's name in the table."""

logger = logging.getLogger("resnetkit")


@dataclass(frozen=True)
class Trial:
    """A backbone that was tried. Accuracies are in percent; none where it could not be used."""

    backbone: str
    """As it was named."""
    model: str = ""
    image_size: int | None = None
    top1: float | None = None
    low: float | None = None
    high: float | None = None
    loss: float | None = None
    ms_per_image: float | None = None
    """Of one thread, or of the accelerator, without decoding."""
    left_out: str | None = None
    """Why it could not be used."""
    chosen: bool = False

    @property
    def name(self) -> str:
        """The backbone for people: the end of a long path."""
        name = shown(self.backbone)
        return name if len(name) <= NAME else f"…{name[1 - NAME :]}"

    def lines(self) -> list[str]:
        """A row of the table, within 80 columns."""
        name = self.name
        if self.top1 is None:
            return [f"  {name:{NAME}} left out:", f"    {shorten(shown(self.left_out or ''), 76)}"]
        interval = f"{self.low:.1f} to {self.high:.1f}"
        return [f"  {name:{NAME}} {self.image_size:5} {self.top1:7.1f} {interval:>14} {self.ms_per_image:9.1f}"]


HEADING = f"  {'backbone':{NAME}} {'px':>5} {'top-1 %':>7} {'95 % interval':>14} {'ms/image':>9}"


def choose_backbone(
    run: Run, data: Data, given: Mapping[str, Any], reporter: Reporter
) -> tuple[Run, tuple[dict[str, Any], ...]]:
    """The run with the best of the backbones that its recipe names, and what there is to say of each of them.

    `given` are the recipe's keys that the user has set himself: with an `image_size` among them all see images of that
    size, else each of its own. Raises `UsageError` (exit code 2) for a recipe that does not begin with a backbone, for
    shards, and where a class has one image; `CheckpointError` (exit code 4) where none of the backbones can be used.
    """
    recipe, split = run.recipe, data.train
    if recipe.transfer.mode == "none":
        raise UsageError(
            f"no backbone is chosen for this recipe with --model {recipe.model.name}",
            why="it trains from nothing",
            remedy="--recipe head, --recipe finetune, or the name of one network",
        )
    if split is None or split.labels is None:
        raise UsageError("no backbone is chosen on shards", why="it takes labels in memory", remedy="--model NAME")
    some = split.limited(max(MOST_IMAGES, EACH * len(data.classes)))
    names, compute = named(recipe.model.name), choose(recipe.device, recipe.precision)
    reporter.line(f"backbones {len(names)} are tried on {len(some):,} images")
    reporter.line(HEADING)
    tried: list[tuple[Trial, Recipe]] = []
    for name in names:
        trial, wanted = _tried(name, recipe, data, some, given, compute, reporter)
        for line in trial.lines():
            reporter.line(line)
        tried.append((trial, wanted))
    usable = [each for each in tried if each[0].top1 is not None]
    if not usable:
        why = "; ".join(f"{trial.backbone}: {trial.left_out}" for trial, _ in tried[:3])
        raise CheckpointError("none of the backbones can be used", why=why, remedy="resnetkit list weights")
    best, wanted = max(usable, key=lambda each: (each[0].top1, -(each[0].ms_per_image or 0)))
    reporter.line(f"  kept: {best.name}")
    rows = tuple(asdict(replace(trial, chosen=trial is best)) for trial, _ in tried)
    return replace(run, recipe=wanted), rows


def named(request: str) -> list[str]:
    """The backbones of a list with commas: names of networks, of weights, files, folders, hub ids.

    `auto` stands for all weights at hand: those that ship, and published ones that are on this machine already.
    """
    found: list[str] = []
    for word in filter(None, map(str.strip, request.split(","))):
        at_hand = [*OWN, *(name for name, weights in WEIGHTS.items() if weights.cached().is_file())]
        found += at_hand if word == AUTO else [word]
    return list(dict.fromkeys(found))


def _tried(
    name: str,
    recipe: Recipe,
    data: Data,
    some: Split,
    given: Mapping[str, Any],
    compute: Compute,
    reporter: Reporter,
) -> tuple[Trial, Recipe]:
    """A backbone on some images: what came of it, and the recipe that has it."""
    try:
        with _silent():
            weights = published_for(name) or name
            source = read_source(weights, Hints(mean=recipe.data.mean, std=recipe.data.std), headless=True)
            wanted = _with_backbone(recipe, weights, source, given)
            preprocess = training_preprocess(wanted, replace(data, notes=[]), source)
            network = create_network(wanted, data, source)
    except (UsageError, CheckpointError) as error:
        return Trial(name, left_out=error.why or error.what), recipe
    classifier = Classifier(network, preprocess, data.classes, wanted.model.name, compute)
    features = features_of(classifier, [some], wanted, reporter)
    head = solve(features, data.classes, [some], wanted, Published.of(source))
    if head.accuracy is None or head.interval is None:
        raise UsageError(
            "backbones cannot be compared", file=data.name, why="a class has one image only", remedy="--model NAME"
        )
    return _described(name, wanted, head, classifier), wanted


def _described(name: str, recipe: Recipe, head: Head, classifier: Classifier) -> Trial:
    low, high = head.interval or (0.0, 100.0)
    loss = next(loss for prior, _, loss in head.compared if prior == head.prior)
    size = classifier.preprocess.size
    return Trial(name, recipe.model.name, size, head.accuracy, low, high, loss, _milliseconds(classifier))


def _with_backbone(recipe: Recipe, weights: str, source: Source, given: Mapping[str, Any]) -> Recipe:
    """The recipe with these weights, the network that they are of, and images of the size that they want."""
    if source.model not in VARIANTS:
        raise UsageError("its network is none that has a name", remedy="resnetkit list models")
    usual = VARIANTS[source.model]
    fields = {name: getattr(source.arch, name) for name in ModelRecipe.model_fields if name not in ("name", "weights")}
    own = {name: value for name, value in fields.items() if value != getattr(usual, name)}
    model = ModelRecipe.model_validate({"name": source.model, "weights": weights} | own)
    sizes: dict[str, int] = {}
    if source.preprocess is not None and given.get("image_size") is None:
        sizes = {"image_size": source.preprocess.size, "resize": source.preprocess.resize or source.preprocess.size}
    return recipe.model_copy(update={"model": model, "data": recipe.data.model_copy(update=sizes)})


def _milliseconds(classifier: Classifier) -> float:
    """What an image costs, the best of three batches after one that does not count."""
    look, compute = classifier.preprocess, classifier.compute
    engine = TorchEngine(fold(classifier.network), look, compute)
    pixels = torch.zeros(TIMED, look.channels, look.size, look.size, dtype=torch.uint8)
    seconds = []
    with one_thread():
        for _ in range(4):
            began = time.perf_counter()
            engine(pixels)
            seconds.append(time.perf_counter() - began)
    return 1000 * min(seconds[1:]) / TIMED


@contextmanager
def _silent() -> Iterator[None]:
    """What is noted of every set of weights is worth a line for the chosen one only."""

    def nothing(_: logging.LogRecord) -> bool:
        return False

    logger.addFilter(nothing)
    try:
        yield
    finally:
        logger.removeFilter(nothing)
