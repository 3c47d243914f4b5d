"""Runs on an NVIDIA GPU: `pytest -m gpu`."""

from pathlib import Path

import pytest
import torch

import resnetkit as rk
from pictures import draw


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_every_precision_learns_the_digits_as_the_cpu_does(precision: str, tmp_path: Path) -> None:
    cpu = rk.train("digits", out=tmp_path / "cpu", device="cpu", precision="fp32", quiet=True)
    gpu = rk.train("digits", out=tmp_path / "gpu", device="cuda", precision=precision, quiet=True)
    assert gpu.metrics["top1"] > cpu.metrics["top1"] - 2  # of 359 images


@pytest.mark.gpu
def test_pictures_from_processes_that_decode_reach_the_gpu(tmp_path: Path) -> None:
    for number in range(40):
        for colour in ("blue", "red"):
            file = tmp_path / "pictures" / colour / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            draw(colour, number, (40, 40)).save(file)
    settings = {"data": {"image_size": 32, "workers": 2, "batch_size": 16}, "model": {"name": "resnet20"}}
    trained = rk.train(tmp_path / "pictures", out=tmp_path / "run", device="cuda", epochs=3, quiet=True, **settings)
    assert trained.metrics["top1"] == 100
    assert torch.cuda.is_initialized()
