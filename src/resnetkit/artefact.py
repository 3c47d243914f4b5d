"""A classifier read again from the folder that it was saved in: everything is checked before anything is built."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, cast

import safetensors.torch
from pydantic import BaseModel, Field
from safetensors import SafetensorError
from torch import nn

from resnetkit.classifier import CONFIG, UNKNOWN, WEIGHTS, Classifier
from resnetkit.errors import CheckpointError, UsageError
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine import documents
from resnetkit.machine.device import Compute, Precision, choose
from resnetkit.machine.storage import sha256
from resnetkit.networks.arch import VARIANTS, Arch
from resnetkit.networks.handmade import made
from resnetkit.networks.resnet import ResNet
from resnetkit.networks.summary import summarise
from resnetkit.novelty.unknown import Unknown, restored

MOST_WEIGHTS = 16 << 30
"""Bytes of `model.safetensors`: more than the largest `Arch` needs."""
MOST_UNKNOWN = 64 << 20
"""Bytes of `unknown.safetensors`: more than is ever written."""
Own = nn.Module | Callable[[], nn.Module]
"""A network of the user's own, or what makes it."""


class _SavedUnknown(BaseModel):
    """What an artefact's settings say of its score of novelty, which lies beside."""

    method: str
    share: Annotated[float, Field(gt=0, lt=1)]
    sha256: str


class _Saved(BaseModel):
    """Our own section of an artefact's settings."""

    arch: dict[str, Any] | None
    """None where the network is the user's own."""
    preprocess: dict[str, Any]
    classes: Annotated[tuple[str, ...], Field(fail_fast=True)]
    named: bool = True
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    unknown: _SavedUnknown | None = None
    recipe: dict[str, Any]
    metrics: dict[str, Any]
    sha256: str


def holds_classifier(folder: Path) -> bool:
    """Whether a folder is one that `Classifier.save` or a finished run has written."""
    for config in (folder / "model" / CONFIG, folder / CONFIG):
        if config.is_file():
            return b'"resnetkit"' in _read(config, documents.MOST_BYTES)
    return False


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file beside the weights. Raises `CheckpointError` (exit code 4)."""
    try:
        found = documents.parse_json(_read(path, documents.MOST_BYTES))
    except ValueError as error:
        raise CheckpointError("cannot read the model's settings", file=path, why=str(error)) from error
    if not isinstance(found, dict):
        raise CheckpointError("cannot read the model's settings", file=path, why="it is no JSON object")
    return found


def _read(path: Path, most: int) -> bytes:
    try:
        return documents.read_bounded(path, most)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise CheckpointError("the model is damaged", file=path, why=why) from error


def load_classifier(
    folder: str | Path, *, device: str = "auto", precision: Precision = "auto", network: Own | None = None
) -> Classifier:
    """Load a run folder or a model folder; `network` is for one that was trained with the user's own, or makes it.

    Raises `UsageError` (exit code 2) where there is none, `CheckpointError` (exit code 4) where it is damaged.
    """
    folder = Path(folder)
    if (folder / "model" / CONFIG).is_file():
        folder = folder / "model"
    if not (folder / CONFIG).is_file():
        if (folder / "checkpoints").is_dir():
            why, remedy = "its training is not finished", f"resnetkit train --resume --out {quote(str(folder))}"
        elif folder.exists():
            why, remedy = f"there is no {CONFIG} in it", "the folder that `resnetkit train` named"
        else:
            why, remedy = "no such folder", "the folder that `resnetkit train` named"
        raise UsageError("there is no model", file=folder, why=why, remedy=remedy)
    config, weights = read_json(folder / CONFIG), _read(folder / WEIGHTS, MOST_WEIGHTS)
    own = made(network, str(config.get("architecture"))[:80]) if network is not None else None
    try:
        saved = documents.validated(_Saved, config.get("resnetkit"))
        preprocess = Preprocess(**saved.preprocess)
        if sha256(weights) != saved.sha256:
            raise CheckpointError("the model is damaged", file=folder / WEIGHTS, why="its SHA-256 is another")
        if saved.arch is None or own is not None:
            return _with_own_network(folder, config, saved, weights, own, choose(device, precision))
        arch = Arch(**saved.arch)
        parameters = summarise(arch, arch.native_size).parameters
        if 2 * parameters > len(weights):
            raise ValueError(f"{CONFIG} names {parameters:,} parameters and {WEIGHTS} has {len(weights):,} bytes")
        if len(saved.classes) != arch.num_classes or preprocess.channels != arch.in_channels:
            raise ValueError("its classes, its channels and its network do not go together")
        network = ResNet(arch, initialise=False)
        network.load_state_dict(safetensors.torch.load(weights))
        unknown = _load_unknown(folder / UNKNOWN, saved.unknown, network.num_features)
    except CheckpointError:
        raise
    except (UsageError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError("the model is damaged", file=folder, why=str(error).partition("\n")[0][:300]) from error
    name = config.get("architecture")
    return Classifier(
        network,
        preprocess,
        saved.classes,
        name if isinstance(name, str) and name in VARIANTS else "resnet",
        choose(device, precision),
        saved.recipe,
        saved.metrics,
        folder,
        saved.named,
        saved.temperature,
        unknown,
    )


def _load_unknown(file: Path, said: _SavedUnknown | None, width: int) -> Unknown | None:
    """The score of novelty beside a network of `width` features. Raises `CheckpointError` (exit code 4)."""
    if said is None:
        return None
    content = _read(file, MOST_UNKNOWN)
    if sha256(content) != said.sha256:
        raise CheckpointError("the model is damaged", file=file, why="its SHA-256 is another")
    try:
        return restored(content, said.method, said.share, width)
    except ValueError as error:
        why = str(error).partition("\n")[0][:300]
        raise CheckpointError("the model is damaged", file=file, why=why) from error


def _with_own_network(
    folder: Path, config: dict[str, Any], saved: _Saved, weights: bytes, network: nn.Module | None, compute: Compute
) -> Classifier:
    """A classifier whose network is the user's own, and has to be brought along.

    Raises `CheckpointError` (exit code 4) where it is not, or is another one.
    """
    name = str(config.get("architecture"))
    if saved.arch is not None:
        raise CheckpointError("the network is one of ours", file=folder, remedy="the same without network= or --plugin")
    if network is None:
        what = f"the network of the model is the user's own {name[:80]}"
        remedy = "rk.load(…, network=…), or --plugin FILE"
        raise CheckpointError(what, file=folder, why="only its weights are saved", remedy=remedy)
    try:
        network.load_state_dict(safetensors.torch.load(weights))
    except RuntimeError as error:
        why = str(error).splitlines()[1].strip()[:160] if "\n" in str(error) else str(error)[:160]
        raise CheckpointError("the weights are of another network", file=folder, why=why) from error
    compute = replace(compute, channels_last=False)
    preprocess = Preprocess(**saved.preprocess)
    return Classifier(
        cast("ResNet", network),
        preprocess,
        saved.classes,
        name,
        compute,
        saved.recipe,
        saved.metrics,
        folder,
        temperature=saved.temperature,
    )
