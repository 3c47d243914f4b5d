"""What tests share: small real images, a small trained run, and the command line in this process."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import resnetkit as rk
from resnetkit.cli.app import main

torch.set_num_threads(1)

TINY = {"model": {"depths": (1, 1), "widths": (8, 16), "strides": (1, 2), "stem_width": 8}}
"""Changes that make any CIFAR net small enough for a test."""

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def draw(colour: str, number: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A noisy picture in which one colour prevails: easy to learn, and no two are alike."""
    noise = np.random.default_rng([number, *colour.encode()]).integers(-40, 40, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8))


def fill(folder: Path, count: int, colours: tuple[str, ...] = tuple(COLOURS), first: int = 0) -> Path:
    """`count` pictures of each colour, one folder a colour."""
    for colour in colours:
        (folder / colour).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            draw(colour, number).save(folder / colour / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """What is kept of the folders and features of tests does not end up with the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESNETKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def in_fp32():
    """Oracles compute in fp32: where nothing is asked for, so does what is tested, on processors with bf16 too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resnetkit.machine.device.has_fast_bf16", lambda _: False)
        yield


def png(number: int, colour: str = "red", size: tuple[int, int] = (12, 10)) -> bytes:
    """A small picture as a file's content."""
    stream = io.BytesIO()
    draw(colour, number, size).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]], kind: int = tarfile.USTAR_FORMAT) -> Path:
    """A tar file of some names and contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def samples(count: int, classes: int = 3) -> list[tuple[str, bytes]]:
    """The members of a shard of `count` pictures, labelled 0, 1, … in turn."""
    pairs = [((f"{i:04d}.png", png(i)), (f"{i:04d}.cls", str(i % classes).encode())) for i in range(count)]
    return [member for pair in pairs for member in pair]


def trained_like(name: str = "resnet20", **changes: object) -> rk.ResNet:
    """A network with random statistics in every BatchNorm, so that there is something to fold."""
    torch.manual_seed(0)
    net = rk.create_model(name, **changes)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
    return net


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
