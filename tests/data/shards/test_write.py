import gc
import json
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import webdataset

from pictures import draw, fill
from resnetkit.data.load import load_data
from resnetkit.data.shards import write as sharding
from resnetkit.data.shards.write import shard
from resnetkit.data.splits import Files
from resnetkit.errors import DataError, StorageError, UsageError
from resnetkit.machine.storage import sha256

SMALL = 0.03
"""Megabytes: about four of the tests' pictures."""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    fill(tmp_path / "pictures", 8)
    draw("red", 50, (300, 200)).save(tmp_path / "pictures" / "red" / "large.JPG", quality=90)
    return tmp_path / "pictures"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the library leaves its files open
def test_webdataset_reads_the_same_keys_bytes_and_labels(photos: Path, tmp_path: Path) -> None:
    description = shard(photos, tmp_path / "out", megabytes=SMALL)
    assert description["classes"] == ["blue", "green", "red"]
    for split, folder in (("train", "train"), ("validation", "val")):
        files = [entry["file"] for entry in description["splits"][split]]
        assert len(files) > 1
        urls = [str(tmp_path / "out" / file) for file in files]
        read = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
        assert [sample["__key__"] for sample in read] == [f"{number:09d}" for number in range(len(read))]
        theirs = Counter((sample["png"], description["classes"][int(sample["cls"])]) for sample in read)
        ours = Counter((path.read_bytes(), path.parent.name) for path in (photos / folder).rglob("*.png"))
        assert theirs == ours
    gc.collect()


def test_the_splits_are_those_that_training_on_the_folder_sees(pictures: Path, tmp_path: Path) -> None:
    shard(pictures, tmp_path / "out", megabytes=SMALL)
    data = load_data(str(pictures))
    for split, prefix in ((data.train, "train"), (data.validation, "val"), (data.test, "test")):
        assert isinstance(split, Files)
        expected = sorted(path.read_bytes() for path in split.paths)
        found = []
        for path in sorted((tmp_path / "out").glob(f"{prefix}-*.tar")):
            with tarfile.open(path) as tar:
                found += [tar.extractfile(member).read() for member in tar if not member.name.endswith(".cls")]
        assert sorted(found) == expected


def test_two_runs_give_the_same_bytes_and_another_seed_others(pictures: Path, tmp_path: Path) -> None:
    for out, seed in (("one", 0), ("two", 0), ("three", 1)):
        shard(pictures, tmp_path / out, megabytes=SMALL, seed=seed)
    one, two, three = (contents(tmp_path / out) for out in ("one", "two", "three"))
    assert one == two
    assert one["train-000000.tar"] != three["train-000000.tar"]


def test_the_description_has_the_digest_of_each_shard(pictures: Path, tmp_path: Path) -> None:
    shard(pictures, tmp_path / "out", megabytes=SMALL)
    files = contents(tmp_path / "out")
    description = json.loads(files.pop("dataset.json"))
    entries = [entry for part in description["splits"].values() for entry in part]
    assert {entry["file"]: (entry["sha256"], entry["bytes"]) for entry in entries} == {
        name: (sha256(content), len(content)) for name, content in files.items()
    }
    assert sum(entry["samples"] for entry in entries) == 25


def test_a_shard_is_mixed_across_classes(photos: Path, tmp_path: Path) -> None:
    description = shard(photos, tmp_path / "out", megabytes=SMALL)
    first = tmp_path / "out" / description["splits"]["train"][0]["file"]
    with tarfile.open(first) as tar:
        labels = {tar.extractfile(member).read() for member in tar if member.name.endswith(".cls")}
    assert len(labels) > 1


