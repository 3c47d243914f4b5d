"""A file of tensors, read by its content and never by its name; nothing in it is ever executed.

safetensors, and what `torch.save` writes: the zip archives of today and the plain streams of before 2020.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from resnetkit.errors import CheckpointError

ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "ema_state_dict")
"""Under which names training scripts put a network's tensors into their checkpoint."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, in float32, on the CPU.

    Raises `CheckpointError` (exit code 4) for anything but plain tensors: another format, a damaged file, objects that
    would run code when they are loaded, numbers that are not finite.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
        size = path.stat().st_size
    except OSError as error:
        raise CheckpointError("cannot read the weights", file=path, why=error.strerror) from error
    if _looks_like_safetensors(start, size):
        try:
            found: Any = safetensors.torch.load_file(path)
        except (SafetensorError, ValueError, RuntimeError, OSError) as error:
            raise _damaged(path, error) from error
    elif start.startswith((ZIP, PICKLE)):
        found = _read_torch(path, start)
    else:
        raise CheckpointError("the file holds no weights that can be read", file=path, why=_guess(start, size))
    return _plain(path, _unwrap(path, found))


def _looks_like_safetensors(start: bytes, size: int) -> bool:
    """Eight bytes of length, then that much JSON."""
    return len(start) > 8 and start[8:9] == b"{" and 0 < int.from_bytes(start[:8], "little") <= size


def _read_torch(path: Path, start: bytes) -> Any:
    if start.startswith(ZIP):
        _check_archive(path)
    try:
        # Never without weights_only: a pickle may run any program. There is no second attempt with it off.
        # From a stream, since by its name PyTorch would choose another reader for a path.
        with path.open("rb") as stream:
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:
        text = " ".join(str(error).split())
        if "weights_only" in text or "nsupported" in text:
            blocked = re.search(r"GLOBAL ([\w.]+)", text)
            raise CheckpointError(
                "the file holds more than tensors and is not loaded",
                file=path,
                why=f"loading it would call {blocked[1]}" if blocked else "loading it would run code",
                remedy="a file of its state_dict alone, best as safetensors",
            ) from error
        raise _damaged(path, error) from error


def _check_archive(path: Path) -> None:
    """Refuse archives that are damaged, that are programs, or that unpack to more than they are.

    PyTorch stores a checksum with every record and does not look at it; `testzip` does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise CheckpointError("the archive is not one of PyTorch's", file=path, why="it is compressed")
            if any("/code/" in f"/{entry.filename}" for entry in entries):
                raise CheckpointError(
                    "the file is a TorchScript program and not weights",
                    file=path,
                    remedy="a file of its state_dict alone, best as safetensors",
                )
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from error
    if broken is not None:
        raise CheckpointError("the weights are damaged", file=path, why=f"the checksum of {broken} is another")


def _unwrap(path: Path, found: Any) -> Mapping[str, Tensor]:
    """The mapping of names to tensors inside whatever a training script saved around it."""
    for _ in range(4):
        if not isinstance(found, Mapping):
            break
        if found and all(isinstance(value, Tensor) for value in found.values()):
            return found
        inner = next((found[name] for name in NESTED if isinstance(found.get(name), Mapping)), None)
        if inner is None:
            tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
            # A few loose numbers among the tensors are harmless; anything else is not a network's.
            if tensors and all(isinstance(value, Tensor | int | float | str | None) for value in found.values()):
                return tensors
            break
        found = inner
    raise CheckpointError(
        "there is no state_dict in the file",
        file=path,
        why=f"it holds {', '.join(map(str, list(found)[:8]))}" if isinstance(found, Mapping) else type(found).__name__,
    )


def _plain(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    plain = {}
    for name, tensor in tensors.items():
        if tensor.is_quantized or tensor.is_complex():
            raise CheckpointError(
                "the weights are of a kind that cannot be used", file=path, why=f"{name}, {tensor.dtype}"
            )
        if not tensor.is_floating_point():
            if tensor.ndim:
                raise CheckpointError("the weights are whole numbers", file=path, why=f"{name}, {tensor.dtype}")
            plain[str(name)] = tensor
            continue
        values = tensor.detach().float()
        if not torch.isfinite(values).all():
            raise CheckpointError("the weights are not finite", file=path, why=f"{name} holds NaN or infinity")
        plain[str(name)] = values
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
