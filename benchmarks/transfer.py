"""Transfer learning against the tutorial's own script, on the same images from the same weights, in one run.

    python benchmarks/transfer.py PHOTOS                    the three measurements, one after the other
    python benchmarks/transfer.py PHOTOS --only head        whole runs: empty cache, then full cache
    python benchmarks/transfer.py PHOTOS --only image       what each further photograph costs
    python benchmarks/transfer.py PHOTOS --only views       with as good a preprocessing as ours, and more views of ours

PHOTOS holds train/ and val/. Each side is a process of its own, timed as a whole from its start: imports, reading,
training, one pass over the held-out images. Prints one JSON object: `seconds` are those of the clock, `cpu` those of
all processors together, which other programs on the machine disturb less. Quote the ratios.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

TUTORIAL = """
import sys
import torch, torchvision
from torchvision import transforms
folder, weights, epochs, resize = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
look = transforms.Compose([transforms.Resize(resize), transforms.CenterCrop(224), transforms.ToTensor()])
train = torchvision.datasets.ImageFolder(folder + "/train", look)
val = torchvision.datasets.ImageFolder(folder + "/val", look)
net = torchvision.models.resnet18(weights=None)
net.load_state_dict(torch.load(weights, weights_only=True))
for parameter in net.parameters():
    parameter.requires_grad = False
net.fc = torch.nn.Linear(net.fc.in_features, len(train.classes))
optimizer = torch.optim.Adam(net.fc.parameters(), lr=0.001)
torch.manual_seed(0)
for epoch in range(epochs):
    for images, labels in torch.utils.data.DataLoader(train, 15, shuffle=True):
        loss = torch.nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
net.eval()
right = 0
with torch.no_grad():
    for images, labels in torch.utils.data.DataLoader(val, 5):
        right += (net(images).argmax(1) == labels).sum().item()
print(100 * right / len(val))
"""
"""What the tutorial does, in as few lines: its preprocessing, its batch size, its optimizer, its epochs. Its frozen
BatchNorm drifts and its test loop, which trains, is one plain pass here, to its advantage."""

WITHOUT_OPENVINO = "import sys; sys.modules['openvino'] = None; from resnetkit.cli.app import main; main()"
EPOCHS = 10
SMALL, LARGE = 400, 4000


@dataclass(frozen=True)
class Timed:
    """One process."""

    seconds: float
    cpu: float
    top1: float | None = None


class Sides:
    """Both programs, with the weights and the place that they share."""

    def __init__(self, weights: str, engine: str, work: Path) -> None:
        self.weights, self.engine, self.work, self.runs = weights, engine, work, 0

    def tutorial(self, photos: Path, *, epochs: int = EPOCHS, resize: int = 500) -> Timed:
        """The tutorial's script."""
        words = [sys.executable, "-c", TUTORIAL, str(photos), self.weights, str(epochs), str(resize)]
        spent, out = timed(words)
        return Timed(*spent, round(float(out), 2))

    def ours(self, photos: Path, cache: str, *flags: str) -> Timed:
        """The recipe `head`, with the features in a cache of its own."""
        self.runs += 1
        start = ["-m", "resnetkit"] if self.engine == "auto" else ["-c", WITHOUT_OPENVINO]
        words = [sys.executable, *start, "train", str(photos), "--recipe", "head", "--weights", self.weights, "--json"]
        words += ["--data.mean", "0.485", "0.456", "0.406", "--data.std", "0.229", "0.224", "0.225"]
        words += ["--out", str(self.work / f"run{self.runs}"), *flags]
        spent, out = timed(words, RESNETKIT_CACHE=str(self.work / cache))
        return Timed(*spent, json.loads(out)["top1"])


def timed(command: list[str], **environment: str) -> tuple[tuple[float, float], str]:
    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    cpu, began = used(), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | environment)
    return (round(time.perf_counter() - began, 2), round(used() - cpu, 2)), done.stdout


def ratios(theirs: Timed, ours: Timed) -> dict[str, float]:
    return {"ratio": round(theirs.seconds / ours.seconds, 1), "cpu_ratio": round(theirs.cpu / ours.cpu, 1)}


def head(sides: Sides, photos: Path) -> dict[str, Any]:
    """Whole runs."""
    empty = sides.ours(photos, "head")
    tutorial = sides.tutorial(photos)
    full = [sides.ours(photos, "head") for _ in range(3)]
    best = min(full, key=lambda each: each.seconds)
    return {
        "tutorial": asdict(tutorial),
        "empty_cache": asdict(empty) | ratios(tutorial, empty),
        "full_cache": asdict(best) | ratios(tutorial, best),
        "full_cache_seconds": [each.seconds for each in full],
    }


