"""The features that are kept on disk."""

import zlib
from pathlib import Path

import numpy as np
from filelock import FileLock

from resnetkit.machine.storage import user_cache


def default_store() -> Path:
    """The folder of the stores, in the user's cache."""
    return user_cache() / "features"


class Store:
    """The records of one key. Damaged or half-written ones are passed over, and the images computed again."""

    def __init__(self, folder: Path, key: str, views: int, width: int) -> None:
        self.path, self.shape = folder / f"{key}.bin", (views, width)
        self.record = np.dtype([("image", "V32"), ("checksum", "<u4"), ("features", "<f4", self.shape)])
        self.fresh: list[bytes] = []
        count = self.path.stat().st_size // self.record.itemsize if self.path.exists() else 0
        self.records = np.memmap(self.path, dtype=self.record, mode="r", shape=(count,)) if count else ()
        self.rows = {bytes(self.records[row]["image"]).hex(): row for row in range(count)}

    def find(self, digest: str) -> np.ndarray | None:
        """The features of an image, (views, width), memory-mapped; nothing where they are damaged."""
        row = self.rows.get(digest)
        if row is None:
            return None
        record = self.records[row]
        return record["features"] if zlib.crc32(record["features"].tobytes()) == record["checksum"] else None

    def add(self, digest: str, features: np.ndarray) -> None:
        """Take the features of an image, (views, width), for the next `write`."""
        content = features.astype("<f4").tobytes()
        self.fresh.append(bytes.fromhex(digest) + zlib.crc32(content).to_bytes(4, "little") + content)

    def write(self) -> int:
        """Append what is new, and say how many. A cache that cannot be written costs time, and no more."""
        count = len(self.fresh)
        if not count:
            return 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock"), self.path.open("ab") as stream:
                # A process that was killed may have left part of a record: the next one starts on a boundary.
                stream.truncate(stream.tell() // self.record.itemsize * self.record.itemsize)
                stream.write(b"".join(self.fresh))
        except OSError:
            return count
        self.fresh.clear()
        return count
