"""What a run starts from: fresh parameters or someone's weights, and how images are prepared for them."""

from collections.abc import Iterator

from torch import nn

from resnetkit.data.dataset import Data
from resnetkit.data.splits import CONSTANT, Images, describe_split, measure
from resnetkit.errors import CheckpointError, UsageError
from resnetkit.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resnetkit.machine.device import Compute
from resnetkit.networks.resnet import ResNet, create_model, get_arch
from resnetkit.randomness import torch_seed
from resnetkit.recipes.schema import Recipe
from resnetkit.weights.load import pretrained_network
from resnetkit.weights.sources import Source, Told, read_source
from resnetkit.weights.table import WEIGHTS

FOLDER_SIZE = 224
"""Side in pixels that photographs are brought to where a recipe says nothing."""


def read_start(recipe: Recipe) -> Source | None:
    """The weights that a recipe names, read; nothing where it names none."""
    weights = recipe.model.weights
    if weights is None or weights == "none":
        return None
    try:
        return read_source(weights, Told(model=recipe.model.name, mean=recipe.data.mean, std=recipe.data.std))
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
    elif isinstance(data.train, Images):
        mean, std = measure(data.train)
        data.notes.extend(_constant_channels(mean, std))
    else:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    own = data.train.pixels.shape[-1] if isinstance(data.train, Images) else FOLDER_SIZE
    interpolation = start.preprocess.interpolation if start is not None and start.preprocess else "bilinear"
    return Preprocess(settings.image_size or own, mean, std, settings.resize, interpolation)


def _constant_channels(mean: tuple[float, ...], std: tuple[float, ...]) -> Iterator[str]:
    names = ("red", "green", "blue") if len(mean) == 3 else ("only",)
    for name, level, deviation in zip(names, mean, std, strict=True):
        if deviation == CONSTANT:
            yield f"the {name} channel is {level * 255:.0f} in every training image: it tells nothing and is taken as 0"


def create_network(recipe: Recipe, data: Data, start: Source | None) -> ResNet:
    """The network of a recipe for the classes and channels of its data; its draws depend on the seed alone."""
    fields = recipe.model.model_dump(exclude={"name", "weights"}, exclude_none=True)
    fields |= {"in_channels": data.channels, "num_classes": len(data.classes)}
    with torch_seed(recipe.seed, "parameters"):
        if start is None:
            return create_model(recipe.model.name, **fields)
        return pretrained_network(get_arch(recipe.model.name, **fields), start, asked=fields, classes=data.classes)


def announcement(
    recipe: Recipe, data: Data, network: ResNet, preprocess: Preprocess, compute: Compute, length: str
) -> list[str]:
    """Lines for people: what is about to be done, with what, on what. `length` says how long."""
    splits = [("train", data.train), ("validation", data.validation), ("test", data.test)]
    sizes = ", ".join(f"{name} {describe_split(split)}" for name, split in splits)
    parameters = sum(p.numel() for p in network.parameters())
    weights = recipe.model.weights
    start = "from nothing" if weights in (None, "none") else f"starts from {weights}"
    head = "the head alone, solved on the features of the frozen backbone"
    return [
        f"data      {data.name}: {len(data.classes)} classes; {sizes}",
        *(f"note      {note}" for note in data.notes),
        f"model     {recipe.model.name}, {parameters:,} parameters, sees {preprocess.size} px, {start}",
        f"compute   {compute.describe()}",
        f"training  {head if recipe.transfer.mode == 'head' else length}",
    ]


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
