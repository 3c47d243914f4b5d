"""Memory of a process that feeds from shards, for a small and for a large set; it must not depend on their size.

    uv run python benchmarks/shards.py
    uv run python benchmarks/shards.py --images 10000 200000 --folder /somewhere/with/room

Writes shards of tiny pictures, 2 KiB each, into a temporary folder. For each set a fresh process indexes the shards,
and another one takes training batches and then evaluation batches; what is resident then is split into memory of its
own (anonymous) and pages of files, which the system shares and takes back. Linux only. Prints one JSON object.
"""

import argparse
import io
import itertools
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

CLASSES = 10


def write(folder: Path, images: int, per_shard: int) -> None:
    """Shards as `resnetkit shard` would lay them out, of one picture again and again."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(stream, "PNG")
    picture = stream.getvalue()
    folder.mkdir()
    for number, first in enumerate(range(0, images, per_shard)):
        with (folder / f"train-{number:06d}.tar").open("wb") as shard:
            for sample in range(first, min(first + per_shard, images)):
                for kind, content in (("png", picture), ("cls", b"%d" % (sample % CLASSES))):
                    member = tarfile.TarInfo(f"{sample:09d}.{kind}")
                    member.size = len(content)
                    shard.write(member.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512))
            shard.write(bytes(10240))


def resident(process: int | str = "self") -> dict[str, float]:
    """MiB: all, anonymous, of files."""
    names = {"VmRSS": "all", "RssAnon": "own", "RssFile": "files"}
    lines = (line.split() for line in Path(f"/proc/{process}/status").read_text().splitlines())
    found = {line[0].rstrip(":"): line[1] for line in lines if len(line) > 1}
    return {name: round(int(found[key]) / 1024, 1) for key, name in names.items()}


def measure(folder: str, steps: int, batch_size: int, workers: int) -> dict:
    """In this process: index or find the index, feed, and look."""
    import torch

    from resnetkit.data.batches import evaluation_batches, training_batches
    from resnetkit.data.load import load_data
    from resnetkit.data.order import order_of
    from resnetkit.images.augment import Augment
    from resnetkit.images.preprocess import Preprocess
    from resnetkit.machine.device import choose
    from resnetkit.recipes.schema import AugmentRecipe

    torch.set_num_threads(1)
    compute, preprocess = choose("cpu", "fp32"), Preprocess(8, (0.5,) * 3, (0.5,) * 3)
    before, began = resident(), time.perf_counter()
    data = load_data(folder)
    assert data.train is not None
    assert data.validation is not None
    report: dict = {"opened_s": round(time.perf_counter() - began, 2)}
    augment = Augment(AugmentRecipe(flip=True), preprocess, num_classes=CLASSES, seed=0)
    order = order_of(data.train, batch_size, 0)
    # A run in the middle of its second epoch: a step may be asked for without those before it.
    start = len(data.train) * 3 // 2 // batch_size
    batches = training_batches(data.train, order, augment, compute, start=start, stop=start + steps, workers=workers)
    began, children = time.perf_counter(), []
    for number, _ in enumerate(batches):
        if number == steps - 10:
            own = Path("/proc/self/task").glob("*/children")
            children = [resident(child) for file in own for child in file.read_text().split()]
    report["images_per_second"] = round(steps * batch_size / (time.perf_counter() - began))
    exact = evaluation_batches(data.validation, preprocess, compute, batch_size=batch_size, workers=workers)
    for _ in itertools.islice(exact, steps):
        pass
    report |= {"mib_before": before, "mib": resident(), "mib_of_workers": children}
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--per-shard", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--folder", help="where the temporary folder is made")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.steps, options.batch_size, options.workers[0])))
        return
    report = {"steps": options.steps, "batch_size": options.batch_size, "sets": []}
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        for images in options.images:
            folder = Path(temporary) / str(images)
            write(folder, images, options.per_shard)
            result: dict = {"images": images, "shards": len(list(folder.glob("*.tar")))}
            for label in ("first", *options.workers):
                workers = options.workers[0] if label == "first" else label
                command = [sys.executable, __file__, "--measure", folder, "--workers", workers]
                command = [*map(str, command), f"--steps={options.steps}", f"--batch-size={options.batch_size}"]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                result[f"workers_{label}"] = json.loads(done.stdout)
            result["index_s"] = result.pop("workers_first")["opened_s"]
            result["index_bytes_an_image"] = sum(file.stat().st_size for file in folder.glob(".*.index")) / images
            report["sets"].append(result)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
