"""What a frozen backbone says of images: computed once an image, kept on disk, and read from there the next time.

A store is one file of records of one size: the image's SHA-256, a checksum, its features. It is named by everything
that the features depend on besides the image (weights, preprocessing, views), is only ever appended to, and is safe to
delete.
"""

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from resnetkit.data.splits import Split
from resnetkit.errors import DataError
from resnetkit.images.preprocess import Preprocess, to_tensor
from resnetkit.machine.device import Compute, one_thread
from resnetkit.networks.resnet import ResNet
from resnetkit.randomness import key
from resnetkit.transfer.backbone import Engine, batch_size, create_engine
from resnetkit.transfer.store import Store, default_store

DECODERS = 16
"""Threads at most that decode for an accelerator."""
CROP_AREA, CROP_RATIO = (0.35, 1.0), math.log(4 / 3)
"""Of a random crop: its share of the image, and the logarithm of width by height at most."""


@dataclass(frozen=True)
class Views:
    """As what an image is shown to the backbone: as it is, mirrored, and in `crops` random crops of it."""

    mirror: bool = False
    crops: int = 0

    @property
    def count(self) -> int:
        """Views of each image."""
        return 1 + self.mirror + self.crops

    def of(self, image: Image.Image, preprocess: Preprocess, digest: str) -> Tensor:
        """uint8 pixels, (count, C, size, size). Random crops depend on the image's content alone."""
        centre = preprocess.pixels(image)
        views = [centre] + ([centre.flip(2)] if self.mirror else [])
        return torch.stack(
            [*views, *(_crop(image, preprocess.size, key("view", n, digest)) for n in range(self.crops))]
        )


def _crop(image: Image.Image, size: int, seed: int) -> Tensor:
    """A random part of the image, mirrored every second time, as uint8 (C, size, size)."""
    draw = np.random.Generator(np.random.PCG64(seed))
    width, height = image.size
    root = math.sqrt(width * height * draw.uniform(*CROP_AREA))
    stretch = math.sqrt(math.exp(draw.uniform(-CROP_RATIO, CROP_RATIO)))
    across, down = min(width, root * stretch), min(height, root / stretch)
    left, top = draw.uniform(0, width - across), draw.uniform(0, height - down)
    box = (left, top, left + across, top + down)
    view = to_tensor(image.resize((size, size), Image.Resampling.BILINEAR, box))
    return view.flip(2) if draw.uniform() < 0.5 else view


@dataclass(frozen=True)
class Features:
    """Features of the images that could be read; `values` is (N, views, width), float32."""

    values: np.ndarray
    labels: np.ndarray
    files: tuple[str, ...]
    computed: int
    """Images that were not in the store."""
    by: str = ""
    """What computed them, for people; empty where nothing was computed."""
    lost: dict[str, str] = field(default_factory=dict)
    """Files that could not be read, and why."""


def extract(
    network: ResNet,
    preprocess: Preprocess,
    split: Split,
    compute: Compute,
    *,
    views: Views = Views(),
    store: Path | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Features:
    """Features of every image of a split, (N, views, width), from the store where they are there.

    The network is only read. Threads take some images each, read and look them up, decode and compute those that are
    new. `progress` gets the number of images so far.
    """
    width = network.fc.in_features
    records = Store(store or default_store(), _key(network, preprocess, views, compute), views.count, width)
    values = np.empty((len(split), views.count, width), dtype=np.float32)
    good: list[int] = []
    lost: dict[str, str] = {}
    with one_thread() as threads:
        workers = threads if compute.device.type == "cpu" else min(os.cpu_count() or 1, DECODERS)
        # Every image that is known has a record; the others are new, or were seen under another name.
        new = max(0, len(split) - len(records.rows)) * views.count
        batch = batch_size(compute, preprocess.size, len(split) * views.count, workers)
        engine = _Once(lambda: create_engine(network, preprocess, compute, views=new, batch=batch, workers=workers))
        for positions, rows in _extracted(split, preprocess, views, records, engine, batch, workers):
            for position, row in zip(positions, rows, strict=True):
                if isinstance(row, str):
                    lost[split.name(position)] = row
                else:
                    values[position] = row
                    good.append(position)
            progress(positions[-1] + 1)
    computed = records.write()
    chosen = np.array(good, dtype=np.int64)
    by = f"{engine.made.name} in {compute.precision}" if engine.made is not None else ""
    labels, files = split.labels_at(chosen).numpy(), tuple(map(split.name, good))
    return Features(values[chosen], labels, files, computed, by, lost)


def join(parts: Sequence[Features]) -> Features:
    """Several splits' features as one."""
    return Features(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.labels for part in parts]),
        tuple(file for part in parts for file in part.files),
        sum(part.computed for part in parts),
        next((part.by for part in parts if part.by), ""),
        {file: why for part in parts for file, why in part.lost.items()},
    )


