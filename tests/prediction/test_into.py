"""Answers into a file, stopped on the way and gone on with: real pictures, a real network, small blocks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import resnetkit as rk
from pictures import fill
from resnetkit.errors import StorageError, UsageError
from resnetkit.machine.csvfile import csv_records
from resnetkit.prediction import part as parts
from resnetkit.prediction.into import Tally, predict_into


@pytest.fixture(scope="module")
def classifier() -> rk.Classifier:
    return rk.load("resnet20.cifar10", device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "photos", 8)


@pytest.fixture
def into(classifier: rk.Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tally]:
    """Answer in blocks of five."""
    monkeypatch.setattr("resnetkit.prediction.into.BLOCK", 5)
    monkeypatch.chdir(tmp_path)

    def call(out: str, *given: str, **settings: Any) -> Tally:
        return predict_into(Path(out), classifier, [*map(Path, given)], top=2, batch_size=4, **settings)

    return call


def stop_at(number: int) -> Callable[[int], None]:
    def moved(done: int) -> None:
        if done >= number:
            raise KeyboardInterrupt

    return moved


def files(out: str) -> list[str]:
    return [record[0] for record in csv_records(Path(out).read_bytes())][1:]


def test_what_was_stopped_goes_on_to_the_same_bytes(into: Callable, folder: Path) -> None:
    into("whole.csv", "photos")
    for number in (7, 12, 24):
        with pytest.raises(KeyboardInterrupt):
            into("out.csv", "photos", resume=True, moved=stop_at(number))
        assert not Path("out.csv").exists()
    tally = into("out.csv", "photos", resume=True)
    assert (tally.kept, tally.stale, tally.count) == (24, 0, 24)
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert not Path("out.csv.part").exists()


def test_inputs_that_have_gone_or_come_meanwhile_have_the_rows_that_they_should(into: Callable, folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        into("out.csv", "photos", moved=stop_at(20))
    (folder / "green" / "003.png").unlink()
    (folder / "red" / "x.png").write_bytes(b"new")
    tally = into("out.csv", "photos", resume=True)
    into("whole.csv", "photos")
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert tally.kept == 10
    assert tally.stale


def test_a_file_that_is_named_and_has_gone_has_a_row(into: Callable, folder: Path) -> None:
    names = [str(each.relative_to(Path.cwd())) for each in sorted(folder.rglob("*.png"))]
    with pytest.raises(KeyboardInterrupt):
        into("out.csv", *names, moved=stop_at(10))
    Path(names[0]).unlink()
    Path(names[-1]).unlink()
    into("out.csv", *names, resume=True)
    assert files("out.csv") == names
    status = [record[1] for record in csv_records(Path("out.csv").read_bytes())][1:]
    assert status == ["ok"] * 23 + ["error"]


def test_a_kill_behind_the_last_step_is_seen_as_the_end(
    into: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: parts.Part) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parts.Part, "clear", lambda part: killed(part) if part.kept or Path("out.csv").exists() else None)
        with pytest.raises(KeyboardInterrupt):
            into("out.csv", "photos")
    whole = Path("out.csv").read_bytes()
    assert not parts.is_finished(Path("out.csv"), overwrite=False, resume=True)
    into("out.csv", "photos", resume=True)
    assert Path("out.csv").read_bytes() == whole
    assert not Path("out.csv.part").exists()


def test_a_file_that_has_come_meanwhile_is_not_replaced(into: Callable, folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        into("out.csv", "photos", moved=stop_at(20))
    Path("out.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"there are answers already in out\.csv\. Try: --overwrite"):
        into("out.csv", "photos", resume=True)
    assert Path("out.csv").read_text() == "mine"
    into("out.csv", "photos", resume=True, overwrite=True)
    assert len(files("out.csv")) == 24


def test_other_options_and_other_inputs_are_another_job(into: Callable, folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        into("out.csv", "photos", moved=stop_at(20))
    for what, given, settings in (
        ("inputs", "photos/red", {}),
        ("options", "photos", {"protocol": "flip"}),
        ("options", "photos", {"options": {"reject": True}}),
    ):
        with pytest.raises(UsageError, match=f"of another job in out.csv.part: the {what} are not the same"):
            into("out.csv", given, resume=True, **settings)
    assert into("out.csv", "photos", resume=True).kept == 20


def test_two_at_a_time_do_not_mix(into: Callable, folder: Path) -> None:
    Path("out.csv.part").mkdir()
    with FileLock("out.csv.part/.lock"), pytest.raises(UsageError, match="another process is at work"):
        into("out.csv", "photos")


@pytest.mark.parametrize("content", [b"", b'["x", [], null, null, null]\n', b'["photos', b"\xff\xfe"])
def test_a_block_that_is_damaged_is_named(content: bytes, into: Callable, folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        into("out.csv", "photos", moved=stop_at(20))
    block = sorted(Path("out.csv.part").glob("*.rows"))[1]
    block.write_bytes(content)
    with pytest.raises(StorageError, match=f"answers that were kept are damaged in {block}.*Try: delete that file"):
        into("out.csv", "photos", resume=True)
    block.unlink()
    assert into("out.csv", "photos", resume=True).count == 24


def test_what_the_user_keeps_in_that_folder_stays(into: Callable, folder: Path) -> None:
    Path("out.csv.part").mkdir()
    Path("out.csv.part", "mine.txt").write_text("mine")
    into("out.csv", "photos")
    assert [each.name for each in Path("out.csv.part").iterdir()] == ["mine.txt"]
