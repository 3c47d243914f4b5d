"""Peak memory of training steps, with and without recomputing activations.

    uv run python benchmarks/memory.py --model resnet1202 --batch-size 128
    uv run python benchmarks/memory.py --model resnet1202 --batch-size 128 --recompute

On a CPU: the peak resident size of the process, less what it was before the first step. On CUDA: the allocator's peak.
Prints one JSON object.
"""

import argparse
import json
import resource
import time

import torch
from torch.nn import functional as F

from resnetkit.machine.device import choose
from resnetkit.networks.resnet import build
from resnetkit.recipes.schema import OptimRecipe
from resnetkit.training.optim import create_optimizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet1202")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--recompute", action="store_true")
    options = parser.parse_args()
    compute = choose()
    net = compute.network(build(options.model)).train()
    net.recompute = options.recompute
    optimizer = create_optimizer(net, OptimRecipe())
    images = compute.tensor(torch.randn(options.batch_size, 3, options.image_size, options.image_size))
    labels = compute.tensor(torch.randint(0, 10, (options.batch_size,)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    for _ in range(options.steps):
        with compute.autocast():
            loss = F.cross_entropy(net(images.contiguous(memory_format=torch.channels_last)), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    seconds = (time.perf_counter() - began) / options.steps
    if compute.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    else:
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    report = {"model": options.model, "batch_size": options.batch_size, "recompute": options.recompute}
    report |= {"peak_gib": round(peak, 2), "seconds_a_step": round(seconds, 2), "on": compute.describe()}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
