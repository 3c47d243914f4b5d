"""Batches, on the device, normalised: an endless stream for training, one exact pass for evaluation.

Training sees the epochs' random orders laid end to end and cut into batches of one size. No image is dropped, no batch
is ragged, and step s begins at sample s * batch_size whatever came before, so that a run can start at any step. Of
several processes that train together, each takes its part of every batch.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from resnetkit.augment import Augment
from resnetkit.device import Compute
from resnetkit.errors import DataError, StorageError, UsageError
from resnetkit.preprocess import Preprocess
from resnetkit.randomness import permutation
from resnetkit.ranks import ALONE, Ranks
from resnetkit.shards import Shards
from resnetkit.signals import DEATHS, leave_signals_to_parent
from resnetkit.splits import Files, Images, Split

PATIENCE = "RESNETKIT_WORKER_SECONDS"
"""Environment variable: how long to wait for a process that decodes; ten minutes by default."""
FEW_FILES = 64
"""Below this many files, starting processes to decode them costs more than it saves."""
STRETCH = 8192
"""Neighbours in a shard that are shuffled as one: long enough to read few shards at a time."""
BLOCK = 8 * STRETCH
"""Images of about as many are drawn in random order from the stretches that an epoch's order puts together."""


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
        """How often each sample of a step has come before, and the samples, each of shape (batch_size,)."""
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, places = np.divmod(positions, self.count)
        rounds, indices = np.empty((2, self.batch_size), dtype=np.int64)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            rounds[inside], indices[inside] = self._drawn(int(epoch), places[inside])
        return rounds, indices

    def mine(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """What this rank sees of a step."""
        rounds, indices = self.step(step)
        share = self.ranks.share(self.batch_size)
        return rounds[share], indices[share]

    def _drawn(self, epoch: int, places: np.ndarray) -> tuple[int | np.ndarray, np.ndarray]:
        """How often the samples at some places of an epoch's order have come before, and the samples."""
        if self._cached[0] != epoch:
            self._cached = (epoch, permutation(self.seed, epoch, self.count))
        return epoch, self._cached[1][places]

    def ends_epoch(self, step: int) -> bool:
        """Whether the first `step` steps complete an epoch that fewer would not."""
        return step * self.batch_size // self.count > (step - 1) * self.batch_size // self.count


class BlockOrder(Order):
    """An order that is never in memory as a whole: stretches of shards are shuffled, then samples in blocks of them.

    `bounds`: where each shard begins, and where the last ends.
    """

    def __init__(self, bounds: np.ndarray, batch_size: int, seed: int, ranks: Ranks = ALONE) -> None:
        super().__init__(int(bounds[-1]), batch_size, seed, ranks)
        begins = [np.arange(low, high, STRETCH) for low, high in pairwise(bounds)]
        self._begins = np.concatenate(begins)
        self._lengths = np.diff(self._begins, append=bounds[-1])
        self._together = max(1, round(BLOCK / self._lengths.mean()))
        # The loader runs ahead of the loop, at most over one border: two blocks are in use, and rarely a third.
        self._block, self._stretches = lru_cache(3)(self._block), lru_cache(2)(self._stretches)

    def _drawn(self, epoch: int, places: np.ndarray) -> tuple[int, np.ndarray]:
        _, ends = self._stretches(epoch)
        blocks = np.searchsorted(ends, places, side="right") // self._together
        indices = np.empty(len(places), dtype=np.int64)
        for block in np.unique(blocks):
            inside = blocks == block
            before = ends[block * self._together - 1] if block else 0
            indices[inside] = self._block(epoch, int(block))[places[inside] - before]
        return epoch, indices

    def _stretches(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The stretches in the order of an epoch, and where each ends in it."""
        order = permutation(self.seed, epoch, len(self._begins), "stretches")
        return order, np.cumsum(self._lengths[order])

    def _block(self, epoch: int, block: int) -> np.ndarray:
        """The samples of a block, in the order of an epoch."""
        order, _ = self._stretches(epoch)
        chosen = order[block * self._together : (block + 1) * self._together]
        samples = np.concatenate([np.arange(self._lengths[each]) + self._begins[each] for each in chosen])
        return samples[permutation(self.seed, epoch, len(samples), "block", block)]


class BalancedOrder(Order):
    """An order in which every class comes equally often; images of a rare class come back the sooner.

    Each class is an endless row of its images, shuffled anew each time round; an epoch takes as many from each row.
    What is drawn for an image depends on how often it has come, not on the epoch.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, seed: int, ranks: Ranks = ALONE) -> None:
        super().__init__(len(labels), batch_size, seed, ranks)
        self.members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self._made = lru_cache(2)(self._made)

    def _drawn(self, epoch: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rounds, indices = self._made(epoch)
        return rounds[places], indices[places]

    def _made(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Rounds and samples of an epoch, in its order."""
        rounds, indices = [], []
        for number, members in enumerate(self.members):
            each = self.count // len(self.members) + (number < self.count % len(self.members))
            places = np.arange(epoch * each, (epoch + 1) * each)
            turns = places // len(members)
            row = [permutation(self.seed, int(turn), len(members), "balanced", number) for turn in np.unique(turns)]
            rounds.append(turns)
            indices.append(members[np.concatenate(row)[places - turns[0] * len(members)]])
        shuffled = permutation(self.seed, epoch, self.count)
        return np.concatenate(rounds)[shuffled], np.concatenate(indices)[shuffled]


def order_of(split: Split, batch_size: int, seed: int, ranks: Ranks = ALONE, *, balanced: bool = False) -> Order:
    """The order in which training sees a split; that of shards does not grow with them.

    Raises `UsageError` (exit code 2) for shards that are to be `balanced`.
    """
    if isinstance(split, Shards):
        if balanced:
            raise UsageError(
                "shards cannot be drawn by class", why="their labels are not in memory", remedy="leave it out"
            )
        return BlockOrder(split.bounds, batch_size, seed, ranks)
    if balanced:
        return BalancedOrder(split.labels.numpy(), batch_size, seed, ranks)
    return Order(len(split), batch_size, seed, ranks)


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
    """This rank's part of the batches of steps `start` to `stop`.

    A file that cannot be decoded is left out and named in `unreadable`.
    """
    places = _Places(order, start, stop)
    if isinstance(split, Images):
        raw = _from_memory(split, places, augment, compute)
    else:
        raw = _from_files(split, places, augment, compute, workers, unreadable)
    for step, pixels, labels, epochs, indices in raw:
        pixels = augment.geometry(pixels, epochs, indices)
        images = augment.erase(augment.preprocess.normalise(pixels), epochs, indices)
        images, targets = augment.mix(images, labels, step)
        yield Batch(images, targets, labels)


RawBatch = tuple[int, Tensor, Tensor, np.ndarray, np.ndarray]


class _Places(Sampler[list]):
    """The samples of every step: (epoch, index) pairs for a loader, arrays for whoever follows it."""

    def __init__(self, order: Order, start: int, stop: int) -> None:
        self.order, self.steps = order, range(start, stop)

    def arrays(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Step, epochs, indices."""
        for step in self.steps:
            yield step, *self.order.mine(step)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for _, epochs, indices in self.arrays():
            yield list(zip(epochs.tolist(), indices.tolist(), strict=True))

    def __len__(self) -> int:
        return len(self.steps)


def _from_memory(split: Images, places: _Places, augment: Augment, compute: Compute) -> Iterator[RawBatch]:
    # Pixels stay where they are drawn from: on an accelerator the whole split is moved there once.
    pixels, labels = compute.tensor(split.pixels), compute.tensor(split.labels)
    for step, epochs, indices in places.arrays():
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

    def __init__(self, split: Files | Shards, augment: Augment) -> None:
        self.split, self.augment = split, augment

    def __getitem__(self, index: tuple[int, int]) -> Tensor | str:
        epoch, number = index
        try:
            image = self.split.image(number, self.augment.preprocess.channels)
        except DataError as error:
            return error.why or error.what
        return self.augment.image(image, epoch, number)


class _EvaluationFiles(Dataset):
    def __init__(self, split: Files | Shards, preprocess: Preprocess, ten_crops: bool) -> None:
        self.split, self.channels = split, preprocess.channels
        self.look = preprocess.ten_crops if ten_crops else preprocess.pixels

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return self.look(self.split.image(index, self.channels))
        except DataError as error:
            return error.why or error.what


Decoded = tuple[Tensor | None, list[int], dict[int, str]]
"""Pixels of the files that could be read, their places in the batch, and why the others could not be."""


def _gather(items: list[Tensor | str]) -> Decoded:
    """One tensor for a whole batch: each that a process hands over costs an open file."""
    good = {place: item for place, item in enumerate(items) if isinstance(item, Tensor)}
    why = {place: item for place, item in enumerate(items) if isinstance(item, str)}
    return torch.stack(list(good.values())) if good else None, list(good), why


def _loader(dataset: Dataset, batches: Sampler[list], count: int, workers: int | None) -> Iterator[Decoded]:
    """What a loader gives. Raises `StorageError` (exit code 7) where a process that decodes has died or hangs."""
    if workers is None:
        workers = 0 if count < FEW_FILES else min(os.cpu_count() or 1, 8)
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_gather,
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


def _from_files(
    split: Files | Shards,
    places: _Places,
    augment: Augment,
    compute: Compute,
    workers: int | None,
    unreadable: dict[str, str],
) -> Iterator[RawBatch]:
    loader = _loader(_TrainingFiles(split, augment), places, len(split), workers)
    for (step, epochs, indices), (pixels, good, why) in zip(places.arrays(), loader, strict=True):
        unreadable |= {split.name(int(indices[place])): reason for place, reason in why.items()}
        if pixels is None:
            raise DataError("no image of a whole batch can be read", file=split.name(int(indices[0])))
        epochs, indices = epochs[good], indices[good]
        yield step, compute.tensor(pixels), compute.tensor(split.labels_at(indices)), epochs, indices


class _InOrder(Sampler[list]):
    """Every sample of a range once, `batch_size` at a time."""

    def __init__(self, samples: range, batch_size: int) -> None:
        self.samples, self.batch_size = samples, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        for begin in range(0, len(self.samples), self.batch_size):
            yield list(self.samples[begin : begin + self.batch_size])

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)


def evaluation_batches(
    split: Split,
    preprocess: Preprocess,
    compute: Compute,
    *,
    batch_size: int,
    workers: int | None = None,
    unreadable: dict[str, str],
    ranks: Ranks = ALONE,
    ten_crops: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image of this rank's part once, in order: normalised (N, C, H, W), and labels (N,), on the device.

    With `ten_crops`, ten crops stand for each image, one after the other: (10 N, C, H, W).
    """
    batches = _InOrder(range(len(split))[ranks.share(len(split))], batch_size)
    if isinstance(split, Images):
        for batch in batches:
            part = split.take(np.array(batch))
            raw = compute.tensor(part.pixels)
            pixels = preprocess.ten_crops_batch(raw).flatten(0, 1) if ten_crops else preprocess.batch(raw)
            yield preprocess.normalise(pixels), compute.tensor(part.labels)
        return
    loader = _loader(_EvaluationFiles(split, preprocess, ten_crops), batches, len(split), workers)
    for batch, (pixels, good, why) in zip(batches, loader, strict=True):
        unreadable |= {split.name(batch[place]): reason for place, reason in why.items()}
        if pixels is not None:
            labels = split.labels_at(np.array(batch)[good])
            pixels = pixels.flatten(0, 1) if ten_crops else pixels
            yield preprocess.normalise(compute.tensor(pixels)), compute.tensor(labels)
