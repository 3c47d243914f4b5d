"""A file of answers, killed or out of disk at any moment: with --resume it has the bytes of an undisturbed run."""

import errno
import functools
import json
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from faults import plants
from faults.harness import Case, Ended, run, start, wait
from faults.test_kill import spread
from progress import finish, until
from resnetkit.data.load import load_data

KINDS = ("csv", "jsonl", "parquet")
SMALL_BLOCK = 8


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def small_blocks(then: partial | None = None):
    """In a child: blocks of a few files, so that there are many of them."""
    from resnetkit.prediction import into

    into.BLOCK = SMALL_BLOCK
    return then() if then is not None else None


def digits(folder: Path, count: int) -> Path:
    """Pictures of digits, and among them what is none; all kinds of names."""
    pixels = load_data("digits").test.pixels
    folder.mkdir(parents=True)
    for number in range(count):
        name = f"{number:05d}{('', ' ü', ',', chr(10), chr(0xDCE9), '猫')[number % 6]}.png"
        Image.fromarray(pixels[number % len(pixels), 0].numpy()).save(folder / "x.png")
        (folder / "x.png").rename(folder / name)
    (folder / "00003.txt").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def album(home: Path) -> Path:
    return digits(home / "album", 37)


def words(model: Path, album: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("predict", model, album, "--out", out, "--device", "cpu", "--precision", "fp32", *more)


def answer(model: Path, album: Path, out: Path, *more: object, plant: partial | None = None) -> Ended:
    return run(*words(model, album, out, *more), plant=partial(small_blocks, plant))


@pytest.fixture(scope="module")
def wholes(home: Path, album: Path, digits_run: Path) -> Callable[[str], Path]:
    """Gives the file of an undisturbed run, beside the points of it."""

    @functools.cache
    def whole(kind: str) -> Path:
        out = home / f"whole-{kind}" / f"answers.{kind}"
        plant = partial(plants.record, out.parent, home / f"{kind}.json", network=False)
        ended = answer(digits_run, album, out, plant=plant)
        assert ended.code == 0, ended.err
        assert [each.name for each in out.parent.iterdir()] == [out.name]
        return out

    return whole


def labels_of(whole: Path, home: Path) -> list[str]:
    return json.loads((home / f"{whole.suffix[1:]}.json").read_text())


def resume(model: Path, album: Path, out: Path, whole: Path, where: str) -> None:
    ended = answer(model, album, out, "--resume")
    assert ended.code == 0, f"{where}\n{ended.err}"
    assert out.read_bytes() == whole.read_bytes(), where
    assert [each.name for each in out.parent.iterdir()] == [out.name], where
    shutil.rmtree(out.parent)


def kill_and_resume(number: int, whole: Path, home: Path, album: Path, model: Path) -> None:
    labels, out = labels_of(whole, home), home / "killed" / whole.name
    where = f"point {number} of {len(labels)}: {labels[number]}"
    plant = partial(plants.at, out.parent, number, plants.kill, network=False)
    assert answer(model, album, out, plant=plant).code == -9, where
    resume(model, album, out, whole, where)


def test_killed_at_points_of_all_kinds_and_resumed(wholes: Callable, home: Path, album: Path, digits_run: Path) -> None:
    for number in spread(labels_of(wholes("csv"), home), 4):
        kill_and_resume(number, wholes("csv"), home, album, digits_run)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_every_point_and_resumed(
    kind: str, wholes: Callable, home: Path, album: Path, digits_run: Path
) -> None:
    for number in range(len(labels_of(wholes(kind), home))):
        kill_and_resume(number, wholes(kind), home, album, digits_run)


def tear_and_resume(number: int, whole: Path, home: Path, album: Path, model: Path) -> None:
    out = home / "torn" / whole.name
    plant = partial(plants.kill_in_write, out.parent, number)
    assert answer(model, album, out, plant=plant).code == -9
    resume(model, album, out, whole, f"write {number}")


def writes_of(whole: Path, home: Path) -> int:
    return sum(label.startswith("before write") for label in labels_of(whole, home))


def test_killed_within_a_write_and_resumed(wholes: Callable, home: Path, album: Path, digits_run: Path) -> None:
    """Of a block and of the file: half of it is there, which may end within a letter."""
    whole = wholes("parquet")
    for number in (2, writes_of(whole, home) - 1):
        tear_and_resume(number, whole, home, album, digits_run)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_within_every_write_and_resumed(
    kind: str, wholes: Callable, home: Path, album: Path, digits_run: Path
) -> None:
    for number in range(writes_of(wholes(kind), home)):
        tear_and_resume(number, wholes(kind), home, album, digits_run)


def fill_and_resume(number: int, error: int, whole: Path, home: Path, album: Path, model: Path) -> None:
    """One line, and what was answered stays."""
    out = home / "full" / whole.name
    ended = answer(model, album, out, plant=partial(plants.fail, out.parent, number, error, network=False))
    assert ended.code == 7, ended.err
    assert len(ended.err.splitlines()) == 1
    assert ("no space left. Try: free some space" in ended.err) == (error == errno.ENOSPC)
    assert not out.exists() or out.read_bytes() == whole.read_bytes()  # its folder was not synced
    resume(model, album, out, whole, ended.err)


def calls_of(whole: Path, home: Path) -> list[int]:
    """Points before what writes."""
    what = ("before write", "before fsync", "before replace")
    return [number for number, label in enumerate(labels_of(whole, home)) if label.startswith(what)]


def test_a_disk_that_is_full_is_one_line(wholes: Callable, home: Path, album: Path, digits_run: Path) -> None:
    """In a block, and where the file is put together."""
    calls = calls_of(wholes("parquet"), home)
    for number, error in ((calls[6], errno.ENOSPC), (calls[-3], errno.ENOSPC), (calls[-1], errno.EIO)):
        fill_and_resume(number, error, wholes("parquet"), home, album, digits_run)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_any_call_that_fails_is_one_line(
    kind: str, wholes: Callable, home: Path, album: Path, digits_run: Path
) -> None:
    for number in calls_of(wholes(kind), home):
        fill_and_resume(number, errno.ENOSPC, wholes(kind), home, album, digits_run)


def kill_five_times(model: Path, album: Path, out: Path, whole: Path, files: int) -> None:
    """Real processes, killed when some more of the blocks are there."""
    command = [sys.executable, "-m", "resnetkit", *map(str, words(model, album, out, "--resume"))]
    part = out.with_name(f"{out.name}.part")
    for kill in range(1, 6):
        least = kill * files // 256 // 6
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until(lambda least=least: len(list(part.glob("*.rows"))) >= least, process.pid)
        process.kill()
        process.wait()
        assert not out.exists()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    finish(process)
    assert process.returncode == 0
    assert out.read_bytes() == whole.read_bytes()


def test_killed_five_times_in_a_row(home: Path, digits_run: Path) -> None:
    """Each time at another point, further on."""
    album = digits(home / "several", 240)
    whole, out = home / "once" / "answers.csv", home / "five" / "answers.csv"
    log = home / "several.json"
    plant = partial(plants.record, whole.parent, log, network=False)
    assert answer(digits_run, album, whole, plant=plant).code == 0
    writes = [number for number, label in enumerate(json.loads(log.read_text())) if "replace" in label]
    for number in random.Random(0).sample(writes[:6], 5):
        plant = partial(plants.at, out.parent, number, plants.kill, network=False)
        assert answer(digits_run, album, out, "--resume", plant=plant).code == -9
        assert not out.exists()
    resume(digits_run, album, out, whole, "five kills")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_thousand_files_killed_five_times(tmp_path: Path, digits_run: Path) -> None:
    album = digits(tmp_path / "many", 20_000)
    whole, out = tmp_path / "once.csv", tmp_path / "five.csv"
    assert run(*words(digits_run, album, whole)).code == 0
    kill_five_times(digits_run, album, out, whole, 20_000)
    assert whole.read_bytes().count(b".png") == 20_000


def two_ranks(model: Path, album: Path, out: Path, dies: partial | None = None) -> list[Ended]:
    env = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        start(
            Case(
                words(model, album, out),
                env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                plant=partial(small_blocks, dies if rank else None),
            )
        )
        for rank in range(2)
    ]
    return [wait(rank) for rank in ranks]


def test_two_ranks_write_what_one_process_writes(wholes: Callable, home: Path, album: Path, digits_run: Path) -> None:
    out = home / "ranks" / "answers.csv"
    ended = two_ranks(digits_run, album, out)
    assert [each.code for each in ended] == [0, 0], [each.err for each in ended]
    assert ended[1].err == ""
    assert out.read_bytes() == wholes("csv").read_bytes()
    shutil.rmtree(out.parent)


@pytest.mark.slow
def test_where_a_rank_was_killed_one_process_goes_on(
    wholes: Callable, home: Path, album: Path, digits_run: Path
) -> None:
    out = home / "ranks" / "answers.csv"
    ended = two_ranks(digits_run, album, out, partial(plants.kill_in_write, out.parent, 1))
    assert [each.code for each in ended] == [8, -9], ended[0].err
    assert not out.exists()
    resume(digits_run, album, out, wholes("csv"), "one process, where there were two ranks")
