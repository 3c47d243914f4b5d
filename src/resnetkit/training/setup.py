"""What a run starts from and keeps to its end: its images, its network, how the one reaches the other."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn

from resnetkit.classifier import Classifier
from resnetkit.data.dataset import Data
from resnetkit.data.fingerprint import Fingerprint
from resnetkit.data.splits import CONSTANT, Split, measure
from resnetkit.errors import CheckpointError, DataError, UsageError
from resnetkit.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resnetkit.machine.console import Reporter
from resnetkit.machine.device import Compute, choose
from resnetkit.machine.ranks import Ranks
from resnetkit.networks.resnet import ResNet, build
from resnetkit.randomness import torch_seed
from resnetkit.recipes.schema import Recipe
from resnetkit.runs.folder import Run
from resnetkit.training.early_stop import EarlyStop
from resnetkit.training.hooks import Callbacks, Hooks, RunView
from resnetkit.training.own_network import own_network
from resnetkit.transfer.published import Published
from resnetkit.weights.hints import Hints
from resnetkit.weights.load import pretrained_network
from resnetkit.weights.sources import Source, read_source
from resnetkit.weights.table import WEIGHTS

FOLDER_SIZE = 224
"""Side in pixels that photographs are brought to where a recipe says nothing."""


@dataclass(frozen=True)
class Setup:
    """One run before its first step. Nothing here changes later but the network's parameters."""

    run: Run
    data: Data
    train_split: Split
    """What is learnt from."""
    network: ResNet
    """On the device."""
    preprocess: Preprocess
    compute: Compute
    frozen: list[nn.Module]
    """Parts of the network that are not trained."""
    images: Fingerprint
    """Which images these are, so that going on with others is noticed."""
    ranks: Ranks
    reporter: Reporter
    hooks: Hooks
    """What is the user's own."""
    callbacks: Callbacks
    """All that are asked: the user's, then early stopping, then loggers."""
    published: Published | None = None
    """The head that the weights came with."""
    backbones: tuple[dict[str, Any], ...] = ()
    """Those that were tried before, where that was left to us."""

    @property
    def recipe(self) -> Recipe:
        """What is to be done."""
        return self.run.recipe

    @property
    def validation_split(self) -> Split:
        """What the best weights are chosen by. Raises `DataError` (exit code 3) where there is nothing."""
        if self.data.validation is None:
            raise DataError(
                "there is nothing to choose the best weights by", file=self.data.name, remedy="a folder val/"
            )
        return self.data.validation

    def classifier(self, network: ResNet) -> Classifier:
        """A network of this run as the artefact, in evaluation mode."""
        recipe = self.recipe.model_dump(mode="json", exclude_none=True)
        return Classifier(network, self.preprocess, self.data.classes, self.recipe.model.name, self.compute, recipe)

    def view(self, step: int, total_steps: int, epoch: float, network: nn.Module) -> RunView:
        """What a callback is told of the run."""
        return RunView(step, total_steps, epoch, self.run.folder, self.recipe, network, self.ranks.rank)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Work in the run's folder while nobody else does, with ranks that agree on what they work on.

        Raises `UsageError` (exit code 2) where they do not, or another process is at work there.
        """
        facts = {"class list": self.data.classes, "list of files": self.images.digest, "torch": torch.__version__}
        self.ranks.agree(facts)
        if not self.ranks.first:
            yield
            return
        with self.run.locked():
            yield

    def say(self, lines: Iterable[str]) -> None:
        """Lines for people."""
        for line in lines:
            self.reporter.line(line)

    def begin(self) -> None:
        """Write down what is to be done, and on which images."""
        if self.ranks.first:
            self.run.begin()
            self.images.write(self.run.images, self.run.identity)

    def write(self, **fields: Any) -> None:
        """Add a line to the journal."""
        if self.ranks.first:
            self.run.journal.write(**fields)


def prepare(
    run: Run,
    data: Data,
    ranks: Ranks,
    reporter: Reporter,
    hooks: Hooks = Hooks(),  # noqa: B008 - it is frozen
    loggers: Sequence[object] = (),
) -> Setup:
    """Network, preprocessing and device of a run, as its recipe and its data have them. Nothing is written.

    Raises `DataError` (exit code 3) where there is nothing to learn from, `UsageError` (exit code 2) for a recipe that
    does not go with its data or this machine.
    """
    recipe = run.recipe
    if data.train is None or not len(data.train):
        raise DataError("there is nothing to train on", file=data.name, remedy="a folder train/")
    compute = choose(recipe.device, recipe.precision)
    start = read_start(recipe)
    preprocess = training_preprocess(recipe, data, start)
    refuse_ignored(recipe, hooks)
    if hooks.network is None:
        network = create_network(recipe, data, start)
        network.recompute = recipe.recompute
    else:
        compute = replace(compute, channels_last=False)
        network = cast("ResNet", own_network(hooks.network, recipe, data, preprocess, compute))
    if recipe.sync_batchnorm and not ranks.alone:
        network = with_sync_batchnorm(network, compute)
    network = compute.network(network)
    if isinstance(hooks.loss, nn.Module):
        hooks.loss.to(compute.device)
    frozen = freeze(network, recipe.freeze)
    images, early = Fingerprint.of(data), recipe.early_stop
    stopping = [EarlyStop(early.patience, early.min_delta)] if early.patience is not None else []
    callbacks = Callbacks(hooks.callbacks, [*stopping, *loggers])
    own = hooks, callbacks, Published.of(start)
    return Setup(run, data, data.train, network, preprocess, compute, frozen, images, ranks, reporter, *own)


def refuse_ignored(recipe: Recipe, hooks: Hooks) -> None:
    """Raises `UsageError` (exit code 2) where something of the user's own, or a key beside it, would do nothing."""
    if recipe.class_weights != "none" and hooks.loss is not None:
        raise UsageError("class_weights beside loss=", why="the loss is not the recipe's", remedy="weigh in the loss")
    if recipe.transfer.mode == "head":
        for kind in ("loss", "transform", "optimizer"):
            if getattr(hooks, kind) is not None:
                why = "the head is solved, and no step is taken"
                raise UsageError(f"{kind}= beside transfer.mode head", why=why, remedy="--recipe finetune")


