"""Pairs of pictures that are nearly the same, by their perceptual hashes."""

import numpy as np

MOST_PAIRS = 1_000_000
MOST_COMPARISONS = 2_000_000_000


def near_pairs(hashes: np.ndarray, near: int) -> tuple[np.ndarray, bool]:
    """Positions (N, 2) of all pairs of uint64 hashes that differ in at most `near` bits, and whether that is all.

    Two such hashes agree in one of `near + 1` bands of bits, so only those that share a band are compared. It stops
    at a million pairs or two thousand million comparisons: then the hash does not tell these images apart.
    """
    found, masks, compared, count = [np.empty((0, 2), dtype=np.int64)], [], 0, 0
    for bits in np.array_split(np.arange(64, dtype=np.uint64), near + 1):
        mask = np.bitwise_or.reduce(np.uint64(1) << bits)
        order = np.argsort(hashes & mask, kind="stable")
        ordered = hashes[order]
        # Those of equal bands lie side by side: compare each with its next, then with the one after that, and so on.
        left, step = np.arange(len(hashes)), 1
        while len(left := left[: np.searchsorted(left, len(hashes) - step)]):
            differ = ordered[left] ^ ordered[left + step]
            alike = (differ & mask) == 0
            left, differ = left[alike], differ[alike]
            close = _popcount(differ) <= near
            for earlier in masks:  # a pair that shares two bands counts once
                close &= (differ & earlier) != 0
            pairs = np.stack([order[left[close]], order[left[close] + step]], axis=1)
            found.append(np.sort(pairs, axis=1))
            compared, count, step = compared + len(left), count + len(pairs), step + 1
            if count > MOST_PAIRS or compared > MOST_COMPARISONS:
                return _in_order(found)[:MOST_PAIRS], False
        masks.append(mask)
    return _in_order(found), True


def _in_order(found: list[np.ndarray]) -> np.ndarray:
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _popcount(values: np.ndarray) -> np.ndarray:
    """Set bits of each uint64; `np.bitwise_count` came with NumPy 2, and 1.26 is allowed."""
    odd, pairs, nibbles = (np.uint64(mask) for mask in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F))
    values = values - ((values >> np.uint64(1)) & odd)
    values = (values & pairs) + ((values >> np.uint64(2)) & pairs)
    values = (values + (values >> np.uint64(4))) & nibbles
    return (values * np.uint64(0x0101010101010101)) >> np.uint64(56)
