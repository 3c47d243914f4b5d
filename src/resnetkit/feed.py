"""Batches, on the device, normalised: an endless stream for training, one exact pass for evaluation.

Training sees the epochs' random orders laid end to end and cut into batches of one size. No image is dropped, no batch
is ragged, and step s begins at sample s * batch_size whatever came before, so that a run can start at any step.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from resnetkit.augment import Augment
from resnetkit.data import Files, Images, Split
from resnetkit.device import Compute
from resnetkit.errors import DataError, StorageError
from resnetkit.preprocess import Preprocess, read_image
from resnetkit.randomness import permutation
from resnetkit.ranks import ALONE, Ranks
from resnetkit.signals import DEATHS, leave_signals_to_parent

PATIENCE = "RESNETKIT_WORKER_SECONDS"
"""Environment variable: how long to wait for a process that decodes; ten minutes by default."""
FEW_FILES = 64
"""Below this many files, starting processes to decode them costs more than it saves."""


@dataclass(frozen=True)
class Batch:
    """What one training step sees."""

    images: Tensor
    """Normalised floats, (N, C, H, W), on the device."""
    targets: Tensor
    """What the loss is computed against: labels (N,), or soft targets (N, num_classes) after mixing."""
    labels: Tensor
    """The true classes, (N,)."""


class Order:
    """Which samples a step sees: a pure function of (seed, step).

    `batch_size` counts the images of all ranks; each of them sees a part of every step.
    """

    def __init__(self, count: int, batch_size: int, seed: int, ranks: Ranks = ALONE) -> None:
        self.count, self.seed, self.ranks = count, seed, ranks
        self.batch_size = min(batch_size, count)
        self._cached: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def step(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and sample indices of a step, each of shape (batch_size,)."""
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, places = np.divmod(positions, self.count)
        indices = np.empty(self.batch_size, dtype=np.int64)
        for epoch in np.unique(epochs):
            if self._cached[0] != epoch:
                self._cached = (int(epoch), permutation(self.seed, int(epoch), self.count))
            inside = epochs == epoch
            indices[inside] = self._cached[1][places[inside]]
        return epochs, indices

    def mine(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """What this rank sees of a step: epochs and sample indices, each of shape (batch_size / ranks,)."""
        first, last = (self.batch_size * each // self.ranks.size for each in (self.ranks.rank, self.ranks.rank + 1))
        epochs, indices = self.step(step)
        return epochs[first:last], indices[first:last]

    def ends_epoch(self, step: int) -> bool:
        """Whether the first `step` steps complete an epoch that fewer would not."""
        return step * self.batch_size // self.count > (step - 1) * self.batch_size // self.count


def training_batches(
    split: Split,
    order: Order,
    augment: Augment,
    compute: Compute,
    *,
    start: int,
    stop: int,
    workers: int | None = None,
    unreadable: dict[str, str],
) -> Iterator[Batch]:
    """The batches of steps `start` to `stop`. A file that cannot be decoded is left out and named in `unreadable`."""
    if isinstance(split, Images):
        raw = _from_memory(split, order, augment, compute, start, stop)
    else:
        raw = _from_files(split, order, augment, compute, start, stop, workers, unreadable)
    for step, pixels, labels, epochs, indices in raw:
        pixels = augment.geometry(pixels, epochs, indices)
        images = augment.erase(augment.preprocess.normalise(pixels), epochs, indices)
        images, targets = augment.mix(images, labels, step)
        yield Batch(images, targets, labels)


RawBatch = tuple[int, Tensor, Tensor, np.ndarray, np.ndarray]


def _from_memory(
    split: Images, order: Order, augment: Augment, compute: Compute, start: int, stop: int
) -> Iterator[RawBatch]:
    # Pixels stay where they are drawn from: on an accelerator the whole split is moved there once.
    pixels, labels = compute.tensor(split.pixels), compute.tensor(split.labels)
    for step in range(start, stop):
        epochs, indices = order.mine(step)
        chosen = torch.from_numpy(indices).to(pixels.device)
        batch = pixels[chosen]
        if augment.per_image:
            drawn = zip(batch, epochs.tolist(), indices.tolist(), strict=True)
            batch = torch.stack([augment.pixels(image, epoch, index) for image, epoch, index in drawn])
        else:
            batch = augment.preprocess.batch(batch)
        yield step, batch, labels[chosen], epochs, indices


class _TrainingFiles(Dataset):
    """Decodes the file at (epoch, index); a file that cannot be read comes back as the reason."""

    def __init__(self, split: Files, augment: Augment) -> None:
        self.paths, self.augment = split.paths, augment

    def __getitem__(self, index: tuple[int, int]) -> Tensor | str:
        epoch, number = index
        try:
            image = read_image(self.paths[number], self.augment.preprocess.channels)
        except DataError as error:
            return error.why or error.what
        return self.augment.image(image, epoch, number)


class _EvaluationFiles(Dataset):
    def __init__(self, split: Files, preprocess: Preprocess) -> None:
        self.paths, self.preprocess = split.paths, preprocess

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return self.preprocess.read(self.paths[index])
        except DataError as error:
            return error.why or error.what


Decoded = tuple[Tensor, dict[int, str]]
"""The images of a batch that could be read, (N, C, H, W), and of the others the place in it and the reason."""


def _in_one_piece(items: list[Tensor | str]) -> Decoded:
    """One tensor for a batch: each takes an open file on its way from the process that decodes it."""
    good = [item for item in items if isinstance(item, Tensor)]
    bad = {place: item for place, item in enumerate(items) if isinstance(item, str)}
    return torch.stack(good) if good else torch.empty(0), bad


def _loader(
    dataset: Dataset, batches: "Sampler[list] | list[list[int]]", count: int, workers: int | None
) -> Iterator[Decoded]:
    """What a loader gives. Raises `StorageError` (exit code 7) where a process that decodes has died or hangs."""
    if workers is None:
        workers = 0 if count < FEW_FILES else min(os.cpu_count() or 1, 8)
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_in_one_piece,
        worker_init_fn=leave_signals_to_parent,
        timeout=float(os.environ.get(PATIENCE, "600")) if workers else 0,
    )
    batches_left = iter(loader)  # from here on PyTorch watches its processes
    try:
        with DEATHS.postponed():
            while True:
                with DEATHS.told():
                    decoded = next(batches_left, None)
                if decoded is None:
                    return
                yield decoded
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader" not in str(error):
            raise
        raise StorageError(
            "a process that decodes images has died or hangs",
            why=" ".join(str(error).split())[:160],
            remedy="fewer of them with --data.workers, more shared memory (--shm-size) in a container; then --resume",
        ) from error


class _Places(Sampler[list]):
    """The (epoch, index) pairs of every step, for a loader."""

    def __init__(self, order: Order, start: int, stop: int) -> None:
        self.order, self.start, self.stop = order, start, stop

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.stop):
            epochs, indices = self.order.mine(step)
            yield list(zip(epochs.tolist(), indices.tolist(), strict=True))

    def __len__(self) -> int:
        return self.stop - self.start


