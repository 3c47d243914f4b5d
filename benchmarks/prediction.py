"""A thousand photographs to a CSV: ours against a plain torchvision script; and the memory that it takes.

    python benchmarks/prediction.py PHOTOS                  both, by turns, as whole processes, imports included
    python benchmarks/prediction.py PHOTOS --only memory    resident memory at 1,000 and at 20,000 files

PHOTOS is a folder of pictures; they are copied until there are enough. Both sides have the same weights, random ones.
Prints one JSON object: seconds of the clock, and of all processors together, which other programs disturb less. Quote
the ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

PLAIN = """
import csv, sys
from pathlib import Path
import torch
from PIL import Image
from torchvision import models, transforms
folder, weights, target, batch_size = Path(sys.argv[1]), sys.argv[2], sys.argv[3], 32
look = transforms.Compose([
    transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
    transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
])
net = models.resnet18()
net.load_state_dict(torch.load(weights))
net.eval()
files = sorted(folder.glob("*.jpg"))
with open(target, "w", newline="") as stream, torch.no_grad():
    writer = csv.writer(stream)
    writer.writerow(["file", "label", "probability"])
    for start in range(0, len(files), batch_size):
        chunk = files[start : start + batch_size]
        images = torch.stack([look(Image.open(file).convert("RGB")) for file in chunk])
        best, labels = net(images).softmax(1).max(1)
        for row in zip(chunk, labels.tolist(), best.tolist()):
            writer.writerow(row)
"""
"""What people write: one file after the other, eager, fp32, in batches of 32, with all threads."""

OURS = """
import csv, sys
import resnetkit as rk
classifier = rk.load(sys.argv[2], model="resnet18", size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
classifier.preprocess = rk.Preprocess(224, classifier.preprocess.mean, classifier.preprocess.std, resize=256)
with open(sys.argv[3], "w", newline="") as stream:
    writer = csv.writer(stream)
    writer.writerow(["file", "label", "probability"])
    for row in rk.iter_predict(classifier, sys.argv[1], top=1):
        writer.writerow([row.file, row.label, row.probability])
"""

PEAK = """
import resource, sys
import resnetkit as rk
classifier = rk.load(sys.argv[2])
count = sum(row.error is None for row in rk.iter_predict(classifier, sys.argv[1]))
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def timed(program: str, *words: object) -> tuple[float, float, str]:
    """Seconds of the clock, seconds of processors, and what was printed."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program, *map(str, words)], stdout=subprocess.PIPE, check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return round(time.perf_counter() - began, 2), round(used, 2), done.stdout.decode()


def copies(photos: Path, target: Path, count: int) -> Path:
    """`count` files with the contents of those in `photos`, in turn."""
    sources = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    target.mkdir()
    for number in range(count):
        (target / f"{number:06}.jpg").write_bytes(sources[number % len(sources)].read_bytes())
    return target


def speed(photos: Path, work: Path, count: int, rounds: int) -> dict[str, Any]:
    """Both sides by turns."""
    import torchvision

    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), work / "resnet18.pth")
    folder = copies(photos, work / "photos", count)
    sides = {"plain": PLAIN, "ours": OURS}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, program in sides.items():
            found[name].append(timed(program, folder, work / "resnet18.pth", work / f"{name}.csv")[:2])
    pairs = list(zip(found["plain"], found["ours"], strict=True))
    lines = {name: (work / f"{name}.csv").read_text().splitlines() for name in sides}
    labels = {name: [line.split(",")[1] for line in lines[name][1:]] for name in sides}
    return {
        "files": count,
        "seconds_and_cpu": found,
        "ratios": [round(plain[0] / ours[0], 2) for plain, ours in pairs],
        "cpu_ratios": [round(plain[1] / ours[1], 2) for plain, ours in pairs],
        "median_ratio": round(statistics.median(plain[0] / ours[0] for plain, ours in pairs), 2),
        "same_labels": sum(a == b for a, b in zip(*labels.values(), strict=True)),
    }


def memory(work: Path) -> dict[str, float]:
    """Peak resident memory, MiB, by the number of files: links to one small JPEG."""
    import resnetkit as rk
    from resnetkit.machine.device import choose

    torch.manual_seed(0)
    preprocess = rk.Preprocess(32, (0.5,) * 3, (0.5,) * 3)
    network = rk.create_model("resnet20")
    rk.Classifier(network, preprocess, tuple("0123456789"), "resnet20", choose("cpu")).save(work / "model")
    Image.effect_noise((40, 40), 60).convert("RGB").save(work / "one.jpg")
    found: dict[str, float] = {}
    for count in (1_000, 20_000):
        folder = work / f"files{count}"
        folder.mkdir()
        for number in range(count):
            (folder / f"{number:06}.jpg").hardlink_to(work / "one.jpg")
        answered, peak = timed(PEAK, folder, work / "model")[2].split()
        if int(answered) != count:
            raise SystemExit(f"{answered} answers for {count} files")
        found[str(count)] = round(float(peak), 1)
    return found | {"difference": round(found["20000"] - found["1000"], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--only", choices=("speed", "memory"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    report: dict[str, Any] = {
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        if options.only != "memory":
            report |= speed(options.photos, work, options.count, options.rounds)
        if options.only != "speed":
            report["peak_mib"] = memory(work)
    print(json.dumps(report | {"load_after": os.getloadavg()[0]}, indent=1))


if __name__ == "__main__":
    main()
