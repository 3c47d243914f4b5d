"""How long `check` takes on a folder of images, and what it finds of planted duplicates and of changed copies.

    uv run python benchmarks/doctor.py time FOLDER
    uv run python benchmarks/doctor.py time FOLDER --images 10000 --workers 2
    uv run python benchmarks/doctor.py time FOLDER --against ../former
    uv run python benchmarks/doctor.py near FOLDER

`time` takes images below FOLDER, links them into a temporary train/ and val/ with their classes, and plants ten copies
from train/ in val/: five of the same bytes, five saved without loss in another format. FOLDER should hold no duplicates
of its own, for each counts as false. A second run reads the cache. The quick part is what training does at its start:
list the folder, scan it, compare the bytes; it has a cache of its own here. Prints one JSON object; memory is the peak
resident size, for helpers that of the largest, by Linux's /proc.

With --against, `resnetkit check FOLDER` is first timed as a whole process, by turns with that of another checkout:
cold, without a cache, and warm. The ratio is of processor time, ours to the other's, the median of the pairs; the peak
counts this benchmark's own 30 MiB or so where the command needs less.

`near` changes each image in six ways, in memory, and prints the share of them whose hash is within 4, 6, 8 and 10 bits
of the original's; then how many pairs of the originals themselves are, which should be of different pictures.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from itertools import combinations
from pathlib import Path

from PIL import Image, ImageEnhance

from resnetkit.data.scan import copies, scan
from resnetkit.data.survey import list_folder
from resnetkit.data.walk import list_images
from resnetkit.doctor.check import check
from resnetkit.doctor.thumbnail import BITS, phash
from resnetkit.images.reading import read_image

COPIES = 5
PAIRS = 5
NEAR = (4, 6, 8, 10)


def link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def arrange(images: list[Path], tree: Path) -> dict[str, str]:
    """Every tenth image into val/, the rest into train/; then the copies, each with the image it is a copy of."""
    placed = []
    for number, image in enumerate(images):
        split = "train" if number % 10 else "val"
        target = tree / split / image.parent.name / f"{number:06d}{image.suffix}"
        link(image, target)
        if split == "train":
            placed.append(target)
    planted = {}
    for number, original in enumerate(placed[:: len(placed) // (2 * COPIES)][: 2 * COPIES]):
        copy = tree / "val" / original.parent.name / f"planted{number}{original.suffix}"
        if number < COPIES:
            shutil.copyfile(original, copy)
        else:
            copy = copy.with_suffix(".bmp" if original.suffix.lower() == ".png" else ".png")
            read_image(original).save(copy)
        planted[str(copy.relative_to(tree))] = str(original.relative_to(tree))
    return planted


def peaks() -> list[int]:
    """Peak resident KiB of each child. The system's own count for children begins with what the parent had."""
    found = []
    for listing in Path("/proc/self/task").glob("*/children"):
        for child in listing.read_text().split():
            status = Path("/proc", child, "status").read_text()
            found += [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
    return found


def glance(tree: Path, cache: Path) -> tuple[float, int]:
    """Seconds of the quick part, and how many groups of equal files it found."""
    began = time.perf_counter()
    paths = [path for members, _ in list_folder(tree).splits.values() for path in members]
    found = copies(dict(zip(paths, scan(tree, paths, cache=cache), strict=True)))
    return time.perf_counter() - began, len(found)


def command(checkout: Path, folder: Path, cache: Path) -> tuple[float, float]:
    """Processor seconds and peak MiB of `resnetkit check` as a process."""
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "RESNETKIT_CACHE": str(cache)}
    words = [sys.executable, "-m", "resnetkit", "check", str(folder)]
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{checkout}: check ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def compare(folder: Path, other: Path) -> dict[str, dict[str, float]]:
    """The command as a whole, cold and warm, ours and that of another checkout by turns."""
    found = {"cold": [], "warm": []}
    for _ in range(PAIRS):
        with tempfile.TemporaryDirectory() as place:
            for state in found:
                sides = {"ours": Path(__file__).parents[1], "other": other}
                found[state].append([command(side, folder, Path(place, name)) for name, side in sides.items()])
    return {
        state: {
            "cpu_seconds": round(statistics.median(ours for (ours, _), _ in pairs), 2),
            "cpu_seconds_other": round(statistics.median(theirs for _, (theirs, _) in pairs), 2),
            "ratio": round(statistics.median(ours / theirs for (ours, _), (theirs, _) in pairs), 3),
            "peak_mib": round(max(peak for (_, peak), _ in pairs)),
            "peak_mib_other": round(max(peak for _, (_, peak) in pairs)),
        }
        for state, pairs in found.items()
    }


