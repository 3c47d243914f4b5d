"""A run's memory on disk, so that it can go on: `checkpoints/step-00001234/`.

Tensors as safetensors, the rest as JSON, and a manifest with the SHA-256 of every file, written last. A folder is built
beside, synced, then renamed: under its final name it is whole. The newest one that verifies is the one that is used.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from resnetkit.errors import CheckpointError, StorageError
from resnetkit.machine.storage import sha256, sync_folder, write_file

FORMAT = 1
MANIFEST = "manifest.json"
BUILDING = ".tmp-"


class DamagedError(CheckpointError):
    """One checkpoint cannot be used; there may be another."""


@dataclass(frozen=True)
class Checkpoint:
    """One verified checkpoint, read into memory."""

    folder: Path
    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    run: str = ""
    """The identity of the run that wrote it; empty for one of a former version."""


Doubt = Callable[[Checkpoint], str | None]


def save(
    root: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    keep: int,
    run: str = "",
) -> Path:
    """Write `root/step-…` and, once it has been read back, delete all but the newest `keep`.

    Those of later steps go too: the run has gone back behind them, for they are damaged or their steps were others.
    `run` is the identity of the run. One process at a time may save under `root`. Raises `StorageError` (exit code 7);
    the checkpoints that were there are then still there.
    """
    target = root / f"step-{step:08d}"
    building = root / f"{BUILDING}{target.name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        sync_folder(root.parent)
        sweep(root)
        building.mkdir()
        files = {f"{name}.safetensors": _pack(group) for name, group in tensors.items()}
        files["state.json"] = json.dumps(dict(state), indent=1).encode()
        manifest = {
            "format": FORMAT,
            "step": step,
            "run": run,
            "files": {name: {"bytes": len(content), "sha256": sha256(content)} for name, content in files.items()},
        }
        for name, content in files.items():
            write_file(building / name, content)
        write_file(building / MANIFEST, json.dumps(manifest, indent=1).encode())
        sync_folder(building)
        if target.exists():
            shutil.rmtree(target)
        os.rename(building, target)  # noqa: PTH104
        sync_folder(root)
        _read_back(target)
        standing = _steps(root)
        kept = [folder for folder in standing if _step(folder) <= step][-keep:]
        for old in standing:
            if old in kept:
                continue
            # Its name goes first: a half-deleted folder must not look like a damaged checkpoint.
            os.rename(old, root / f"{BUILDING}{old.name}")  # noqa: PTH104
            shutil.rmtree(root / f"{BUILDING}{old.name}")
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        raise StorageError.from_os(error, "cannot save the checkpoint", target) from error
    return target


def sweep(root: Path) -> None:
    """Remove what a process that was killed had begun to write or to delete. Nobody else may be saving here."""
    for left_over in root.glob(f"{BUILDING}*"):
        shutil.rmtree(left_over)


def newest(root: Path, run: str = "", doubt: Doubt = lambda _: None) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies, and a line about each newer one that does not.

    With the identity of a `run`, one that another run has written does not; of one of a former version, which does not
    say, `doubt` tells why it cannot be of the run, or nothing.
    Raises `CheckpointError` (exit code 4) where there are checkpoints but none verifies, and where one is of a newer
    format: to go back behind it would throw away what a newer resnetkit has done.
    """
    damaged: list[str] = []
    for folder in reversed(_steps(root)):
        try:
            found = _read(folder, run)
            if not found.run and (why := doubt(found)):
                raise _of_another_run(folder, why)
            return found, damaged
        except DamagedError as error:
            damaged.append(str(error))
    if damaged:
        raise CheckpointError(
            "no checkpoint can be used", file=root, why=damaged[0], remedy="start anew with another --out"
        )
    return None, damaged


def _read(folder: Path, run: str = "") -> Checkpoint:
    files, writer = _verified(folder)
    if run and writer and writer != run:
        raise _of_another_run(folder, "another run has written it")
    try:
        tensors = {
            name.removesuffix(".safetensors"): safetensors.torch.load(content)
            for name, content in files.items()
            if name.endswith(".safetensors")
        }
        return Checkpoint(folder, _step(folder), tensors, dict(json.loads(files["state.json"])), writer)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DamagedError("the checkpoint is damaged", file=folder, why=f"{error!r}") from error


def _of_another_run(folder: Path, why: str) -> DamagedError:
    return DamagedError("the checkpoint does not belong to the run", file=folder, why=why)


def _verified(folder: Path) -> tuple[dict[str, bytes], str]:
    """The content of a checkpoint's files, all equal to its manifest, and the run that wrote it.

    Raises `CheckpointError` (exit code 4).
    """
    files: dict[str, bytes] = {}
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] > FORMAT:
            raise CheckpointError(
                "the checkpoint is of a newer resnetkit", file=folder, remedy="upgrade resnetkit and resume again"
            )
        if manifest["step"] != _step(folder):
            raise DamagedError("the checkpoint is damaged", file=folder, why=f"it is that of step {manifest['step']}")
        for name, entry in manifest["files"].items():
            file = folder / name
            if file.parent != folder or file.stat().st_size != entry["bytes"]:
                raise DamagedError("the checkpoint is damaged", file=file, why="its size is another")
            files[name] = file.read_bytes()
            if sha256(files[name]) != entry["sha256"]:
                raise DamagedError("the checkpoint is damaged", file=file, why="its SHA-256 is another")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError("the checkpoint is damaged", file=folder, why=f"{error!r}") from error
    return files, str(manifest.get("run", ""))


def _read_back(folder: Path) -> None:
    try:
        _verified(folder)
    except CheckpointError as error:
        shutil.rmtree(folder)
        raise StorageError(
            "the disk does not give back what was written", file=folder, why=error.why, remedy="another disk with --out"
        ) from error


def _steps(root: Path) -> list[Path]:
    return sorted(root.glob("step-" + "[0-9]" * 8)) if root.is_dir() else []


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _pack(group: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in group.items()})
