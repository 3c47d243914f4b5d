"""Anyone's weights as a `Classifier`: by name, from a folder, a file, or the Hugging Face hub.

What a foreign file does not say, how images are prepared and what the classes are called, is asked for, never guessed.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from resnetkit import model as networks
from resnetkit.arch import VARIANTS, Arch, get_arch
from resnetkit.classifier import CONFIG, Classifier, holds_classifier, load_classifier
from resnetkit.device import Precision, choose
from resnetkit.download import fetch
from resnetkit.errors import CheckpointError, UsageError
from resnetkit.layouts import adapt_input, fit
from resnetkit.log import download_bar
from resnetkit.model import ResNet
from resnetkit.preprocess import Preprocess
from resnetkit.pretrained import OWN, WEIGHTS, weights_of
from resnetkit.tensorfile import read_json, read_tensors

logger = logging.getLogger("resnetkit")
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
FILE_SUFFIXES = frozenset((".safetensors", ".pth", ".pt", ".th", ".tar", ".ckpt", ".bin", ".pkl", ".onnx"))
HUB_PREFIX = "hf-hub:"


@dataclass(frozen=True)
class Told:
    """What the user says of weights that do not say it themselves."""

    model: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Source:
    """Weights that were read, with what is known of them. `classes` is empty where nothing is."""

    tensors: dict[str, Tensor]
    arch: Arch
    model: str
    name: str
    preprocess: Preprocess | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    metrics: dict[str, Any] | None = None


def load(
    source: str | Path,
    *,
    model: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    classes: Sequence[str] | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> Classifier:
    """Load a classifier.

    `source`: a run's folder, a model's folder (ours, timm's or Hugging Face's), a file of tensors, a name such as
    "resnet50.imagenet1k_v2", or a hub id such as "timm/resnet50.a1_in1k". The rest is for weights that do not say it:
    `model`, the network; `mean` and `std` of each channel in 0-1; `size` in pixels; `classes` in the order of the head.
    Raises `UsageError` (exit code 2) or `CheckpointError` (exit code 4).
    """
    path = OWN.get(str(source), Path(source))
    if holds_classifier(path) or (path / "checkpoints").is_dir():
        return load_classifier(path, device=device, precision=precision)
    told = Told(
        model,
        tuple(mean) if mean is not None else None,
        tuple(std) if std is not None else None,
        size,
        tuple(classes) if classes is not None else None,
    )
    found = read_source(source, told)
    for note in found.notes:
        logger.info("%s: %s", found.name, note)
    network = ResNet(found.arch, initialise=False)
    network.load_state_dict(found.tensors)
    names = _classes(found, told)
    return Classifier(
        network,
        _preprocess(found, told),
        names or tuple(str(number) for number in range(found.arch.num_classes)),
        found.model,
        choose(device, precision),
        recipe={"weights": found.name},
        metrics=found.metrics or {},
        named=bool(names),
    )


def create_model(name: str, *, weights: str | Path | None = None, **changes: Any) -> ResNet:
    """Build a network: `create_model("resnet50", num_classes=5, weights="resnet50.imagenet1k_v2")`.

    `changes` are fields of `Arch`. Without `weights` the parameters are fresh, drawn from PyTorch's global random
    state. With them, another number of input channels adapts the first convolution (summed for one channel, repeated
    and scaled for more), another number of classes gets a fresh head, and both are logged.
    Raises `UsageError` (exit code 2) for unknown names, `CheckpointError` (exit code 4) for weights that do not fit.
    """
    if weights is None:
        return networks.create_model(name, **changes)
    return pretrained_network(get_arch(name, **changes), read_source(weights, Told(model=name)), asked=changes)


def pretrained_network(arch: Arch, found: Source, *, asked: dict[str, Any], classes: Sequence[str] = ()) -> ResNet:
    """A network of `arch` filled with weights that were read; see `create_model`.

    Where both know their `classes` by name, the same names in another order reorder the head, and other names replace
    it even where their number is the same.
    """
    if "num_classes" not in asked:
        arch = replace(arch, num_classes=found.arch.num_classes)
    if "in_channels" not in asked:
        arch = replace(arch, in_channels=found.arch.in_channels)
    network = networks.ResNet(arch, initialise=False)
    tensors = dict(found.tensors)
    if arch.in_channels != found.arch.in_channels:
        tensors["conv1.weight"] = adapt_input(tensors["conv1.weight"], arch.in_channels)
        logger.warning("%s: first convolution adapted to %d input channels", found.name, arch.in_channels)
    both = bool(classes and found.classes)
    if arch.num_classes != found.arch.num_classes or (both and set(classes) != set(found.classes)):
        fresh = {name: value for name, value in network.state_dict().items() if name.startswith("fc.")}
        tensors |= fresh
        logger.warning(
            "%s: new head for %d classes in place of %d", found.name, arch.num_classes, found.arch.num_classes
        )
    elif both and tuple(classes) != found.classes:
        rows = [found.classes.index(name) for name in classes]
        tensors |= {name: tensors[name][rows] for name in ("fc.weight", "fc.bias")}
        logger.warning("%s: head put into the order of your classes", found.name)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            "the weights are of another network", file=found.name, why=str(error).splitlines()[1].strip()
        ) from error
    return network


def from_pretrained(repository: str, **said: Any) -> Classifier:
    """A classifier from the Hugging Face hub, USER/REPOSITORY; `said` as for `load`."""
    return load(HUB_PREFIX + repository.removeprefix(HUB_PREFIX), **said)


def read_source(source: str | Path, told: Told = Told()) -> Source:
    """Read weights from wherever `source` says, with what their source tells of them."""
    name, path = str(source), Path(source)
    if name in WEIGHTS:
        return _from_table(name)
    if name in OWN:
        return _from_folder(OWN[name], name, told)
    if path.is_dir():
        return _from_folder(path, name, told)
    if path.is_file():
        found = fit(read_tensors(path), file=path, model=told.model)
        return Source(found.tensors, found.arch, found.model, name, notes=found.notes)
    if name.startswith(HUB_PREFIX) or _looks_like_hub_id(path):
        return _from_folder(_hub_folder(name.removeprefix(HUB_PREFIX)), name, told)
    if name in VARIANTS:
        known = weights_of(name)
        remedy = " or ".join(known[:3]) if known else "the path of a file with its weights"
        raise UsageError(f"{name} names a network and no weights", remedy=remedy)
    if name.partition(".")[0] not in VARIANTS and (path.suffix or len(path.parts) > 1):
        raise UsageError("there is no model", file=name, why="no such file or folder", remedy="resnetkit list weights")
    raise UsageError.unknown("weights", name, (*WEIGHTS, *OWN), remedy="resnetkit list weights, or a path")


def _looks_like_hub_id(path: Path) -> bool:
    """USER/REPOSITORY, which is not a file or folder here: a path has another form, or ends like a file of weights."""
    return len(path.parts) == 2 and path.parts[0] not in ("..", "/", "~") and path.suffix not in FILE_SUFFIXES


def _from_table(name: str) -> Source:
    weights = WEIGHTS[name]
    with download_bar(weights.file) as progress:
        path = fetch(weights.url, weights.cached(), digest=weights.digest, progress=progress)
    found = fit(read_tensors(path), file=path, model=weights.model)
    metrics = {"published": {"top1": weights.top1, "top5": weights.top5, "source": weights.source}}
    classes = imagenet_classes() if weights.classes == "imagenet1k" else ()
    return Source(found.tensors, found.arch, weights.model, name, weights.preprocess, classes, found.notes, metrics)


def imagenet_classes() -> tuple[str, ...]:
    """The thousand names, in the order of the published heads."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def _from_folder(folder: Path, name: str, told: Told) -> Source:
    if holds_classifier(folder):
        ours = load_classifier(folder, device="cpu", precision="fp32")
        tensors = {key: value.contiguous() for key, value in ours.network.state_dict().items()}
        return Source(tensors, ours.network.arch, ours.model, name, ours.preprocess, ours.classes)
    file = next((folder / each for each in WEIGHT_FILES if (folder / each).is_file()), None)
    if file is None:
        raise UsageError("there is no model", file=folder, why=f"it holds none of {', '.join((CONFIG, *WEIGHT_FILES))}")
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if config.get("model_type") == "resnet" or "id2label" in config:
        return _hugging_face(folder, file, config, name, told)
    return _timm(file, config, name, told)


