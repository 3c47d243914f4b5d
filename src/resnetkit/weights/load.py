"""Anyone's weights as a `Classifier`: by name, from a folder, a file, or the Hugging Face hub.

What a foreign file does not say, how images are prepared and what the classes are called, is asked for, never guessed.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from torch import nn

from resnetkit.arguments import checked
from resnetkit.artefact import holds_classifier, load_classifier
from resnetkit.classifier import Classifier, numbers
from resnetkit.data.classnames import order_of_head
from resnetkit.errors import CheckpointError, UsageError
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.device import Precision, choose
from resnetkit.networks.arch import OUTSIDE, VARIANTS, Arch, changed_fields, get_arch, worded
from resnetkit.networks.resnet import ResNet, build, overflows_untrained
from resnetkit.recipes.ranges import require
from resnetkit.weights.hints import Hints
from resnetkit.weights.naming import adapt_input
from resnetkit.weights.sources import HUB_PREFIX, Source, read_source
from resnetkit.weights.spelling import refuse_pretrained, spelled
from resnetkit.weights.table import OWN

logger = logging.getLogger("resnetkit")


def is_ours(source: str) -> bool:
    """Whether a source is a classifier that this package has saved, which says all that is to be known of it."""
    name = spelled(source)
    return holds_classifier(OWN.get(name, Path(name)))


@checked("size")
def load(
    source: Any,
    *,
    model: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    classes: Sequence[str] | None = None,
    which: Literal["raw", "ema"] | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    network: nn.Module | Callable[[], nn.Module] | None = None,
) -> Classifier:
    """Load a classifier.

    `source`: a run's folder, a model's folder (ours, timm's or Hugging Face's), a file of tensors, a name such as
    "resnet50.imagenet1k_v2" or torchvision's own for it, or a hub id such as "timm/resnet50.a1_in1k". The rest is for
    weights that do not say it: `model`, the network; `mean` and `std` of each channel in 0-1; `size` in pixels;
    `classes` in the order of the head; `which` of a network and its average, "raw" or "ema", that a training script
    saved together. `network` is the user's own module, or what makes it, for a run that has trained it: its
    folder has the weights alone.
    Raises `UsageError` (exit code 2) or `CheckpointError` (exit code 4).
    """
    require(size=size)
    for share, spread in zip_longest(mean or (), std or ()):
        require(mean=share, std=spread)
    said = {"model": model, "mean": mean, "std": std, "size": size, "classes": classes, "which": which}
    name = spelled(source)
    path = OWN.get(name, Path(name))
    if holds_classifier(path) or (path / "checkpoints").is_dir():
        if given := next((name for name, value in said.items() if value is not None), None):
            raise UsageError(
                f"--{given} would change nothing", file=source, why="the model says it itself", remedy="leave it out"
            )
        ours = load_classifier(path, device=device, precision=precision, network=network)
        if (reached := ours.metrics.get("unfinished")) is not None:
            logger.info("%s: its training is not finished: the best weights so far, of %s", source, reached)
        return ours
    if network is not None:
        raise UsageError("network= or --plugin is for the folder of a run that has trained it", file=str(source))
    hints = Hints(
        model,
        tuple(mean) if mean is not None else None,
        tuple(std) if std is not None else None,
        size,
        tuple(classes) if classes is not None else None,
        which,
    )
    found = read_source(name, hints)
    for note in found.notes:
        logger.info("%s: %s", found.name, note)
    network = ResNet(found.arch, initialise=False)
    network.load_state_dict(found.tensors)
    names, preprocess = _classes(found, hints), _preprocess(found, hints)
    return Classifier(
        network,
        preprocess,
        names or numbers(found.arch.num_classes),
        found.model,
        choose(device, precision),
        recipe={"weights": found.name},
        metrics=found.metrics or {},
        named=bool(names),
        temperature=found.temperature,
        unknown=found.unknown if preprocess == found.preprocess else None,
    )


@checked()
def create_model(
    name: str,
    *,
    weights: Any = None,
    which: Literal["raw", "ema"] | None = None,
    **changes: Any,
) -> ResNet:
    """Build a network: `create_model("resnet50", num_classes=5, weights="resnet50.imagenet1k_v2")`.

    `changes` are fields of `Arch`; `weights` is what `load` takes. Without it the parameters are fresh, drawn from
    PyTorch's global random state. With it, fields that are not given are those of the network that it is of; another
    number of input channels adapts the first convolution (summed for one channel, repeated and scaled for more),
    another number of classes gets a fresh head, as does a backbone without one; all is logged.
    `which` as for `load`. Of a network that is too deep to be used untrained it is said, see `docs/networks.md`.
    Raises `UsageError` (exit code 2) for unknown names, `CheckpointError` (exit code 4) for weights that do not fit.
    """
    if "pretrained" in changes:
        refuse_pretrained(name)
    arch = get_arch(name, **changes)  # refuses what no network has before anything is read
    if weights is None:
        if overflows_untrained(arch):
            logger.warning(
                "fresh, %s may overflow in evaluation mode until its BatchNorm has seen images: train it, "
                "or measure with torch.optim.swa_utils.update_bn",
                name,
            )
        return build(name, **changes)
    found = read_source(weights, Hints(model=name, which=which), headless=True, fields=changes)
    return pretrained_network(name, found, asked=changes)


def pretrained_network(name: str, found: Source, *, asked: dict[str, Any], classes: Sequence[str] = ()) -> ResNet:
    """The network `name` with the fields that were `asked` for, filled with weights that were read; see `create_model`.

    Where both know their `classes` by name, the same names in another order reorder the head, and other names replace
    it even where their number is the same. A head of as many classes that nobody has named is kept, in the order that
    `evaluate` would take it in, and that is said.
    """
    for note in found.notes:
        logger.info("%s: %s", found.name, note)
    headless = "fc.weight" not in found.tensors
    arch = _asked_for(name, found, asked)
    network = ResNet(arch, initialise=False)
    tensors = dict(found.tensors)
    if arch.in_channels != found.arch.in_channels:
        tensors["conv1.weight"] = adapt_input(tensors["conv1.weight"], arch.in_channels)
        logger.warning("%s: first convolution adapted to %d input channels", found.name, arch.in_channels)
    both = bool(classes and found.classes)
    if headless:
        tensors |= {name: value for name, value in network.state_dict().items() if name.startswith("fc.")}
        logger.warning("%s: holds a backbone without a head: new head for %d classes", found.name, arch.num_classes)
    elif arch.num_classes != found.arch.num_classes or (both and set(classes) != set(found.classes)):
        fresh = {name: value for name, value in network.state_dict().items() if name.startswith("fc.")}
        tensors |= fresh
        logger.warning(
            "%s: new head for %d classes in place of %d", found.name, arch.num_classes, found.arch.num_classes
        )
    elif both and tuple(classes) != found.classes:
        rows = [found.classes.index(name) for name in classes]
        tensors |= {name: tensors[name][rows] for name in ("fc.weight", "fc.bias")}
        logger.warning("%s: head put into the order of your classes", found.name)
    elif classes and not found.classes:
        order = order_of_head(classes)
        tensors |= {name: tensors[name][order] for name in ("fc.weight", "fc.bias")}
        in_order = [classes[order.index(place)] for place in range(len(order))]
        logger.warning(
            "%s: names no classes: its head is kept and taken to be in the order of %s, %s",
            *(found.name, "their numbers" if order != sorted(order) else "your classes", _first(in_order)),
        )
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise _another(name, found, arch) from error
    return network


def _first(names: Sequence[str]) -> str:
    return ", ".join(names if len(names) <= 4 else (*names[:3], "…", names[-1]))


def _asked_for(name: str, found: Source, asked: dict[str, Any]) -> Arch:
    """The network to be filled: what was not asked for is as in the weights' own, whose name it bears.

    Raises `CheckpointError` (exit code 4) for weights of a network of another name that answers otherwise.
    """
    usual, own = get_arch(name), {key: getattr(found.arch, key) for key in OUTSIDE}
    if found.model != name:
        arch = replace(usual, **(own | asked))
        if changed_fields(arch, found.arch):
            raise _another(name, found, arch)
        return arch
    taken = {key: value for key, value in changed_fields(found.arch, usual).items() if key not in asked}
    if taken:
        logger.info("%s: its network is taken, %s", found.name, worded(name, taken))
    return replace(found.arch, **asked)


def _another(name: str, found: Source, arch: Arch) -> CheckpointError:
    key, value = next(iter(changed_fields(arch, found.arch).items()), ("", None))
    theirs = worded(found.model, {key: getattr(found.arch, key)} if key else {})
    return CheckpointError(
        "the weights are of another network",
        file=found.name,
        why=f"they are of a {theirs}, and {worded(name, {key: value} if key else {})} was asked for",
        remedy=f"--model {found.model}, as the weights have it" if found.model in VARIANTS else None,
    )


@checked()
def from_pretrained(repository: str, **said: Any) -> Classifier:
    """A classifier from the Hugging Face hub, USER/REPOSITORY; `said` as for `load`."""
    return load(HUB_PREFIX + repository.removeprefix(HUB_PREFIX), **said)


def _preprocess(found: Source, hints: Hints) -> Preprocess:
    channels = found.arch.in_channels
    for flag, values in (("--mean", hints.mean), ("--std", hints.std)):
        if values is not None and len(values) != channels:
            raise UsageError(f"{flag} has {len(values)} numbers", why=f"the network takes {channels} channels")
    known = found.preprocess
    if known is not None:
        if hints.size is not None:
            resize = None if known.resize is None else round(known.resize * hints.size / known.size)
            known = replace(known, size=hints.size, resize=resize)
        return replace(known, mean=hints.mean or known.mean, std=hints.std or known.std)
    if hints.mean is None or hints.std is None or hints.size is None:
        given = {"--mean": hints.mean, "--std": hints.std, "--size": hints.size}
        missing = [flag for flag, value in given.items() if value is None]
        raise UsageError(
            "the weights do not say how images are prepared for them",
            file=found.name,
            why=f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not given",
            remedy="--mean R,G,B --std R,G,B --size N",
        )
    return Preprocess(hints.size, hints.mean, hints.std)


def _classes(found: Source, hints: Hints) -> tuple[str, ...]:
    names = hints.classes if hints.classes is not None else found.classes
    if names and len(names) != found.arch.num_classes:
        raise (UsageError if hints.classes is not None else CheckpointError)(
            f"there are {len(names)} class names",
            file=found.name,
            why=f"the head has {found.arch.num_classes} outputs",
            remedy="one name for each output, in their order",
        )
    return names
