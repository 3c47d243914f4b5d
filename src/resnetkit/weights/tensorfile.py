"""A file of tensors, read by its content and never by its name; nothing in it is ever executed.

safetensors, and what `torch.save` writes: the zip archives of today and the plain streams of before 2020.
"""

import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from resnetkit.errors import CheckpointError
from resnetkit.machine import documents
from resnetkit.weights import pickles
from resnetkit.weights.pickles import BlockedError, Named, Storage, Stored

ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "network")
"""Under which names training scripts put a network's tensors into their checkpoint."""
AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict")
"""Under which they put the running average of the weights: timm, torchvision, others."""
MOST_HEADER = 8 << 20
"""Bytes of a header of safetensors: the deepest network's takes one million."""
MOST_DIRECTORY = 8 << 20
"""Bytes of the directory of a zip archive: a hundred for each of its files."""
MOST_TENSORS = 50_000
MOST_NAME = 500
"""Letters of a tensor's name."""
MOST_SHARED = 4
"""How many times over the tensors may use the bytes of their file: those of a network that holds a part twice do."""
MAGIC = 0x1950A86A20F9469CFC6C
"""What a file of `torch.save` from before 2020 begins with, as a pickled number."""

DAMAGE = (
    *(SafetensorError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError),
    *(KeyError, TypeError, IndexError, OverflowError),
)
"""What the readers of the formats raise for a file that is broken."""

Which = Literal["raw", "ema"]
ReadStorage = Callable[[Storage], bytearray]


@dataclass(frozen=True)
class TensorFile:
    """The tensors of a file by name, in float32, on the CPU, and what is to be said of them."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def read_tensors(path: Path, which: Which | None = None) -> TensorFile:
    """Read the tensors of a file. `which` of a network and its average; the average where nothing is said.

    Raises `CheckpointError` (exit code 4) for anything but plain tensors: another format, a damaged file, objects that
    would run code when they are loaded, numbers that are not finite, tensors that are larger than their file.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
            size = path.stat().st_size
            if _looks_like_safetensors(start, size):
                found, notes = _choose(path, _read_safetensors(path, stream, start), which)
            elif start.startswith((ZIP, PICKLE)):
                zipped = start.startswith(ZIP)
                said, read_storage = _open_archive(path, stream) if zipped else _open_stream(stream, size)
                chosen, notes = _choose(path, said, which)
                found = _build(chosen, read_storage, size)
            else:
                raise CheckpointError("the file holds no weights that can be read", file=path, why=_guess(start, size))
    except BlockedError as error:
        raise CheckpointError(
            "the file holds more than tensors and is not loaded",
            file=path,
            why=f"loading it would call {error}",
            remedy="a file of its state_dict alone, best as safetensors",
        ) from error
    except DAMAGE as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise CheckpointError("cannot read the weights", file=path, why=error.strerror or str(error)) from error
    return TensorFile(_plain(path, found), notes)


def _looks_like_safetensors(start: bytes, size: int) -> bool:
    """Eight bytes of length, then that much JSON."""
    return len(start) > 8 and start[8:9] == b"{" and 0 < int.from_bytes(start[:8], "little") <= size


def _read_safetensors(path: Path, stream: BinaryIO, start: bytes) -> dict[str, Tensor]:
    """The library checks that the tensors fill the file, and not how many there are, nor how many sides they have."""
    length = int.from_bytes(start[:8], "little")
    if length > MOST_HEADER:
        raise ValueError("its header is longer than that of any network")
    stream.seek(8)
    entries = documents.parse_json(stream.read(length))
    entries.pop("__metadata__", None)
    if len(entries) > MOST_TENSORS:
        raise ValueError(f"it has {len(entries):,} tensors, more than any network")
    if any(len(entry["shape"]) > pickles.MOST_DIMENSIONS for entry in entries.values()):
        raise ValueError("a tensor has more sides than any of a network")
    return safetensors.torch.load_file(path)


