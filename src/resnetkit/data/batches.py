"""Batches, on the device, normalised: an endless stream for training, one exact pass for evaluation.

Training sees the epochs' random orders laid end to end and cut into batches of one size. No image is dropped, no batch
is ragged, and step s begins at sample s * batch_size whatever came before, so that a run can start at any step. Of
several processes that train together, each takes its part of every batch.
"""

import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from resnetkit.data.order import Order
from resnetkit.data.splits import Split
from resnetkit.data.unreadable import whole_batch_lost
from resnetkit.errors import DataError, StorageError, UsageError
from resnetkit.images.augment import Augment
from resnetkit.images.preprocess import Preprocess, to_image
from resnetkit.images.protocol import ONE_VIEW, ViewProtocol, Views
from resnetkit.machine.device import Compute
from resnetkit.machine.ranks import ALONE, Ranks
from resnetkit.machine.signals import DEATHS, leave_signals_to_parent
from resnetkit.machine.spawning import leave_if_imported, refuse_unguarded

PATIENCE = "RESNETKIT_WORKER_SECONDS"
"""Environment variable: how long to wait for a process that decodes; ten minutes by default."""
FEW_FILES = 64
"""Below this many files, starting processes to decode them costs more than it saves."""
AHEAD = 2
"""Batches that each process decodes in advance; as many lie in shared memory, and the one that is being used."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - nothing is written there by us
SPARE = 2**17
"""Bytes of it for queues and locks."""

logger = logging.getLogger("resnetkit")


@dataclass(frozen=True)
class Batch:
    """What one training step sees."""

    images: Tensor
    """Normalised floats, (N, C, H, W), on the device."""
    targets: Tensor
    """What the loss is computed against: labels (N,), or soft targets (N, num_classes) after mixing."""
    labels: Tensor
    """The true classes, (N,)."""
    lost: dict[str, str] = field(default_factory=dict)
    """Files that belong to the step and could not be read, and why."""


@dataclass(frozen=True)
class EvaluationBatch:
    """Images to be judged, in the order of their split; none where no file of the batch could be read."""

    images: Tensor
    """Normalised floats, (N, C, H, W), on the device; none where there are `views`."""
    labels: Tensor
    """(N,), on the device."""
    lost: dict[str, str] = field(default_factory=dict)
    """Files of the batch that could not be read, and why."""
    views: tuple[Views, ...] = ()
    """Of N images what is shown of each, where that is not one view."""


def training_batches(
    split: Split,
    order: Order,
    augment: Augment,
    compute: Compute,
    *,
    start: int,
    stop: int,
    workers: int | None = None,
) -> Iterator[Batch]:
    """This rank's part of the batches of steps `start` to `stop`.

    A file that cannot be decoded is left out of its batch, which names it.
    Raises `DataError` (exit code 3) where nothing of a batch is left.
    """
    places = _Places(order, start, stop)
    if split.pixels is not None:
        raw = _from_memory(split, split.pixels, places, augment, compute)
    else:
        raw = _from_files(split, places, augment, compute, workers)
    for step, pixels, labels, epochs, indices, lost in raw:
        pixels = augment.geometry(pixels, epochs, indices)
        images = augment.erase(augment.preprocess.normalise(pixels), epochs, indices)
        images, targets = augment.mix(images, labels, step)
        yield Batch(images, targets, labels, lost)


RawBatch = tuple[int, Tensor, Tensor, np.ndarray, np.ndarray, dict[str, str]]
"""Step, uint8 pixels, labels, epochs and indices of the images that could be read, and why the others could not be."""


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


def _from_memory(
    split: Split, pixels: Tensor, places: _Places, augment: Augment, compute: Compute
) -> Iterator[RawBatch]:
    # Pixels stay where they are drawn from: on an accelerator the whole split is moved there once.
    pixels, labels = compute.tensor(pixels), compute.tensor(split.labels_at(np.arange(len(split))))
    for step, epochs, indices in places.arrays():
        chosen = torch.from_numpy(indices).to(pixels.device)
        batch = pixels[chosen]
        if augment.per_image:
            drawn = zip(batch, epochs.tolist(), indices.tolist(), strict=True)
            batch = torch.stack([augment.pixels(image, epoch, index) for image, epoch, index in drawn])
        else:
            batch = augment.preprocess.batch(batch)
        yield step, batch, labels[chosen], epochs, indices, {}


class _TrainingFiles(Dataset):
    """Decodes the file at (epoch, index); a file that cannot be read comes back as the reason.

    So does what is wrong with an augmentation, as the error itself: raised in a process of its own it would lose its
    words on the way.
    """

    def __init__(self, split: Split, augment: Augment) -> None:
        self.split, self.augment = split, augment

    def __getitem__(self, index: tuple[int, int]) -> Tensor | str | UsageError:
        epoch, number = index
        try:
            return self.augment.image(self.split.image(number, self.augment.preprocess.channels), epoch, number)
        except DataError as error:
            return error.reason
        except UsageError as error:
            return error


class _EvaluationFiles(Dataset):
    def __init__(self, split: Split, preprocess: Preprocess, protocol: ViewProtocol) -> None:
        self.split, self.preprocess, self.protocol = split, preprocess, protocol

    def __getitem__(self, index: int) -> Tensor | Views | str:
        try:
            image = self.split.image(index, self.preprocess.channels)
            if self.protocol.plain:
                return self.preprocess.pixels(image)
            return self.protocol.views(image, self.preprocess)
        except DataError as error:
            return error.reason


@dataclass(frozen=True)
class _Decoded:
    """A batch of files as a process hands it over: one tensor, for each costs an open file."""

    pixels: Tensor | None
    """Of the files that could be read: stacked, or of views all numbers in a row."""
    shapes: tuple[tuple[torch.Size, ...], ...]
    """Of the views of each of them; nothing where there is one view."""
    good: list[int]
    """Their places in the batch."""
    why: dict[int, str]
    """Why the others could not be read."""

    def views(self) -> tuple[Views, ...]:
        """The views again, of each file."""
        if self.pixels is None:
            return ()
        parts = iter(self.pixels.split([shape.numel() for shapes in self.shapes for shape in shapes]))
        return tuple(tuple(next(parts).view(shape) for shape in shapes) for shapes in self.shapes)


def _gather(items: list[Tensor | Views | str | UsageError]) -> _Decoded | UsageError:
    """A batch as one."""
    for item in items:
        if isinstance(item, UsageError):
            return item
    why = {place: item for place, item in enumerate(items) if isinstance(item, str)}
    good = [place for place in range(len(items)) if place not in why]
    stacked = [item for item in items if isinstance(item, Tensor)]
    shown = [item for item in items if isinstance(item, tuple)]
    flat = [group.flatten() for views in shown for group in views]
    pixels = torch.stack(stacked) if stacked else torch.cat(flat) if flat else None
    return _Decoded(pixels, tuple(tuple(group.shape for group in views) for views in shown), good, why)


def workers_that_fit(workers: int, batch_bytes: int) -> int:
    """As many processes as the shared memory has room for the batches of; where there are fewer, a note says why.

    Where it is too small PyTorch waits for ever, or its processes die of a bus error.
    """
    if not workers or sys.platform != "linux":
        return workers
    try:
        room = os.statvfs(SHARED_MEMORY)
    except OSError:
        return workers
    free = room.f_bavail * room.f_frsize
    fit = max(0, ((free - SPARE) // batch_bytes - 1) // AHEAD)
    if fit >= workers:
        return workers
    _say_too_small(workers, fit)
    return fit


@cache
def _say_too_small(workers: int, fit: int) -> None:
    logger.warning(
        "%s is too small for %d processes that decode: %s; "
        "more with --shm-size in a container, or say --data.workers %d",
        SHARED_MEMORY,
        workers,
        f"{fit} of them decode" if fit else "this one decodes",
        fit,
    )


def _loader(
    dataset: Dataset, batches: Sampler[list], count: int, workers: int | None, batch_bytes: int, *, pin: bool
) -> Iterator[_Decoded]:
    """What a loader gives; with `pin` in memory from which a GPU copies while it computes.

    Raises `StorageError` (exit code 7) where a process that decodes has died or hangs, `UsageError` (exit code 2) where
    each of them would run the user's script again, and for an augmentation that fails.
    """
    leave_if_imported()
    if workers is None:
        workers = 0 if count < FEW_FILES else min(os.cpu_count() or 1, 8)
    workers = workers_that_fit(workers, batch_bytes)
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        collate_fn=_gather,
        pin_memory=pin,
        worker_init_fn=leave_signals_to_parent,
        timeout=float(os.environ.get(PATIENCE, "600")) if workers else 0,
    )
    batches_left = iter(loader)  # from here on PyTorch watches its processes
    helpers = multiprocessing.active_children()
    try:
        with DEATHS.postponed():
            while True:
                with DEATHS.told():
                    decoded = next(batches_left, None)
                if decoded is None:
                    return
                if isinstance(decoded, UsageError):
                    raise decoded
                yield decoded
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and not any(each in str(error) for each in ("DataLoader", "Pin memory")):
            raise
        refuse_unguarded(helpers)
        raise StorageError(
            "a process that decodes images has died or hangs",
            why=" ".join(str(error).split())[:160],
            remedy="fewer of them with --data.workers, more shared memory (--shm-size) in a container; then --resume",
        ) from error


def _from_files(
    split: Split, places: _Places, augment: Augment, compute: Compute, workers: int | None
) -> Iterator[RawBatch]:
    order = places.order
    batch_bytes = -(-order.batch_size // order.ranks.size) * _bytes_of(augment.preprocess)
    loader = _loader(_TrainingFiles(split, augment), places, len(split), workers, batch_bytes, pin=compute.pins)
    for (step, epochs, indices), decoded in zip(places.arrays(), loader, strict=True):
        lost = {split.name(int(indices[place])): reason for place, reason in decoded.why.items()}
        if decoded.pixels is None:
            raise whole_batch_lost(lost)
        epochs, indices = epochs[decoded.good], indices[decoded.good]
        yield step, compute.tensor(decoded.pixels), compute.tensor(split.labels_at(indices)), epochs, indices, lost


def _bytes_of(preprocess: Preprocess) -> int:
    return preprocess.channels * preprocess.size**2


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
    ranks: Ranks = ALONE,
    protocol: ViewProtocol = ONE_VIEW,
) -> Iterator[EvaluationBatch]:
    """Every image of this rank's part once, in order; `batch_size` of them at a time, but for those that are lost.

    `preprocess` is what `protocol` makes of the classifier's. Views are uint8 and not on the device.
    """
    batches = _InOrder(range(len(split))[ranks.share(len(split))], batch_size)
    nothing = torch.empty(0, preprocess.channels, preprocess.size, preprocess.size)
    if split.pixels is not None:
        for batch in batches:
            chosen = np.array(batch)
            raw = compute.tensor(split.pixels[torch.from_numpy(chosen)])
            labels = compute.tensor(split.labels_at(chosen))
            if protocol.plain:
                yield EvaluationBatch(preprocess.normalise(preprocess.batch(raw)), labels)
                continue
            views = tuple(protocol.views(to_image(picture), preprocess) for picture in raw.cpu())
            yield EvaluationBatch(nothing, labels, views=views)
        return
    batch_bytes = min(batch_size, len(split)) * protocol.values(preprocess)
    dataset = _EvaluationFiles(split, preprocess, protocol)
    loader = _loader(dataset, batches, len(split), workers, batch_bytes, pin=compute.pins)
    for batch, decoded in zip(batches, loader, strict=True):
        labels = compute.tensor(split.labels_at(np.array(batch)[decoded.good]))
        lost = {split.name(batch[place]): reason for place, reason in decoded.why.items()}
        if decoded.pixels is None or not protocol.plain:
            yield EvaluationBatch(compute.tensor(nothing), labels, lost, decoded.views())
        else:
            yield EvaluationBatch(preprocess.normalise(compute.tensor(decoded.pixels)), labels, lost)
