"""How much faster our training step is than the tutorials' plain loop: the same network, the same images, in turn.

    uv run python benchmarks/training_step.py
    uv run python benchmarks/training_step.py --model resnet50 --batch-size 16

Both sides train from the same parameters. Rounds alternate, so that a machine that slows down slows both. Prints one
JSON object; quote the ratio.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from resnetkit.data.batches import Batch
from resnetkit.machine.device import Precision, choose, describe_machine
from resnetkit.machine.ranks import ALONE
from resnetkit.networks.resnet import build
from resnetkit.recipes.schema import Recipe
from resnetkit.training.optim import Schedule
from resnetkit.training.step import Stepper


def plain_loop(model: str, images: torch.Tensor, labels: torch.Tensor, device: str) -> Callable[[], None]:
    """What the tutorials write: NCHW, fp32, SGD as it comes."""
    torch.manual_seed(0)
    net = build(model).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    images, labels = images.to(device), labels.to(device)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()

    return step


def our_loop(
    model: str, images: torch.Tensor, labels: torch.Tensor, device: str, precision: Precision
) -> Callable[[], None]:
    """The step that the product takes, with all that guards it: the norm, the finite check, the statistics kept."""
    compute = choose(device, precision)
    torch.manual_seed(0)
    net = compute.network(build(model))
    recipe = Recipe.model_validate({"optim": {"nesterov": False, "warmup": "0%", "schedule": "constant"}})
    schedule = Schedule(recipe.optim, total_steps=1, images=len(images), batch_size=len(images))
    stepper = Stepper(net, recipe, schedule, compute, [], ALONE)
    stepper.train_mode()
    labels = compute.tensor(labels)
    batch = Batch(compute.tensor(images).contiguous(memory_format=torch.channels_last), labels, labels)

    def step() -> None:
        stepper(batch, 0)

    return step


def seconds(step: Callable[[], None], device: str) -> float:
    began = time.perf_counter()
    step()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--device", default=choose().device.type)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    images = torch.randn(options.batch_size, 3, options.image_size, options.image_size)
    labels = torch.randint(0, 1000, (options.batch_size,))
    plain = plain_loop(options.model, images, labels, options.device)
    ours = our_loop(options.model, images, labels, options.device, options.precision)
    for _ in range(2):
        plain()
        ours()
    pairs = [(seconds(plain, options.device), seconds(ours, options.device)) for _ in range(options.rounds)]
    ratios = sorted(a / b for a, b in pairs)
    report = {
        "model": options.model,
        "batch_size": options.batch_size,
        "image_size": options.image_size,
        "ours": choose(options.device, options.precision).describe(),
        "plain_images_per_second": round(options.batch_size / statistics.median(a for a, _ in pairs), 1),
        "our_images_per_second": round(options.batch_size / statistics.median(b for _, b in pairs), 1),
        "ratio_median": round(statistics.median(ratios), 2),
        "ratio_min": round(ratios[0], 2),
        "ratio_max": round(ratios[-1], 2),
        "rounds": options.rounds,
    }
    print(json.dumps(report | describe_machine(), indent=1))


if __name__ == "__main__":
    main()
