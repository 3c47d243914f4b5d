"""Reading all files: helpers, pixels that may be the same, and what is remembered for the next run."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from doctor.looking import files_of, look, one_of_each, scene, scenes
from pictures import draw, fill
from resnetkit.data import scan
from resnetkit.doctor import examine as duplicates
from resnetkit.doctor.check import check, manifest
from resnetkit.doctor.examine import examine, hash_pixels
from resnetkit.errors import DataError


def test_one_and_two_workers_find_the_same_and_leave_no_process(tmp_path: Path) -> None:
    one_of_each(tmp_path)
    assert look(tmp_path, workers=2) == look(tmp_path, workers=1)
    own = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    assert "help_out" not in own.stdout
    with duplicates._Helpers(2) as helpers:  # what the comparison above is worth nothing without
        assert helpers.ready
        running = list(helpers._all)
    assert all(process.poll() is not None for process in running)


def test_stopping_half_way_leaves_no_process_and_keeps_what_was_read(tmp_path: Path) -> None:
    fill(tmp_path / "set", 30)

    def stop(done: int, total: int) -> None:
        if done > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look(tmp_path / "set", workers=2, cache=tmp_path / "cache", progress=stop)
    own = subprocess.run(["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    assert "help_out" not in own.stdout
    seen = []
    look(tmp_path / "set", cache=tmp_path / "cache", progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (41, 90)
    assert seen[-1] == (90, 90)


def test_a_helper_that_dies_is_replaced_and_its_file_named(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path / "set", 12)
    (tmp_path / "set" / "red" / "killer.png").write_bytes(b"x")
    deadly = (
        "import os, resnetkit.doctor.examine as d; real = d.examine; "
        "d.examine = lambda path: os._exit(1) if path.name == 'killer.png' else real(path); d.help_out()"
    )
    deadly = duplicates._HELPER.replace("\nhelp_out()", "\n" + deadly)
    monkeypatch.setattr(duplicates, "_HELPER", deadly)
    report = look(tmp_path / "set", workers=2)
    assert [(finding.files, finding.text) for finding in report.findings] == [
        (("red/killer.png",), "its decoder crashed")
    ]


def test_without_helpers_one_process_reads_all(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path, 6)
    monkeypatch.setattr(duplicates, "_HELPER", "raise SystemExit(1)")
    assert look(tmp_path, workers=2).findings == ()


def test_long_work_calls_for_helpers_and_short_work_does_not(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path, 6)
    called = []
    monkeypatch.setattr(duplicates._Helpers, "__init__", lambda self, count: called.append(count) or 1 / 0)
    monkeypatch.setattr(duplicates, "_cores", lambda: 3)
    look(tmp_path, workers=None)
    assert called == []
    monkeypatch.setattr(duplicates, "LOOK_ROUND", 0)
    monkeypatch.setattr(duplicates, "WORTH_HELP", 0)
    with pytest.raises(ZeroDivisionError):
        look(tmp_path, workers=None)
    assert called == [2]  # of three cores, as many as there are chunks for


def test_a_copy_turned_by_exif_has_the_same_pixels(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = draw("red", 0).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "red" / "turned.png", exif=exif)
    report = look(tmp_path)
    assert files_of(report, "pixels") == [("red/000.png", "red/turned.png")]
    assert files_of(report, "exif-rotated") == [("red/turned.png",)]
    assert len(report.findings) == 2


def test_only_pictures_that_may_be_the_same_are_decoded_twice(tmp_path: Path, monkeypatch) -> None:
    scenes(tmp_path, 5)
    Image.open(tmp_path / "cat" / "000.png").save(tmp_path / "cat" / "same.bmp")
    (tmp_path / "dog" / "copy.png").write_bytes((tmp_path / "dog" / "000.png").read_bytes())
    again, real = [], duplicates.hash_pixels
    monkeypatch.setattr(duplicates, "hash_pixels", lambda path: again.append(path.name) or real(path))
    for _ in range(2):  # the second time from the cache
        report = look(tmp_path, cache=tmp_path / "cache")
        assert files_of(report, "pixels") == [("cat/000.png", "cat/same.bmp")]
        assert files_of(report, "exact") == [("dog/000.png", "dog/copy.png")]
    assert again == ["000.png", "same.bmp"]


def test_a_picture_that_is_gone_when_its_pixels_are_asked_for_is_unreadable(tmp_path: Path, monkeypatch) -> None:
    scenes(tmp_path, 5)
    Image.open(tmp_path / "cat" / "000.png").save(tmp_path / "cat" / "same.bmp")
    real = duplicates.hash_pixels

    def vanish(path: Path) -> str:
        path.with_name("same.bmp").unlink(missing_ok=True)
        return real(path)

    monkeypatch.setattr(duplicates, "hash_pixels", vanish)
    report = look(tmp_path)
    assert [(finding.files, finding.text) for finding in report.findings] == [(("cat/same.bmp",), "no such file")]


def test_the_same_numbers_in_another_shape_are_another_picture(tmp_path: Path) -> None:
    draw("red", 0, (48, 40)).save(tmp_path / "a.png")
    Image.fromarray(np.asarray(draw("red", 0, (48, 40))).reshape(48, 40, 3)).save(tmp_path / "b.png")
    assert hash_pixels(tmp_path / "a.png") != hash_pixels(tmp_path / "b.png")


def _refuse(path: Path):
    raise AssertionError(f"{path} was read")


def test_a_second_run_reads_no_image(photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path / "home"))
    first = check(photos)
    assert len(list((tmp_path / "home" / "manifests").iterdir())) == 1
    monkeypatch.setattr(duplicates, "examine", _refuse)
    assert check(photos) == first


@pytest.mark.parametrize("damage", ["cut", "flip", "text", "list", "version"])
def test_a_corrupt_cache_is_rebuilt(damage: str, photos: Path, tmp_path: Path, monkeypatch) -> None:
    first = look(photos, cache=tmp_path / "cache")
    file = next((tmp_path / "cache").iterdir())
    good = file.read_bytes()
    if damage == "cut":
        file.write_bytes(good[: len(good) // 2])
    elif damage == "flip":  # still JSON, and two files would be taken for copies
        shas = [hashlib.sha256((photos / "train" / "red" / name).read_bytes()) for name in ("000.png", "001.png")]
        one, other = (sha.hexdigest().encode() for sha in shas)
        file.write_bytes(good.replace(one, other))
        assert file.read_bytes() != good
    elif damage == "version":
        with monkeypatch.context() as patch:
            patch.setattr(scan, "_version", lambda: ["0", "0"])
            look(photos, cache=tmp_path / "cache")
        assert file.read_bytes() != good
    else:
        body = b"[]" if damage == "list" else b"hello"
        file.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    assert look(photos, cache=tmp_path / "cache") == first
    assert file.read_bytes() == good


def test_entries_with_the_former_hash_are_not_read(photos: Path, tmp_path: Path) -> None:
    first = manifest(photos, cache=tmp_path)
    (file,) = (path for path in tmp_path.iterdir() if path.suffix == ".json")
    former = json.loads(file.read_bytes().partition(b"\n")[2])
    assert former["version"][0] != "3"
    former["version"][0] = "3"
    for values in former["entries"].values():
        values[10:17] = [values[10] ^ 1]  # a dHash in the place of the pHash and what was seen beside it
    body = json.dumps(former).encode()
    file.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    assert manifest(photos, cache=tmp_path) == first


@pytest.mark.parametrize("change", ["content", "replaced", "size", "copied back"])
def test_a_file_that_changed_is_read_again(change: str, photos: Path, tmp_path: Path) -> None:
    target, other = photos / "train" / "red" / "000.png", photos / "train" / "red" / "001.png"
    cache = tmp_path / "cache"
    before, status = manifest(photos, cache=cache), target.stat()
    if change == "size":
        scene(0).save(target)
    elif change == "replaced":
        scene(0).save(tmp_path / "new.png")
        (tmp_path / "new.png").replace(target)
    elif change == "content":
        target.write_bytes(other.read_bytes())
    else:  # same size, and a tool put the old time back: only the time of the change itself tells
        target.write_bytes(target.read_bytes()[:-1] + b"\0")
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = manifest(photos, cache=cache)
    differ = {name for name in before if before[name].sha256 != after[name].sha256}
    assert differ == {"train/red/000.png"}
    assert after[next(iter(differ))].sha256 == hashlib.sha256(target.read_bytes()).hexdigest()


def test_a_cache_that_cannot_be_written_is_no_error(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert look(photos, cache=tmp_path / "file").findings == ()


def test_the_manifest_holds_the_sha256_of_each_file(photos: Path) -> None:
    entries = manifest(photos, cache=None)
    assert {name: entry.sha256 for name, entry in entries.items()} == {
        str(path.relative_to(photos)): hashlib.sha256(path.read_bytes()).hexdigest() for path in photos.rglob("*.png")
    }


def test_a_decoder_that_fails_over_exif_alone_leaves_the_image_readable(tmp_path: Path, monkeypatch) -> None:
    draw("red", 0).save(tmp_path / "a.jpg")
    monkeypatch.setattr(Image.Image, "getexif", lambda image: _raise(ValueError()))
    assert examine(tmp_path / "a.jpg").why == ""


def test_what_could_not_be_read_is_tried_again(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path / "set", 6)
    with monkeypatch.context() as patch:
        patch.setattr(duplicates, "read_image", lambda path, stream: _raise(DataError("x", why="the mount is gone")))
        assert look(tmp_path / "set", cache=tmp_path / "cache").counts == {"unreadable": 18}
    assert look(tmp_path / "set", cache=tmp_path / "cache").findings == ()


def _raise(error: Exception):
    raise error