class _Directory:
    """A file of which no more than a directory is read at a time, until it may be read as a `whole`.

    `zipfile` reads an archive's directory at once, as long as its last record says, and makes 15 times as much of it.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size, self.whole = stream, size, False
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, length: int = -1) -> bytes:
        left = max(0, self.size - self.tell())
        if not self.whole and (left if length < 0 else min(length, left)) > MOST_DIRECTORY:
            raise ValueError("its directory is longer than that of any network")
        return self.stream.read(length)


def _open_archive(path: Path, stream: BinaryIO) -> tuple[Any, ReadStorage]:
    """What the pickle in an archive says, and how its storages are read: whole, by their checksum.

    PyTorch stores a checksum with every record and does not look at it; `zipfile` does.
    """
    directory = _Directory(stream, path.stat().st_size)
    archive = zipfile.ZipFile(cast("BinaryIO", directory))
    directory.whole = True
    entries = {entry.filename: entry for entry in archive.infolist()}
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    if not stored or sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
        raise CheckpointError("the archive is not one of PyTorch's", file=path, why="it is compressed")
    if any("/code/" in f"/{name}" for name in entries):
        raise CheckpointError(
            "the file is a TorchScript program and not weights",
            file=path,
            remedy="a file of its state_dict alone, best as safetensors",
        )
    pickled = next((name for name in entries if re.fullmatch(r"[^/]+/data\.pkl", name)), None)
    if pickled is None:
        raise CheckpointError("the archive is not one of PyTorch's", file=path, why="there is no data.pkl in it")
    root = pickled.removesuffix("data.pkl")
    if entries[pickled].file_size > pickles.MOST_BYTES:
        raise ValueError("its pickle is longer than that of any network")
    if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
        raise ValueError("its numbers are in the order of another kind of machine")

    def read_storage(storage: Storage) -> bytearray:
        entry = entries.get(f"{root}data/{storage.key}")
        if entry is None:
            raise ValueError(f"there is no record {storage.key[:40]}")
        return bytearray(archive.read(entry))

    return pickles.read_pickle(BytesIO(archive.read(pickled))).value, read_storage


def _open_stream(stream: BinaryIO, size: int) -> tuple[Any, ReadStorage]:
    """What the pickles of a file from before 2020 say, and how the storages behind them are read."""
    stream.seek(0)
    head = BytesIO(stream.read(pickles.MOST_BYTES))
    magic = pickles.read_pickle(head).value
    if magic != MAGIC:
        raise ValueError("it is a pickle, and not one of torch.save")
    version, about = pickles.read_pickle(head).value, pickles.read_pickle(head).value
    if version != 1001 or not isinstance(about, dict) or about.get("little_endian") is not True:
        raise ValueError("it is of a version that is not known")
    pickled, keys = pickles.read_pickle(head), pickles.read_pickle(head).value
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("its list of storages is none")
    if not pickled.storages.keys() >= set(keys):
        raise ValueError("its list of storages names others than its tensors")
    places, place = {}, head.tell()
    for key in keys:
        stream.seek(place)
        count, itemsize = int.from_bytes(stream.read(8), "little"), pickled.storages[key].dtype.itemsize
        places[key] = place + 8, count * itemsize
        place += 8 + count * itemsize
        if place > size:
            raise EOFError("it ends before its last tensor")

    def read_storage(storage: Storage) -> bytearray:
        if storage.key not in places:
            raise ValueError(f"there is no storage {storage.key[:40]}")
        begin, length = places[storage.key]
        stream.seek(begin)
        return bytearray(stream.read(length))

    return pickled.value, read_storage


def _choose(path: Path, found: Any, which: Which | None) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The mapping of names to tensors inside whatever a training script saved around it, and what was chosen.

    Where there is a network and its average, timm's and torchvision's own tools take the average.
    """
    raw = _unwrap(found, NESTED)
    name, average = next(((key, mapping) for key in AVERAGES if (mapping := _within(found, key))), ("", None))
    if which == "ema" and average is None:
        raise CheckpointError("the file holds no average of a network", file=path, remedy="--which raw")
    if average is not None and which != "raw":
        return average, (f"took the average, {name}; --which raw takes the network itself",) if raw else ()
    if raw is not None:
        return raw, ()
    if average is not None:
        raise CheckpointError("the file holds the average of a network alone", file=path, remedy="--which ema")
    if isinstance(found, Mapping):
        why = f"it holds {', '.join(str(key)[:40] for key in list(found)[:8]) or 'nothing'}"
    else:
        why = f"it holds {found.name if isinstance(found, Named) else type(found).__name__}"
    raise CheckpointError("there is no state_dict in the file", file=path, why=why)


