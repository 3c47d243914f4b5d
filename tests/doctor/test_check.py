import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from doctor.looking import files_of, fingerprint, look, one_of_each, scene
from pictures import draw, fill
from resnetkit.doctor.examine import examine
from resnetkit.doctor.report import KINDS
from resnetkit.errors import DataError


def test_a_clean_folder_has_no_findings(tmp_path: Path) -> None:
    fill(tmp_path / "train", 8)
    fill(tmp_path / "val", 3, first=100)
    report = look(tmp_path)
    assert report.findings == ()
    assert report.images == 33
    assert report.splits == {"train": 24, "validation": 9}
    assert report.classes["validation"] == {"blue": 3, "green": 3, "red": 3}
    assert not report.serious
    assert "all well" in report.to_text()


def test_every_kind_is_found_exactly_once_and_nothing_is_changed(tmp_path: Path) -> None:
    expected = one_of_each(tmp_path)
    before = fingerprint(tmp_path)
    report = look(tmp_path)
    assert {finding.kind: finding.files for finding in report.findings} == expected
    assert len(report.findings) == len(expected)
    assert set(KINDS) - set(expected) == {"one-class", "near-incomplete", "constant-channel"}
    assert report.serious
    assert fingerprint(tmp_path) == before
    text = report.to_text()
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("To do:") == len(expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_ten_of_ten_planted_duplicates_among_200_and_none_false(workers: int, tmp_path: Path) -> None:
    train, val = fill(tmp_path / "train", 50), fill(tmp_path / "val", 17, first=500)
    planted = {"exact-across-splits": set(), "pixels-across-splits": set()}
    for number in range(5):
        source = train / "red" / f"{number:03d}.png"
        (val / "red" / f"copy{number}.png").write_bytes(source.read_bytes())
        planted["exact-across-splits"].add((f"train/red/{number:03d}.png", f"val/red/copy{number}.png"))
        kind = ("bmp", "tiff", "webp", "gif", "ppm")[number]
        source = train / "blue" / f"{number:03d}.png"
        if kind == "gif":  # 256 colours: it must be the source that is already so
            Image.open(source).quantize(200).convert("RGB").save(source)
        options = {"lossless": True, "exact": True} if kind == "webp" else {}
        Image.open(source).save(val / "blue" / f"other{number}.{kind}", **options)
        planted["pixels-across-splits"].add((f"train/blue/{number:03d}.png", f"val/blue/other{number}.{kind}"))
    report = look(tmp_path, workers=workers)
    assert {kind: set(files_of(report, kind)) for kind in report.counts} == planted
    assert report.counts == dict.fromkeys(planted, 5)


def test_malformed_exif_breaks_nothing(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    for number, garbage in enumerate(
        (b"Exif\0\0MM\0\x2a\xff\xff", b"Exif\0\0" + b"\xff" * 40, b"Exif\0\0II*\0\x08\0\0\0")
    ):
        scene(number).save(tmp_path / "red" / f"g{number}.jpg", exif=garbage)
    assert look(tmp_path).findings == ()


def test_the_first_lines_keep_counts_together_and_names_that_end_in_a_space_are_quoted(tmp_path: Path) -> None:
    one_of_each(tmp_path)
    text = look(tmp_path).to_text()
    images, told = text.splitlines()[1:3]
    assert images == "95 images in 5 classes (train 75, validation 20)"
    assert told == "7 errors, 14 warnings, 12 notes"
    assert '    "Cat ", cat: the names differ' in text


def test_unreadable_files_are_named_with_the_reason(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    red = tmp_path / "red"
    (red / "empty.png").write_bytes(b"")
    whole = (red / "000.png").read_bytes()
    (red / "cut.png").write_bytes(whole[: len(whole) // 2])
    (red / "page.jpg").write_text("<html>")
    (red / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (red / "again").symlink_to(red)
    os.mkfifo(red / "pipe.jpg")
    report = look(tmp_path)
    reasons = {Path(finding.files[0]).name: finding.text for finding in report.findings}
    assert reasons.pop("cut.png").startswith("it is damaged")
    assert reasons == {
        "empty.png": "the file is empty",
        "page.jpg": "it is not an image (it looks like HTML)",
        "gone.jpg": "no such file",
        "pipe.jpg": "it is not a regular file",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    (tmp_path / "red" / "000.png").chmod(0)
    assert [finding.text for finding in look(tmp_path).findings] == ["it may not be read"]


def test_all_layout_problems_come_in_one_report(tmp_path: Path) -> None:
    fill(tmp_path / "train", 6, ("red", "blue"))
    fill(tmp_path / "val", 6, ("red", "green"), first=50)
    (tmp_path / "train" / "empty").mkdir()
    (tmp_path / "val" / "void").mkdir()
    report = look(tmp_path)
    assert files_of(report, "missing-class") == [("train/green",), ("val/blue",)]
    assert files_of(report, "empty-class") == [("train/empty",), ("val/void",)]
    assert report.serious


def test_names_that_a_person_takes_for_one_are_twins(tmp_path: Path) -> None:
    composed = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    names = ("Hot dog", "hotdog", composed, unicodedata.normalize("NFD", composed), "cake")
    for number, name in enumerate(names):
        fill(tmp_path / "drawn", 5, ("red",), first=10 * number)
        (tmp_path / "drawn" / "red").rename(tmp_path / name)
    (tmp_path / "drawn").rmdir()
    assert {frozenset(files) for files in files_of(look(tmp_path), "class-twins")} == {
        frozenset(names[:2]),
        frozenset(names[2:4]),
    }


def test_images_in_no_class_folder_are_a_finding_and_one_class_is_too(tmp_path: Path) -> None:
    draw("red", 0).save(tmp_path / "a.png")
    assert look(tmp_path).counts == {"outside-classes": 1}
    assert look(tmp_path).images == 0
    fill(tmp_path, 5, ("blue",))
    assert look(tmp_path).counts == {"one-class": 1, "outside-classes": 1}


@pytest.mark.parametrize(
    ("name", "why"), [("gone", "no such folder"), ("file", "it is a file"), ("void", "it holds no image")]
)
def test_no_folder_and_no_image_are_refused(name: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match=why):
        look(tmp_path / name)


NAMES = ["new\nline.png", "quote'\".png", b"\xff.png", "新" * 70 + ".png", "-dash.png", "\u202eright.png"]


@pytest.mark.parametrize("workers", [1, 2])
def test_names_of_any_kind_survive(workers: int, tmp_path: Path) -> None:
    fill(tmp_path, 5, ("blue", "red"))
    for name in NAMES:
        with open(os.path.join(os.fsencode(tmp_path / "red"), os.fsencode(name)), "wb"):  # noqa: PTH118, PTH123
            pass
    report = look(tmp_path, workers=workers, cache=tmp_path / ".cache")
    for kept in (report.to_dict(), json.loads(json.dumps(report.to_dict()))):
        assert {os.fsencode(finding["files"][0]) for finding in kept["findings"]} == {
            b"red/" + os.fsencode(name) for name in NAMES
        }
    for width in (80, 40):
        text = report.to_text(width)
        text.encode()
        for line in text.splitlines():
            assert sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line) <= width


def test_json_has_stable_keys(photos: Path) -> None:
    (photos / "train" / "red" / "x.png").write_bytes(b"")
    report = look(photos).to_dict()
    assert list(report) == ["folder", "images", "splits", "classes", "counts", "serious", "findings"]
    assert report["findings"] == [
        {"kind": "unreadable", "severity": "error", "files": ["train/red/x.png"], "text": "the file is empty"}
    ]
    assert (report["counts"], report["serious"]) == ({"unreadable": 1}, True)


def test_what_to_do_fits_on_one_line_and_ten_examples_are_enough(tmp_path: Path) -> None:
    assert max(len(f"  To do: {remedy}.") for _, _, remedy in KINDS.values()) <= 80
    fill(tmp_path, 5)
    for number in range(25):
        (tmp_path / "red" / f"broken{number}.png").write_bytes(b"")
    text = look(tmp_path).to_text()
    assert text.count("broken") == 10
    assert "… and 15 more" in text


def test_sixteen_bit_colour_is_seen_though_pillow_opens_it_as_eight(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = np.random.default_rng(0).integers(0, 256, (40, 1 + 40 * 6), dtype=np.uint8)
    rows[:, 0] = 0  # no filter
    parts = (
        chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 40, 16, 2, 0, 0, 0)),
        chunk(b"IDAT", zlib.compress(rows.tobytes())),
    )
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""))
    entry = examine(tmp_path / "deep.png")
    assert (entry.why, entry.mode, entry.bits) == ("", "RGB", 16)


def test_small_images_among_small_images_are_not_tiny(tmp_path: Path) -> None:
    for colour in ("red", "blue"):
        (tmp_path / colour).mkdir()
        for number in range(5):
            draw(colour, number, (28, 28)).save(tmp_path / colour / f"{number}.png")
    assert look(tmp_path).findings == ()
