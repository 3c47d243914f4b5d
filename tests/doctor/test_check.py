import hashlib
import json
import os
import shutil
import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from PIL import Image, ImageFilter

from pictures import draw, fill
from resnetkit.data import scan
from resnetkit.doctor import check as doctor
from resnetkit.doctor import examine as duplicates
from resnetkit.doctor.check import check, manifest
from resnetkit.doctor.examine import examine, hash_pixels
from resnetkit.doctor.near import near_pairs
from resnetkit.doctor.report import KINDS, Report
from resnetkit.doctor.thumbnail import phash
from resnetkit.errors import DataError, UsageError


def look(folder: Path, **options) -> Report:
    return check(folder, **{"cache": None, "workers": 1} | options)


def files_of(report: Report, kind: str) -> list[tuple[str, ...]]:
    return [finding.files for finding in report.findings if finding.kind == kind]


def scene(number: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A mosaic, whose re-encoding keeps its hash: noise enlarged."""
    cells = np.random.default_rng(number).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.NEAREST)


def scenes(folder: Path, count: int, first: int = 0) -> Path:
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            scene(1000 * label + number).save(folder / name / f"{number:03d}.png")
    return folder


def fingerprint(folder: Path) -> str:
    seen = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        seen.update(f"{path} {status.st_mode} {status.st_size} {status.st_mtime_ns} {status.st_ino}".encode())
        if path.is_file():
            seen.update(path.read_bytes())
    return seen.hexdigest()


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


def _one_of_each(root: Path) -> dict[str, tuple[str, ...]]:
    """Every kind of trouble but three that exclude others, and the files that each should name."""
    train, val = scenes(root / "train", 24), scenes(root / "val", 6, first=100)
    cat, dog = train / "cat", train / "dog"
    (train / "empty").mkdir()
    (cat / "@eaDir").mkdir()
    shutil.copy(cat / "000.png", cat / "@eaDir" / "x.jpg")
    scenes(root / "spare", 1, first=300)
    (root / "spare" / "cat" / "300.png").rename(root / "300.png")
    (root / "spare" / "dog" / "300.png").unlink()
    for number in range(5):
        (train / "Cat ").mkdir(exist_ok=True)
        (val / "Cat ").mkdir(exist_ok=True)
        scene(400 + number).save(train / "Cat " / f"{number}.png")
        scene(410 + number).save(val / "Cat " / f"{number}.png")
    (train / "rare").mkdir()
    (train / "rare" / "0.png").write_bytes(b"")
    scene(420).save(train / "rare" / "1.png")
    (root / "notes.txt").write_text("x")
    scene(500).convert("CMYK").save(cat / "print.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 65535, (80, 90), dtype=np.uint16)).save(cat / "deep.png")
    scene(501).convert("RGBA").save(cat / "glass.png")
    scene(502).save(cat / "film.gif", save_all=True, append_images=[scene(503)])
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(504).save(cat / "turned.jpg", exif=exif)
    scene(505, (8000, 3200)).save(cat / "enormous.jpg", quality=30)
    scene(506, (36, 30)).save(cat / "tiny.png")
    scene(507).save(cat / "really.png")
    (cat / "really.png").rename(cat / "named.jpg")

    scene(508).point(lambda level: level // 6).save(cat / "night.png")
    snow = Image.new("RGB", (96, 80), "white")
    snow.paste(scene(509, (16, 16)))
    snow.save(cat / "snow.png")
    scene(510).point(lambda level: 128 + level // 80).save(cat / "wall.png")
    scene(511).filter(ImageFilter.GaussianBlur(6)).save(cat / "fog.png")
    scene(512, (400, 380)).save(cat / "large.png")
    scene(513, (300, 40)).save(cat / "long.png")

    def copy(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes())

    copy(cat / "000.png", cat / "copy.png")
    copy(cat / "001.png", val / "cat" / "copy.png")
    copy(cat / "002.png", dog / "copy.png")
    Image.open(cat / "003.png").save(cat / "same.bmp")
    Image.open(cat / "004.png").save(val / "cat" / "same.bmp")
    Image.open(cat / "005.png").save(dog / "same.bmp")
    Image.open(cat / "006.png").save(cat / "near.jpg", quality=60)
    Image.open(cat / "007.png").save(val / "cat" / "near.jpg", quality=60)
    Image.open(cat / "008.png").save(dog / "near.jpg", quality=60)
    return {
        "unreadable": ("train/rare/0.png",),
        "empty-class": ("train/empty",),
        "missing-class": ("val/rare",),
        "exact-across-classes": ("train/cat/002.png", "train/dog/copy.png"),
        "pixels-across-classes": ("train/cat/005.png", "train/dog/same.bmp"),
        "exact-across-splits": ("train/cat/001.png", "val/cat/copy.png"),
        "pixels-across-splits": ("train/cat/004.png", "val/cat/same.bmp"),
        "near-across-classes": ("train/cat/008.png", "train/dog/near.jpg"),
        "near-across-splits": ("train/cat/007.png", "val/cat/near.jpg"),
        "outside-classes": ("300.png",),
        "class-twins": ("Cat ", "cat"),
        "few-images": ("train/rare",),
        "imbalance": ("train/cat", "train/rare"),
        "exact": ("train/cat/000.png", "train/cat/copy.png"),
        "pixels": ("train/cat/003.png", "train/cat/same.bmp"),
        "enormous": ("train/cat/enormous.jpg",),
        "tiny": ("train/cat/tiny.png",),
        "low-information": ("train/cat/wall.png",),
        "dark": ("train/cat/night.png",),
        "bright": ("train/cat/snow.png",),
        "blurry": ("train/cat/fog.png",),
        "near": ("train/cat/006.png", "train/cat/near.jpg"),
        "odd-size": ("train/cat/large.png",),
        "odd-aspect-ratio": ("train/cat/long.png",),
        "grey": ("train/cat/deep.png",),
        "wrongly-named": ("train/cat/named.jpg",),
        "cmyk": ("train/cat/print.jpg",),
        "sixteen-bit": ("train/cat/deep.png",),
        "alpha": ("train/cat/glass.png",),
        "animated": ("train/cat/film.gif",),
        "exif-rotated": ("train/cat/turned.jpg",),
        "left-out": ("train/cat/@eaDir/x.jpg",),
        "ignored": ("notes.txt",),
    }


def test_every_kind_is_found_exactly_once_and_nothing_is_changed(tmp_path: Path) -> None:
    expected = _one_of_each(tmp_path)
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


def test_one_and_two_workers_find_the_same_and_leave_no_process(tmp_path: Path) -> None:
    _one_of_each(tmp_path)
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


def test_malformed_exif_breaks_nothing(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    for number, garbage in enumerate(
        (b"Exif\0\0MM\0\x2a\xff\xff", b"Exif\0\0" + b"\xff" * 40, b"Exif\0\0II*\0\x08\0\0\0")
    ):
        scene(number).save(tmp_path / "red" / f"g{number}.jpg", exif=garbage)
    assert look(tmp_path).findings == ()


def test_flat_images_are_never_near_duplicates(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    for grey in range(100, 106):
        noise = np.random.default_rng(grey).integers(-1, 2, (64, 64, 3))
        Image.fromarray((grey + noise).astype(np.uint8)).save(tmp_path / "red" / f"flat{grey}.png")
    assert look(tmp_path).counts == {"low-information": 6}
    assert phash(Image.new("RGB", (64, 64), "white")) is None


def test_near_pairs_equal_those_of_the_plain_double_loop() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 300, dtype=np.uint64)
    for number in range(200):  # neighbours at 0 to 12 bits, some from one another
        flips = rng.choice(64, number % 13, replace=False)
        hashes[100 + number] = hashes[number] ^ np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64), initial=0)
    for near in (0, 1, 3, 7, 10):
        plain = [
            [i, j]
            for i in range(300)
            for j in range(i + 1, 300)
            if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= near
        ]
        pairs, complete = near_pairs(hashes, near)
        assert complete
        assert pairs.tolist() == plain
        assert len(plain) > 10


def test_few_hashes_are_compared_as_many_are(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    hashes = [int(value) for value in rng.integers(0, 2**63, 200, dtype=np.uint64)]
    flips = [0b10101, 0b1111]  # three bits are near, four are not
    hashes += [each ^ flips[number % 2] << number % 59 for number, each in enumerate(hashes[:50])]
    few, all_of_few = doctor._near_pairs(hashes, 3)
    monkeypatch.setattr(doctor, "FEW_HASHES", 0)
    assert doctor._near_pairs(hashes, 3) == (few, all_of_few)
    assert len(few) == 25


def test_a_phash_is_what_scipy_and_numpy_make_of_the_thumbnail() -> None:
    """The oracle is SciPy's DCT; bits whose frequency is the median but for rounding may be either."""
    for number in range(20):
        picture = draw("red", number) if number % 2 else scene(number)
        cells = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BILINEAR), dtype=float)
        frequencies = scipy.fft.dctn(cells, type=2)[:8, :8].ravel()[1:]
        middle = np.median(frequencies)
        bits = np.array([int(bit) for bit in f"{phash(picture):063b}"], dtype=bool)
        clear = np.abs(frequencies - middle) > 2e-4 * np.abs(frequencies).max()
        assert clear.sum() >= 50
        assert (bits == (frequencies > middle))[clear].all()


