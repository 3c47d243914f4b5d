"""Processes that decode: how many there is room for, and what becomes of a script that they would run again."""

import logging
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pictures import draw, fill
from resnetkit.data import batches
from resnetkit.data.batches import evaluation_batches, workers_that_fit
from resnetkit.data.load import load_data
from resnetkit.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resnetkit.machine.device import choose

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")
MIB = 2**20


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch):
    """Say how many bytes of shared memory are free; all else is real."""

    def of(free: int) -> None:
        real = os.statvfs

        def look(path: object) -> object:
            if Path(str(path)) == batches.SHARED_MEMORY:
                return SimpleNamespace(f_bavail=free // 4096, f_frsize=4096)
            return real(path)

        monkeypatch.setattr(os, "statvfs", look)
        batches._say_too_small.cache_clear()

    return of


@LINUX
@pytest.mark.parametrize(
    ("free", "asked", "fit"),
    [(MIB // 4, 2, 0), (2 * MIB, 2, 0), (4 * MIB, 2, 1), (6 * MIB, 2, 2), (64 * MIB, 8, 8), (64 * MIB, 0, 0)],
)
def test_as_many_processes_as_shared_memory_holds_the_batches_of(free: int, asked: int, fit: int, room, caplog) -> None:
    """Batches of 1 MiB: two ahead for each process, and the one that is used."""
    room(free)
    assert workers_that_fit(asked, MIB) == fit
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (fit < asked)
    if said:
        assert "--shm-size" in said[0]
        assert said[0].endswith(f"--data.workers {fit}")


@LINUX
def test_this_process_decodes_where_there_is_no_room_and_gives_the_same(tmp_path: Path, room, caplog) -> None:
    caplog.set_level(logging.WARNING)
    fill(tmp_path, 4)
    draw("red", 9, (70, 66)).save(tmp_path / "red" / "odd.png")
    split = load_data(str(tmp_path), whole=True).test
    look, compute = Preprocess(128, IMAGENET_MEAN, IMAGENET_STD), choose("cpu", "fp32")

    def images(workers: int) -> tuple[torch.Tensor, int]:
        found = evaluation_batches(split, look, compute, batch_size=5, workers=workers)
        first = next(found)
        helpers = len(multiprocessing.active_children())
        return torch.cat([first.images, *(batch.images for batch in found)]), helpers

    expected, _ = images(0)
    assert not caplog.records
    room(MIB // 4)
    found, helpers = images(2)
    assert helpers == 0
    assert torch.equal(found, expected)
    images(2)
    assert len(caplog.records) == 1
    assert "this one decodes" in caplog.text


SCRIPT = """
import multiprocessing, sys
multiprocessing.set_start_method("spawn", force=True)
import resnetkit as rk

rk.train(sys.argv[1], recipe="scratch", epochs=1, quiet=True, data={"workers": 1, "image_size": 16, "resize": 16},
         model={"name": "resnet20", "depths": (1, 1), "widths": (8, 16), "strides": (1, 2), "stem_width": 8})
"""


def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    fill(tmp_path / "photos", 8, ("blue", "red"))
    draw("red", 9, (70, 66)).save(tmp_path / "photos" / "red" / "odd.png")
    (tmp_path / "script.py").write_text(SCRIPT)
    ended = subprocess.run(
        [sys.executable, "script.py", "photos"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    last = ended.stderr.strip().splitlines()[-1]
    assert "every process that decodes runs the whole script again in " in last
    assert last.endswith('Try: if __name__ == "__main__": in front of it, or data={"workers": 0}')
    assert "bootstrapping" not in ended.stderr
    assert len(list((tmp_path / "runs").iterdir())) == 1
