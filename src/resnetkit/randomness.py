"""Randomness as a function, never a state: every draw is computed from a seed and from what it is for.

A run that is stopped and resumed, or fed by another number of workers, therefore draws the same numbers.
"""

import hashlib
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch


def key(*parts: int | str) -> int:
    """A 63-bit number that depends on all `parts` and on nothing else."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def uniform(seed: int, use: str, epochs: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), shape (N,): one for each (epoch, sample index), whatever else is in the batch.

    `use` names the decision ("flip", "crop-x"), so that decisions are independent of one another. The mixing steps are
    those of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    """
    with np.errstate(over="ignore"):
        z = np.uint64(key(seed, use)) + indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        for step in (epochs.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03), np.uint64(0)):
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = (z ^ (z >> np.uint64(31))) + step
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, epoch: int, count: int, *part: int | str) -> np.ndarray:
    """The order in which an epoch, or a `part` of it, visits its `count` samples, shape (count,)."""
    return np.random.Generator(np.random.PCG64(key(seed, "order", epoch, *part))).permutation(count)


@contextmanager
def torch_seed(*parts: int | str) -> "Iterator[torch.Generator]":
    """Run library code that draws from PyTorch's global CPU state, seeded by `parts`; the old state comes back."""
    import torch

    with torch.random.fork_rng(devices=[]):
        yield torch.manual_seed(key(*parts))


@contextmanager
def every_seed(*parts: int | str) -> "Iterator[None]":
    """As `torch_seed`, for code that may also draw from Python's `random` or from NumPy's global state."""
    before, numpy_before = random.getstate(), np.random.get_state()
    with torch_seed(*parts):
        random.seed(key(*parts))
        np.random.seed(key(*parts) % 2**32)
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(numpy_before)
