"""What a frozen backbone says of images: computed once an image, kept on disk, and read from there the next time.

A store is one file of records of one size: the image's SHA-256, a checksum, its features. It is named by everything
that the features depend on besides the image (weights, preprocessing, views), is only ever appended to, and is safe to
delete.
"""

import copy
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resnetkit.data import Files, Listed
from resnetkit.device import Compute
from resnetkit.errors import DataError
from resnetkit.model import ResNet
from resnetkit.preprocess import Preprocess, read_image, to_tensor
from resnetkit.randomness import torch_seed

BATCH_SIZE = 32
AHEAD = 4
"""Batches that are decoded while one is computed."""


@dataclass(frozen=True)
class Views:
    """As what an image is shown to the backbone: as it is, mirrored, and in `crops` random crops of it."""

    mirror: bool = True
    crops: int = 0

    @property
    def count(self) -> int:
        """Views of each image."""
        return 1 + self.mirror + self.crops

    def of(self, image: Image.Image, preprocess: Preprocess, digest: str) -> Tensor:
        """uint8 pixels, (count, C, size, size). Random crops depend on the image's content alone."""
        centre = preprocess.pixels(image)
        views = [centre] + ([centre.flip(2)] if self.mirror else [])
        if self.crops:
            from torchvision.transforms import v2

            crop = v2.RandomResizedCrop(preprocess.size, scale=(0.35, 1.0), antialias=True)
            for number in range(self.crops):
                with torch_seed("view", number, digest):
                    view = to_tensor(crop(image))
                    views.append(view.flip(2) if torch.rand(()) < 0.5 else view)
        return torch.stack(views)


@dataclass(frozen=True)
class Features:
    """Features of the images that could be read; `values` is (N, views, width), float32."""

    values: np.ndarray
    labels: np.ndarray
    files: tuple[str, ...]
    computed: int
    """Images that were not in the store."""


def default_store() -> Path:
    """The folder of the stores: RESNETKIT_CACHE, else a folder in the user's cache."""
    root = os.environ.get("RESNETKIT_CACHE")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resnetkit"
    return (Path(root) if root else cache) / "features"


def extract(
    network: ResNet,
    preprocess: Preprocess,
    split: Listed,
    compute: Compute,
    *,
    views: Views = Views(),
    store: Path | None = None,
    unreadable: dict[str, str],
    progress: Callable[[int], None] = lambda _: None,
) -> Features:
    """Features of every image of a split, (N, views, width), from the store where they are there.

    The network is only read: what runs is a copy in evaluation mode, with each BatchNorm folded into the convolution
    before it. Files are decoded by threads while the network computes. A file that cannot be read is left out and named
    in `unreadable`. `progress` gets the number of images so far.
    """
    folded = compute.network(fold(network))
    width = network.fc.in_features
    records = _Store(store or default_store(), _key(network, preprocess, views, compute), views.count, width)
    values = np.empty((len(split), views.count, width), dtype=np.float32)
    good = np.ones(len(split), dtype=bool)
    waiting: list[tuple[int, str, Tensor]] = []
    computed = 0

    def flush() -> None:
        nonlocal computed
        if waiting:
            pixels = torch.cat([view for _, _, view in waiting])
            found = _run(folded, preprocess, compute, pixels).reshape(len(waiting), views.count, width)
            for (position, digest, _), row in zip(waiting, found, strict=True):
                values[position] = row
                records.add(digest, row)
            computed += len(waiting)
            waiting.clear()

    for position, digest, decoded in _decoded(split, preprocess, views, records):
        if isinstance(decoded, np.ndarray):
            values[position] = decoded
        elif isinstance(decoded, Tensor):
            waiting.append((position, digest, decoded))
        else:
            good[position] = False
            if isinstance(split, Files):
                unreadable[str(split.paths[position])] = decoded
        if len(waiting) * views.count >= BATCH_SIZE:
            flush()
        progress(position + 1)
    flush()
    records.write()
    chosen = np.flatnonzero(good)
    files = tuple(str(path) for path in split.paths) if isinstance(split, Files) else tuple(map(str, range(len(split))))
    return Features(values[chosen], split.labels.numpy()[chosen], tuple(files[i] for i in chosen), computed)


def join(parts: Sequence[Features]) -> Features:
    """Several splits' features as one."""
    return Features(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.labels for part in parts]),
        tuple(file for part in parts for file in part.files),
        sum(part.computed for part in parts),
    )


