"""Files of weights that are damaged, malicious or something else: none is used, none is executed (T14, W8, W9)."""

import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from resnetkit.errors import CheckpointError
from resnetkit.weights.tensorfile import read_tensors
from weights.malicious import NAMES, payloads, saved, zipped

TENSORS = {"a": torch.arange(600.0).view(20, 30), "n": torch.tensor(3)}


def _safetensors(path: Path) -> None:
    safetensors.torch.save_file(TENSORS, path)


def _zip(path: Path) -> None:
    torch.save(TENSORS, path)


def _legacy(path: Path) -> None:
    torch.save(TENSORS, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [_safetensors, _zip, _legacy])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.bin", "weights"])
def test_content_counts_not_the_name(write, name: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    found = read_tensors(tmp_path / name).tensors
    assert torch.equal(found["a"], TENSORS["a"])
    assert found["n"] == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.save({"a": TENSORS["a"].to(dtype)}, tmp_path / "w.pth")
    assert read_tensors(tmp_path / "w.pth").tensors["a"].dtype == torch.float32


@pytest.mark.parametrize("wrap", ["state_dict", "model", "net"])
def test_the_state_dict_is_found_inside_a_checkpoint(wrap: str, tmp_path: Path) -> None:
    around = {"epoch": 3, "best_prec1": 91.7, wrap: TENSORS, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
    torch.save(around, tmp_path / "c.ckpt")
    assert set(read_tensors(tmp_path / "c.ckpt").tensors) == {"a", "n"}


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (torch.tensor([1.0, float("nan")]), "not finite .*a holds NaN or infinity"),
        (torch.tensor([1.0, float("inf")]), "not finite"),
        (torch.zeros(3, dtype=torch.int8), "whole numbers .*int8"),
        (torch.zeros(3, dtype=torch.complex64), "of a kind that cannot be used"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_numbers_that_cannot_be_weights_are_refused(tensor: torch.Tensor, why: str, tmp_path: Path) -> None:
    torch.save({"a": tensor}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=why):
        read_tensors(tmp_path / "w.pth")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_malicious_files_are_refused_and_not_executed(name: str, tmp_path: Path) -> None:
    import resource

    canary = tmp_path / "canary"
    (tmp_path / "evil.pth").write_bytes(payloads(canary, bomb=name == "zip bomb")[name])
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    with pytest.raises(CheckpointError) as caught:
        read_tensors(tmp_path / "evil.pth")
    assert time.thread_time() - began < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    assert not canary.exists()
    assert "evil.pth" in str(caught.value)
    # A bomb is refused for what it is, before anything is unpacked, and not because what came out was no pickle.
    assert ("it is compressed" in str(caught.value)) == (name == "zip bomb")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pth"]
    assert caught.value.exit_code == 4


def test_what_was_blocked_is_named(tmp_path: Path) -> None:
    (tmp_path / "evil.pth").write_bytes(payloads(tmp_path / "canary")["os.system"])
    with pytest.raises(CheckpointError, match=r"more than tensors .*posix.system.*Try: a file of its state_dict alone"):
        read_tensors(tmp_path / "evil.pth")


OTHERS = {
    "empty": (b"", "it is empty"),
    "html": (b"<!DOCTYPE html><html>rate limit</html>" + b" " * 64, "it is an HTML page"),
    "onnx": (b"\x08\x0a\x12\x07pytorch" + b"\0" * 64, "neither safetensors nor a file of torch.save"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9", "pointer of Git LFS"),
    "list": (saved([torch.zeros(2)]), "there is no state_dict in the file"),
    "nothing": (saved({"epoch": 3}), "there is no state_dict in the file .*it holds epoch"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_told_what_they_are(name: str, tmp_path: Path) -> None:
    content, why = OTHERS[name]
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=why):
        read_tensors(tmp_path / "w.pth")


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    content = zipped({"m/code/__torch__.py": b"class M(Module): pass", "m/data.pkl": b"\x80\x02}."})
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="TorchScript program"):
        read_tensors(tmp_path / "w.pt")


def test_two_hundred_flipped_bits_and_fifty_cuts_of_a_pth_file_are_never_used(tmp_path: Path) -> None:
    """PyTorch itself loads most of these with wrong numbers and says nothing."""
    path = tmp_path / "w.pth"
    torch.save({"a": torch.randn(100, 100)}, path)
    content, right = path.read_bytes(), read_tensors(path).tensors["a"]
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            found = read_tensors(path).tensors
        except CheckpointError:
            refused += 1
            continue
        # The archive has padding and dates, in which a bit means nothing.
        assert torch.equal(found["a"], right)
    assert refused > 190
    for end in np.linspace(1, len(content) - 1, 50).astype(int):
        path.write_bytes(content[:end])
        with pytest.raises(CheckpointError):
            read_tensors(path)


def test_cut_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(TENSORS, path)
    content = path.read_bytes()
    for end in np.linspace(0, len(content) - 1, 50).astype(int):
        path.write_bytes(content[:end])
        with pytest.raises(CheckpointError):
            read_tensors(path)
