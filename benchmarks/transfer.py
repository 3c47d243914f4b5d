"""Transfer learning against the tutorial's own script, on the same images from the same weights, in one run.

    uv run python benchmarks/transfer.py PHOTOS --weights FILE
    uv run python benchmarks/transfer.py PHOTOS --weights random

PHOTOS holds train/ and val/. Each side is a process of its own, timed as a whole from its start: imports, reading,
training, one pass over the held-out images. Ours runs twice, first with an empty cache, then with a full one. Prints
one JSON object; quote the ratios.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

TUTORIAL = """
import sys
import torch, torchvision
from torchvision import transforms
folder, weights, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3])
look = transforms.Compose([transforms.Resize(500), transforms.CenterCrop(224), transforms.ToTensor()])
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


def timed(command: list[str], **environment: str) -> tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    return time.perf_counter() - began, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights", default="random", help="a ResNet-18 of torchvision, or random")
    parser.add_argument("--epochs", type=int, default=10, help="of the tutorial's script")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        weights = options.weights
        if weights == "random":
            import torchvision

            torch.manual_seed(0)
            weights = str(Path(temporary) / "random.pth")
            torch.save(torchvision.models.resnet18(weights=None).state_dict(), weights)
        tutorial, top1 = timed([sys.executable, "-c", TUTORIAL, str(options.photos), weights, str(options.epochs)])
        ours = []
        for number in range(2):
            flags = ["--recipe", "head", "--weights", weights, "--json", "--out", f"{temporary}/run{number}"]
            flags += ["--data.mean", "0.485", "0.456", "0.406", "--data.std", "0.229", "0.224", "0.225"]
            command = [sys.executable, "-m", "resnetkit", "train", str(options.photos), *flags]
            seconds, out = timed(command, RESNETKIT_CACHE=f"{temporary}/cache")
            ours.append((seconds, json.loads(out)))
    first, second = ours
    report = {
        "photos": str(options.photos),
        "weights": options.weights,
        "tutorial_seconds": round(tutorial, 1),
        "tutorial_top1": round(float(top1), 2),
        "our_seconds": round(first[0], 1),
        "our_top1": first[1]["top1"],
        "our_seconds_from_cache": round(second[0], 1),
        "ratio": round(tutorial / first[0], 1),
        "ratio_from_cache": round(tutorial / second[0], 1),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
