"""The artefact: a network with its preprocessing, its classes, its recipe and its figures, in one folder.

`model.safetensors` and `config.json`; no pickle. timm opens the folder where the network is one that it knows.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from resnetkit.errors import CheckpointError, UsageError
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.device import Compute, Precision, choose
from resnetkit.machine.storage import replace_file, sha256
from resnetkit.networks.resnet import VARIANTS, Arch, ResNet

FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass
class Classifier:
    """All that a prediction needs, and where it came from."""

    network: ResNet
    preprocess: Preprocess
    classes: tuple[str, ...]
    model: str
    """Name of the variant that the network was made from."""
    compute: Compute
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    """Where it was saved or loaded."""
    named: bool = True
    """False where nobody has said what the classes are called, and they are numbered."""

    def __post_init__(self) -> None:
        self.network = self.compute.network(self.network).eval()

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) to float32 logits (N, classes); the network is put into evaluation mode."""
        self.network.eval()
        with self.compute.autocast():
            return self.network(self.compute.tensor(images)).float()

    def probabilities(self, pixels: Tensor) -> Tensor:
        """uint8 pixels as `preprocess` gives them, (N, C, size, size), to probabilities (N, classes)."""
        return self.logits(self.preprocess.normalise(self.compute.tensor(pixels))).softmax(1)

    def save(self, folder: str | Path, *, remember: bool = True) -> Path:
        """Write the artefact, and `remember` where. Raises `StorageError` (exit code 7)."""
        folder = Path(folder)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}
        weights = safetensors.torch.save(tensors, metadata={"format": "pt"})
        replace_file(folder / WEIGHTS, weights)
        replace_file(folder / CONFIG, json.dumps(self._config(sha256(weights)), indent=2, ensure_ascii=False).encode())
        if remember:
            self.folder = folder
        return folder

    def _config(self, digest: str) -> dict[str, Any]:
        arch = self.network.arch
        preprocess = self.preprocess
        return {
            "architecture": self.model,
            "num_classes": arch.num_classes,
            "num_features": self.network.fc.in_features,
            "model_args": {"in_chans": arch.in_channels},
            "pretrained_cfg": {
                "input_size": [arch.in_channels, preprocess.size, preprocess.size],
                "fixed_input_size": False,
                "crop_pct": preprocess.size / (preprocess.resize or preprocess.size),
                "crop_mode": "center",
                "interpolation": preprocess.interpolation,
                "mean": preprocess.mean,
                "std": preprocess.std,
                "num_classes": arch.num_classes,
                "label_names": self.classes,
                "first_conv": "conv1",
                "classifier": "fc",
            },
            "resnetkit": {
                "format": FORMAT,
                "arch": asdict(arch),
                "preprocess": asdict(preprocess),
                "classes": self.classes,
                "recipe": self.recipe,
                "metrics": self.metrics,
                "sha256": digest,
            },
        }


def holds_classifier(folder: Path) -> bool:
    """Whether a folder is one that `Classifier.save` or a finished run has written."""
    for config in (folder / "model" / CONFIG, folder / CONFIG):
        if config.is_file():
            return b'"resnetkit"' in config.read_bytes()
    return False


def load_classifier(folder: str | Path, *, device: str = "auto", precision: Precision = "auto") -> Classifier:
    """Load a run folder or a model folder.

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
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        saved, name = config["resnetkit"], config["architecture"]
        weights = (folder / WEIGHTS).read_bytes()
        if sha256(weights) != saved["sha256"]:
            raise CheckpointError("the model is damaged", file=folder / WEIGHTS, why="its SHA-256 is another")
        network = ResNet(Arch.from_dict(saved["arch"]))
        network.load_state_dict(safetensors.torch.load(weights))
        settings = saved["preprocess"] | {key: tuple(saved["preprocess"][key]) for key in ("mean", "std")}
        return Classifier(
            network,
            Preprocess(**settings),
            tuple(saved["classes"]),
            name if name in VARIANTS else "resnet",
            choose(device, precision),
            saved["recipe"],
            saved["metrics"],
            folder,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError("the model is damaged", file=folder, why=str(error).partition("\n")[0]) from error
