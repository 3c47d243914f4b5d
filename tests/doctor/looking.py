"""Folders of mosaics, and what the doctor says of a folder."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from resnetkit.doctor.check import check
from resnetkit.doctor.report import Report


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


def one_of_each(root: Path) -> dict[str, tuple[str, ...]]:
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