def _timm(file: Path, config: dict[str, Any], name: str, told: Told) -> Source:
    about = config.get("pretrained_cfg") or config
    architecture = str(config.get("architecture") or "").partition(".")[0]
    model = told.model or (architecture if architecture in VARIANTS else None)
    found = fit(read_tensors(file), file=file, model=model)
    preprocess = None
    if "mean" in about and "std" in about and "input_size" in about:
        size = int(about["input_size"][-1])
        mean, std = tuple(map(float, about["mean"])), tuple(map(float, about["std"]))
        resize = int(size / float(about.get("crop_pct") or 0.875))
        interpolation = about.get("interpolation", "bilinear")
        if interpolation not in ("bilinear", "bicubic"):
            raise CheckpointError(f"interpolation {interpolation!r} is not one of ours", file=file)
        preprocess = Preprocess(size, mean, std, resize, interpolation)
    classes = tuple(map(str, about.get("label_names") or config.get("label_names") or ()))
    if not classes and "in1k" in str(about.get("tag") or name) and found.arch.num_classes == 1000:
        classes = imagenet_classes()
    return Source(found.tensors, found.arch, found.model, name, preprocess, classes, found.notes)


def _hugging_face(folder: Path, file: Path, config: dict[str, Any], name: str, told: Told) -> Source:
    found = fit(read_tensors(file), file=file, model=told.model)
    arch = found.arch
    if config.get("downsample_in_bottleneck"):
        arch = replace(arch, stride_on="1x1")
    labels = config.get("id2label") or {}
    named = [labels.get(str(number)) for number in range(arch.num_classes)]
    classes = tuple(map(str, named)) if all(label is not None for label in named) else ()
    if classes and all(label == f"LABEL_{number}" for number, label in enumerate(classes)):
        classes = ()
    preprocess = None
    if (folder / "preprocessor_config.json").is_file():
        about = read_json(folder / "preprocessor_config.json")
        sizes = about.get("size") or {}
        size = int(sizes if isinstance(sizes, int) else sizes.get("shortest_edge") or sizes.get("height") or 224)
        share = float(about.get("crop_pct") or 0.875)
        interpolation = "bicubic" if about.get("resample") == 3 else "bilinear"
        mean, std = tuple(map(float, about["image_mean"])), tuple(map(float, about["image_std"]))
        # Below 384 px their processor brings the shorter side to size / crop_pct and crops the centre.
        preprocess = Preprocess(size, mean, std, int(size / share) if size < 384 else size, interpolation)
    return Source(found.tensors, arch, found.model, name, preprocess, classes, found.notes)