def cropped(image: Image.Image) -> Image.Image:
    """Without 5 % of the width and of the height, half of it at either side."""
    across, down = round(image.width * 0.025), round(image.height * 0.025)
    return image.crop((across, down, image.width - across, image.height - down))


def jpeg(image: Image.Image) -> Image.Image:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=40)
    return Image.open(stream).convert("RGB")


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "cropped by 5 %": cropped,
    "turned by 2 degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
    "brightened by 1.3": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "JPEG of quality 40": jpeg,
    "scaled to half": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def compare_hashes(images: list[Path]) -> dict[str, dict[str, float]]:
    """Shares of changed copies, and numbers of pairs of originals, within so many bits."""
    hashes: list[int] = []
    distances: dict[str, list[int]] = {change: [] for change in CHANGES}
    for image in map(read_image, images):
        of_original = phash(image)
        if of_original is None:
            continue
        hashes.append(of_original)
        for name, change in CHANGES.items():
            of_copy = phash(change(image))
            distances[name].append(BITS if of_copy is None else (of_original ^ of_copy).bit_count())
    result: dict[str, dict[str, float]] = {
        name: {str(near): round(sum(each <= near for each in of_change) / len(hashes), 3) for near in NEAR}
        for name, of_change in distances.items()
    }
    apart = Counter((one ^ other).bit_count() for one, other in combinations(hashes, 2))
    pairs = {str(near): sum(count for bits, count in apart.items() if bits <= near) for near in NEAR}
    result["pairs of originals"] = {**pairs, "all": apart.total()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    timing, near = commands.add_parser("time"), commands.add_parser("near")
    for subcommand in (timing, near):
        subcommand.add_argument("folder", type=Path)
        subcommand.add_argument("--images", type=int, help="the first so many; without it, all")
    timing.add_argument("--workers", type=int)
    timing.add_argument("--against", type=Path, help="another checkout, to compare the command as a process with")
    options = parser.parse_args()
    if options.command == "near":
        print(json.dumps(compare_hashes(list_images(options.folder)[: options.images])))
    else:
        time_check(options)


def time_check(options: argparse.Namespace) -> None:
    compared = compare(options.folder, options.against) if options.against else None
    images = list_images(options.folder)[: options.images]
    helpers: list[int] = []

    def look(done: int, _total: int) -> None:
        if done % 500 == 0:
            helpers.extend(peaks())

    # Beside the images, so that links can be made; hidden, so that nobody takes it for a class.
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=options.folder.parent) as place:
        planted = arrange(images, Path(place, "tree"))
        quick = [glance(Path(place, "tree"), Path(place, "quick")) for _ in range(2)]
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            report = check(Path(place, "tree"), workers=options.workers, cache=Path(place, "cache"), progress=look)
            seconds.append(time.perf_counter() - began)
    found, false = set(), 0
    for finding in report.findings:
        if finding.kind.startswith(("exact", "pixels")):
            copies = [file for file in finding.files if planted.get(file) in finding.files]
            found.update(copies)
            false += len(finding.files) - 1 - len(copies)
    parent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = {"peak_mib_parent": round(parent / 1024), "peak_mib_helper": round(max(helpers, default=0) / 1024)}
    result = {"images": report.images, "workers": options.workers, "seconds": round(seconds[0], 1)}
    result |= {"images_per_second": round(report.images / seconds[0]), "seconds_again": round(seconds[1], 1)}
    result |= {"seconds_quick": round(quick[0][0], 2), "seconds_quick_again": round(quick[1][0], 2)}
    result |= {"copies_quick": quick[1][1]}
    result |= memory | {"planted": len(planted), "found": len(found), "false": false, "counts": report.counts}
    result |= {"command": compared} if compared else {}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