def test_pictures_that_cannot_be_decoded_are_left_out_and_named(pictures: Path, tmp_path: Path) -> None:
    whole = (pictures / "red" / "large.JPG").read_bytes()
    (pictures / "red" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (pictures / "blue" / "page.png").write_text("<html>no picture</html>")
    before = {path: path.read_bytes() for path in pictures.rglob("*.*")}
    description = shard(pictures, tmp_path / "out", megabytes=SMALL)
    assert description["left_out"].keys() == {"red/cut.jpg", "blue/page.png"}
    assert "damaged" in description["left_out"]["red/cut.jpg"]
    assert sum(entry["samples"] for part in description["splits"].values() for entry in part) == 25
    assert {path: path.read_bytes() for path in pictures.rglob("*.*")} == before


@pytest.mark.parametrize("seen_by", ["header", "decoder"])
def test_a_folder_without_a_picture_that_can_be_read_is_one_line(seen_by: str, tmp_path: Path, cli) -> None:
    fill(tmp_path / "photos", 2)
    for path in (tmp_path / "photos").rglob("*.png"):
        content = path.read_bytes()
        path.write_bytes(b"no picture" if seen_by == "header" else content[:60] + bytes(40) + content[100:])
    ended = cli("shard", tmp_path / "photos", "--out", tmp_path / "out")
    assert ended.code == 3
    assert ended.err.strip().splitlines()[-1].startswith("error: no image can be read in ")
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert (tmp_path / "out").exists() == (seen_by == "decoder")
    trained = cli("train", tmp_path / "photos", "--weights", "none", "--out", tmp_path / "run")
    assert trained.code == 3
    assert "no image" in trained.err.strip().splitlines()[-1]


KILLED = """
import sys
from resnetkit.data.shards import write as sharding
count = 0
def die(_done, _total):
    global count
    count += 1
    if count == int(sys.argv[3]):
        import os
        os._exit(9)
sharding.shard(sys.argv[1], sys.argv[2], megabytes=float(sys.argv[4]), progress=die)
"""


@pytest.mark.parametrize("pictures_before", [1, 9, 20])
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(pictures_before: int, pictures: Path, tmp_path: Path) -> None:
    (pictures / "red" / "cut.jpg").write_bytes((pictures / "red" / "large.JPG").read_bytes()[:900])
    shard(pictures, tmp_path / "whole", megabytes=SMALL)
    words = [sys.executable, "-c", KILLED, pictures, tmp_path / "out", str(pictures_before), str(SMALL)]
    assert subprocess.run(words, check=False).returncode == 9
    assert not (tmp_path / "out" / "dataset.json").exists()
    (tmp_path / "out" / "train-000000.tar").touch()
    with pytest.raises(DataError, match=r"the set is not finished.*Try: the same `resnetkit shard`"):
        load_data(str(tmp_path / "out"))
    shard(pictures, tmp_path / "out", megabytes=SMALL)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not list((tmp_path / "out").glob(".*.tmp"))


def test_finished_shards_are_not_written_again(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = shard(pictures, tmp_path / "out", megabytes=SMALL)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    (tmp_path / "out" / "train-000001.tar").unlink()
    assert shard(pictures, tmp_path / "out", megabytes=SMALL) == first
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    assert {path.name for path in before if before[path] != after[path]} == {"train-000001.tar"}


@pytest.mark.parametrize("change", ["picture", "size", "seed", "classes"])
def test_a_finished_set_of_something_else_stays_as_it_is(change: str, pictures: Path, tmp_path: Path) -> None:
    shard(pictures, tmp_path / "out", megabytes=SMALL)
    before = contents(tmp_path / "out")
    settings = {"megabytes": SMALL} | {"size": {"megabytes": 1.0}, "seed": {"seed": 1}}.get(change, {})
    if change == "picture":
        draw("red", 77).save(pictures / "red" / "000.png")
    if change == "classes":
        (pictures / "red").rename(pictures / "rot")
    with pytest.raises(UsageError, match=r"the output folder holds another set in .*out.*Try: another --out"):
        shard(pictures, tmp_path / "out", **settings)
    assert contents(tmp_path / "out") == before


def test_other_peoples_files_stay_as_they_are(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train-000000.tar").write_bytes(b"mine")
    with pytest.raises(UsageError, match="the output folder holds other files"):
        shard(pictures, tmp_path / "out")
    assert contents(tmp_path / "out") == {"train-000000.tar": b"mine"}


def test_the_shards_do_not_lie_in_the_folder(pictures: Path) -> None:
    with pytest.raises(UsageError, match="the shards cannot lie in the folder itself"):
        shard(pictures, pictures / "shards")
    assert not (pictures / "shards").exists()


def test_two_writers_do_not_meet(pictures: Path, tmp_path: Path) -> None:
    with sharding._locked(tmp_path / "out"), pytest.raises(UsageError, match="another process writes there"):
        shard(pictures, tmp_path / "out")


def test_a_full_disk_is_one_line_and_leaves_no_part(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sharding, "_add", full)
        with pytest.raises(StorageError, match=r"no space left.*the same command once more"):
            shard(pictures, tmp_path / "out", megabytes=SMALL)
    assert contents(tmp_path / "out") == {}
    assert not list((tmp_path / "out").glob(".*.tmp"))
    shard(pictures, tmp_path / "out", megabytes=SMALL)


def test_the_command_says_what_it_wrote(pictures: Path, tmp_path: Path, cli) -> None:
    (pictures / "red" / "empty.png").touch()
    done = cli("shard", pictures, "--out", tmp_path / "out", "--megabytes", SMALL, "--json", "--strict")
    assert done.code == 9
    report = json.loads(done.out)
    assert report["left_out"] == {"red/empty.png": "the file is empty"}
    assert sum(part["samples"] for part in report["splits"].values()) == 25
    assert "left out: red/empty.png: the file is empty" in done.err
    again = cli("shard", pictures, "--out", tmp_path / "out", "--megabytes", SMALL)
    assert again.code == 0
    assert f"resnetkit train {tmp_path / 'out'}" in again.out


def test_help_teaches(cli) -> None:
    done = cli("shard", "--help")
    assert "resnetkit shard photos/ --out shards/" in done.out
    assert "--megabytes" in done.out