def test_near_pairs_of_10_000_hashes_at_ten_bits_are_all_found() -> None:
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**63, 10_000, dtype=np.uint64)
    for number in range(50):
        flips = rng.choice(63, 10, replace=False).astype(np.uint64)
        hashes[9_000 + number] = hashes[number] ^ np.bitwise_or.reduce(np.uint64(1) << flips)
    pairs, complete = near_pairs(hashes, 10)
    assert complete
    assert {(number, 9_000 + number) for number in range(50)} <= set(map(tuple, pairs.tolist()))


def test_near_pairs_of_100_000_hashes_take_seconds_not_hours() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, 100_000, dtype=np.uint64)
    hashes[-1] = hashes[0] ^ np.uint64(0b10101)
    pairs, complete = near_pairs(hashes, 3)
    assert pairs.tolist() == [[0, 99_999]]
    assert complete


def test_hashes_that_tell_nothing_apart_are_given_up_and_said_so(tmp_path: Path, monkeypatch) -> None:
    pairs, complete = near_pairs(np.full(5000, 7, dtype=np.uint64), 3)
    assert (len(pairs), complete) == (1_000_000, False)
    monkeypatch.setattr(doctor, "MOST_FINDINGS", 3)
    fill(tmp_path, 6)
    for quality in range(30, 70, 10):
        scene(0).save(tmp_path / "red" / f"q{quality}.jpg", quality=quality)
    report = look(tmp_path)
    assert report.counts == {"near": 3, "near-incomplete": 1}
    assert "\n    there are more than 3 pairs" in report.to_text()


