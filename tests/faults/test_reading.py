"""Faults of files and folders, by their numbers in tests/faults/README.md: each is named, nothing hangs."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import AvifImagePlugin, Image, features

import progress
from faults.listed import count, reasons
from pictures import draw, fill
from resnetkit.data import scan
from resnetkit.data.load import load_data
from resnetkit.data.splits import Files, Images
from resnetkit.doctor.examine import examine
from resnetkit.errors import DataError
from resnetkit.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resnetkit.images.reading import check_header, read_image
from resnetkit.recipes.schema import DataRecipe

# D1: what training does with files that cannot be read.


@pytest.mark.parametrize(("good", "bad", "refused"), [(30, 3, False), (30, 4, True), (399, 4, False), (399, 5, True)])
def test_training_leaves_out_a_few_bad_files_and_stops_over_many(
    good: int, bad: int, refused: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "my photos"
    fill(folder, 3, ("blue", "red"))
    for number in range(good - 6):
        os.link(folder / "red" / "000.png", folder / "red" / f"link{number}.png")
    for number in range(bad):
        (folder / "blue" / f"x{number}.png").write_bytes(b"")
    if not refused:
        data = load_data(str(folder))
        assert count(data) == good
        assert data.unreadable == {str(folder / "blue" / f"x{n}.png"): "the file is empty" for n in range(bad)}
        return
    with pytest.raises(DataError) as caught:
        load_data(str(folder))
    assert str(caught.value) == (
        f"{bad} of {good + bad} images cannot be read in {folder}: the first is {folder / 'blue' / 'x0.png'}: "
        f"the file is empty. Try: resnetkit check '{folder}', which names each; replace or delete them"
    )
    assert caught.value.exit_code == 3
    # A score says how many it counts, and --strict makes that an exit code.
    assert len(load_data(str(folder), DataRecipe(allow_missing=True), whole=True).unreadable) == bad


def test_damage_behind_a_good_header_counts_too(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    for number in range(4):
        file = tmp_path / "red" / f"{number:03d}.png"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    with pytest.raises(DataError, match="4 of 18 images cannot be read"):
        load_data(str(tmp_path))


@pytest.mark.parametrize("content", ["empty", "damaged"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_of_bad_files_only_is_refused(split: str, content: str, tmp_path: Path) -> None:
    for name in ("train", "test"):
        fill(tmp_path / name, 1 if name == split else 60, first=100 * len(name))
    if split == "train":
        fill(tmp_path / "val", 1, first=900)
    for file in (tmp_path / split).rglob("*.png"):
        changed = bytearray(file.read_bytes())
        changed[len(changed) // 2] ^= 0xFF
        file.write_bytes(changed if content == "damaged" else b"")
    for settings in (DataRecipe(), DataRecipe(allow_missing=True)):
        with pytest.raises(DataError, match=f"the {split} split has no image"):
            load_data(str(tmp_path), settings)


# D2, D3: 4,200 damaged images in a process of their own, so that a crash of a decoder counts as one.

DAMAGE = """
import io, json, signal, sys
import numpy as np
from pathlib import Path
from PIL import Image
from resnetkit.errors import DataError
from resnetkit.images.reading import read_image

rng = np.random.default_rng(0)
picture = Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8))
deep = Image.fromarray(rng.integers(0, 65535, (40, 48), dtype=np.uint16))
KINDS = {
    "JPEG": (picture, {"format": "JPEG"}),
    "progressive": (picture, {"format": "JPEG", "progressive": True}),
    "grey JPEG": (picture.convert("L"), {"format": "JPEG"}),
    "CMYK": (picture.convert("CMYK"), {"format": "JPEG"}),
    "PNG": (picture, {"format": "PNG"}),
    "palette": (picture.quantize(64), {"format": "PNG"}),
    "16 bits": (deep, {"format": "PNG"}),
    "WebP": (picture, {"format": "WEBP"}),
    "lossless WebP": (picture, {"format": "WEBP", "lossless": True}),
    "GIF": (picture, {"format": "GIF"}),
    "BMP": (picture, {"format": "BMP"}),
    "TIFF": (picture, {"format": "TIFF"}),
    "LZW TIFF": (picture, {"format": "TIFF", "compression": "tiff_lzw"}),
    "AVIF": (picture, {"format": "AVIF"}),
}
file = Path(sys.argv[1], "damaged.jpg")
SABOTAGE = None


def outcome(content, whole=None):
    file.write_bytes(content)
    signal.setitimer(signal.ITIMER_PROF, 5)
    try:
        pixels = read_image(file).tobytes()
    except DataError as error:
        return "refused" if str(file) in str(error) else "not named"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "read" if whole is None else "whole" if pixels == whole else "filler"


