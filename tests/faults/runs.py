"""Tiny real runs, and whether two of them are equal to the bit."""

import hashlib
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import tomli_w
import torch

from faults import plants
from faults.harness import run
from pictures import draw
from resnetkit.machine.storage import sha256
from resnetkit.runs import checkpoint

NET = {
    "device": "cpu",
    "precision": "fp32",
    "epochs": 2,
    "model": {
        "name": "resnet20",
        "depths": [1, 1],
        "widths": [8, 16],
        "strides": [1, 2],
        "stem": "cifar",
        "stem_width": 8,
    },
    "augment": {"flip": True, "pad_crop": 1, "mixup": 0.2, "cutmix": 1.0},
    "optim": {"ema": 0.9, "lr": 0.05},
}
MEMORY = {"data": {"limit": 100, "batch_size": 24}, "checkpoint": {"every_steps": 3}}
FOLDER = {"data": {"image_size": 16, "resize": 20, "batch_size": 8, "workers": 0}, "checkpoint": {"every_steps": 2}}


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """Nested settings, the later ones over the earlier ones."""
    whole: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            whole[key] = merged(whole.get(key, {}), value) if isinstance(value, dict) else value
    return whole


VARIANTS = {
    "memory": merged(NET, MEMORY),
    "short": merged(NET, MEMORY, {"epochs": 1, "checkpoint": {"keep": 1}}),
    "drop path": merged(NET, MEMORY, {"model": {"drop_path": 0.3}, "optim": {"name": "adamw", "ema": 0.0}}),
    "fp16": merged(NET, MEMORY, {"precision": "fp16"}),
    "folder": merged(NET, FOLDER),
    "workers": merged(NET, FOLDER, {"data": {"workers": 2}}),
}
"""Recipes of tiny runs that use everything that could make a difference: nine steps in memory, six from files."""


def pictures(folder: Path) -> Path:
    """Pictures that are too large to be kept in memory, one of them damaged where only decoding sees it."""
    for split, count in (("train", 8), ("val", 3)):
        for colour in ("blue", "green", "red"):
            (folder / split / colour).mkdir(parents=True)
            for number in range(count):
                draw(colour, number + 100 * (split == "val"), (80, 72)).save(folder / split / colour / f"{number}.png")
    damaged = folder / "train" / "red" / "0.png"
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    return folder


def begin(variant: str, home: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """What begins a run of some kind in `out`, for `Case.direct`. Its pictures lie in `home`."""
    data = home / "pictures" if variant in ("folder", "workers") else None
    if data is not None and not data.exists():
        pictures(data)
    settings = merged(VARIANTS[variant], {"data": {"name": str(data or "digits")}}, changes)
    text = tomli_w.dumps({"base": "scratch" if data else "digits", **settings})
    recipe = home / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.toml"
    recipe.write_text(text)
    return {"recipe": recipe, "out": out}


def command(variant: str, home: Path, out: Path, **changes: Any) -> tuple[object, ...]:
    """The same as words of the command line."""
    return ("train", "--recipe", begin(variant, home, out, **changes)["recipe"], "--out", out)


def whole(variant: str, home: Path, **changes: Any) -> Path:
    """The folder of an uninterrupted run; made once."""
    out = home / f"whole {variant} {changes or ''}".strip()
    if not out.exists():
        ended = run(direct=begin(variant, home, out, **changes))
        assert ended.code == 0, ended.err
    return out


def stopped(home: Path) -> Path:
    """The folder of a run with two checkpoints, of steps 6 and 9, and no result yet; a new copy each time."""
    copy = home / "damaged"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(whole("memory", home), copy)
    shutil.rmtree(copy / "model")
    return copy


def sign(folder: Path) -> None:
    """Make a manifest that fits what now lies in the folder: whoever can write there can do that as well."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"] = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path.read_bytes())}
        for path in folder.iterdir()
        if path.name != "manifest.json"
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def points(variant: str, home: Path) -> list[str]:
    """All points of a run, in their order; see `plants`."""
    out, log = home / f"record {variant}", home / f"{variant}.json"
    if not log.exists():
        ended = run(direct=begin(variant, home, out), plant=partial(plants.record, out, log))
        assert ended.code == 0, ended.err
        assert_same(out, whole(variant, home))  # counting changes nothing
    return json.loads(log.read_text())


def without_times(row: Any) -> Any:
    """A row of a journal, or a configuration, without what a clock says."""
    if isinstance(row, dict):
        return {key: without_times(value) for key, value in row.items() if "second" not in key}
    return row


def rows(out: Path) -> list[dict]:
    """A run's journal."""
    return [without_times(json.loads(line)) for line in (out / "metrics.jsonl").read_text().splitlines()]


def same_tensors(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Raises where a bit differs."""
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert value.dtype == theirs[name].dtype, name
        assert torch.equal(value.flatten().view(torch.uint8), theirs[name].flatten().view(torch.uint8)), name


def assert_same(mine: Path, theirs: Path) -> None:
    """Two finished runs are equal to the bit: last checkpoint, model, journal; and nothing is left over."""
    (last, damaged), (expected, _) = (checkpoint.newest(each / "checkpoints") for each in (mine, theirs))
    assert damaged == []
    assert last.step == expected.step
    assert last.tensors.keys() == expected.tensors.keys()
    for group, tensors in last.tensors.items():
        same_tensors(tensors, expected.tensors[group])
    states = [
        {key: value for key, value in each.state.items() if key not in ("seconds", "journal_bytes")}
        for each in (last, expected)
    ]
    assert states[0] == states[1]
    same_tensors(
        *(safetensors.torch.load((each / "model" / "model.safetensors").read_bytes()) for each in (mine, theirs))
    )
    configs = [json.loads((each / "model" / "config.json").read_bytes()) for each in (mine, theirs)]
    assert without_times(configs[0]) == without_times(configs[1])
    assert rows(mine) == rows(theirs)
    assert names(mine) == names(theirs)


def names(out: Path) -> set[str]:
    """All files of a run, but for those of older checkpoints, of which a killed run may have one more."""
    last = max(path.name for path in (out / "checkpoints").glob("step-*"))
    found = {path.relative_to(out).as_posix() for path in out.rglob("*")}
    return {name for name in found if not (name.startswith("checkpoints/step-") and last not in name)}
