"""The table of published weights: where each file is, how it is checked, what images it wants, how good it was.

Figures are those that the publishers give for ImageNet's 50,000 validation images, in percent. Our own weights are
small and come with the package; what they are is written in their folders.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from resnetkit.errors import ResnetkitError, UsageError
from resnetkit.machine.documents import read_json
from resnetkit.networks.arch import VARIANTS, Arch

if TYPE_CHECKING:
    from resnetkit.images.preprocess import Preprocess

TORCHVISION = "https://download.pytorch.org/models/"
TIMM = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-rsb-weights/"


@dataclass(frozen=True)
class Weights:
    """One file of published weights for a network of our table."""

    model: str
    source: str
    url: str
    digest: str
    """The first digits of the file's SHA-256, which its publisher puts into its name."""
    size: int
    """Side in pixels of what the network sees."""
    resize: int
    """Shorter side before the crop."""
    interpolation: Literal["bilinear", "bicubic"]
    top1: float
    top5: float | None
    licence: str
    hub: str | None = None
    """The same weights on the Hugging Face hub."""
    classes: str = "imagenet1k"

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]

    @property
    def preprocess(self) -> "Preprocess":
        """What the network sees of an image."""
        from resnetkit.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

        return Preprocess(self.size, IMAGENET_MEAN, IMAGENET_STD, self.resize, self.interpolation)

    def cached(self) -> Path:
        """Where the file lies once it was fetched: torch.hub's folder, so that torchvision and we share it."""
        root = (
            os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch"
        )
        return Path(root) / "hub" / "checkpoints" / self.file


def _torchvision(model: str, digest: str, resize: int, top1: float, top5: float) -> Weights:
    url = f"{TORCHVISION}{model}-{digest}.pth"
    return Weights(model, "torchvision", url, digest, 224, resize, "bilinear", top1, top5, "BSD-3-Clause")


def _timm(model: str, recipe: str, digest: str, top1: float) -> Weights:
    """Wightman, Touvron, Jegou: ResNet strikes back (arXiv 2110.00476), procedures A1 to A3."""
    size, resize = (160, 168) if recipe == "a3" else (224, 235)
    url, hub = f"{TIMM}{model}_{recipe}_0-{digest}.pth", f"timm/{model}.{recipe}_in1k"
    return Weights(model, "timm", url, digest, size, resize, "bicubic", top1, None, "Apache-2.0", hub)


