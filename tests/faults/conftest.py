"""One folder for the runs of all fault tests."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]
"""Faults are planted by fork, signals and /proc."""


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A folder in memory where there is one: what is in it matters, and not whether it is on a disk."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(prefix="faults-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)
