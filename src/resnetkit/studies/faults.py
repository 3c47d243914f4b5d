"""The tutorials' faults, each as a switch, so that what a fault costs is the fault's alone.

Transfer learning as in the third tutorial (a head on a frozen network, Adam at 0.001, 10 epochs, batches of 15, test
batches of 5), and what the others do to their networks.
"""

import contextlib
import copy
import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from resnetkit.classifier import Classifier
from resnetkit.data.splits import Images
from resnetkit.errors import StorageError
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.device import Compute
from resnetkit.networks.resnet import ResNet
from resnetkit.randomness import permutation, torch_seed

EPOCHS, BATCH, TEST_BATCH, RATE = 10, 15, 5, 1e-3
DIVISOR = 20
"""What the tutorial takes its batches of 15 images for when it divides."""
WHOLE, CENTRE = 256 / 224, 500 / 224
"""Shorter side for each side of the crop: as the networks were trained, and as the tutorial has it."""


@dataclass(frozen=True)
class Faults:
    """What is done as in the tutorial. Without any it is done right."""

    drift: bool = False
    """The network stays in training mode: its BatchNorm goes on collecting statistics, frozen or not."""
    raw: bool = False
    """Pixels reach a pretrained network in 0-1, without the mean and deviation that it was trained with."""
    centre: bool = False
    """Resize(500) and CenterCrop(224): a fifth of a square picture, at twice the scale."""


@dataclass
class HeadTrainer:
    """A network with a new head, in the hands of the tutorial."""

    network: ResNet
    preprocess: Preprocess
    compute: Compute
    faults: Faults
    seed: int

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.network.fc.parameters(), lr=RATE)

    def _seen(self, images: Images) -> Tensor:
        return self.preprocess.normalise(self.preprocess.batch(self.compute.tensor(images.pixels)))

    def _features(self, seen: Tensor) -> Tensor:
        """What a frozen network in evaluation mode makes of images: the same in every epoch, so once is enough."""
        network = self.network.eval()
        with torch.no_grad():
            return torch.cat([network.avgpool(network.forward_features(part)).flatten(1) for part in seen.split(100)])

    def _pass(self, network: nn.Module, seen: Tensor, labels: Tensor, size: int, epoch: int) -> tuple[int, int]:
        """Train on every batch once; how many answers were right before, and how many batches there were."""
        right = steps = 0
        labels = self.compute.tensor(labels)
        for chosen in torch.from_numpy(permutation(self.seed, epoch, len(labels))).split(size):
            logits = network(seen[chosen])
            self.optimizer.zero_grad()
            F.cross_entropy(logits, labels[chosen]).backward()
            self.optimizer.step()
            right += int((logits.argmax(1) == labels[chosen]).sum())
            steps += 1
        return right, steps

    def learn(self, images: Images) -> tuple[float, float]:
        """Train the head, and give the last epoch's accuracy in percent: the true one, and the one that is printed.

        The tutorial prints it as (right answers) / (20 (step + 1)), whatever the batches hold.
        """
        seen, network = self._seen(images), self.network.train()
        if not self.faults.drift:
            seen, network = self._features(seen), self.network.fc
        passes = [self._pass(network, seen, images.labels, BATCH, epoch) for epoch in range(EPOCHS)]
        right, steps = passes[-1]
        return 100 * right / len(images), 100 * right / (steps * DIVISOR)

    def test(self, images: Images) -> float:
        """Accuracy in percent; nothing is learnt."""
        with torch.no_grad():
            logits = self.network.fc(self._features(self._seen(images)))
        return 100 * float((logits.argmax(1).cpu() == images.labels).double().mean())

    def test_and_train(self, images: Images, time: int) -> float:
        """Accuracy in percent as the tutorial's test loop finds it, which trains on every batch once it is scored.

        `time` numbers the passes, each of which has an order of its own.
        """
        seen, network = self._seen(images), self.network.eval()
        right, _ = self._pass(network, seen, images.labels, TEST_BATCH, EPOCHS + time)
        return 100 * right / len(images)

    def unfreeze(self) -> None:
        """From here on every layer learns, not the head alone."""
        for parameter in self.network.parameters():
            parameter.requires_grad = True
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=RATE)