def _within(found: Any, key: str) -> Mapping[str, Any] | None:
    inner = found.get(key) if isinstance(found, Mapping) else None
    return _unwrap(inner, NESTED) if isinstance(inner, Mapping) else None


def _unwrap(found: Any, nested: tuple[str, ...], depth: int = 4) -> Mapping[str, Any] | None:
    """The tensors of a network that `found` is, or has under one of the names."""
    if not isinstance(found, Mapping) or not depth:
        return None
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor | Stored)}
    if tensors and len(tensors) == len(found):
        return tensors
    inner = next((found[name] for name in nested if isinstance(found.get(name), Mapping)), None)
    if inner is not None:
        return _unwrap(inner, nested, depth - 1)
    # A few loose numbers among the tensors are harmless; anything else is not a network's.
    loose = all(isinstance(value, Tensor | Stored | int | float | str | None) for value in found.values())
    return tensors if tensors and loose else None


def _build(chosen: Mapping[str, Stored], read_storage: ReadStorage, size: int) -> dict[str, Tensor]:
    """Tensors of numbers that the file holds: none is larger than where its numbers lie, nor all than the file."""
    if len(chosen) > MOST_TENSORS:
        raise ValueError(f"it has {len(chosen):,} tensors, more than any network")
    if sum(stored.count * stored.dtype.itemsize for stored in chosen.values()) > MOST_SHARED * size:
        raise ValueError(f"its tensors would be more than {MOST_SHARED} times as large as it is")
    read: dict[str, bytearray] = {}
    built = {}
    for name, stored in chosen.items():
        key = stored.storage.key
        if key not in read:
            read[key] = read_storage(stored.storage)
        begin = stored.storage.first * stored.storage.dtype.itemsize + stored.offset * stored.dtype.itemsize
        there = (len(read[key]) - begin) // stored.dtype.itemsize
        if not 0 < stored.count <= there or stored.reach - stored.offset > there:
            raise ValueError(f"{name[:80]} needs other numbers than there are")
        flat = torch.frombuffer(read[key], dtype=stored.dtype, offset=begin, count=there)
        built[name] = flat.as_strided(stored.size, stored.stride)
    return built


def _plain(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    plain = {}
    for name, tensor in tensors.items():
        if len(name) > MOST_NAME:
            raise _damaged(path, ValueError(f"the name of a tensor has {len(name):,} letters"))
        if tensor.is_quantized or tensor.is_complex():
            raise CheckpointError(
                "the weights are of a kind that cannot be used", file=path, why=f"{name}, {tensor.dtype}"
            )
        if not tensor.is_floating_point():
            if tensor.ndim:
                raise CheckpointError("the weights are whole numbers", file=path, why=f"{name}, {tensor.dtype}")
            plain[name] = tensor
            continue
        values = tensor.detach().float()
        if not torch.isfinite(values).all():
            raise CheckpointError("the weights are not finite", file=path, why=f"{name} holds NaN or infinity")
        plain[name] = values
    return plain


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError("the weights are damaged", file=path, why=str(error).partition("\n")[0][:200])


def _guess(start: bytes, size: int) -> str:
    if size == 0:
        return "it is empty"
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is an HTML page"
    if text.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS: the weights themselves were not fetched"
    if b"ustar" in start or text.startswith(b"././"):
        return "it is a tar archive"
    return "it is neither safetensors nor a file of torch.save"
