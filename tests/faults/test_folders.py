"""Names and folders of any kind: what is listed, what is said of it, and copies among it."""

import errno
import hashlib
import inspect
import json
import os
import socket
import sys
import unicodedata
from pathlib import Path

import pytest

import progress
from faults.listed import count, reasons
from pictures import draw, fill
from resnetkit.data.load import load_data
from resnetkit.data.walk import list_images
from resnetkit.doctor.check import check

# D14: names.

COMPOSED = "caf\N{LATIN SMALL LETTER E WITH ACUTE}.png"


NAMES = [
    " a b.png",
    "new\nline.png",
    "tab\t,comma.png",
    "quote'\".png",
    "-dash.png",
    "n" * 251 + ".png",
    "\U0001f63a.png",
]


NAMES += [COMPOSED, unicodedata.normalize("NFD", COMPOSED), "\u202eright.png", b"\xff\xfe.png", "<img onerror>.png"]


def test_predictions_of_any_name_parse_back_to_its_bytes(tmp_path: Path, digits_run: Path, cli) -> None:
    for number, name in enumerate(NAMES):
        file = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), os.fsencode(name))))
        file.write_bytes(b"")
        if number % 2:
            draw("red", number).save(file, "PNG")
    done = cli("predict", digits_run, tmp_path, "--json", "--device", "cpu")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert {os.path.basename(os.fsencode(row["file"])): row["status"] for row in rows} == {
        os.fsencode(name): "ok" if number % 2 else "error" for number, name in enumerate(NAMES)
    }
    assert len(rows) == len(NAMES)


