"""The directory of a zip archive costs no more memory than a network's, whatever its last record says."""

import struct
import tracemalloc
from pathlib import Path

import pytest
import torch

from resnetkit.errors import CheckpointError
from resnetkit.weights import tensorfile
from resnetkit.weights.tensorfile import read_tensors

ENTRIES = 200_000


def _archive(entries: int, *, zip64: bool, comment: bytes = b"") -> bytes:
    """One file without content, and a directory that names it many times."""
    name = b"archive/data/0"
    common = struct.pack("<5H3L2H", 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0)
    local = b"PK\x03\x04" + common + name
    entry = b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<3H2L", 0, 0, 0, 0, 0) + name
    directory, place = entry * entries, len(local)
    longer = b""
    if zip64:
        counts = struct.pack("<4Q", entries, entries, len(directory), place)
        longer = b"PK\x06\x06" + struct.pack("<Q2H2L", 44, 45, 45, 0, 0) + counts
        longer += b"PK\x06\x07" + struct.pack("<LQL", 0, place + len(directory), 1)
    short = (min(entries, 0xFFFF),) * 2 + ((0xFFFFFFFF, 0xFFFFFFFF) if zip64 else (len(directory), place))
    return local + directory + longer + b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, *short, len(comment)) + comment


@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("comment", [b"", b"x" * 1000])
def test_a_directory_that_is_too_long_is_refused_before_it_is_read(zip64: bool, comment: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(_archive(ENTRIES, zip64=zip64, comment=comment))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="its directory is longer than that of any network"):
            read_tensors(tmp_path / "w.pt")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_a_directory_of_as_many_tensors_as_are_read_is_short_enough(tmp_path: Path) -> None:
    """A record with the longest name that `torch.save` gives, for each."""
    torch.save({"a": torch.zeros(1)}, tmp_path / f"{'n' * 40}.pt")
    content = (tmp_path / f"{'n' * 40}.pt").read_bytes()
    end = content.rindex(b"PK\x05\x06")
    entries, length = struct.unpack("<HL", content[end + 10 : end + 16])
    assert length / entries * tensorfile.MOST_TENSORS < tensorfile.MOST_DIRECTORY
    assert torch.equal(read_tensors(tmp_path / f"{'n' * 40}.pt").tensors["a"], torch.zeros(1))