def read_start(recipe: Recipe) -> Source | None:
    """The weights that a recipe names, read; nothing where it names none."""
    weights = recipe.model.weights
    if weights is None or weights == "none":
        return None
    try:
        hints = Hints(model=recipe.model.name, mean=recipe.data.mean, std=recipe.data.std, which=recipe.transfer.which)
        return read_source(weights, hints, headless=True, fields=network_fields(recipe))
    except CheckpointError as error:
        if weights not in WEIGHTS:
            raise
        remedy = (
            f"{error.remedy}; or --weights FILE with weights that you have, or --weights none to start from nothing"
        )
        raise CheckpointError(error.what, file=error.file, why=error.why, remedy=remedy) from error


def training_preprocess(recipe: Recipe, data: Data, start: Source | None = None) -> Preprocess:
    """How images reach the network: as its weights want them; else a set's own figures, or ImageNet's for files.

    Raises `UsageError` (exit code 2) for weights that do not say it where the recipe does not say it either.
    """
    settings = recipe.data
    pixels = data.train.pixels if data.train is not None else None
    if settings.mean is not None and settings.std is not None:
        mean, std = settings.mean, settings.std
        if not len(mean) == len(std) == data.channels:
            raise UsageError(
                f"data.mean has {len(mean)} numbers and data.std {len(std)}",
                why=f"the images have {data.channels} channels",
                remedy="one number for each channel",
            )
    elif start is not None and start.arch.in_channels == data.channels:
        if start.preprocess is None:
            raise UsageError(
                "the weights do not say how images are prepared for them",
                file=start.name,
                remedy="--data.mean R G B --data.std R G B",
            )
        mean, std = start.preprocess.mean, start.preprocess.std
    elif pixels is not None:
        mean, std = measure(pixels)
        data.notes.extend(_constant_channels(mean, std))
    else:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    published = start.preprocess if start is not None else None
    interpolation = published.interpolation if published is not None else "bilinear"
    if settings.image_size is None and published is not None and recipe.transfer.mode != "none":
        # What is frozen at first answers by chance to pictures that are seven times as large as it knows.
        return Preprocess(published.size, mean, std, settings.resize or published.resize, interpolation)
    own = pixels.shape[-1] if pixels is not None else FOLDER_SIZE
    return Preprocess(settings.image_size or own, mean, std, settings.resize, interpolation)


def _constant_channels(mean: tuple[float, ...], std: tuple[float, ...]) -> Iterator[str]:
    names = ("red", "green", "blue") if len(mean) == 3 else ("only",)
    for name, level, deviation in zip(names, mean, std, strict=True):
        if deviation == CONSTANT:
            yield f"the {name} channel is {level * 255:.0f} in every training image: it tells nothing and is taken as 0"


def create_network(recipe: Recipe, data: Data, start: Source | None) -> ResNet:
    """The network of a recipe for the classes and channels of its data; its draws depend on the seed alone."""
    fields = network_fields(recipe) | {"in_channels": data.channels, "num_classes": len(data.classes)}
    with torch_seed(recipe.seed, "parameters"):
        if start is None:
            return build(recipe.model.name, **fields)
        return pretrained_network(recipe.model.name, start, asked=fields, classes=data.classes)


def network_fields(recipe: Recipe) -> dict[str, Any]:
    """What a recipe changes of its variant: fields of `Arch` by name."""
    return recipe.model.model_dump(exclude={"name", "weights"}, exclude_none=True)


def freeze(network: ResNet, through: str | None) -> list[nn.Module]:
    """Freeze the stem and the stages up to `through`, such as "layer3", and return what has to stay in evaluation mode.

    Frozen parameters get no gradient; kept in evaluation mode, frozen BatchNorm does not move either.
    Raises `UsageError` (exit code 2) for a stage that the network does not have.
    """
    if through is None:
        return []
    last = through.rpartition("..")[2]
    if last not in ("stem", *network.stage_names):
        raise UsageError.unknown("stage to freeze", last, ("stem", *network.stage_names))
    names = ["conv1", "bn1"]
    if last != "stem":
        names += network.stage_names[: network.stage_names.index(last) + 1]
    parts = [network.get_submodule(name) for name in names]
    for part in parts:
        part.requires_grad_(False)
    return parts


def with_sync_batchnorm(network: ResNet, compute: Compute) -> ResNet:
    """The network with BatchNorm over the batches of all ranks. Raises `UsageError` (exit code 2) on a CPU."""
    if compute.device.type == "cpu":
        raise UsageError("sync_batchnorm needs accelerators", remedy="leave it out on CPUs")
    return cast("ResNet", nn.SyncBatchNorm.convert_sync_batchnorm(network))