WEIGHTS: dict[str, Weights] = {
    "resnet18.imagenet1k_v1": _torchvision("resnet18", "f37072fd", 256, 69.758, 89.078),
    "resnet34.imagenet1k_v1": _torchvision("resnet34", "b627a593", 256, 73.314, 91.420),
    "resnet50.imagenet1k_v1": _torchvision("resnet50", "0676ba61", 256, 76.130, 92.862),
    "resnet50.imagenet1k_v2": _torchvision("resnet50", "11ad3fa6", 232, 80.858, 95.434),
    "resnet101.imagenet1k_v1": _torchvision("resnet101", "63fe2227", 256, 77.374, 93.546),
    "resnet101.imagenet1k_v2": _torchvision("resnet101", "cd907fc2", 232, 81.886, 95.780),
    "resnet152.imagenet1k_v1": _torchvision("resnet152", "394f9c45", 256, 78.312, 94.046),
    "resnet152.imagenet1k_v2": _torchvision("resnet152", "f82ba261", 232, 82.284, 96.002),
    "wide_resnet50_2.imagenet1k_v1": _torchvision("wide_resnet50_2", "95faca4d", 256, 78.468, 94.086),
    "wide_resnet50_2.imagenet1k_v2": _torchvision("wide_resnet50_2", "9ba9bcbe", 232, 81.602, 95.758),
    "wide_resnet101_2.imagenet1k_v1": _torchvision("wide_resnet101_2", "32ee1156", 256, 78.848, 94.284),
    "wide_resnet101_2.imagenet1k_v2": _torchvision("wide_resnet101_2", "d733dc28", 232, 82.510, 96.020),
    "resnext50_32x4d.imagenet1k_v1": _torchvision("resnext50_32x4d", "7cdf4587", 256, 77.618, 93.698),
    "resnext50_32x4d.imagenet1k_v2": _torchvision("resnext50_32x4d", "1a0047aa", 232, 81.198, 95.340),
    "resnext101_32x8d.imagenet1k_v1": _torchvision("resnext101_32x8d", "8ba56ff5", 256, 79.312, 94.526),
    "resnext101_32x8d.imagenet1k_v2": _torchvision("resnext101_32x8d", "110c445d", 232, 82.834, 96.228),
    "resnext101_64x4d.imagenet1k_v1": _torchvision("resnext101_64x4d", "173b62eb", 232, 83.246, 96.454),
    "resnet18.a1_in1k": _timm("resnet18", "a1", "d63eafa0", 71.504),
    "resnet18.a2_in1k": _timm("resnet18", "a2", "b61bd467", 70.634),
    "resnet18.a3_in1k": _timm("resnet18", "a3", "40c531c8", 65.670),
    "resnet34.a1_in1k": _timm("resnet34", "a1", "46f8f793", 76.420),
    "resnet34.a2_in1k": _timm("resnet34", "a2", "82d47d71", 75.520),
    "resnet34.a3_in1k": _timm("resnet34", "a3", "a20cabb6", 70.580),
    "resnet50.a1_in1k": _timm("resnet50", "a1", "14fe96d1", 80.382),
    "resnet50.a2_in1k": _timm("resnet50", "a2", "a2746f79", 79.828),
    "resnet50.a3_in1k": _timm("resnet50", "a3", "59cae1ef", 75.994),
    "resnet101.a1_in1k": _timm("resnet101", "a1", "cdcb52a9", 81.494),
    "resnet101.a2_in1k": _timm("resnet101", "a2", "6edb36c7", 81.344),
    "resnet101.a3_in1k": _timm("resnet101", "a3", "1db14157", 77.928),
    "resnet152.a1_in1k": _timm("resnet152", "a1", "2eee8a7a", 81.998),
    "resnet152.a2_in1k": _timm("resnet152", "a2", "b4c6978f", 81.764),
    "resnet152.a3_in1k": _timm("resnet152", "a3", "134d4688", 78.896),
}
"""Names are NETWORK.TAG."""
OWN = {folder.name: folder for folder in sorted((Path(__file__).parent / "own").iterdir()) if folder.is_dir()}
"""Folders of our own weights, by name: each as `Classifier.save` writes it, with its recipe and its figures."""


def weights_of(model: str) -> list[str]:
    """Names of all weights of a network, published ones first."""
    return [name for name in (*WEIGHTS, *OWN) if name.startswith(f"{model}.")]


def best_weights(model: str) -> str:
    """The name of a network's most accurate torchvision weights, or of our own. Raises `UsageError` (exit code 2)."""
    known = weights_of(model)
    theirs = [name for name in known if name in WEIGHTS and WEIGHTS[name].source == "torchvision"]
    if theirs:
        return max(theirs, key=lambda name: WEIGHTS[name].top1)
    ours = [name for name in known if name in OWN]
    if not ours:
        raise UsageError(f"there are no weights of {model}", remedy="weights=FILE, or pretrained=False")
    return ours[0]


def own_config(name: str) -> dict[str, Any]:
    """What is written with our own weights: `arch`, `preprocess`, `classes`, `recipe`, `metrics`."""
    return read_json(OWN[name] / "config.json")["resnetkit"]


def network_of(weights: str | None) -> tuple[str, Arch] | None:
    """The network of weights that say it themselves, by name or in a folder: a variant, and what became of it."""
    if weights in WEIGHTS:
        return WEIGHTS[weights].model, VARIANTS[WEIGHTS[weights].model]
    folder = OWN.get(str(weights), Path(str(weights)))
    file = next((each for each in (folder / "model" / "config.json", folder / "config.json") if each.is_file()), None)
    if weights is None or file is None:
        return None
    # What is wrong with the settings is said where the weights are read.
    with suppress(ResnetkitError, OSError, ValueError, TypeError):
        config = read_json(file)
        name = str(config.get("architecture")).partition(".")[0]
        ours = config.get("resnetkit")
        if name in VARIANTS:
            return name, Arch(**ours["arch"]) if isinstance(ours, dict) else VARIANTS[name]
    return None
