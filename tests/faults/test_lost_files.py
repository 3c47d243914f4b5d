"""Files that may not be read, disks that fail, and files that change or vanish while one learns from them."""

import errno
import io
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import resnetkit as rk
from conftest import TINY
from faults.listed import count
from pictures import draw, fill
from resnetkit.data import folder as data_module
from resnetkit.data import scan
from resnetkit.data.load import load_data
from resnetkit.data.splits import Files, Images
from resnetkit.data.walk import list_images
from resnetkit.doctor.check import check
from resnetkit.doctor.examine import examine
from resnetkit.errors import DataError, UsageError
from resnetkit.images import reading as preprocess
from resnetkit.recipes.schema import DataRecipe
from resnetkit.training import step

# D21, D22, D24: disks and mounts that fail, and files that change under our hands.


@contextmanager
def nobody() -> Iterator[Path]:
    """A folder, and a user who may not read everything, as root may."""
    with tempfile.TemporaryDirectory() as place:
        folder = fill(Path(place).resolve(), 6)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        user = os.geteuid()
        load_data(str(folder))  # what is imported lazily may be root's
        (folder / "red" / "000.png").chmod(0)
        (folder / "blue" / "shut").mkdir()
        (folder / "blue" / "shut").chmod(0)
        try:
            os.seteuid(user or 65534)
            yield folder
        finally:
            os.seteuid(user)
            (folder / "blue" / "shut").chmod(0o755)


def test_a_file_that_may_not_be_read_is_named_and_a_folder_refused() -> None:
    with nobody() as folder:
        for look in (load_data, check):
            with pytest.raises(DataError, match=r"cannot read the images in .*/blue/shut: Permission denied") as caught:
                look(str(folder))
            assert caught.value.exit_code == 3
        found = scan.scan(folder, list_images(folder / "red"), cache=None)
        assert [entry.why for entry in found if entry.why] == ["it may not be read"]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that the kernel refuses to read")
def test_a_disk_that_fails_is_named(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    (tmp_path / "red" / "bad.png").symlink_to("/proc/self/mem")  # its first byte gives EIO
    assert list(load_data(str(tmp_path)).unreadable.values()) == ["the disk or the network failed (Input/output error)"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize(("failures", "why"), [(1, ""), (2, ""), (3, "the disk or the network failed")])
@pytest.mark.parametrize("at", ["open", "read"])
def test_a_flaky_mount_is_asked_three_times(
    at: str, number: int, failures: int, why: str, tmp_path: Path, monkeypatch, caplog
) -> None:
    preprocess._warn_of_mount.cache_clear()
    mounted = tmp_path.parent
    monkeypatch.setattr(preprocess.os.path, "ismount", lambda place: place == mounted)
    draw("red", 0).save(tmp_path / "a.png")
    opened, real = [], Path.open

    class Failing(io.FileIO):
        def readinto(self, buffer) -> int:
            raise OSError(number, os.strerror(number))

    def flaky(path: Path, *args, **options):
        opened.append(path)
        if len(opened) > failures:
            return real(path, *args, **options)
        if at == "open":
            raise OSError(number, os.strerror(number))
        return io.BufferedReader(Failing(path))

    monkeypatch.setattr(preprocess.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(Path, "open", flaky)
    for look in (examine, lambda path: scan.scan(tmp_path, [path], cache=None)[0]):
        opened.clear()
        found = look(tmp_path / "a.png").why
        assert found.startswith(why)
        assert bool(found) == bool(why)
        assert len(opened) == min(failures + 1, 3)
    assert caplog.text.count(f"{mounted} fails now and then ({os.strerror(number)})") == 1


def test_a_damaged_file_is_asked_once(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    monkeypatch.setattr(preprocess.time, "sleep", lambda seconds: pytest.fail("it waited"))
    assert examine(tmp_path / "a.png").why


@pytest.mark.parametrize("what", ["vanishes", "is replaced", "grows"])
def test_a_file_that_changes_after_it_was_listed_is_left_out_or_read_as_it_is(
    what: str, tmp_path: Path, monkeypatch
) -> None:
    fill(tmp_path, 6)
    target, real = tmp_path / "red" / "000.png", data_module.scan

    def slow(folder: Path, paths: list[Path]) -> list[scan.Entry]:
        entries = real(folder, paths)
        if what == "vanishes":
            target.unlink()
        elif what == "is replaced":
            target.unlink()
            draw("red", 0, (200, 100)).save(target)
        else:
            with target.open("ab") as stream:
                stream.write(bytes(5000))
        return entries

    monkeypatch.setattr(data_module, "scan", slow)
    data = load_data(str(tmp_path))
    assert data.unreadable == ({str(target): "no such file"} if what == "vanishes" else {})
    assert count(data) == (17 if what == "vanishes" else 18)
    assert isinstance(data.train, Files if what == "is replaced" else Images)


@pytest.mark.parametrize(("gone", "ends"), [(3, False), (4, True)])
def test_files_that_vanish_in_the_midst_of_a_run_end_it_with_all_saved(
    gone: int, ends: bool, tmp_path: Path, monkeypatch
) -> None:
    """Three may be unreadable, as before the start; with the fourth it ends, and goes on once they are back."""
    photos, real = fill(tmp_path / "photos", 15), step.Stepper.__call__
    draw("red", 0, (200, 100)).save(photos / "red" / "000.png")  # of another size: nothing is kept in memory
    settings = {
        "out": tmp_path / "run",
        "quiet": True,
        "recipe": "scratch",
        "model": TINY["model"] | {"name": "resnet20"},
    }
    settings |= {"data": {"image_size": 16, "batch_size": 12, "workers": 0, "validation": 0.2}, "epochs": 3}

    def losing(self, batch, number):
        if number == 1:
            for path in train.paths[:gone]:
                path.rename(path.with_name(f".{path.name}"))
        return real(self, batch, number)

    train = load_data(str(photos), DataRecipe(name=str(photos), validation=0.2)).train
    monkeypatch.setattr(step.Stepper, "__call__", losing)
    if not ends:
        assert rk.train(photos, **settings).metrics["unreadable"]
        return
    with pytest.raises(DataError, match=r"4 images cannot be read, most of which could when the run began") as caught:
        rk.train(photos, **settings)
    assert caught.value.exit_code == 3
    monkeypatch.setattr(step.Stepper, "__call__", real)
    reached = int(re.search(r"up to step (\d+) is saved", str(caught.value))[1])
    assert (tmp_path / "run" / "checkpoints" / f"step-{reached:08}").is_dir()
    with pytest.raises(UsageError, match="the images have changed"):  # they are still not there
        rk.train(photos, resume=True, **settings)
    for path in train.paths[:gone]:
        path.with_name(f".{path.name}").rename(path)
    assert rk.train(photos, resume=True, **settings).metrics["steps"] == -(-3 * len(train.paths) // 12)
