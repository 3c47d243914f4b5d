"""T13 and T14: a checkpoint that is not what was written is never used, and nothing in it is executed."""

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from faults.harness import run
from faults.runs import assert_same, begin, same_tensors, sign, stopped, whole
from resnetkit.errors import CheckpointError
from resnetkit.machine.storage import sha256
from resnetkit.runs import checkpoint
from resnetkit.runs.checkpoint import Checkpoint
from weights.malicious import NAMES, payloads

Harm = Callable[[Path, Path], None]
"""Does something to the newest checkpoint; the other path is that of the older one."""


def is_equal(found: Checkpoint, expected: Checkpoint) -> bool:
    if found.step != expected.step or found.state != expected.state or found.tensors.keys() != expected.tensors.keys():
        return False
    for group, tensors in found.tensors.items():
        same_tensors(tensors, expected.tensors[group])
    return True


def test_two_hundred_flipped_bits_and_fifty_cuts_are_never_used(home: Path) -> None:
    root = stopped(home) / "checkpoints"
    new, _ = checkpoint.newest(root)
    old = checkpoint._read(sorted(root.iterdir())[0])
    draw = random.Random(0)
    files = sorted(new.folder.iterdir())
    sizes = [path.stat().st_size for path in files]
    harmless = 0
    for number in range(250):
        # Every fourth in the manifest, which is small, and which no hash covers.
        path = new.folder / "manifest.json" if number % 4 == 0 else draw.choices(files, sizes)[0]
        content = path.read_bytes()
        harmed = bytearray(content)
        if number < 200:
            harmed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        else:
            del harmed[draw.randrange(len(content)) :]
        path.write_bytes(harmed)
        found, damaged = checkpoint.newest(root)
        if found.step == old.step:
            assert is_equal(found, old)
            assert len(damaged) == 1
            assert str(new.folder) in damaged[0]
        else:  # a space became a tab, say: what is read is what was written
            assert path.name == "manifest.json"
            assert is_equal(found, new)
            harmless += 1
        path.write_bytes(content)
    assert harmless < 20
    print(f"{harmless} of 250 changed nothing that is read")


def _swap(name: str) -> Harm:
    return lambda new, old: shutil.copy(old / name, new / name) and None


def _remove(name: str) -> Harm:
    return lambda new, _: (new / name).unlink()


def _all_of_the_older(new: Path, old: Path) -> None:
    shutil.rmtree(new)
    shutil.copytree(old, new)


def _empty(new: Path, _: Path) -> None:
    for path in new.iterdir():
        path.unlink()


def _unlisted(new: Path, _: Path) -> None:
    (new / "state.json").unlink()
    sign(new)


SWAPS: dict[str, Harm] = {
    "model of the older": _swap("model.safetensors"),
    "optimizer of the older": _swap("optimizer.safetensors"),
    "average of the older": _swap("average.safetensors"),
    "state of the older": _swap("state.json"),
    "manifest of the older": _swap("manifest.json"),
    "all of the older": _all_of_the_older,
    "no model": _remove("model.safetensors"),
    "no manifest": _remove("manifest.json"),
    "an empty folder": _empty,
    "no state, and none listed": _unlisted,
}


@pytest.mark.parametrize("name", SWAPS)
def test_files_that_are_missing_or_of_another_step_are_never_used(name: str, home: Path) -> None:
    root = stopped(home) / "checkpoints"
    old, new = sorted(root.iterdir())
    expected = checkpoint._read(old)
    SWAPS[name](new, old)
    found, damaged = checkpoint.newest(root)
    assert is_equal(found, expected)
    assert len(damaged) == 1


def test_the_command_says_which_is_damaged_and_what_it_goes_on_from(home: Path) -> None:
    out = stopped(home)
    old, new = sorted((out / "checkpoints").iterdir())
    _swap("model.safetensors")(new, old)
    ended = run(direct=begin("memory", home, out) | {"resume": True})
    assert ended.code == 0
    assert f"left out: the checkpoint is damaged in {new / 'model.safetensors'}" in ended.err
    assert re.search(rf"resumed +at step 6 from {re.escape(str(old))}", ended.err)
    assert_same(out, whole("memory", home))