def test_the_first_lines_keep_counts_together_and_names_that_end_in_a_space_are_quoted(tmp_path: Path) -> None:
    _one_of_each(tmp_path)
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


def test_near_must_be_a_small_number_of_bits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Try: 0 to 10"):
        look(tmp_path, near=11)
    for near in (-1, 2.0, float("nan"), "7", 10**30):
        with pytest.raises(UsageError, match=r"^near .* cannot be: it is a whole number from 0 to 10\. Try: 0 to 10"):
            look(tmp_path, near=near)


@pytest.mark.parametrize(("size", "bits"), [((64, 64), 10), ((63, 64), 6)])
def test_small_pictures_must_be_nearer_to_one_another(size: tuple[int, int], bits: int, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(8):
            picture = scene(number + 100 * (name == "dog"), size)
            picture.save(tmp_path / name / f"{number}.png")
            for angle in (2, 5):
                picture.rotate(angle).save(tmp_path / name / f"{number}-{angle}.png")
    by_default = files_of(look(tmp_path), "near")
    assert by_default == files_of(look(tmp_path, near=bits), "near")
    assert len(by_default) > 0
    assert len(files_of(look(tmp_path, near=6), "near")) < len(files_of(look(tmp_path, near=10), "near"))


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


def test_small_images_among_small_images_are_not_tiny(tmp_path: Path) -> None:
    for colour in ("red", "blue"):
        (tmp_path / colour).mkdir()
        for number in range(5):
            draw(colour, number, (28, 28)).save(tmp_path / colour / f"{number}.png")
    assert look(tmp_path).findings == ()