def _hub_folder(repository: str) -> Path:
    """A repository's settings and weights from the hub's cache, or from the hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub import logging as hub_logging
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    def get(file: str, *, optional: bool = False) -> Path | None:
        try:
            return Path(hf_hub_download(repository, file))
        except LocalEntryNotFoundError:  # offline, and not in the cache: it may be there on the hub
            if optional:
                return None
            raise
        except EntryNotFoundError:
            return None

    hub_logging.set_verbosity_error()  # its retries are told by our one line at the end
    logger.info("looking for %s on the hub and in its cache", repository)
    try:
        config = get(CONFIG)
        weights = get(WEIGHT_FILES[0], optional=True) or get(WEIGHT_FILES[1])
        get("preprocessor_config.json", optional=True)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot get {repository} from the hub",
            why=str(error).strip().partition("\n")[0],
            remedy=f"fetch {CONFIG} and {WEIGHT_FILES[0]} by hand into a folder and give its path",
        ) from error
    if config is None or weights is None:
        raise CheckpointError(f"{repository} holds no {CONFIG if config is None else WEIGHT_FILES[0]}")
    _verify_blob(weights)
    return config.parent


def _verify_blob(file: Path) -> None:
    """The hub's cache names a large file by its SHA-256, and checks only its length when it is fetched."""
    from resnetkit.storage import sha256

    blob = file.resolve()
    if len(blob.name) == 64 and sha256(blob.read_bytes()) != blob.name:
        raise CheckpointError(
            "the file in the hub's cache is damaged", file=blob, why="its SHA-256 is another", remedy="delete it"
        )


def _preprocess(found: Source, told: Told) -> Preprocess:
    given = {"--mean": told.mean, "--std": told.std, "--size": told.size}
    missing = [flag for flag, value in given.items() if value is None]
    channels = found.arch.in_channels
    for flag, values in (("--mean", told.mean), ("--std", told.std)):
        if values is not None and len(values) != channels:
            raise UsageError(f"{flag} has {len(values)} numbers", why=f"the network takes {channels} channels")
    if found.preprocess is None and missing:
        raise UsageError(
            "the weights do not say how images are prepared for them",
            file=found.name,
            why=f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not given",
            remedy="--mean R,G,B --std R,G,B --size N",
        )
    known = found.preprocess or Preprocess(told.size or 0, told.mean or (), told.std or ())
    if told.size is not None:
        known = replace(known, size=told.size, resize=None)
    return replace(known, mean=told.mean or known.mean, std=told.std or known.std)


def _classes(found: Source, told: Told) -> tuple[str, ...]:
    names = told.classes if told.classes is not None else found.classes
    if names and len(names) != found.arch.num_classes:
        raise UsageError(
            f"there are {len(names)} class names",
            file=found.name,
            why=f"the head has {found.arch.num_classes} outputs",
            remedy="one name for each output, in their order",
        )
    return names


def read_classes(file: Path) -> tuple[str, ...]:
    """Class names from a text file, one a line. Raises `UsageError` (exit code 2)."""
    try:
        names = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("cannot read the class names", file=file, why=str(error)) from error
    if len(set(names)) != len(names):
        raise UsageError("a class name stands twice", file=file)
    return names
