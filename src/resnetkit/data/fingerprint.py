"""Which images a run has seen, so that going on with others is noticed: two numbers for each, of its name and content.

What they are of, each kind of split knows (`Split.entries`).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from resnetkit.data.dataset import Data
from resnetkit.data.splits import Split
from resnetkit.machine.storage import replace_file, sha256

FILE = "images.safetensors"
"""Its name in a run's folder."""
SPLITS = ("train", "validation")
"""The test split decides nothing, so a run has not seen it."""


class Fingerprint:
    """Names and contents of all images of a set, int64 (N, 2), in the set's order."""

    def __init__(self, entries: np.ndarray, contents: Mapping[str, np.ndarray] | None = None) -> None:
        self.entries = entries
        self.contents = dict(contents or {})
        """For "train" and "validation", a number for each image that only its content decides; where it is known."""

    @classmethod
    def of(cls, data: Data) -> "Fingerprint":
        """Of the training and the validation split; the test split decides nothing."""
        splits = {
            name: split for name, split in zip(SPLITS, (data.train, data.validation), strict=True) if split is not None
        }
        parts = [split.entries(name, data.root) for name, split in splits.items()]
        contents = {name: split.contents() for name, split in splits.items()}
        return cls(np.concatenate([np.empty((0, 2), dtype=np.int64), *parts]), contents)

    @classmethod
    def read(cls, file: Path) -> "Fingerprint | None":
        """What `write` wrote; nothing where it is not there or damaged."""
        try:
            found = safetensors.numpy.load(file.read_bytes())
            return cls(found["images"], {name: found[name] for name in SPLITS if name in found})
        except (OSError, KeyError, SafetensorError):
            return None

    def write(self, file: Path, run: str = "") -> None:
        """Keep it, for `difference`, with the identity of the run. Raises `StorageError` (exit code 7)."""
        metadata = {"run": run} if run else None
        replace_file(file, safetensors.numpy.save({"images": self.entries, **self.contents}, metadata))

    def knows(self, split: Split, root: Path) -> dict[str, np.ndarray]:
        """For "train" and "validation", which images of another split are among them, bool (N,).

        A former version kept numbers of names and labels only; they tell as much, where names or labels are the same.
        """
        if self.contents:
            mine = split.contents()
            return {name: np.isin(mine, self.contents.get(name, [])) for name in SPLITS}
        known = set(map(tuple, self.entries.tolist()))
        by_content = {content for _, content in known} if split.pixels is None else set()
        rows = {name: split.entries(name, root).tolist() for name in SPLITS}
        chosen = np.array([tuple(row) in known for row in rows["validation"]], dtype=bool)
        learnt = np.array([tuple(row) in known or row[1] in by_content for row in rows["train"]], dtype=bool)
        return {"train": learnt & ~chosen, "validation": chosen}

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


def run_of(file: Path) -> str:
    """The identity of the run that wrote a fingerprint; empty where it has none, or the file is damaged."""
    try:
        with safe_open(file, "numpy") as images:
            return (images.metadata() or {}).get("run", "")
    except (OSError, SafetensorError):
        return ""
