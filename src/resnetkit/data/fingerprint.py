"""Which images a run has seen, so that going on with others is noticed: two numbers for each, of its name and content.

Of a file they are its path, and its size, label and both ends, as the scan has seen them: to read a million files again
would take longer than to go on. Of an image in memory, which has no name, they are its pixels and its label.
"""

import zlib
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from resnetkit.data.dataset import Data
from resnetkit.data.shards.read import Shards
from resnetkit.data.splits import Images, Split
from resnetkit.machine.storage import replace_file, sha256
from resnetkit.randomness import key

SPLITS = ("train", "validation", "test")


class Fingerprint:
    """Names and contents of all images of a set, int64 (N, 2), in the set's order."""

    def __init__(self, entries: np.ndarray) -> None:
        self.entries = entries

    @classmethod
    def of(cls, data: Data) -> "Fingerprint":
        """Of the training and the validation split; the test split decides nothing."""
        root = Path(data.name)
        parts = [
            _entries(name, split, root) for name, split in zip(SPLITS, (data.train, data.validation), strict=False)
        ]
        return cls(np.concatenate([part for part in parts if len(part)] or [np.empty((0, 2), dtype=np.int64)]))

    @classmethod
    def read(cls, file: Path) -> "Fingerprint | None":
        """What `write` wrote; nothing where it is not there or damaged."""
        try:
            return cls(safetensors.numpy.load(file.read_bytes())["images"])
        except (OSError, KeyError, SafetensorError):
            return None

    def write(self, file: Path) -> None:
        """Keep it, for `difference`. Raises `StorageError` (exit code 7)."""
        replace_file(file, safetensors.numpy.save({"images": self.entries}))

    @property
    def digest(self) -> str:
        """Equal where the images are."""
        return sha256(self.entries.tobytes())

    def difference(self, before: "Fingerprint") -> str:
        """What has changed since, in words."""
        old, new = dict(before.entries.tolist()), dict(self.entries.tolist())
        counts = {
            "added": len(new.keys() - old.keys()),
            "removed": len(old.keys() - new.keys()),
            "changed": sum(old[name] != new[name] for name in old.keys() & new.keys()),
        }
        return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "their order"


def _entries(name: str, split: Split | None, root: Path) -> np.ndarray:
    if split is None:
        return np.empty((0, 2), dtype=np.int64)
    if isinstance(split, Shards):
        return np.array([(key(name, file.path.name), file.checksum) for file in split.files], dtype=np.int64)
    labels = split.labels.tolist()
    if isinstance(split, Images):
        pixels = (zlib.crc32(image.numpy().tobytes(), len(name)) for image in split.pixels)
        return np.array(list(zip(pixels, labels, strict=True)), dtype=np.int64)
    files = zip(split.paths, labels, split.marks.tolist(), strict=True)
    pairs = [(key(name, _below(path, root)), key(label, mark)) for path, label, mark in files]
    return np.array(pairs, dtype=np.int64)


def _below(path: Path, root: Path) -> str:
    """The path inside the set, so that a set may be moved."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
