"""The artefact: a network with its preprocessing, its classes, its recipe and its figures, in one folder.

`model.safetensors`, `config.json` and, where it can tell strangers, `unknown.safetensors`; no pickle. timm opens the
folder where the network is one that it knows.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnetkit.arguments import checked, refusal
from resnetkit.errors import UsageError
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.console import shown
from resnetkit.machine.device import Compute, Precision, choose, is_out_of_memory
from resnetkit.machine.notebook import table
from resnetkit.machine.storage import replace_file, sha256
from resnetkit.networks.arch import Arch
from resnetkit.networks.folding import fold
from resnetkit.networks.handmade import described
from resnetkit.networks.resnet import ResNet
from resnetkit.novelty.unknown import Unknown

FORMAT = 1
WEIGHTS, CONFIG, UNKNOWN = "model.safetensors", "config.json", "unknown.safetensors"
NAMED = 10
"""Classes that are named before the others are left out."""
CHUNK_VALUES = 1 << 21
"""Numbers of the images that are computed together: 8 MB, and some hundreds in a network's widest layer."""
logger = logging.getLogger("resnetkit")


@dataclass(frozen=True)
class Origin:
    """What a classifier was trained on, as far as it says."""

    data: str | None = None
    """A named set, or a folder, or shards."""
    validation: float | None = None
    """Share of the training images that was held out where the set itself holds out none."""
    settings: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The recipe's section on data: how its splits were found and made."""


