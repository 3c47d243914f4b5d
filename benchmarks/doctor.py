"""How long `check` and its quick part take on a folder of images, and whether every planted duplicate is found.

    uv run python benchmarks/doctor.py FOLDER
    uv run python benchmarks/doctor.py FOLDER --images 10000 --workers 2
    uv run python benchmarks/doctor.py FOLDER --against ../former

Takes images below FOLDER, links them into a temporary train/ and val/ with their classes, and plants ten copies from
train/ in val/: five of the same bytes, five saved without loss in another format. FOLDER should hold no duplicates of
its own, for each counts as false. A second run reads the cache. The quick part is what training does at its start: list
the folder, scan it, compare the bytes; it has a cache of its own here. Prints one JSON object; memory is the peak
resident size, for helpers that of the largest, by Linux's /proc.

With --against, `resnetkit check FOLDER` is first timed as a whole process, by turns with that of another checkout:
cold, without a cache, and warm. The ratio is of processor time, ours to the other's, the median of the pairs; the peak
counts this benchmark's own 30 MiB or so where the command needs less.
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
from pathlib import Path

from resnetkit.data.scan import copies, scan
from resnetkit.data.survey import list_folder
from resnetkit.data.walk import list_images
from resnetkit.doctor.check import check
from resnetkit.images.reading import read_image

COPIES = 5
PAIRS = 5


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, help="the first so many; without it, all")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--against", type=Path, help="another checkout, to compare the command as a process with")
    options = parser.parse_args()
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
