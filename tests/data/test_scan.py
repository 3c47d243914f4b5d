import hashlib
import os
import resource
from pathlib import Path

import pytest

from pictures import draw, fill
from resnetkit.data import scan
from resnetkit.data.dataset import Data
from resnetkit.data.load import load_data
from resnetkit.data.survey import list_folder
from resnetkit.doctor import examine as duplicates
from resnetkit.doctor.check import check


def entries_of(folder: Path, cache: Path | None = None) -> dict[str, scan.Entry]:
    paths = [path for members, _ in list_folder(folder).splits.values() for path in members]
    names = [str(path.relative_to(folder)) for path in paths]
    return dict(zip(names, scan.scan(folder, paths, cache=cache), strict=True))


def count(data: Data) -> int:
    return sum(len(split) for split in (data.train, data.validation, data.test) if split is not None)


@pytest.fixture
def headers(monkeypatch) -> list[Path]:
    """The files whose headers are read."""
    read: list[Path] = []
    real = scan.check_header

    def look(path: Path, stream):
        read.append(path)
        return real(path, stream)

    monkeypatch.setattr(scan, "check_header", look)
    return read


def test_a_folder_that_was_checked_costs_training_no_header(photos: Path, headers: list[Path]) -> None:
    check(photos)
    assert load_data(str(photos)).unreadable == {}
    assert headers == []


def test_training_and_a_check_after_it_read_each_file_once(photos: Path, headers: list[Path], monkeypatch) -> None:
    load_data(str(photos))
    assert len(headers) == 33
    load_data(str(photos))
    assert len(headers) == 33
    assert check(photos).findings == ()  # a header is not a picture: it decodes them all
    monkeypatch.setattr(duplicates, "examine", lambda path: pytest.fail("it was decoded again"))
    (photos / "train" / "red" / "notes.txt").write_text("x")
    load_data(str(photos))
    assert check(photos).counts == {"ignored": 1}
    assert len(headers) == 33


def test_what_the_check_found_damaged_training_leaves_out_before_it_begins(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    draw("red", 9, (300, 200)).save(tmp_path / "red" / "bad.png")  # too large to be decoded beforehand
    draw("red", 8, (300, 200)).save(tmp_path / "red" / "large.png")
    content = bytearray((tmp_path / "red" / "bad.png").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "red" / "bad.png").write_bytes(content)
    assert load_data(str(tmp_path)).unreadable == {}
    check(tmp_path)
    assert [Path(file).name for file in load_data(str(tmp_path)).unreadable] == ["bad.png"]
    draw("red", 9, (300, 200)).save(tmp_path / "red" / "bad.png")
    assert load_data(str(tmp_path)).unreadable == {}


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "list", "fields", "version"])
def test_a_damaged_cache_is_ignored_and_rebuilt(
    damage: str, photos: Path, tmp_path: Path, headers, monkeypatch
) -> None:
    first = entries_of(photos, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    good = file.read_bytes()
    entry = first["train/red/000.png"]
    if damage == "version":
        with monkeypatch.context() as patch:
            patch.setattr(scan.PIL, "__version__", "0")
            entries_of(photos, tmp_path / "cache")
    elif damage == "flip":  # still JSON: the picture would have another width
        file.write_bytes(good.replace(b'"PNG",48,', b'"PNG",49,', 1))
    else:
        body = {"list": b"[]", "fields": good.partition(b"\n")[2].replace(f"[{entry.size},".encode(), b"[", 1)}
        wrong = {"cut": good[: len(good) // 2], "empty": b""}
        made = body.get(damage, b"")
        file.write_bytes(wrong.get(damage, hashlib.sha256(made).hexdigest().encode() + b"\n" + made))
    assert file.read_bytes() != good
    headers.clear()
    assert entries_of(photos, tmp_path / "cache") == first
    assert len(headers) == (33 if damage != "fields" else 1)
    assert file.read_bytes() == good


@pytest.mark.parametrize("change", ["mtime", "inode", "size"])
def test_a_file_that_changed_is_read_again_and_no_other(change: str, photos: Path, tmp_path: Path, headers) -> None:
    entries_of(photos, tmp_path / "cache")
    headers.clear()
    target = photos / "train" / "red" / "000.png"
    if change == "mtime":
        os.utime(target, ns=(0, 10**18))
    elif change == "inode":
        target.rename(tmp_path / "old.png")
        target.write_bytes((tmp_path / "old.png").read_bytes())
    else:
        draw("red", 1000).save(target)
    entries_of(photos, tmp_path / "cache")
    assert headers == [target]


@pytest.mark.parametrize("trouble", ["full", "file in the way", "no home"])
def test_a_cache_that_cannot_be_kept_costs_time_only(trouble: str, photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path / "cache"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if trouble == "file in the way":
        (tmp_path / "cache").write_text("x")
    elif trouble == "no home":
        monkeypatch.delenv("RESNETKIT_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        data = load_data(str(photos))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (count(data), data.notes) == (33, [])
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
