"""What is shown on a terminal while something works: rich's own output, as it would reach one."""

from pathlib import Path

import pytest

import resnetkit as rk
from conftest import TINY
from pictures import samples, write_tar
from resnetkit.data.load import load_data
from resnetkit.machine.console import Reporter, download_bar


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written to stderr goes to a terminal, as far as rich knows."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


def test_a_bar_counts_what_it_is_told_to_count(terminal: None, capfd: pytest.CaptureFixture[str]) -> None:
    with Reporter().progress(7, 0, unit="rows", rate=None) as progress:
        progress(3)
    said = capfd.readouterr().err
    assert "3/7" in said
    assert "rows" in said
    assert "/s" not in said
    with Reporter().progress(70, 0, 32) as progress:
        progress(3)
    said = capfd.readouterr().err
    assert "steps" in said
    assert "images/s" in said


def test_the_speed_is_of_what_was_done_since_the_bar_began(terminal: None, capfd: pytest.CaptureFixture[str]) -> None:
    """A run that goes on at step 10 has done nothing yet."""
    with Reporter().progress(70, 10, 32) as progress:
        progress(10)
    assert " 0 images/s" in capfd.readouterr().err
    with Reporter().progress(70, 10, 10**9) as progress:
        progress(15)
    said = capfd.readouterr().err
    assert "images/s" in said
    assert " 0 images/s" not in said.rpartition("15/70")[2]


def test_the_total_may_become_known_on_the_way(terminal: None, capfd: pytest.CaptureFixture[str]) -> None:
    with Reporter().progress(None, 0, unit="images") as progress:
        progress(3, 12)
    assert "3/12" in capfd.readouterr().err


def test_a_download_is_counted_in_bytes(terminal: None, capfd: pytest.CaptureFixture[str]) -> None:
    with download_bar("weights.pth") as progress:
        progress(2_000_000, 4_000_000)
    said = capfd.readouterr().err
    assert "weights.pth" in said
    assert "2.0/4.0 MB" in said


def test_without_a_terminal_or_when_quiet_there_is_no_bar(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    with Reporter().progress(7, 0) as progress, download_bar("weights.pth") as downloaded:
        progress(3)
        downloaded(1, 2)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with Reporter(quiet=True).progress(7, 0) as progress:
        progress(3)
    assert capfd.readouterr().err == ""


def test_shards_are_indexed_in_silence_unless_a_reporter_is_handed_in(
    terminal: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number, reporter in enumerate((None, Reporter(quiet=True), Reporter())):
        folder = tmp_path / f"set{number}"
        for split in ("train", "val"):
            write_tar(folder / f"{split}-000.tar", samples(6))
        data = load_data(str(folder), reporter=reporter)
        assert data.train is not None
        assert ("images indexed" in capfd.readouterr().err) == (number == 2)


def test_quiet_training_indexes_shards_in_silence(
    terminal: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"steps": 1, "precision": "fp32", "data": {"batch_size": 4, "image_size": 16, "workers": 0}} | TINY
    for quiet in (True, False):
        folder = tmp_path / f"quiet-{quiet}"
        for split in ("train", "val"):
            write_tar(folder / f"{split}-000.tar", samples(6))
        rk.train(folder, "cifar10-paper", out=tmp_path / f"run-{quiet}", quiet=quiet, **settings)
        said = capfd.readouterr().err
        assert ("images indexed" in said) != quiet
        assert bool(said) != quiet