class _Once:
    """Makes the engine when the first batch needs it: a run that finds everything in the store needs none."""

    def __init__(self, make: Callable[[], Engine]) -> None:
        self.make, self.lock = make, Lock()
        self.made: Engine | None = None

    def __call__(self, pixels: Tensor) -> np.ndarray:
        with self.lock:
            if self.made is None:
                self.made = self.make()
        return self.made(pixels)


def _extracted(
    split: Split, preprocess: Preprocess, views: Views, records: Store, engine: _Once, batch: int, workers: int
) -> Iterator[tuple[range, list[np.ndarray | str]]]:
    """Positions, and for each of them its features (views, width) or why it cannot be read; in order."""

    def work(positions: range) -> list[np.ndarray | str]:
        rows: list[np.ndarray | str] = []
        new: list[tuple[int, str, Tensor]] = []
        for place, position in enumerate(positions):
            digest, found = _look_up(split, position, preprocess, views, records)
            if isinstance(found, Tensor):
                new.append((place, digest, found))
                rows.append("")
            else:
                rows.append(found)
        if new:
            pixels = torch.cat([shown for _, _, shown in new])
            answers = np.concatenate([engine(part) for part in pixels.split(batch)])
            for (place, digest, _), row in zip(new, answers.reshape(len(new), *records.shape), strict=True):
                rows[place] = row
                records.add(digest, row)
        return rows

    share = max(1, batch // views.count)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[range, Future]] = deque()
        for start in range(0, len(split), share):
            positions = range(start, min(start + share, len(split)))
            waiting.append((positions, pool.submit(work, positions)))
            if len(waiting) > 2 * workers:
                done, rows = waiting.popleft()
                yield done, rows.result()
        for done, rows in waiting:
            yield done, rows.result()


def _look_up(
    split: Split, position: int, preprocess: Preprocess, views: Views, records: Store
) -> tuple[str, np.ndarray | Tensor | str]:
    """An image's SHA-256, and its stored features, or its views, or why it cannot be read."""
    try:
        content = split.content(position)
        digest = hashlib.sha256(content).hexdigest()
        known = records.find(digest)
        if known is not None:
            return digest, known
        views_of = partial(views.of, preprocess=preprocess, digest=digest)
        return digest, split.with_image(position, views_of, preprocess.channels, content)
    except DataError as error:
        return "", error.reason


def _key(network: ResNet, preprocess: Preprocess, views: Views, compute: Compute) -> str:
    """What the features depend on. The engine is not part of it: in one precision, engines differ by rounding only."""
    state = hashlib.sha256(repr((network.arch, preprocess, views, compute.precision, torch.__version__)).encode())
    tensors = [(name, value) for name, value in network.state_dict().items() if not name.startswith("fc.")]

    def digest(tensor: Tensor) -> bytes:
        return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().data).digest()

    with ThreadPoolExecutor() as pool:
        for (name, _), found in zip(tensors, pool.map(digest, (value for _, value in tensors)), strict=True):
            state.update(name.encode() + found)
    return state.hexdigest()[:32]