def test_good_checkpoints_are_not_deleted_for_damaged_ones_of_later_steps(tmp_path: Path) -> None:
    tensors = {"model": {"a": torch.ones(2)}}
    for step in (2, 8, 9):
        checkpoint.save(tmp_path, step, tensors, {}, keep=5)
    for step in (8, 9):
        _remove("model.safetensors")(tmp_path / f"step-{step:08d}", tmp_path)
    checkpoint.save(tmp_path, 3, tensors, {}, keep=2)
    assert checkpoint.newest(tmp_path)[0].step == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def test_where_none_is_left_the_command_ends_and_nothing_begins_anew(home: Path) -> None:
    out = stopped(home)
    for folder in (out / "checkpoints").iterdir():
        _remove("model.safetensors")(folder, folder)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    ended = run(direct=begin("memory", home, out) | {"resume": True})
    assert ended.code == 4
    assert re.match(r"error: no checkpoint can be used in .*Try: start anew with another --out$", ended.error)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_one_of_a_newer_format_is_not_gone_back_behind(home: Path) -> None:
    """T16: an older checkpoint would be usable, but what the newer resnetkit has done would be lost."""
    out = stopped(home)
    manifest = sorted((out / "checkpoints").iterdir())[-1] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    ended = run(direct=begin("memory", home, out) | {"resume": True})
    assert ended.code == 4
    assert ended.error.endswith("step-00000009. Try: upgrade resnetkit and resume again")


def _edit(name: str, change: Callable[[dict], object]) -> Harm:
    def harm(new: Path, _: Path) -> None:
        tensors = safetensors.torch.load_file(new / name)
        change(tensors)
        safetensors.torch.save_file(tensors, new / name)

    return harm


def _state(change: Callable[[dict], object]) -> Harm:
    def harm(new: Path, _: Path) -> None:
        state = json.loads((new / "state.json").read_bytes())
        change(state)
        (new / "state.json").write_text(json.dumps(state))

    return harm


MISFITS: dict[str, Harm] = {
    "extra tensor": _edit("model.safetensors", lambda tensors: tensors.update(extra=torch.ones(1))),
    "tensor missing": _edit("model.safetensors", lambda tensors: tensors.pop("fc.weight")),
    "other shape": _edit("model.safetensors", lambda tensors: tensors.update({"fc.weight": torch.ones(3)})),
    "memory of another shape": _edit(
        "optimizer.safetensors", lambda tensors: tensors.update({"0.momentum_buffer": torch.ones(1)})
    ),
    "memory of another parameter": _edit(
        "optimizer.safetensors", lambda tensors: tensors.update({"x.momentum_buffer": torch.ones(1)})
    ),
    "average missing": _remove("average.safetensors"),
    "state without tallies": _state(lambda state: state.pop("tallies")),
    "tallies of nothing": _state(lambda state: state.update(tallies=[[]])),
    "state without the journal's size": _state(lambda state: state.pop("journal_bytes")),
    "batch size that is none": _state(lambda state: state.update(batch_size="many")),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_checkpoint_that_does_not_fit_is_one_line(name: str, home: Path) -> None:
    """With a manifest that is right: as from another program, or another version of ours."""
    out = stopped(home)
    old, new = sorted((out / "checkpoints").iterdir())
    MISFITS[name](new, old)
    sign(new)
    ended = run(direct=begin("memory", home, out) | {"resume": True})
    assert ended.code == 4, ended.err
    assert re.match(rf"error: .*{re.escape(str(new))}", ended.error)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_malicious_checkpoints_are_refused_and_not_executed(name: str, home: Path) -> None:
    """In the place of the model, and with a manifest that is right. As --weights: tests/weights/test_tensorfile.py."""
    out = stopped(home)
    content = payloads(home / "canary", bomb=name == "zip bomb")[name]
    for folder in (out / "checkpoints").iterdir():
        (folder / "model.safetensors").write_bytes(content)
        sign(folder)
    usual = run("list", "recipes").peak_bytes
    ended = run(direct=begin("memory", home, out) | {"resume": True})
    assert ended.code == 4, ended.err
    assert ended.error.startswith("error: no checkpoint can be used in ")
    assert not (home / "canary").exists()
    assert ended.seconds < 2
    assert ended.peak_bytes - usual < 200 * 2**20


@pytest.mark.parametrize(
    "manifest", ["[" * 10**6, "null", "[]", '{"format": 1}', '{"format": "x"}', '{"format": 1e999}']
)
def test_a_manifest_that_is_none_is_refused(manifest: str, tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, 1, {"model": {"a": torch.ones(2)}}, {}, keep=1)
    (folder / "manifest.json").write_text(manifest)
    with pytest.raises(CheckpointError):
        checkpoint.newest(tmp_path)


@pytest.mark.parametrize("place", ["../secret", "/etc/hostname"])
def test_a_manifest_reads_no_file_elsewhere(place: str, tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, 1, {"model": {"a": torch.ones(2)}}, {}, keep=1)
    (tmp_path / "secret").write_bytes(b"x")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    content = (folder / place).read_bytes()
    manifest["files"][place] = {"bytes": len(content), "sha256": sha256(content)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="no checkpoint can be used"):
        checkpoint.newest(tmp_path)
