"""A frozen backbone in PyTorch and in OpenVINO, by turns in one process, asked by as many threads as PyTorch has.

    python benchmarks/engine.py resnet18 --batch 8

Prints one JSON object: photographs a second by processor time, which other programs on the machine disturb less than
the clock, the ratio of each round, and what each engine takes to start. Quote the median ratio.
"""

import argparse
import json
import statistics
import threading
import time

import torch

from resnetkit.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resnetkit.machine.device import choose, one_thread
from resnetkit.networks.folding import fold
from resnetkit.networks.resnet import build
from resnetkit.transfer.backbone import Engine, TorchEngine
from resnetkit.transfer.openvino import OpenVINOEngine, import_openvino

ROUNDS, SECONDS = 5, 3.0


def rate(engine: Engine, pixels: torch.Tensor, threads: int, seconds: float = SECONDS) -> float:
    counts = [0] * threads

    def ask(number: int) -> None:
        while time.perf_counter() < until:
            engine(pixels)
            counts[number] += len(pixels)

    began, until = time.process_time(), time.perf_counter() + seconds
    asking = [threading.Thread(target=ask, args=(number,)) for number in range(threads)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    return threads * sum(counts) / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="resnet18")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    options = parser.parse_args()
    torch.manual_seed(0)
    network, compute = build(options.model).eval(), choose("cpu", options.precision)
    preprocess = Preprocess(224, IMAGENET_MEAN, IMAGENET_STD, resize=256)
    pixels = torch.randint(0, 256, (options.batch, 3, 224, 224), dtype=torch.uint8)
    with one_thread() as threads:
        marks = [time.process_time()]
        theirs = TorchEngine(fold(network), preprocess, compute)
        marks.append(time.process_time())
        import_openvino()
        ours = OpenVINOEngine(fold(network), preprocess, compute, batch=options.batch, streams=threads)
        marks.append(time.process_time())
        for engine in (theirs, ours):
            rate(engine, pixels, threads, 1.0)
        rounds = [(rate(theirs, pixels, threads), rate(ours, pixels, threads)) for _ in range(ROUNDS)]
    report = {
        "model": options.model,
        "batch": options.batch,
        "compute": compute.describe(),
        "pytorch": [round(first, 1) for first, _ in rounds],
        "openvino": [round(second, 1) for _, second in rounds],
        "median_ratio": round(statistics.median(second / first for first, second in rounds), 3),
        "start_seconds": {"pytorch": round(marks[1] - marks[0], 2), "openvino": round(marks[2] - marks[1], 2)},
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
