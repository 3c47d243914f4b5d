"""A plugin with one of each, all of which draw or remember: what a run has to keep so that going on is exact."""

import os
import random
import signal
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    """A view, as in many tutorials, dropout, and two layers that are one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.once = nn.Conv2d(6, 6, 3, padding=1)
        self.twice = self.once
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(6 * 64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice(self.once(self.stem(x)))
        return self.head(self.dropout(x.view(len(x), -1)))


class Growing(nn.Module):
    """A loss for each image, which weighs more with every call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return F.cross_entropy(logits, targets, reduction="none") * (1 + self.calls / 10)


class Odd(torch.optim.Optimizer):
    """Momentum in double precision, a count that is no tensor, and something kept in the group."""

    def __init__(self, params, lr: float) -> None:
        super().__init__(params, {"lr": lr, "steps": 0})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            group["steps"] += 1
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                state["count"] = state.get("count", 0) + 1
                old = state.get("mean", torch.zeros_like(parameter, dtype=torch.float64))
                state["mean"] = old * 0.9 + parameter.grad.double() / 3
                parameter -= group["lr"] * (state["mean"] / (1 + 1 / state["count"] + 1 / group["steps"])).float()


def transform(pixels: torch.Tensor) -> torch.Tensor:
    """Draws from everything that one may draw from."""
    light = random.random() + np.random.rand() + float(torch.rand(()))
    return (pixels * (0.5 + light / 6)).to(torch.uint8)


class Memory:
    """Counts, also in a tensor and under keys that are numbers, and dies once of SIGKILL where it is told to."""

    def __init__(self) -> None:
        self.seen = {"steps": 0, "at": {}, "sum": torch.zeros(2, dtype=torch.float64)}

    def on_step(self, run, figures) -> None:
        self.seen["steps"] += 1
        self.seen["sum"] += figures["loss"]
        place = os.environ.get("DIES_AT")
        died = Path(os.environ["DIED"]) if place else None
        if place and run.step == int(place) and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def on_validation(self, run, figures) -> None:
        self.seen["at"][run.step] = (figures["top1"], figures["best"])

    def on_end(self, run, figures) -> None:
        print("seen", self.seen["steps"], sorted(self.seen["at"]))

    def state_dict(self) -> dict:
        return self.seen

    def load_state_dict(self, state: dict) -> None:
        self.seen = state


network, loss, callbacks = Net, Growing(), [Memory()]


def optimizer(parameters) -> Odd:
    return Odd(parameters, lr=0.02)
