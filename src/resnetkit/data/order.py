"""Which samples a step sees: a pure function of (seed, step)."""

from functools import lru_cache
from itertools import pairwise

import numpy as np

from resnetkit.data.splits import Split
from resnetkit.errors import UsageError
from resnetkit.machine.ranks import ALONE, Ranks
from resnetkit.randomness import permutation

STRETCH = 8192
"""Neighbours in a shard that are shuffled as one: long enough to read few shards at a time."""


BLOCK = 8 * STRETCH
"""Images of about as many are drawn in random order from the stretches that an epoch's order puts together."""


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
    if balanced:
        if split.labels is None:
            raise UsageError(
                "shards cannot be drawn by class", why="their labels are not in memory", remedy="leave it out"
            )
        return BalancedOrder(split.labels.numpy(), batch_size, seed, ranks)
    if split.bounds is not None:
        return BlockOrder(split.bounds, batch_size, seed, ranks)
    return Order(len(split), batch_size, seed, ranks)
