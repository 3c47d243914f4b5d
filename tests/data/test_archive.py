"""Archives against the folders that they were made of, and hostile ones against what they may not do."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

import resnetkit as rk
from conftest import TINY
from outside import read_outside, refused
from pictures import fill, png, samples, write_tar
from resnetkit.data import members
from resnetkit.data.archive import holds_folders, unpack
from resnetkit.data.load import load_data
from resnetkit.data.shards.read import names_shards
from resnetkit.doctor.check import check
from resnetkit.errors import DataError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def pack(folder: Path, file: Path, inside: str = "") -> Path:
    """An archive of all files of a folder, as the usual tools make it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if file.suffix == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
            for path in paths:
                opened.write(path, inside + path.relative_to(folder).as_posix())
        return file
    mode = {".tgz": "w:gz", ".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(file.suffix, "w:")
    with tarfile.open(file, mode) as opened:
        for path in paths:
            opened.add(path, inside + path.relative_to(folder).as_posix())
    return file


def make_zip(file: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return file


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_archive_is_the_folder_that_it_was_made_of(photos: Path, tmp_path: Path, suffix: str) -> None:
    (photos / "train" / "red" / "notes.txt").write_text("x")
    data = load_data(str(pack(photos, tmp_path / f"packed{suffix}")))
    folder = load_data(str(photos))
    assert data.classes == folder.classes
    for one, other in ((data.train, folder.train), (data.validation, folder.validation)):
        assert one.contents().tolist() == other.contents().tolist()
        assert one.labels.tolist() == other.labels.tolist()
    assert any("1 files that are no images by their names (1 .txt)" in note for note in data.notes)


def test_the_one_folder_that_everything_is_in_is_passed_through(photos: Path, tmp_path: Path) -> None:
    for folder, inside in ((photos, "photos/"), (photos, "a/photos/"), (photos / "train", "train/")):
        data = load_data(str(pack(folder, tmp_path / f"{inside.count('/')}{folder.name}.zip", inside)))
        assert data.classes == ("blue", "green", "red")


def test_it_is_unpacked_once_and_again_where_it_has_changed(photos: Path, tmp_path: Path) -> None:
    file = pack(photos, tmp_path / "p.zip")
    place, notes = unpack(file)
    assert notes == [f"unpacked  {file} to {place}"]
    before = {path: path.stat().st_ino for path in place.rglob("*")}
    assert {path: path.stat().st_ino for path in unpack(file)[0].rglob("*")} == before
    copy = tmp_path / "copy.zip"
    copy.write_bytes(file.read_bytes())
    assert unpack(copy)[0] == place
    pack(photos / "train", file)
    assert unpack(file)[0] != place
    assert not [path for path in place.parent.iterdir() if path.name.endswith(".tmp")]


def test_a_tar_of_samples_stays_a_shard(photos: Path, tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "train-000000.tar", samples(12))
    deep = write_tar(tmp_path / "deep.tar", [(f"a/{name}", content) for name, content in samples(6)])
    with_json = write_tar(
        tmp_path / "json.tar",
        [(f"a/{name.replace('.cls', '.json')}", content) for name, content in samples(12)],
    )
    (photos / "about.json").write_text("{}")
    plain = pack(photos, tmp_path / "photos.tar")
    assert [holds_folders(file) for file in (shard, deep, with_json, plain)] == [False, False, False, True]
    assert names_shards(str(plain))
    assert load_data(str(shard)).classes == ("0", "1", "2")


def test_names_of_a_mac_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = make_zip(tmp_path / "mac.zip", {"kXXse/1.png": png(1)})
    # In UTF-8, without the flag that says so.
    file.write_bytes(file.read_bytes().replace(b"kXXse", "käse".encode()))
    assert [path.name for path in unpack(file)[0].iterdir()] == ["käse"]


@pytest.mark.parametrize(
    "name", ["../out.png", "a/../../out.png", "/out.png", "..\\out.png", "C:/out.png", "C:\\out.png"]
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    archives = tmp_path / "cache"
    for file in (make_zip(tmp_path / "z.zip", {name: png(1)}), write_tar(tmp_path / "t.tar.gz", [(name, png(1))])):
        if file.suffix == ".gz":
            with tarfile.open(file, "w:gz") as opened:
                member = tarfile.TarInfo(name)
                member.size = len(png(1))
                opened.addfile(member, io.BytesIO(png(1)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RESNETKIT_CACHE", str(archives))
            with pytest.raises(DataError, match="leads out of it") as error:
                unpack(file)
            assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("out.png"))


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_links_are_not_made_and_counted(photos: Path, tmp_path: Path, suffix: str) -> None:
    (photos / "train" / "red" / "link.png").symlink_to("/etc/passwd")
    file = tmp_path / f"linked{suffix}"
    if suffix == ".tar":
        with tarfile.open(file, "w") as opened:
            opened.add(photos, "photos")
    else:
        pack(photos, file)
        with zipfile.ZipFile(file, "a") as opened:
            info = zipfile.ZipInfo("train/red/other.png")
            info.create_system, info.external_attr = 3, 0o120777 << 16
            opened.writestr(info, "/etc/passwd")
            opened.writestr("train/red/plain.png", png(7))
    place, notes = unpack(file)
    assert "1 links and other members that are no files are left out" in notes
    assert not [path for path in place.rglob("*") if path.is_symlink()]


def test_hostile_archives_end_in_one_line_at_little_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path / "cache"))
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as opened:
        for number in range(12):
            with opened.open(f"a/{number}.png", "w") as member:
                for _ in range(100):
                    member.write(bytes(1 << 20))
    lying = tmp_path / "lying.zip"
    with zipfile.ZipFile(lying, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a/1.png", bytes(1 << 20))
    content = lying.read_bytes()
    lying.write_bytes(content.replace((1 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    (tmp_path / "cut.zip").write_bytes(content[: len(content) // 2])
    (tmp_path / "none.zip").write_bytes(b"no zip")
    (tmp_path / "none.tar.gz").write_bytes(b"no gzip")
    (tmp_path / "none.tar.xz").write_bytes(b"no xz")
    (tmp_path / "none.tar.bz2").write_bytes(b"no bz2")
    clash = make_zip(tmp_path / "clash.zip", {"a": b"x", "a/b.png": png(1)})
    os.mkfifo(tmp_path / "pipe.zip")
    files = [bomb, lying, clash, *(tmp_path / name for name in ("cut.zip", "none.zip", "pipe.zip"))]
    files += [tmp_path / f"none.tar.{kind}" for kind in ("gz", "xz", "bz2")]
    ends = read_outside("resnetkit.data.load:load_data", files)
    said = {Path(file).name: refused(end, 3) for file, end in ends.items()}
    assert "more than 1,073,741,824 bytes would come out" in said["bomb.zip"]
    assert "lies in a file" in said["clash.zip"]
    assert "it is not a plain file" in said["pipe.zip"]
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".png", ".tmp")]


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MOST_MEMBERS", 3)
    with pytest.raises(DataError, match="more than 3 members"):
        unpack(make_zip(tmp_path / "many.zip", {f"{number}.png": b"x" for number in range(5)}))


def test_an_archive_is_trained_scored_checked_and_written_as_shards(photos: Path, tmp_path: Path) -> None:
    file = pack(photos, tmp_path / "photos.zip", "photos/")
    settings = {"epochs": 1, "quiet": True, "data": {"image_size": 16}, **TINY}
    classifier = rk.train(file, "scratch", out=tmp_path / "run", **settings)
    assert classifier.metrics["count"] == 9
    with pytest.raises(DataError, match="all 24 pictures were seen in training"):
        rk.evaluate(classifier, photos / "train")
    assert check(file).images == 33
    assert rk.shard(file, tmp_path / "shards")["classes"] == ["blue", "green", "red"]
    table = tmp_path / "with_table"
    fill(table / "img", 4)
    rows = [f"img/{path.parent.name}/{path.name},{path.parent.name}" for path in (table / "img").rglob("*.png")]
    (table / "metadata.csv").write_text("file_name,label\n" + "\n".join(rows) + "\n")
    assert load_data(str(pack(table, tmp_path / "table.zip"))).classes == ("blue", "green", "red")
