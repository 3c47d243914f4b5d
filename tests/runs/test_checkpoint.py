import errno
import shutil
from pathlib import Path

import pytest
import torch

from resnetkit.errors import CheckpointError, StorageError
from resnetkit.machine import storage
from resnetkit.runs import checkpoint

TENSORS = {"model": {"a": torch.arange(6.0).view(2, 3), "n": torch.tensor(4)}, "empty": {}}


def save(root: Path, step: int, keep: int = 2) -> Path:
    return checkpoint.save(root, step, TENSORS, {"step": step, "π": [1.5]}, keep=keep)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path, 7)
    found, damaged = checkpoint.newest(tmp_path)
    assert damaged == []
    assert (found.step, found.state) == (7, {"step": 7, "π": [1.5]})
    assert torch.equal(found.tensors["model"]["a"], TENSORS["model"]["a"])
    assert found.tensors["model"]["n"].shape == ()
    assert found.tensors["empty"] == {}


def test_only_the_newest_are_kept_and_nothing_lies_about(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        save(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000010"]


def test_there_is_no_pickle(tmp_path: Path) -> None:
    assert {path.suffix for path in save(tmp_path, 1).iterdir()} == {".safetensors", ".json"}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["model.safetensors", "empty.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", [_cut, _flip, Path.unlink])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(file: str, harm, tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    harm(tmp_path / "step-00000002" / file)
    found, damaged = checkpoint.newest(tmp_path)
    assert found.step == 1
    assert "step-00000002" in damaged[0]


def test_every_flipped_bit_is_seen(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    for path in folder.iterdir():
        content = path.read_bytes()
        for place in range(0, len(content), max(1, len(content) // 50)):
            damaged = bytearray(content)
            damaged[place] ^= 4
            path.write_bytes(damaged)
            try:
                found, _ = checkpoint.newest(tmp_path)
            except CheckpointError:
                continue
            # A bit of the manifest that carries no meaning, such as a space, may differ; what is read may not.
            assert path.name == "manifest.json"
            assert torch.equal(found.tensors["model"]["a"], TENSORS["model"]["a"])
        path.write_bytes(content)


def test_no_good_checkpoint_is_an_error_and_never_a_fresh_start(tmp_path: Path) -> None:
    _flip(save(tmp_path, 1) / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no checkpoint can be used.*its SHA-256 is another.*Try: start anew"):
        checkpoint.newest(tmp_path)
    assert checkpoint.newest(tmp_path / "nothing") == (None, [])


def test_swapped_files_are_seen(tmp_path: Path) -> None:
    first, second = save(tmp_path, 1), checkpoint.save(tmp_path, 2, {"model": {"a": torch.ones(2, 3)}}, {}, keep=2)
    shutil.copy(first / "model.safetensors", second / "model.safetensors")
    assert checkpoint.newest(tmp_path)[0].step == 1


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    manifest = save(tmp_path, 1) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(CheckpointError, match="newer resnetkit"):
        checkpoint.newest(tmp_path)


@pytest.mark.parametrize("failing", range(5))
def test_a_full_disk_loses_nothing(failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    calls = iter(range(100))

    def full(path: Path, content: bytes) -> None:
        if next(calls) == failing:
            path.write_bytes(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        storage.write_file(path, content)

    monkeypatch.setattr(checkpoint, "write_file", full)
    if failing < 4:
        with pytest.raises(StorageError, match=r"cannot save the checkpoint in .*step-00000002: no space left"):
            save(tmp_path, 2)
        assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    else:
        save(tmp_path, 2)  # three files and the manifest: there is no fifth write
    assert checkpoint.newest(tmp_path)[0].step == (1 if failing < 4 else 2)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.replace_file(tmp_path / "new" / "a.txt", b"old")

    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "write_file", full)
    with pytest.raises(StorageError, match="no space left"):
        storage.replace_file(tmp_path / "new" / "a.txt", b"new")
    assert [path.read_bytes() for path in (tmp_path / "new").iterdir()] == [b"old"]
