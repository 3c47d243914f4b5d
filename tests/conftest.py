"""What tests share: a folder of pictures, a small trained run, and the command line in this process."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("COLUMNS", None)  # readline sets it in whatever process loads it, and its children have it

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import resnetkit as rk
from pictures import fill
from resnetkit.cli.app import main
from resnetkit.machine.device import choose

torch.set_num_threads(1)

TINY = {"model": {"depths": (1, 1), "widths": (8, 16), "strides": (1, 2), "stem_width": 8}}
"""Changes that make any CIFAR net small enough for a test."""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """What is kept of the folders and features of tests does not end up with the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESNETKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def fp32():
    """What is compared is computed in fp32 by default, also where the processor has bf16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resnetkit.machine.device.has_fast_bf16", lambda device: False)
        yield


def trained_like(name: str = "resnet20", **changes: object) -> rk.ResNet:
    """A network with random statistics in every BatchNorm, so that there is something to fold."""
    torch.manual_seed(0)
    net = rk.create_model(name, **changes)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
    return net


def untrained(size: int = 8, classes: int = 10, **changes: object) -> rk.Classifier:
    """A classifier of pictures in colour that has learnt nothing: small, at once there, and as exact as any other."""
    network = trained_like(num_classes=classes, **{**TINY["model"], **changes})
    preprocess = rk.Preprocess(size, (0.5,) * 3, (0.25,) * 3)
    return rk.Classifier(network, preprocess, tuple(f"class {number}" for number in range(classes)), "resnet", choose())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with train/ and val/, three classes."""
    fill(tmp_path / "photos" / "train", 8)
    fill(tmp_path / "photos" / "val", 3, first=100)
    return tmp_path / "photos"


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits, long enough to be better than chance by far."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    rk.train("digits", out=folder, quiet=True, epochs=4, optim={"ema": 0.0}, checkpoint={"keep": 10}, **TINY)
    return folder


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]):
    """Run the command line in this process."""

    def run(*words: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(int(left.value.code or 0), captured.out, captured.err)

    return run