def _run(network: ResNet, preprocess: Preprocess, compute: Compute, pixels: Tensor) -> np.ndarray:
    with torch.inference_mode(), compute.autocast():
        images = preprocess.normalise(compute.tensor(pixels))
        return network.avgpool(network.forward_features(images)).flatten(1).float().cpu().numpy()


Decoded = tuple[int, str, Tensor | np.ndarray | str]


def _decoded(split: Listed, preprocess: Preprocess, views: Views, records: "_Store") -> Iterator[Decoded]:
    """Position and SHA-256 of every image, in order, with its stored features, its views, or why it cannot be read.

    Runs some batches ahead of whoever asks.
    """

    def work(position: int) -> Decoded:
        if not isinstance(split, Files):
            image = split.pixels[position]
            digest = hashlib.sha256(image.numpy().tobytes()).hexdigest()
            picture = Image.fromarray(image.permute(1, 2, 0).numpy().squeeze())
            known = records.find(digest)
            return position, digest, views.of(picture, preprocess, digest) if known is None else known
        path = split.paths[position]
        try:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            known = records.find(digest)
            if known is not None:
                return position, digest, known
            image = read_image(path, preprocess.channels, BytesIO(content))
            return position, digest, views.of(image, preprocess, digest)
        except OSError as error:
            return position, "", error.strerror or str(error)
        except DataError as error:
            return position, "", error.why or error.what

    with ThreadPoolExecutor() as pool:
        window: list[Future] = []
        for position in range(len(split)):
            window.append(pool.submit(work, position))
            if len(window) > AHEAD * BATCH_SIZE:
                yield window.pop(0).result()
        for future in window:
            yield future.result()


def fold(network: ResNet) -> ResNet:
    """A copy for inference: every BatchNorm behind a convolution is folded into it, which is exact up to rounding."""
    folded = copy.deepcopy(network).eval()
    for parent in folded.modules():
        before: tuple[str, nn.Conv2d] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                before = (name, child)
            elif isinstance(child, nn.BatchNorm2d) and before is not None and _follows(network, before[1], child):
                parent.add_module(before[0], fuse_conv_bn_eval(before[1], child))
                parent.add_module(name, nn.Identity())
                before = None
    return folded


def _follows(network: ResNet, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """In the order of the second paper, BatchNorm stands in front of its convolution and cannot be folded into it."""
    return not network.arch.preactivation and conv.out_channels == norm.num_features


def _key(network: ResNet, preprocess: Preprocess, views: Views, compute: Compute) -> str:
    state = hashlib.sha256(repr((network.arch, preprocess, views, compute.precision, torch.__version__)).encode())
    for name, tensor in network.state_dict().items():
        if not name.startswith("fc."):
            state.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()[:32]


class _Store:
    """The records of one key. Damaged or half-written ones are passed over, and the images computed again."""

    def __init__(self, folder: Path, key: str, views: int, width: int) -> None:
        self.path, self.shape = folder / f"{key}.bin", (views, width)
        self.record = np.dtype([("image", "V32"), ("checksum", "<u4"), ("features", "<f4", self.shape)])
        self.fresh: list[bytes] = []
        count = self.path.stat().st_size // self.record.itemsize if self.path.exists() else 0
        self.records = np.memmap(self.path, dtype=self.record, mode="r", shape=(count,)) if count else ()
        self.rows = {bytes(self.records[row]["image"]).hex(): row for row in range(count)}

    def find(self, digest: str) -> np.ndarray | None:
        """The features of an image, (views, width), memory-mapped; nothing where they are damaged."""
        row = self.rows.get(digest)
        if row is None:
            return None
        record = self.records[row]
        return record["features"] if zlib.crc32(record["features"].tobytes()) == record["checksum"] else None

    def add(self, digest: str, features: np.ndarray) -> None:
        content = features.astype("<f4").tobytes()
        self.fresh.append(bytes.fromhex(digest) + zlib.crc32(content).to_bytes(4, "little") + content)

    def write(self) -> None:
        """Append what is new. A cache that cannot be written costs time the next time, and nothing else."""
        if not self.fresh:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock"), self.path.open("ab") as stream:
                # A process that was killed may have left part of a record: the next one starts on a boundary.
                stream.truncate(stream.tell() // self.record.itemsize * self.record.itemsize)
                stream.write(b"".join(self.fresh))
        except OSError:
            return
        self.fresh.clear()
