"""What `resnetkit predict` of one picture costs, against importing torch and torchvision alone.

    uv run python benchmarks/startup.py --rounds 5

The two take turns, each in a new process. Prints one JSON object: seconds of the clock and of the processor, the median
of each, and the ratios. With `python -X importtime -m resnetkit predict …` one sees what is imported.
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

from resnetkit.images.drawn import draw

ALONE = ("-c", "import torch, torchvision")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20.cifar10")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "picture.png")
        draw("tree", 0).save(picture)
        ours = ("-m", "resnetkit", "predict", options.model, str(picture))
        taken: dict[str, list[tuple[float, float]]] = {"import": [], "predict": []}
        for number in range(options.rounds + 1):
            for name, words in (("import", ALONE), ("predict", ours)):
                measured = seconds(words)
                if number:  # the first of each fills the system's cache of files
                    taken[name].append(measured)
    report: dict[str, object] = {}
    for place, clock in enumerate(("wall", "cpu")):
        median = {name: statistics.median(each[place] for each in found) for name, found in taken.items()}
        report |= {f"{name}_{clock}_s": round(value, 2) for name, value in median.items()}
        report[f"{clock}_ratio"] = round(median["predict"] / median["import"], 2)
    print(json.dumps(report | {"rounds": options.rounds, "cores": os.cpu_count()}))


def seconds(words: tuple[str, ...]) -> tuple[float, float]:
    """Of the clock, and of the processor, of one process."""
    began, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - began, used


if __name__ == "__main__":
    main()