def _from_files(
    split: Files,
    order: Order,
    augment: Augment,
    compute: Compute,
    start: int,
    stop: int,
    workers: int | None,
    unreadable: dict[str, str],
) -> Iterator[RawBatch]:
    loader = _loader(_TrainingFiles(split, augment), _Places(order, start, stop), len(split), workers)
    for step, (images, bad) in zip(range(start, stop), loader, strict=True):
        epochs, indices = order.mine(step)
        good = _sort_out(bad, indices, split, unreadable)
        if not len(good):
            raise DataError("no image of a whole batch can be read", file=split.paths[int(indices[0])])
        pixels = compute.tensor(images)
        epochs, indices = epochs[good], indices[good]
        yield step, pixels, compute.tensor(split.labels[torch.from_numpy(indices)]), epochs, indices


def _sort_out(bad: dict[int, str], indices: np.ndarray, split: Files, unreadable: dict[str, str]) -> np.ndarray:
    """Name the files that could not be read; give the places of the others."""
    for place, why in bad.items():
        unreadable[str(split.paths[int(indices[place])])] = why
    return np.array([place for place in range(len(indices)) if place not in bad], dtype=np.int64)


def evaluation_batches(
    split: Split,
    preprocess: Preprocess,
    compute: Compute,
    *,
    batch_size: int,
    workers: int | None = None,
    unreadable: dict[str, str],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once, in order: normalised images (N, C, H, W) and labels (N,), on the device."""
    chunks = [np.arange(i, min(i + batch_size, len(split))) for i in range(0, len(split), batch_size)]
    if isinstance(split, Images):
        for chunk in chunks:
            part = split.take(chunk)
            pixels = preprocess.batch(compute.tensor(part.pixels))
            yield preprocess.normalise(pixels), compute.tensor(part.labels)
        return
    loader = _loader(_EvaluationFiles(split, preprocess), [chunk.tolist() for chunk in chunks], len(split), workers)
    for chunk, (images, bad) in zip(chunks, loader, strict=True):
        good = _sort_out(bad, chunk, split, unreadable)
        if len(good):
            pixels = compute.tensor(images)
            yield preprocess.normalise(pixels), compute.tensor(split.labels[torch.from_numpy(chunk[good])])
