"""Weights read from wherever they are, with what is known of them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from resnetkit.classifier import CONFIG, holds_classifier, load_classifier, read_json
from resnetkit.errors import CheckpointError, UsageError
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.console import download_bar
from resnetkit.networks.arch import VARIANTS, Arch
from resnetkit.weights.download import fetch
from resnetkit.weights.hints import Hints
from resnetkit.weights.hub import WEIGHT_FILES, fetch_repository
from resnetkit.weights.naming import fit
from resnetkit.weights.table import OWN, WEIGHTS, weights_of
from resnetkit.weights.tensorfile import read_tensors

FILE_SUFFIXES = frozenset((".safetensors", ".pth", ".pt", ".th", ".tar", ".ckpt", ".bin", ".pkl", ".onnx"))


HUB_PREFIX = "hf-hub:"


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


def read_source(source: str | Path, hints: Hints | None = None) -> Source:
    """Read weights from wherever `source` says, with what their source tells of them."""
    name, path, hints = str(source), Path(source), hints or Hints()
    if name in WEIGHTS:
        return _from_table(name)
    if name in OWN:
        return _from_folder(OWN[name], name, hints)
    if path.is_dir():
        return _from_folder(path, name, hints)
    if path.is_file():
        found = fit(read_tensors(path).tensors, file=path, model=hints.model)
        return Source(found.tensors, found.arch, found.model, name, notes=found.notes)
    if name.startswith(HUB_PREFIX) or _looks_like_hub_id(path):
        return _from_folder(fetch_repository(name.removeprefix(HUB_PREFIX)), name, hints)
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
    found = fit(read_tensors(path).tensors, file=path, model=weights.model)
    metrics = {"published": {"top1": weights.top1, "top5": weights.top5, "source": weights.source}}
    classes = imagenet_classes() if weights.classes == "imagenet1k" else ()
    return Source(found.tensors, found.arch, weights.model, name, weights.preprocess, classes, found.notes, metrics)


def imagenet_classes() -> tuple[str, ...]:
    """The thousand names, in the order of the published heads."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def _from_folder(folder: Path, name: str, hints: Hints) -> Source:
    if holds_classifier(folder):
        ours = load_classifier(folder, device="cpu", precision="fp32")
        tensors = {key: value.contiguous() for key, value in ours.network.state_dict().items()}
        return Source(tensors, ours.network.arch, ours.model, name, ours.preprocess, ours.classes)
    file = next((folder / each for each in WEIGHT_FILES if (folder / each).is_file()), None)
    if file is None:
        raise UsageError("there is no model", file=folder, why=f"it holds none of {', '.join((CONFIG, *WEIGHT_FILES))}")
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if config.get("model_type") == "resnet" or "id2label" in config:
        return _hugging_face(folder, file, config, name, hints)
    return _timm(file, config, name, hints)


def _timm(file: Path, config: dict[str, Any], name: str, hints: Hints) -> Source:
    about = config.get("pretrained_cfg") or config
    architecture = str(config.get("architecture") or "").partition(".")[0]
    model = hints.model or (architecture if architecture in VARIANTS else None)
    found = fit(read_tensors(file).tensors, file=file, model=model)
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


def _hugging_face(folder: Path, file: Path, config: dict[str, Any], name: str, hints: Hints) -> Source:
    found = fit(read_tensors(file).tensors, file=file, model=hints.model)
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
