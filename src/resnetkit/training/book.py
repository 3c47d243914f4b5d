"""What a sweep remembers: every row that has ended, and what was opened. One file, replaced as a whole."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from resnetkit.errors import CheckpointError, DataError, UsageError
from resnetkit.machine import documents
from resnetkit.machine.csvfile import csv_line
from resnetkit.machine.storage import replace_file, sweep
from resnetkit.training.grid import Row, worded
from resnetkit.training.ranking import Scored, Standing

FILE, TABLE = "sweep.json", "rows.csv"


@dataclass
class Book:
    """The rows of a sweep, on the disk after every change."""

    folder: Path
    kept: dict[str, Any] = field(default_factory=lambda: {"rows": {}, "opened": [], "test": {}})

    @classmethod
    def open(cls, folder: Path) -> "Book":
        """That of a folder. Raises `UsageError` (exit code 2) where the folder holds something else."""
        file = folder / FILE
        if file.is_file():
            try:
                kept = documents.parse_json(documents.read_bounded(file, documents.MOST_BYTES))
                missing = {"rows", "opened", "test", "images"} - kept.keys()
            except (OSError, ValueError, AttributeError) as error:
                raise CheckpointError("the sweep's book is damaged", file=file, remedy="another --out") from error
            if missing:
                raise CheckpointError("the sweep's book is damaged", file=file, why=f"no {min(missing)}")
            return cls(folder, kept)
        if folder.exists() and not folder.is_dir():
            raise UsageError("the sweep's folder cannot be made", file=folder, why="it is a file", remedy="another")
        if folder.is_dir() and any(not child.name.startswith(".") for child in folder.iterdir()):
            raise UsageError("the output folder holds other files", file=folder, remedy="another --out")
        return cls(folder)

    def begin(self, data: str, images: str) -> None:
        """Note on which validation images rows are ranked. Raises `DataError` (exit code 3) where they are others."""
        sweep(self.folder)
        if self.kept.setdefault("images", images) != images:
            raise DataError(
                "the validation images are others than when the sweep began",
                file=data,
                why=f"the rows in {self.folder} cannot be held against new ones",
                remedy="another --out",
            )
        self.kept["data"] = data
        self._write()

    def ended(self, key: str) -> bool:
        """Whether a row has come to its end, or has diverged. What else has failed is tried again."""
        row = self.kept["rows"].get(key)
        return row is not None and ("right" in row or row.get("final", False))

    def folder_of(self, row: Row) -> Path:
        """That of its run: the one that it has, whatever else was swept when it began."""
        own = row.name.rpartition("-")[2]
        return next(self.folder.glob(f"*-{own}"), self.folder / row.name)

    def score(self, row: Row, folder: Path, right: np.ndarray, loss: float, seconds: float) -> None:
        """A row that has come to its end. Raises `DataError` (exit code 3) where other images can be read by now."""
        for other in self.scored():
            if len(other.right) != len(right):
                what = f"{len(right):,} validation images can be read, and {len(other.right):,} before"
                raise DataError(what, file=self.kept["data"], remedy="bring them back, and the same command")
        packed = base64.b64encode(np.packbits(right).tobytes()).decode()
        figures = {"count": len(right), "top1": 100 * float(right.mean()), "loss": loss, "seconds": seconds}
        self._end(row, folder, {**figures, "right": packed})

    def fail(self, row: Row, folder: Path, why: str, *, final: bool) -> None:
        """A row that has not come to its end; `final` where it would fail in the same way again."""
        self._end(row, folder, {"failed": why, "final": final})

    def _end(self, row: Row, folder: Path, found: dict[str, Any]) -> None:
        self.kept["rows"][row.key] = {"folder": folder.name, "settings": row.settings, **found}
        self._write()

    def scored(self) -> list[Scored]:
        """The rows that have come to their end."""
        return [
            Scored(key, row["settings"], row["folder"], _unpacked(row), row["loss"], row["seconds"])
            for key, row in self.kept["rows"].items()
            if "right" in row
        ]

    def failed(self) -> dict[str, str]:
        """The rows that have not, by their settings, and why."""
        varied = self.varied()
        return {
            ", ".join(f"{key} {worded(row['settings'].get(key))}" for key in varied) or row["folder"]: row["failed"]
            for row in self.kept["rows"].values()
            if "failed" in row
        }

    def varied(self) -> tuple[str, ...]:
        """Keys in which rows differ, in the order of a recipe, the seed last."""
        rows = [row["settings"] for row in self.kept["rows"].values()]
        keys = dict.fromkeys(key for settings in rows for key in settings)
        found = [key for key in keys if len({json.dumps(settings.get(key)) for settings in rows}) > 1]
        return (*(key for key in found if key != "seed"), *(key for key in found if key == "seed"))

    def opening(self, key: str) -> None:
        """Note that the test split is opened for a row."""
        if key not in self.kept["opened"]:
            self.kept["opened"].append(key)
        self._write()

    @property
    def times_opened(self) -> int:
        """For how many rows the test split was opened."""
        return len(self.kept["opened"])

    def tested(self, key: str, figures: dict[str, Any]) -> None:
        """What a row scores on the test split."""
        self.kept["test"][key] = figures
        self._write()

    def test_of(self, key: str) -> dict[str, Any] | None:
        """What a row scored on the test split, where that was opened for it."""
        return self.kept["test"].get(key)

    def write_table(self, ranking: Sequence[Standing]) -> None:
        """`rows.csv`: a line for each row, the best first, then those that failed."""
        varied = self.varied()
        lines: list[list[Any]] = [[*varied, "validation_top1", "validation_loss", "seconds", "run", "failed"]]
        order = [row.key for standing in ranking for row in standing.rows]
        for key in (*order, *(key for key in self.kept["rows"] if key not in order)):
            row = self.kept["rows"][key]
            own = [worded(row["settings"].get(name)) for name in varied]
            figures = [row.get(name) for name in ("top1", "loss", "seconds", "folder", "failed")]
            lines.append([*own, *figures])
        replace_file(self.folder / TABLE, b"".join(map(csv_line, lines)))

    def _write(self) -> None:
        replace_file(self.folder / FILE, json.dumps(self.kept, indent=1).encode())


def _unpacked(row: dict[str, Any]) -> np.ndarray:
    packed = np.frombuffer(base64.b64decode(row["right"]), dtype=np.uint8)
    return np.unpackbits(packed, count=row["count"]).astype(bool)
