import io
import os
import stat
import tarfile
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

import resnetkit as rk
from conftest import untrained
from pictures import png, write_tar
from resnetkit.prediction.answer import Prediction
from resnetkit.prediction.inputs import iter_inputs

FILES = {f"in side/{number:02}.png": png(number) for number in range(20)} | {"readme.txt": b"text"}
ASIDE = {"__MACOSX/._a.png": b"", ".DS_Store": b"", "in side/Thumbs.db": b"", ".git/a.png": png(0)}


@pytest.fixture(scope="module")
def classifier() -> rk.Classifier:
    return untrained()


def packed(folder: Path, kind: str, files: dict[str, bytes] = FILES | ASIDE) -> Path:
    path = folder / f"some.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, content in files.items():
                opened.writestr(name, content)
        return path
    mode = kind.partition(".")[2]
    with tarfile.open(path, f"w:{mode}" if mode else "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def inside(folder: Path) -> dict[str, Path]:
    """The oracle: the same files, unpacked by Python's own library, in the order of the archive."""
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return {name: folder / name for name in FILES}


def reasons(rows: list[Prediction], archive: Path) -> dict[str, str | None]:
    return {row.file.removeprefix(f"{archive}{os.sep}"): row.error for row in rows if row.error}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_pictures_in_an_archive_get_the_answers_of_the_files(
    classifier: rk.Classifier, tmp_path: Path, kind: str
) -> None:
    archive, files = packed(tmp_path, kind), inside(tmp_path / "unpacked")
    before = set(Path(tempfile.gettempdir()).glob("resnetkit-*"))
    rows = rk.predict(classifier, archive)
    assert [row.file for row in rows] == [f"{archive}/{name}" for name in FILES]
    expected = rk.predict(classifier, list(files.values()))
    assert [(row.top, row.error) for row in rows] == [(row.top, row.error) for row in expected]
    del rows
    assert set(Path(tempfile.gettempdir()).glob("resnetkit-*")) == before


def test_an_archive_is_known_by_its_content_and_a_picture_by_its_own(classifier: rk.Classifier, tmp_path: Path) -> None:
    for kind in ("zip", "tar", "tar.gz"):
        nameless = packed(tmp_path, kind).rename(tmp_path / f"nameless-{kind[-1]}")
        assert len(rk.predict(classifier, [nameless])) == len(FILES)
    (tmp_path / "picture.zip").write_bytes(png(1))
    assert [row.error for row in rk.predict(classifier, [tmp_path / "picture.zip"])] == [None]


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_an_archive_that_is_cut_gives_the_rows_that_it_has_and_one_that_names_it(
    classifier: rk.Classifier, tmp_path: Path, kind: str
) -> None:
    archive = packed(tmp_path, kind)
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    rows = rk.predict(classifier, [archive])
    whole = [row for row in rows if row.error is None]
    assert 3 < len(whole) < len(FILES)
    assert [row.file for row in whole] == [f"{archive}/{name}" for name in FILES][: len(whole)]
    assert len(rows) == len(whole) + 1
    assert rows[-1].file == str(archive)
    assert rows[-1].error is not None
    assert rows[-1].error.startswith("it is damaged (")


@pytest.mark.parametrize("cut", [10, 200, -30])
def test_a_zip_without_its_list_is_one_row(classifier: rk.Classifier, tmp_path: Path, cut: int) -> None:
    archive = packed(tmp_path, "zip")
    archive.write_bytes(archive.read_bytes()[:cut])
    (row,) = rk.predict(classifier, [archive])
    assert row.file == str(archive)
    assert row.error == "it is damaged (File is not a zip file)"


def test_a_zip_with_a_damaged_member_loses_that_alone(classifier: rk.Classifier, tmp_path: Path) -> None:
    archive = packed(tmp_path, "zip", {"a.png": png(1), "b.png": png(2), "c.png": png(3)})
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        info = opened.getinfo("b.png")
        begin = info.header_offset + 30 + len("b.png")
    content[begin + info.compress_size // 2] ^= 255
    archive.write_bytes(content)
    assert [row.error is None for row in rk.predict(classifier, archive)] == [True, False, True]


LEADS_AWAY = ["../out.png", "/out.png", "a/../../out.png", "..\\out.png", "C:/out.png"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_that_lead_away_are_rows_and_nothing_is_written(
    classifier: rk.Classifier, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    archive = packed(tmp_path / "deep", kind, dict.fromkeys(LEADS_AWAY, png(0)) | {"good.png": png(0)})
    before = sorted(tmp_path.rglob("*"))
    rows = rk.predict(classifier, archive)
    assert sorted(tmp_path.rglob("*")) == before
    assert [row.error is None for row in rows] == [False] * 5 + [True]
    assert all("leads out of it" in str(row.error) for row in rows[:-1])


def test_links_and_devices_are_rows(classifier: rk.Classifier, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            member = tarfile.TarInfo(f"kind{kind.decode()}.png")
            member.type, member.linkname = kind, "/etc/hostname"
            tar.addfile(member)
    rows = rk.predict(classifier, tmp_path / "a.tar")
    assert [row.error for row in rows] == ["it is a link or a device, and no file"] * 4
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        link = zipfile.ZipInfo("link.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc/hostname")
    (row,) = rk.predict(classifier, tmp_path / "a.zip")
    assert row.error == "it is a link or a device, and no file"


def test_an_archive_in_an_archive_and_in_a_folder_is_not_entered(classifier: rk.Classifier, tmp_path: Path) -> None:
    inner = packed(tmp_path, "zip", {"a.png": png(0)})
    (tmp_path / "folder").mkdir()
    content = inner.read_bytes()
    (tmp_path / "folder" / "inner.zip").write_bytes(content)
    outer = write_tar(tmp_path / "outer.tar", [("inner.zip", content)])
    for given in (outer, tmp_path / "folder"):
        (row,) = rk.predict(classifier, given)
        assert row.file == f"{given}/inner.zip"
        assert row.error == "archives are not read; unpack it"


def test_a_member_that_would_take_too_much_memory_is_not_read(
    classifier: rk.Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = packed(tmp_path, "zip", {"zeros.png": bytes(30_000_000), "a.png": png(0)})
    monkeypatch.setenv("RESNETKIT_IMAGE_BYTES", "1e7")
    tracemalloc.start()
    rows = rk.predict(classifier, archive)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows[0].error == "it has 30,000,000 bytes, more than 2,500,000"
    assert rows[1].error is None
    assert peak < 20_000_000


def test_an_archive_from_which_far_more_would_come_than_it_has_is_refused(
    classifier: rk.Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnetkit.data.members.FREE_BYTES", 1000)
    for kind in ("zip", "tar.gz"):
        archive = packed(tmp_path, kind, {f"{number}.png": bytes(1_000_000) for number in range(3)})
        row = rk.predict(classifier, archive)[-1]
        assert row.file == str(archive)
        assert "bytes come" in str(row.error) or "bytes would come" in str(row.error)


def test_ten_thousand_members_are_listed_one_by_one(tmp_path: Path) -> None:
    content = png(0)
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as opened:
        for number in range(10_000):
            opened.writestr(f"{number:05}.png", content)
    inputs = iter_inputs([tmp_path / "many.zip"], 3)
    first = next(inputs)
    assert first.source.read().getvalue() == content
    rest = list(inputs)
    assert len(rest) == 9_999
    assert rest[-1].source.read().getvalue() == content


def test_an_empty_archive_is_refused_alone_and_a_row_among_others(classifier: rk.Classifier, tmp_path: Path) -> None:
    archive = packed(tmp_path, "zip", {})
    with pytest.raises(rk.errors.DataError, match="there is no image"):
        rk.predict(classifier, archive)
    rows = rk.predict(classifier, [archive, tmp_path / "gone.png"])
    assert reasons(rows, archive) == {str(archive): "there is no image", str(tmp_path / "gone.png"): "no such file"}