@dataclass(repr=False)
class Classifier:
    """All that a prediction needs, and where it came from."""

    network: ResNet
    """Or the user's own module, where a run was given one; see `ours`."""
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
    temperature: float = 1.0
    """What logits are divided by, so that probabilities are as often right as they say (Guo et al. 2017)."""
    unknown: Unknown | None = None
    """By what it tells pictures that look like nothing it has learnt; None where nobody has measured that."""

    def __post_init__(self) -> None:
        if not isinstance(self.network, nn.Module):
            raise refusal("Classifier", "network", self.network, "a ResNet", "resnetkit.create_model(NAME)")
        self.network = self.compute.network(self.network).eval()

    def __repr__(self) -> str:
        return f"<Classifier: {'; '.join(map(' '.join, self.facts()))}>"

    def _repr_html_(self) -> str:
        return table(self.facts())

    def facts(self) -> list[tuple[str, str]]:
        """What it is, in few words: pairs of a heading and what it says."""
        look, metrics = self.preprocess, self.metrics
        names = [shown(name) for name in self.classes[:NAMED]]
        more = ["…"] if len(self.classes) > NAMED else []
        parameters = sum(each.numel() for each in self.network.parameters())
        facts = [
            ("network", f"{self.model}, {parameters:,} parameters"),
            ("classes", f"{len(self.classes):,}: {', '.join(names + more)}"),
            ("sees", f"{look.channels} x {look.size} x {look.size} px"),
            ("computes on", self.compute.describe()),
        ]
        if self.origin.data is not None:
            facts.append(("trained on", shown(self.origin.data)))
        chosen_by = metrics.get("validation") if metrics.get("split") != "validation" else None
        for split, figures in (("validation", chosen_by), (metrics.get("split"), metrics)):
            if isinstance(figures, dict) and isinstance(figures.get("top1"), float):
                facts.append((f"{split}", f"top-1 {figures['top1']:.2f} % of {figures.get('count', 0):,} images"))
        if self.folder is not None:
            facts.append(("saved in", shown(str(self.folder))))
        return facts

    @property
    def ours(self) -> bool:
        """Whether the network is one that an `Arch` describes. Of the user's own only the weights can be saved."""
        return isinstance(self.network, ResNet)

    @property
    def origin(self) -> Origin:
        """What it was trained on. Foreign weights do not say: their `recipe` names no data."""
        data = self.recipe.get("data")
        if not isinstance(data, dict):
            return Origin()
        name, share = data.get("name"), data.get("validation")
        return Origin(name if isinstance(name, str) else None, share if isinstance(share, float) else None, data)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.compute.device

    @checked()
    def to(self, device: str | torch.device, *, precision: Precision | None = None) -> Self:
        """Move it to a device, "cuda" or "cpu", and give it back; the precision stays where none is named.

        Raises `UsageError` (exit code 2) for a device that this machine does not have.
        """
        self.compute = choose(str(device), precision or self.compute.precision)
        self.network = self.compute.network(self.network)
        return self

    def predict(self, inputs: Any, **options: Any) -> list[Any]:
        """What is on pictures: `resnetkit.predict` with this classifier."""
        return _door().predict(self, inputs, **options)

    def iter_predict(self, inputs: Any, **options: Any) -> Iterator[Any]:
        """The same, one by one, for any number of pictures: `resnetkit.iter_predict` with this classifier."""
        return _door().iter_predict(self, inputs, **options)

    def evaluate(self, data: Any, **options: Any) -> dict[str, Any]:
        """How good it is on labelled images: `resnetkit.evaluate` with this classifier."""
        return _door().evaluate(self, data, **options)

    @property
    def numbered(self) -> bool:
        """Whether its classes are numbers because nobody has said what they are called."""
        return not self.named and tuple(self.classes) == numbers(len(self.classes))

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) to float32 logits (N, classes); the network is put into evaluation mode.

        Raises `UsageError` (exit code 2) where a head was put on it that has another number of outputs.
        """
        self.network.eval()
        with self.compute.tuned(), self.compute.autocast():
            logits = self.network(self.compute.images(images)).float()
        return self._checked(logits)

    @torch.inference_mode()
    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `logits`, in one pass with what the head was given: float32 features (N, num_features).

        None in their place for a network of the user's own, of which nobody knows what is its head, and for one of ours
        that does something else beside, by a forward of its own or by a hook.
        """
        watched = self.network._forward_hooks or self.network._forward_pre_hooks
        if type(self.network) is not ResNet or watched:
            return self.logits(images), None
        self.network.eval()
        with self.compute.tuned(), self.compute.autocast():
            maps = self.network.forward_features(self.compute.images(images))
            features = self.network.forward_head(maps, pre_logits=True)
            logits = self.network.fc(features).float()
        return self._checked(logits), features.float()

    def outputs_that_fit(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `outputs`; memory that does not suffice for all images is asked for again in halves."""
        try:
            return self.outputs(images)
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(images) == 1:
                raise
        # Outside of the handler the error is gone, and with it what it held on to.
        (one, seen), (other, more) = map(self.outputs_that_fit, images.chunk(2))
        return torch.cat([one, other]), torch.cat([seen, more]) if seen is not None and more is not None else None

    def _checked(self, logits: Tensor) -> Tensor:
        if logits.shape[1] != len(self.classes):
            raise UsageError(
                f"the head has {logits.shape[1]} outputs and there are {len(self.classes)} class names",
                remedy="classifier.classes = [...], in the order of the head",
            )
        return logits

    def folded(self) -> "Classifier":
        """The same for many images: its BatchNorm is folded into the convolutions, as far as the network is ours alone.

        All that answers for an image, `evaluate` and `predict`, asks this one, so that they agree to the bit. It is a
        copy: what is done to the network afterwards changes nothing of it.
        """
        try:
            described(self.network)
        except UsageError:
            return self
        return replace(self, network=fold(self.network))

    @property
    def chunk(self) -> int:
        """Images that are computed together where the answer to one must not depend on its neighbours.

        A function of the device and the size that the network sees alone, so that it is the same for every batch size
        and every rank. A CPU is as fast with few images, and one image alone waits for less.
        """
        look = self.preprocess
        fit = CHUNK_VALUES // (look.channels * look.size**2)
        least, most = (3, 6) if self.device.type == "cpu" else (4, 8)
        return 1 << max(least, min(most, fit.bit_length() - 1))

    def invariant_outputs(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `outputs`, of normalised images (N, C, H, W), but not depending on N: batch-invariant.

        Kernels are chosen by the shape of a batch, and differ in the last bits. Here every batch has `chunk` images,
        the last one filled up with zeros; in one shape the place of an image makes no difference.
        """
        parts = []
        for part in images.split(self.chunk):
            filled = F.pad(part, (0, 0, 0, 0, 0, 0, 0, self.chunk - len(part)))
            logits, features = self.outputs_that_fit(filled)
            parts.append((logits[: len(part)], features[: len(part)] if features is not None else None))
        if not parts:
            return self.outputs(images)
        found = [features for _, features in parts if features is not None]
        return torch.cat([logits for logits, _ in parts]), torch.cat(found) if found else None

    def strangeness(self, logits: Tensor, features: Tensor | None) -> Tensor | None:
        """What `outputs` gives to scores of novelty, float32 (N,) on the CPU: beyond `unknown.threshold` is unknown.

        None where the classifier has no such score, or it is of another network.
        """
        if self.unknown is None or features is None or features.shape[1] != self.unknown.width:
            return None
        return self.unknown.score(features, logits)

    def require_unknown(self) -> Unknown:
        """The score of novelty. Raises `UsageError` (exit code 2) where there is none, with what to do."""
        if self.unknown is None:
            raise UsageError(
                "the model cannot tell what it does not know",
                why="that was not measured, as of weights from elsewhere, or cannot be, of networks of your own",
                remedy="the same without --reject, or a model that `resnetkit train` made",
            )
        return self.unknown

    def probabilities(self, pixels: Tensor) -> Tensor:
        """uint8 pixels as `preprocess` gives them, (N, C, size, size), to calibrated probabilities (N, classes)."""
        return self.calibrated(self.logits(self.preprocess.normalise(self.compute.tensor(pixels))))

    def calibrated(self, logits: Tensor) -> Tensor:
        """Logits (N, classes) to probabilities (N, classes), with the temperature that was fitted."""
        return (logits / self.temperature).softmax(1)

    def ranked(self, logits: Tensor, top: int) -> tuple[Tensor, Tensor]:
        """The `top` classes of logits (N, classes), best first, int64 (N, top), and probabilities (N, classes).

        The order is that of the logits, and of equals that of the classes: probabilities are rounded, and with another
        temperature two of them may become one.
        """
        return logits.sort(dim=1, descending=True, stable=True).indices[:, :top], self.calibrated(logits)

    def save(self, folder: str | Path, *, remember: bool = True) -> Path:
        """Write the artefact, and `remember` where.

        The number of classes is that of the head; where the names are of another number, the classes are numbered, and
        it is said. Raises `UsageError` (exit code 2) where the network was changed by hand so that it would not load
        as it is, before anything is written; `StorageError` (exit code 7).
        """
        folder, arch = Path(folder), self._described()
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}
        if arch is None:
            tensors = {name: value.clone() for name, value in tensors.items()}  # some may be one and the same
        weights = safetensors.torch.save(tensors, metadata={"format": "pt"})
        replace_file(folder / WEIGHTS, weights)
        about = self._config(arch, sha256(weights))
        if self.unknown is not None and arch is not None and self.unknown.width == arch.out_widths[-1]:
            novelty = self.unknown.to_bytes()
            replace_file(folder / UNKNOWN, novelty)
            said = {"method": self.unknown.method, "share": self.unknown.share, "sha256": sha256(novelty)}
            about["resnetkit"]["unknown"] = said | {"threshold": self.unknown.threshold}
        config = json.dumps(about, indent=2, ensure_ascii=False)
        if arch is None:
            logger.info("%s: weights alone; whoever loads them needs the network: rk.load(…, network=…)", folder)
        # Of a class folder whose name is not UTF-8 there are lone surrogates, and so escaped JSON has them too.
        replace_file(folder / CONFIG, config.encode(errors="backslashreplace"))
        if remember:
            self.folder = folder
        return folder

    def _described(self) -> Arch | None:
        """The network as it is, with the classes of its head; None for one of the user's own."""
        inside = getattr(self.network, "module", getattr(self.network, "_orig_mod", None))
        if not self.ours and not isinstance(inside, ResNet):
            return None
        arch = described(self.network)
        if len(self.classes) != arch.num_classes:
            logger.warning(
                "the head has %d outputs for %d class names: its classes are numbered, until classifier.classes is set",
                *(arch.num_classes, len(self.classes)),
            )
            self.classes, self.named = numbers(arch.num_classes), False
        if self.preprocess.channels != arch.in_channels:
            raise UsageError(
                f"the preprocessing makes {self.preprocess.channels} channels and the network takes {arch.in_channels}",
                remedy="a Preprocess with mean and std for each channel",
            )
        return arch

    def _config(self, arch: Arch | None, digest: str) -> dict[str, Any]:
        preprocess = self.preprocess
        if arch is None:
            return {"architecture": self.model, "resnetkit": self._own_section(None, digest)}
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
            "resnetkit": self._own_section(asdict(arch), digest),
        }

    def _own_section(self, arch: dict[str, Any] | None, digest: str) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "arch": arch,
            "preprocess": asdict(self.preprocess),
            "classes": self.classes,
            "named": not self.numbered,
            "temperature": self.temperature,
            "recipe": self.recipe,
            "metrics": self.metrics,
            "sha256": digest,
        }


# What a dataclass writes itself names no argument in an error, and says none in one line.
Classifier.__init__ = checked("network", preprocess="resnetkit.Preprocess(…)")(Classifier.__init__)


def _door() -> Any:
    """The package's own front door: what is done with a classifier lies above it, and is not imported from here."""
    return import_module("resnetkit")


def numbers(count: int) -> tuple[str, ...]:
    """What classes are called that nobody has named."""
    return tuple(map(str, range(count)))
