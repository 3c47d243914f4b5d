"""What is shown on a terminal while something works: rich's own output, as it would reach one."""

from pathlib import Path

import pytest

import resnetkit as rk
from conftest import TINY
from pictures import samples, write_tar
from resnetkit.data.load import load_data
from resnetkit.machine import console
from resnetkit.machine.console import Reporter, download_bar, duration, fitted


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


FITTED = {
    "short": ("data      digits", ["data      digits"]),
    "label": ("note      " + "word " * 6, ["note      word word word word", "          word word"]),
    "two words": ("left out  " + "word " * 6, ["left out  word word word word", "          word word"]),
    "indent": ("  " + "word " * 7, ["  word word word word word", "  word word"]),
    "plain": ("word " * 7, ["word word word word word word", "  word"]),
    "path": ("run       a/" + "b" * 30 + " c", ["run", "          a/" + "b" * 30, "          c"]),
}


@pytest.mark.parametrize("name", FITTED)
def test_a_line_goes_on_where_its_text_begins_and_words_stay_whole(name: str) -> None:
    line, expected = FITTED[name]
    assert fitted(line.rstrip(), 30) == expected
    assert fitted(line, None) == [line]


def test_lines_are_fitted_to_a_terminal_and_to_nothing_else(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "note      " + "word " * 40
    monkeypatch.delenv("COLUMNS", raising=False)
    Reporter().line(line)
    assert len(capfd.readouterr().err.splitlines()) == 1
    monkeypatch.setenv("COLUMNS", "60")
    Reporter().line(line)
    said = capfd.readouterr().err.splitlines()
    assert len(said) > 1
    assert max(map(len, said)) <= 60


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (45, "45 s"), (99.4, "99 s"), (99.6, "2 min"), (541, "9 min"), (7800, "2 h 10 min"), (9e4, "25 h")],
)
def test_a_duration_is_said_in_one_unit(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_the_time_that_work_takes_is_said_once_as_measured_behind_the_first_moves(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is ours: 100 s for the first two steps, in which things are made ready, and 1 s for each later one."""
    monkeypatch.delenv("COLUMNS", raising=False)
    for total, done, beside, expected in (
        (600, 0, 0.0, ["time      about 10 min for 30 epochs"]),
        (600, 0, 0.5, ["time      about 15 min for 30 epochs"]),
        (600, 540, 0.0, ["time      about 60 s for 30 epochs"]),
        (20, 0, 0.0, []),
    ):
        now = [0.0]
        monkeypatch.setattr(console.time, "monotonic", lambda now=now: now[0])
        with Reporter().progress(total, done, 64, what="30 epochs", beside=beside) as progress:
            for step in range(done + 1, total + 1):
                now[0] += 100 if step <= done + 2 else 1
                progress(step)
        assert capfd.readouterr().err.splitlines() == expected
