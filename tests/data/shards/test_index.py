import gzip
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pictures import png, samples, write_tar
from resnetkit.data.shards.index import RECORD, TarIndex, find_index, make_index
from resnetkit.errors import DataError


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_tar(tmp_path / "a.tar", samples(7))


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_picture_is_the_one_that_tarfile_extracts(kind: int, tmp_path: Path) -> None:
    folder = "größe/" if kind == tarfile.PAX_FORMAT else "size/"
    long = "deep/" * 10 if kind == tarfile.USTAR_FORMAT else "deep/" * 60
    members = [("./0.cls", b"2\n"), ("./0.PNG", png(0)), ("__meta__/x.json", b"{}"), (".hidden.png", b"no")]
    members += [(f"{long}b.png", png(1)), (f"{long}b.seg.png", png(9)), (f"{long}b.json", b'{"label": 1, "w": 3}')]
    members += [(f"{folder}c.d.jpg", b"no picture: c has the extension d.jpg"), (f"{folder}e.jpg", png(2))]
    members += [(f"{folder}e.cls", b"0")]
    path = write_tar(tmp_path / "a.tar", members, kind)
    index = make_index(path)
    assert index.count == 3
    names = ["./0.PNG", f"{long}b.png", f"{folder}e.jpg"]
    with tarfile.open(path) as tar:
        assert [index.read(row) for row in range(3)] == [tar.extractfile(name).read() for name in names]
    assert [index.name(row) for row in range(3)] == [f"{path}:{name}" for name in names]
    assert index.records()["label"].tolist() == [2, 1, 0]
    assert index.label_counts().tolist() == [1, 1, 1]


def test_a_record_takes_twenty_bytes(shard: Path) -> None:
    assert RECORD.itemsize == 20
    assert make_index(shard).file.stat().st_size < 64 + 7 * 20


def test_an_index_is_found_again(shard: Path) -> None:
    assert find_index(shard) is None
    made = make_index(shard)
    assert made.file == shard.with_name(".a.tar.index")
    assert find_index(shard) == made


@pytest.mark.parametrize("what", ["time", "size", "bit", "cut", "gone"])
def test_an_index_that_no_longer_fits_is_not_used(what: str, shard: Path) -> None:
    made = make_index(shard)
    if what == "time":
        os.utime(shard, ns=(1, made.changed + 1))
    elif what == "size":
        content = shard.read_bytes() + bytes(10240)
        shard.write_bytes(content)
        os.utime(shard, ns=(1, made.changed))
    elif what == "bit":
        content = bytearray(made.file.read_bytes())
        content[-3] ^= 1
        made.file.write_bytes(content)
    elif what == "cut":
        made.file.write_bytes(made.file.read_bytes()[:-20])
    else:
        made.file.unlink()
    assert find_index(shard) is None
    assert find_index(make_index(shard).path) is not None


def test_an_index_that_cannot_be_written_beside_goes_to_the_cache(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path / "cache"))
    (shard.with_name(".a.tar.index") / "in the way").mkdir(parents=True)
    made = make_index(shard)
    assert made.file.parent == tmp_path / "cache" / "shards"
    assert find_index(shard) == made
    assert made.read(3) == png(3)