def test_notes_on_any_name_are_one_line(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    (tmp_path / "new\nline").mkdir()
    for number in range(5):
        draw("red", 100 + number).save(tmp_path / "new\nline" / f"\udcff{number}.png")
    os.link(tmp_path / "new\nline" / "\udcff0.png", tmp_path / "new\nline" / "copy.png")
    (note,) = [note for note in load_data(str(tmp_path)).notes if "copy.png" in note]
    assert "\n" not in note
    note.encode()
    assert "new\\nline/\\udcff0.png" in note


# D15, D16: links, pipes, and other inhabitants of a disk.


@pytest.mark.timeout(120)  # opening a pipe would never end
def test_special_files_are_named_or_walked_once_and_never_block(tmp_path: Path, monkeypatch) -> None:
    photos, outside = fill(tmp_path / "photos", 4), fill(tmp_path / "outside", 1, ("red",), first=50)
    red = photos / "red"
    (red / "again").symlink_to(photos)
    (red / "outside").symlink_to(outside)
    (red / "itself.jpg").symlink_to("itself.jpg")
    (red / "gone.jpg").symlink_to("nowhere.jpg")
    (red / "endless.jpg").symlink_to("/dev/zero")
    (red / "folder.jpg").mkdir()
    os.mkfifo(red / "pipe.jpg")
    monkeypatch.chdir(red)  # the path of a socket has 107 bytes at most
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
    found = reasons(photos)
    assert {Path(name).name: why for name, why in found.items()} == {
        "itself.jpg": os.strerror(errno.ELOOP),
        "gone.jpg": "no such file",
        "endless.jpg": "it is not a regular file",
        "pipe.jpg": "it is not a regular file",
        "socket.jpg": "it is not a regular file",
    }
    seen = [os.path.realpath(path) for path in list_images(red)]
    assert seen.count(str(red / "000.png")) == 1
    assert seen.count(str(outside / "red" / "050.png")) == 1
    report = check(photos, cache=None)
    assert {file for finding in report.findings if finding.kind == "unreadable" for file in finding.files} == set(found)


def test_a_folder_deeper_than_python_recurses_is_walked(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    deep = tmp_path / "red" / "/".join("d" * 200)
    deep.mkdir(parents=True)
    draw("red", 77).save(deep / "deep.png")
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(len(inspect.stack()) + 100)
        found = list_images(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert len(found) == 10


def test_what_systems_leave_behind_is_not_read(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._000.png", ".hidden.png", "__MACOSX/._x.jpg", ".git/a.png"):
        file = tmp_path / "red" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"rubbish")
    data = load_data(str(tmp_path))
    assert (count(data), data.unreadable) == (9, {})


def test_images_at_two_levels_belong_to_the_class_above(tmp_path: Path) -> None:
    fill(tmp_path, 4, ("blue", "red"))
    fill(tmp_path / "red", 4, ("green",), first=50)
    data = load_data(str(tmp_path), whole=True)
    assert data.classes == ("blue", "red")
    assert data.test.labels.bincount().tolist() == [4, 8]


# D5, D28: what decides is the content, and the codec that is installed.


def test_any_name_of_an_image_is_listed(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    for name in ("noname", "LOUD.JPG", "double.tar.jpeg", "n02105855_2933.JPEG"):
        draw("red", len(name)).save(tmp_path / "red" / name, "PNG")
    assert count(load_data(str(tmp_path))) == 13


# D16, D18, D20: what the quick part of the check says at the start of training.


@pytest.mark.parametrize("layout", ["splits", "flat"])
def test_copies_across_splits_are_counted_with_a_pair_and_a_remedy(layout: str, tmp_path: Path) -> None:
    if layout == "splits":
        fill(tmp_path / "train", 10)
        fill(tmp_path / "val", 4, first=100)
        for number in range(3):
            os.link(tmp_path / "train" / "red" / f"{number:03d}.png", tmp_path / "val" / "red" / f"copy{number}.png")
        (note,) = load_data(str(tmp_path)).notes
        assert note == (
            "6 images are in two splits, so scores are too good, such as train/red/000.png and val/red/copy0.png: "
            f"resnetkit check {tmp_path}"
        )
        return
    fill(tmp_path, 40, ("blue", "red"))
    for number in range(40):
        (tmp_path / "red" / f"copy{number}.png").write_bytes((tmp_path / "red" / f"{number:03d}.png").read_bytes())
    data = load_data(str(tmp_path))
    assert not any("in two splits" in note for note in data.notes)
    shas = [
        {hashlib.sha256(pixels.numpy().tobytes()).digest() for pixels in split.pixels}
        for split in (data.train, data.validation, data.test)
    ]
    assert sum(map(len, shas)) == 80  # of splits that are made here, none has a copy of what another has
    assert not (shas[0] & shas[1] | shas[0] & shas[2] | shas[1] & shas[2])


def test_copies_in_one_split_or_two_classes_twins_and_imbalance_are_a_note_each(tmp_path: Path) -> None:
    fill(tmp_path / "train", 45, ("blue",))
    fill(tmp_path / "train", 4, ("red",))
    fill(tmp_path / "drawn", 4, ("green",), first=200)
    (tmp_path / "drawn" / "green").rename(tmp_path / "train" / "Red")
    (tmp_path / "drawn").rmdir()
    os.link(tmp_path / "train" / "blue" / "000.png", tmp_path / "train" / "blue" / "copy.png")
    os.link(tmp_path / "train" / "blue" / "001.png", tmp_path / "train" / "red" / "copy.png")
    for name in ("blue", "red", "Red"):
        (tmp_path / "val" / name).mkdir(parents=True)
        draw("green", ord(name[0])).save(tmp_path / "val" / name / "a.png")
    more = f"resnetkit check {tmp_path}"
    assert load_data(str(tmp_path)).notes == [
        "the classes Red and red look alike; if they are one, use one folder",
        "blue has 46 images to train on and Red 4; add some, or judge by per-class scores",
        "2 images are in two classes, so labels are wrong, such as train/blue/001.png and train/red/copy.png: " + more,
        "2 images are the same file twice, such as train/blue/000.png and train/blue/copy.png: " + more,
    ]
    assert load_data(str(tmp_path), whole=True).notes == []


# D25: many files.

MANY = """
import json, os, resource, sys
from pathlib import Path
from resnetkit.data.survey import list_folder
from resnetkit.data.scan import scan

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
folder, cache = Path(sys.argv[1]), Path(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(2):
    paths = [path for members, _ in list_folder(folder).splits.values() for path in members]
    entries = scan(folder, paths, cache=cache)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
print(json.dumps([len(entries), sum(bool(entry.why) for entry in entries), grown / len(entries)]))
"""


@pytest.mark.parametrize("files", [1500, pytest.param(50_000, marks=pytest.mark.slow)])
def test_many_files_need_few_descriptors_and_little_memory_each(files: int, tmp_path: Path) -> None:
    fill(tmp_path / "set", 5, ("blue", "red"))
    for number in range(files - 10):
        colour = ("blue", "red")[number % 2]
        os.link(tmp_path / "set" / colour / f"00{number % 5}.png", tmp_path / "set" / colour / f"link{number}.png")
    done = progress.run([sys.executable, "-c", MANY, tmp_path / "set", tmp_path / "cache"])
    assert done.returncode == 0, done.stderr[-2000:]
    found, bad, each = json.loads(done.stdout)
    assert (found, bad) == (files, 0)
    assert each < 16_000 if files < 10_000 else each < 6_000