def image(sides: Sides, photos: Path) -> dict[str, Any]:
    """(t(4000) - t(400)) / 3600 of both, val/ being the same. The tutorial runs one epoch, counted ten times."""
    folders = {count: replicate(photos, sides.work / f"photos{count}", count) for count in (SMALL, LARGE)}
    ours = {count: sides.ours(folder, f"image{count}") for count, folder in folders.items()}
    tutorial = {count: sides.tutorial(folder, epochs=1) for count, folder in folders.items()}
    again = sides.ours(folders[LARGE], f"image{LARGE}")

    def slope(found: dict[int, Timed], kind: str) -> float:
        return (getattr(found[LARGE], kind) - getattr(found[SMALL], kind)) / (LARGE - SMALL)

    def milliseconds(kind: str) -> dict[str, float]:
        mine, theirs = slope(ours, kind), EPOCHS * slope(tutorial, kind)
        return {
            "ours_ms": round(1000 * mine, 2),
            "tutorial_ms": round(1000 * theirs, 1),
            "ratio": round(theirs / mine, 1),
        }

    return {
        "ours": {str(count): asdict(found) for count, found in ours.items()},
        "ours_from_cache": asdict(again),
        "tutorial_one_epoch": {str(count): asdict(found) for count, found in tutorial.items()},
        "each_image": milliseconds("seconds"),
        "each_image_cpu": milliseconds("cpu"),
    }


def views(sides: Sides, photos: Path) -> dict[str, Any]:
    """The tutorial's loop with our preprocessing (Resize(256), not 500), and ours with mirror images and crops too."""
    tutorial = sides.tutorial(photos, resize=256)
    found: dict[str, Any] = {"tutorial": asdict(tutorial)}
    for name, flags in (
        ("mirror", ["--transfer.mirror"]),
        ("mirror_2_crops", ["--transfer.mirror", "--transfer.crops=2"]),
    ):
        ours = sides.ours(photos, "views", *flags)
        again = sides.ours(photos, "views", *flags)
        found[name] = asdict(ours) | ratios(tutorial, ours)
        found[f"{name}_full_cache"] = asdict(again) | ratios(tutorial, again)
    return found


def replicate(photos: Path, target: Path, count: int) -> Path:
    """`count` photographs to train on, no two alike: crops of the set's own, encoded anew. The same val/."""
    draw = random.Random(0)
    sources = sorted(path for path in (photos / "train").glob("*/*") if path.is_file())
    (target / "train").mkdir(parents=True)
    (target / "val").symlink_to((photos / "val").resolve(), target_is_directory=True)
    for number in range(count):
        source = sources[number % len(sources)]
        with Image.open(source) as opened:
            picture = opened.convert("RGB")
        share = draw.uniform(0.85, 0.98)
        width, height = round(picture.width * share), round(picture.height * share)
        left, top = draw.randint(0, picture.width - width), draw.randint(0, picture.height - height)
        folder = target / "train" / source.parent.name
        folder.mkdir(exist_ok=True)
        picture.crop((left, top, left + width, top + height)).save(folder / f"{number:05d}.jpg", quality=90)
    return target


MEASUREMENTS = {"head": head, "image": image, "views": views}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights", default="random", help="a file of torchvision's ResNet-18, or random")
    parser.add_argument("--only", choices=MEASUREMENTS, action="append", help="one of them; may be said again")
    parser.add_argument("--engine", choices=("auto", "pytorch"), default="auto", help="pytorch: as without OpenVINO")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        weights = options.weights
        if weights == "random":
            import torchvision

            torch.manual_seed(0)
            weights = str(Path(temporary) / "random.pth")
            torch.save(torchvision.models.resnet18(weights=None).state_dict(), weights)
        sides = Sides(weights, options.engine, Path(temporary))
        report: dict[str, Any] = {
            "photos": options.photos.name,
            "weights": options.weights,
            "engine": options.engine,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "load_before": os.getloadavg()[0],
        }
        for name in options.only or MEASUREMENTS:
            report[name] = MEASUREMENTS[name](sides, options.photos)
            print(f"{name} done", file=sys.stderr)
    print(json.dumps(report | {"load_after": os.getloadavg()[0]}, indent=1))


if __name__ == "__main__":
    main()
