"""Files in the place of weights that would do harm if they were trusted."""

import io
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import torch


class Runs:
    """Unpickling an object of this class runs a command."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def _recursive() -> bytes:
    return b"\x80\x02" + b"(" * 100_000 + b"l" * 100_000 + b"."


def _header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return buffer.getvalue()


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def saved(content: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def _bomb() -> bytes:
    """400 MB of zeros in 400 kB."""
    return zipped({"archive/data.pkl": b"\0" * (4 * 10**8)}, zipfile.ZIP_DEFLATED)


def payloads(canary: Path, *, bomb: bool = False) -> dict[str, bytes]:
    """Fourteen files that would do harm if they were trusted."""
    touch = f"touch {canary}"
    write = f"open({str(canary)!r}, 'w')"
    stack_global = b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c" + bytes([len(touch)]) + touch.encode() + b"\x85R."
    offsets = (
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}'
    )
    huge = b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}'
    return {
        "os.system": saved({"state_dict": Runs(os.system, touch)}),
        "os.system, before 2020": saved(Runs(os.system, touch), _use_new_zipfile_serialization=False),
        "eval": saved({"a": Runs(eval, write)}),
        "builtins": saved({"a": Runs(exec, write)}),
        "bare pickle": pickle.dumps(Runs(os.system, touch), protocol=2),
        "STACK_GLOBAL": stack_global,
        "bytes of torch inside": saved({"a": Runs(torch.load, io.BytesIO(saved(Runs(os.system, touch))))}),
        "legacy tar": _tar(),
        "zip with ../": zipped({"../../escape": b"x", "archive/data.pkl": pickle.dumps(Runs(os.system, touch), 2)}),
        "zip bomb": _bomb() if bomb else b"",
        "header of 4 GB": _header(b'{"a":', 4 * 2**30),
        "overlapping offsets": _header(offsets) + b"\0" * 12,
        "huge shape": _header(huge) + b"\0" * 8,
        "recursion": _recursive(),
    }


NAMES = list(payloads(Path("x")))