found = {}
for kind, (image, options) in KINDS.items():
    buffer = io.BytesIO()
    image.save(buffer, **options)
    content = buffer.getvalue()
    file.write_bytes(content)
    whole = read_image(file).tobytes()
    cuts = [outcome(content[: len(content) * part // 60], whole) for part in range(60)]
    flips = []
    for _ in range(240):
        changed = bytearray(content)
        changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
        flips.append(outcome(changed))
    found[kind] = {"cuts": sorted(set(cuts)), "flips": sorted(set(flips)), "count": len(cuts) + len(flips)}
print(json.dumps(found))
"""


def test_4200_damaged_images_are_refused_or_read_and_never_filled_up(tmp_path: Path) -> None:
    done = progress.run([sys.executable, "-c", DAMAGE, tmp_path])
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert sum(of["count"] for of in found.values()) == 4200
    for kind, of in found.items():
        assert set(of["cuts"]) <= {"refused", "whole"}, kind
        assert set(of["flips"]) <= {"refused", "read"}, kind


@pytest.mark.parametrize("kind", ["jpg", "png", "gif"])
def test_a_file_that_is_cut_off_is_left_out_before_training(kind: str, tmp_path: Path) -> None:
    fill(tmp_path, 4)
    draw("red", 9, (300, 200)).save(tmp_path / "red" / f"cut.{kind}")
    content = (tmp_path / "red" / f"cut.{kind}").read_bytes()
    (tmp_path / "red" / f"cut.{kind}").write_bytes(content[: len(content) * 3 // 4])
    data = load_data(str(tmp_path))
    assert isinstance(data.train, Images)
    assert [Path(file).name for file in data.unreadable] == [f"cut.{kind}"]


def test_what_a_telephone_puts_behind_a_picture_is_no_damage_and_costs_no_decoding(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path, 4)
    draw("red", 9).save(tmp_path / "red" / "film.jpg")
    with (tmp_path / "red" / "film.jpg").open("ab") as stream:
        stream.write(b"ftypmp42" * 1000)
    draw("red", 8).save(tmp_path / "red" / "unended.jpg")
    content = (tmp_path / "red" / "unended.jpg").read_bytes()
    (tmp_path / "red" / "unended.jpg").write_bytes(content[:-2] + b"  ")
    decoded = []
    monkeypatch.setattr(scan, "read_image", lambda path, stream: decoded.append(path.name))
    assert reasons(tmp_path) == {}
    assert decoded == ["unended.jpg"]  # only decoding tells whether it is cut off


# D4: no program is started over a file.


def test_postscript_never_reaches_ghostscript(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    file = tmp_path / "x.jpg"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match="PostScript"):
        read_image(file)
    assert not (tmp_path / "started").exists()


# D9: frames.


def test_ten_thousand_frames_cost_no_more_than_the_first(tmp_path: Path) -> None:
    frames = [Image.new("L", (64, 64), grey) for grey in (10, 200)]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:], duration=40)
    content = (tmp_path / "two.gif").read_bytes()
    begin = content.rindex(b"\x21\xf9")
    (tmp_path / "many.gif").write_bytes(content[:begin] + content[begin:-1] * 10_000 + b";")
    began = time.thread_time()
    with Image.open(tmp_path / "many.gif") as picture:
        for frame in range(10_000):
            picture.seek(frame)
    all_of_them, began = time.thread_time() - began, time.thread_time()
    assert np.asarray(read_image(tmp_path / "many.gif")).max() <= 12
    entry = examine(tmp_path / "many.gif")
    assert time.thread_time() - began < all_of_them / 10
    assert (entry.why, entry.animated) == ("", True)


def test_pages_in_a_circle_end(tmp_path: Path) -> None:
    draw("red", 0).save(tmp_path / "a.tiff")
    content = bytearray((tmp_path / "a.tiff").read_bytes())
    first = int.from_bytes(content[4:8], "little")
    after = first + 2 + 12 * int.from_bytes(content[first : first + 2], "little")
    content[after : after + 4] = content[4:8]
    (tmp_path / "a.tiff").write_bytes(content)
    with progress.limited_to(5):
        assert examine(tmp_path / "a.tiff").why == ""


# D10: upright in every way of reading.


@pytest.mark.parametrize("late", [False, True])
def test_small_turned_images_are_kept_in_memory_upright(late: bool, tmp_path: Path) -> None:
    fill(tmp_path, 5, ("blue", "red"))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "red" / "turned.png"
    upright = draw("red", 9, (40, 48) if late else (48, 40))
    upright.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif)
    if late:  # behind the pixels, where a header does not show it
        content = file.read_bytes()
        at = content.index(b"eXIf") - 4
        chunk = content[at : at + 12 + int.from_bytes(content[at : at + 4], "big")]
        end = content.index(b"IEND") - 4
        file.write_bytes(content[:at] + content[at + len(chunk) : end] + chunk + content[end:])
    data = load_data(str(tmp_path))
    assert data.unreadable == {}
    assert isinstance(data.train, Files if late else Images)
    assert np.array_equal(np.asarray(read_image(file)), np.asarray(upright))


# D11: malformed metadata.


def test_malformed_exif_never_costs_the_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x011A], exif[0x8769] = "Maker", 6, 72.0, {0x829A: 0.01, 0x9003: "2020:01:01"}
    draw("red", 0).save(tmp_path / "a.jpg", exif=exif)
    content = (tmp_path / "a.jpg").read_bytes()
    begin, length = content.index(b"Exif\0\0") + 6, len(exif.tobytes()) - 6
    turned = read_image(tmp_path / "a.jpg")
    expected = {turned.tobytes(), turned.transpose(Image.Transpose.ROTATE_90).tobytes()}
    seen = set()
    for place in range(length):
        for value in (0, 1, 2, 7, 255):
            changed = bytearray(content)
            changed[begin + place] = value
            (tmp_path / "b.jpg").write_bytes(changed)
            image = read_image(tmp_path / "b.jpg")
            header = check_header(tmp_path / "b.jpg")
            assert image.size == (header.width, header.height)
            seen.add(image.tobytes())
    assert expected <= seen  # an orientation that was hit may be another, valid one


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff"])
def test_malformed_profiles_never_cost_the_picture(kind: str, tmp_path: Path) -> None:
    garbage = np.random.default_rng(0).integers(0, 256, 500, dtype=np.uint8).tobytes()
    options = {"icc_profile": garbage} | ({"xmp": garbage} if kind in ("jpg", "webp") else {})
    options |= {"lossless": True} if kind == "webp" else {}
    draw("red", 0).save(tmp_path / f"clean.{kind}", **{k: v for k, v in options.items() if k == "lossless"})
    draw("red", 0).save(tmp_path / f"a.{kind}", **options)
    assert read_image(tmp_path / f"a.{kind}").tobytes() == read_image(tmp_path / f"clean.{kind}").tobytes()


# D12, D13: too large, too narrow, too small.

BOMBS = """
import resource, sys, zlib
from pathlib import Path
from PIL import Image
from resnetkit.errors import DataError
from resnetkit.images.preprocess import Preprocess
from resnetkit.images.reading import check_header

def bomb(width, height):
    chunk = lambda kind, body: (
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big"))
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes(((width + 7) // 8 + 1) * height if width * height < 10**9 else 9))
    return b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

Image.init()
file = Path(sys.argv[1], "bomb.png")
resource.setrlimit(resource.RLIMIT_AS, (int(Path("/proc/self/statm").read_text().split()[0]) * 4096 + 2**29,) * 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
preprocess = Preprocess(224, (0.5,) * 3, (0.5,) * 3, resize=256)
for size in ((30_000, 30_000), (13_000, 13_000), (1, 50_000), (65_500, 1), (2**31 - 1, 2**31 - 1)):
    file.write_bytes(bomb(*size))
    for read in (check_header, preprocess.read):
        try:
            print("read", size)
            read(file)
        except DataError as error:
            print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_bombs_are_refused_from_the_header_in_little_memory(tmp_path: Path) -> None:
    done = progress.run([sys.executable, "-c", BOMBS, tmp_path])
    assert done.returncode == 0, done.stderr[-2000:]
    *lines, grown = done.stdout.splitlines()
    refusals = [line for line in lines if not line.startswith("read")]
    assert len(refusals) == 10
    for line, why in zip(refusals[:8:2], ("30000 x 30000", "13000 x 13000", "1 x 50000", "65500 x 1"), strict=True):
        assert line.startswith(("the image is too large in", "the image is too narrow in", "cannot read the image in"))
        assert why in line or "more than 89,478,485 pixels" in line
        assert "bomb.png" in line
    assert int(grown) < 50


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (223, 225), (3, 700)])
def test_what_is_smaller_than_the_crop_is_enlarged(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size, (9, 99, 199)).save(tmp_path / "a.png")
    pixels = Preprocess(224, IMAGENET_MEAN, IMAGENET_STD, resize=256).read(tmp_path / "a.png")
    assert pixels.shape == (3, 224, 224)
    assert pixels[2].unique().tolist() == [199]


def test_a_codec_that_is_missing_is_named(tmp_path: Path, monkeypatch) -> None:
    draw("red", 0).save(tmp_path / "a.avif")
    assert read_image(tmp_path / "a.avif").size == (48, 40)
    monkeypatch.setattr(AvifImagePlugin, "SUPPORTED", False)
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(DataError, match=r"a.avif: Pillow cannot decode AVIF here; save it as JPEG"):
        read_image(tmp_path / "a.avif")


def test_pictures_of_a_telephone_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    for number in range(5):
        (tmp_path / "red" / f"IMG_{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(90))
    with pytest.raises(DataError, match=r"5 of 23 images cannot be read .*Pillow cannot decode HEIC here; save it as"):
        load_data(str(tmp_path))