BROKEN = {
    "empty file": (lambda content: b"", "cannot read the shard in .*: it is empty"),
    "no tar": (lambda content: b"<html>" * 500, "cannot read the shard in .*: it is not a tar file"),
    "gzip": (gzip.compress, "the shard is compressed in .*gzip.*Try: gunzip a.tar"),
    "in a picture": (lambda content: content[:700], "the shard is not complete in .*unexpected end of data"),
    "between members": (lambda content: content[: content.index(b"0002.png")], "the shard is not complete"),
    "in a header": (lambda content: content[: content.index(b"0002.png") + 300], "the shard is not complete"),
    "header bit": (
        lambda content: content.replace(b"0002.png", b"0002.pnG"),
        "the shard is not complete in .*the header at byte .* is damaged",
    ),
    "empty tar": (lambda content: bytes(10240), "the shard has no labelled picture in .*it is empty"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_complete_shard_is_refused_by_name(name: str, shard: Path) -> None:
    change, message = BROKEN[name]
    shard.write_bytes(change(shard.read_bytes()))
    with pytest.raises(DataError, match=message) as error:
        make_index(shard)
    assert str(shard) in str(error.value)
    assert error.value.remedy
    assert not shard.with_name(".a.tar.index").exists()


WRONG = {
    "no label": ([("0.png", b"x"), ("0.txt", b"a cat")], "no label in .*a.tar:0: its sample has .png, .txt"),
    "json without": ([("0.png", b"x"), ("0.json", b'{"caption": "a cat"}')], "a picture has no label"),
    "json broken": ([("0.png", b"x"), ("0.json", b"{")], "a picture has no label"),
    "a word": ([("0.png", b"x"), ("0.cls", b"cat")], "the label 'cat' is not the number of a class in .*a.tar:0"),
    "negative": ([("0.png", b"x"), ("0.cls", b"-1")], "the label '-1' is not the number"),
    "a fraction": ([("0.png", b"x"), ("0.json", b'{"label": 1.0}')], "the label '1.0' is not the number"),
    "true": ([("0.png", b"x"), ("0.json", b'{"label": true}')], "the label 'True' is not the number"),
    "enormous": ([("0.png", b"x"), ("0.cls", b"99999999")], "the label '99999999' is not the number"),
    "two pictures": ([("0.png", b"x"), ("0.jpg", b"x"), ("0.cls", b"0")], "two pictures in .*a.tar:0.jpg"),
    "no picture": ([("0.npy", b"x"), ("0.cls", b"0")], "no labelled picture in .*its members are .cls, .npy"),
    "only notes": ([("readme.json", b'{"by": "me"}')], "no labelled picture in .*its members are .json"),
}


@pytest.mark.parametrize("name", WRONG)
def test_labels_and_pictures_that_cannot_be_are_refused_by_name(name: str, tmp_path: Path) -> None:
    members, message = WRONG[name]
    with pytest.raises(DataError, match=message):
        make_index(write_tar(tmp_path / "a.tar", members))


def test_notes_are_no_samples_and_a_label_without_a_picture_is_a_sample_that_cannot_be_read(tmp_path: Path) -> None:
    members = [("readme.txt", b"notes"), *samples(2), ("0009.cls", b"1"), ("0010.json", b'{"label": 0}')]
    index = make_index(write_tar(tmp_path / "a.tar", members))
    assert index.records()["label"].tolist() == [0, 1, 1, 0]
    for row, name in ((2, "0009.cls"), (3, "0010.json")):
        with pytest.raises(DataError, match=rf"a.tar:{name}: its sample has no picture"):
            index.read(row)


def test_a_shard_that_changes_after_it_was_indexed_is_not_read(shard: Path) -> None:
    index = make_index(shard)
    other = write_tar(shard.with_name("b.tar"), samples(9))
    other.replace(shard)
    with pytest.raises(DataError, match="the shard has changed since it was indexed"):
        index.read(0)


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the shard in .*a\.tar: no such file"):
        find_index(tmp_path / "a.tar")


MANY = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from resnetkit.data.shards.index import make_index
indexes = [make_index(path) for path in sorted(Path(sys.argv[1]).glob("*.tar"))]
total = sum(len(index.read(row)) for row in range(2) for index in indexes)
print(len(indexes), total)
"""


def test_more_shards_than_a_process_may_open(tmp_path: Path) -> None:
    contents = samples(2)
    for number in range(150):
        write_tar(tmp_path / f"{number}.tar", contents)
    done = subprocess.run([sys.executable, "-c", MANY, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["150", str(150 * sum(len(content) for _, content in contents[::2]))], done.stderr


def test_the_checksum_tells_labels_apart(tmp_path: Path) -> None:
    one = make_index(write_tar(tmp_path / "a.tar", samples(4, classes=2)))
    other = make_index(write_tar(tmp_path / "b.tar", samples(4, classes=3)))
    again = make_index(write_tar(tmp_path / "c.tar", samples(4, classes=3)))
    assert one.checksum != other.checksum == again.checksum
    assert isinstance(again, TarIndex)
    assert np.array_equal(other.records(), again.records())
