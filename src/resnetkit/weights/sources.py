"""Weights read from wherever they are, with what is known of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from resnetkit.artefact import holds_classifier, load_classifier, read_json
from resnetkit.classifier import CONFIG
from resnetkit.errors import CheckpointError, UsageError
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.console import download_bar
from resnetkit.machine.documents import validated
from resnetkit.networks.arch import VARIANTS, Arch
from resnetkit.novelty.unknown import Unknown
from resnetkit.weights.download import fetch
from resnetkit.weights.foreign import HuggingFaceImages, HuggingFaceModel, Timm
from resnetkit.weights.hints import Hints
from resnetkit.weights.hub import WEIGHT_FILES, fetch_repository
from resnetkit.weights.naming import Match, match_arch
from resnetkit.weights.spelling import spelled, unknown_weights
from resnetkit.weights.table import OWN, WEIGHTS
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
    temperature: float = 1.0
    unknown: Unknown | None = None


@dataclass(frozen=True)
class _Sought:
    """What weights are looked for."""

    hints: Hints
    fields: Mapping[str, Any]
    headless: bool


def read_source(
    source: str | Path,
    hints: Hints | None = None,
    *,
    headless: bool = False,
    fields: Mapping[str, Any] = MappingProxyType({}),
) -> Source:
    """Read weights from wherever `source` says, with what their source tells of them.

    `headless` takes a backbone too: its `tensors` are without `fc`. `fields` of the network that is hinted at are
    others than in the table.
    """
    sought = _Sought(hints or Hints(), fields, headless=headless)
    name = spelled(source)
    path = Path(name)
    if name in WEIGHTS:
        return _from_table(name)
    if name in OWN:
        return _from_folder(OWN[name], name, sought)
    if path.is_dir():
        return _from_folder(path, name, sought)
    if path.is_file():
        found = _match(path, sought)
        return Source(found.tensors, found.arch, found.model, name, notes=found.notes)
    if name.startswith(HUB_PREFIX) or _looks_like_hub_id(path):
        return _from_folder(fetch_repository(name.removeprefix(HUB_PREFIX)), name, sought)
    raise unknown_weights(name, sought.hints.model)


def _looks_like_hub_id(path: Path) -> bool:
    """USER/REPOSITORY, which is not a file or folder here: a path has another form, or ends like a file of weights."""
    return len(path.parts) == 2 and path.parts[0] not in ("..", "/", "~") and path.suffix not in FILE_SUFFIXES


def _from_table(name: str) -> Source:
    weights = WEIGHTS[name]
    with download_bar(weights.file) as progress:
        path = fetch(weights.url, weights.cached(), digest=weights.digest, progress=progress)
    found = _match(path, _Sought(Hints(model=weights.model), {}, headless=False))
    metrics = {"published": {"top1": weights.top1, "top5": weights.top5, "source": weights.source}}
    classes = imagenet_classes() if weights.classes == "imagenet1k" else ()
    return Source(found.tensors, found.arch, weights.model, name, weights.preprocess, classes, found.notes, metrics)


def imagenet_classes() -> tuple[str, ...]:
    """The thousand names, in the order of the published heads."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def _from_folder(folder: Path, name: str, sought: _Sought) -> Source:
    if holds_classifier(folder):
        ours = load_classifier(folder, device="cpu", precision="fp32")
        tensors = {key: value.contiguous() for key, value in ours.network.state_dict().items()}
        classes = () if ours.numbered else ours.classes
        found = Source(tensors, ours.network.arch, ours.model, name, ours.preprocess, classes)
        return replace(found, temperature=ours.temperature, unknown=ours.unknown)
    file = next((folder / each for each in WEIGHT_FILES if (folder / each).is_file()), None)
    if file is None:
        raise UsageError("there is no model", file=folder, why=f"it holds none of {', '.join((CONFIG, *WEIGHT_FILES))}")
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if config.get("model_type") == "resnet" or "id2label" in config:
        return _hugging_face(folder, file, config, name, sought)
    return _timm(file, config, name, sought)


def _timm(file: Path, config: dict[str, Any], name: str, sought: _Sought) -> Source:
    with _settings_of(file):
        about = Timm.of(config)
        preprocess = about.preprocess()
    architecture = (about.architecture or "").partition(".")[0]
    found = _match(file, sought, model=architecture if architecture in VARIANTS else None)
    notes = found.notes
    if architecture and architecture not in VARIANTS and sought.hints.model is None:
        notes += (f"its settings name {architecture[:80]}, which is not one of ours: read as {found.model}",)
    classes = about.label_names or ()
    if not classes and "in1k" in (about.tag or name) and found.arch.num_classes == 1000:
        classes = imagenet_classes()
    return Source(found.tensors, found.arch, found.model, name, preprocess, classes, notes)


def _hugging_face(folder: Path, file: Path, config: dict[str, Any], name: str, sought: _Sought) -> Source:
    with _settings_of(file):
        about = validated(HuggingFaceModel, config)
        about.refuse_others()
    found = _match(file, sought)
    arch = replace(found.arch, stride_on="1x1") if about.downsample_in_bottleneck else found.arch
    preprocess = None
    if (folder / "preprocessor_config.json").is_file():
        with _settings_of(file):
            images = validated(HuggingFaceImages, read_json(folder / "preprocessor_config.json"))
            preprocess = images.preprocess(arch.in_channels)
    classes = about.classes(arch.num_classes)
    return Source(found.tensors, arch, found.model, name, preprocess, classes, found.notes)


def _match(file: Path, sought: _Sought, *, model: str | None = None) -> Match:
    read, hints = read_tensors(file, sought.hints.which), sought.hints
    asked = {"model": hints.model or model, "fields": sought.fields if hints.model else {}}
    found = match_arch(read.tensors, file=file, **asked, headless=sought.headless)
    return replace(found, notes=(*read.notes, *found.notes))


@contextmanager
def _settings_of(file: Path) -> Iterator[None]:
    """Settings beside a file of weights that cannot be are the file's fault, and not the caller's."""
    try:
        yield
    except (UsageError, ValueError) as error:
        raise CheckpointError("the model's settings cannot be used", file=file.parent, why=str(error)) from error
