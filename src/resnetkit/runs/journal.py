"""The journal of a run: `metrics.jsonl`, one object a line."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from resnetkit.errors import StorageError
from resnetkit.machine.storage import append_file, replace_file


class Journal:
    """`metrics.jsonl` of a run: one object a line, each on the disk before the next."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, **fields: Any) -> None:
        """Add a line. Raises `StorageError` (exit code 7)."""
        try:
            append_file(self.path, (json.dumps(fields) + "\n").encode())
        except OSError as error:
            raise StorageError.from_os(error, "cannot write the journal", self.path) from error

    def last(self) -> dict[str, Any]:
        """The last line; nothing where there is none, or where it was cut off."""
        try:
            return json.loads(self.path.read_bytes().splitlines()[-1])
        except (OSError, ValueError, IndexError):
            return {}

    def epochs(self, size: int | None = None) -> list[dict[str, Any]]:
        """The whole lines of epochs among the first `size` bytes, or among all."""
        found = []
        with suppress(OSError):
            for line in self.path.read_bytes()[:size].splitlines():
                with suppress(ValueError):
                    row = json.loads(line)
                    if isinstance(row, dict) and row.get("event") == "epoch" and isinstance(row.get("step"), int):
                        found.append(row)
        return found

    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int, *, keep: str) -> list[dict[str, Any]]:
        """Forget what was written after the first `size` bytes, but for whole lines of the event `keep`; give those.

        Raises `StorageError` (exit code 7).
        """
        kept: list[bytes] = []
        try:
            content = self.path.read_bytes() if self.size() > size else b""
            for line in content[size:].splitlines(keepends=True):
                with suppress(ValueError):
                    if line.endswith(b"\n") and json.loads(line).get("event") == keep:
                        kept.append(line)
            if kept:
                replace_file(self.path, content[:size] + b"".join(kept))
            elif content:
                os.truncate(self.path, size)
        except OSError as error:
            raise StorageError.from_os(error, "cannot cut the journal", self.path) from error
        return [json.loads(line) for line in kept]