def head_trainer(source: Classifier, classes: int, faults: Faults, *, seed: int) -> HeadTrainer:
    """A copy of a trained network whose layers are frozen, under a new head for `classes` classes."""
    network = copy.deepcopy(source.network)
    for parameter in network.parameters():
        parameter.requires_grad = False
    with torch_seed(seed, "head"):
        network.reset_head(classes)
    preprocess = source.preprocess
    preprocess = replace(preprocess, resize=round(preprocess.size * (CENTRE if faults.centre else WHOLE)))
    if faults.raw:
        preprocess = replace(preprocess, mean=(0.0,) * preprocess.channels, std=(1.0,) * preprocess.channels)
    return HeadTrainer(network, preprocess, source.compute, faults, seed)


def with_old_head(network: ResNet, source: Classifier) -> Classifier:
    """What has become of a trained classifier whose layers `network` has borrowed: those layers, its own old head."""
    back = copy.deepcopy(network)
    back.fc = copy.deepcopy(source.network.fc)
    return replace(source, network=back)


def batchnorm_shift(network: ResNet, source: ResNet) -> float:
    """The largest way that a BatchNorm mean has gone from `source` to `network`, in standard deviations of `source`."""
    ways = [0.0]
    for now, before in zip(network.modules(), source.modules(), strict=True):
        if isinstance(now, nn.BatchNorm2d) and isinstance(before, nn.BatchNorm2d):
            mean, old, spread = (
                each.get_buffer(name)
                for each, name in ((now, "running_mean"), (before, "running_mean"), (before, "running_var"))
            )
            ways.append(float(((mean - old).abs() / (spread + before.eps).sqrt()).max()))
    return max(ways)


def bias_gradient(network: ResNet) -> float:
    """The largest gradient of a bias in front of BatchNorm, as a share of its convolution's: zero but for rounding.

    On 16 images of noise. Zero for a network without biases.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, network.arch.in_channels, 32, 32, generator=generator)
    network = copy.deepcopy(network).cpu().train()
    network(images).logsumexp(1).sum().backward()
    largest = 0.0
    for name, each in network.named_modules():
        if isinstance(each, nn.Conv2d) and "downsample" not in name and each.bias is not None:
            bias, weight = (each.get_parameter(kind).grad for kind in ("bias", "weight"))
            if bias is not None and weight is not None:
                largest = max(largest, float(bias.abs().max() / weight.abs().max()))
    return largest


class PrintingNetwork(nn.Module):
    """A network that prints a shape in its forward pass, as the first tutorial's does."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to logits, and a line on stdout."""
        x = self.network.forward_features(x)
        print(x.shape)  # noqa: T201 - the fault itself
        return self.network.forward_head(x)


def count_graphs(network: nn.Module, images: Tensor) -> int:
    """How many pieces `torch.compile` cuts a network into; one is a network that it understands as a whole."""
    from torch import _dynamo

    with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        _dynamo.reset()
        count = _dynamo.explain(network)(images).graph_count
        _dynamo.reset()
    return count


def accepts(network: ResNet, size: int, window: int | None) -> bool:
    """Whether a network can be given a picture of `size` px in colour, if it pools by a `window` or, none, globally."""
    pool = network.avgpool if window is None else nn.AvgPool2d(window)
    with torch.inference_mode():
        try:
            network.fc(pool(network.forward_features(torch.zeros(1, 3, size, size))).flatten(1))
        except RuntimeError:
            return False
    return True


def classes_of(images: Images, first: int, end: int) -> Images:
    """The images of classes from `first` to below `end`, in colour, the classes numbered from 0."""
    chosen = images.take(np.flatnonzero((images.labels >= first) & (images.labels < end)))
    return replace(chosen, pixels=chosen.pixels.expand(-1, 3, -1, -1), labels=chosen.labels - first)


def write_classes(splits: dict[str, Images], end: int, folder: Path) -> None:
    """The classes below `end` as a folder of pictures, a folder in it for each split: what the product learns from.

    Raises `StorageError` (exit code 7).
    """
    if folder.exists():
        return
    part = folder.with_name(f".{folder.name}")
    try:
        for name, split in splits.items():
            images = classes_of(split, 0, end)
            for number, (pixels, label) in enumerate(zip(images.pixels, images.labels.tolist(), strict=True)):
                file = part / name / str(label) / f"{number:05}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file)
        part.rename(folder)
    except OSError as error:
        raise StorageError.from_os(error, "cannot write the pictures", folder) from error
