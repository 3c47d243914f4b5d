"""Which images a run has seen, so that going on with others is noticed: two numbers for each, of its name and content.

What they are of, each kind of split knows (`Split.entries`).
"""

from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from resnetkit.data.dataset import Data
from resnetkit.machine.storage import replace_file, sha256


class Fingerprint:
    """Names and contents of all images of a set, int64 (N, 2), in the set's order."""

    def __init__(self, entries: np.ndarray) -> None:
        self.entries = entries

    @classmethod
    def of(cls, data: Data) -> "Fingerprint":
        """Of the training and the validation split; the test split decides nothing."""
        root = Path(data.name)
        splits = {"train": data.train, "validation": data.validation}
        parts = [split.entries(name, root) for name, split in splits.items() if split is not None]
        return cls(np.concatenate([np.empty((0, 2), dtype=np.int64), *parts]))

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
