"""Early stopping: a run ends where validation has not become better for long enough."""

import math
from collections.abc import Mapping
from typing import Any

from resnetkit.training.hooks import RunView, Stop


class EarlyStop:
    """A callback that ends a run after `patience` validations in a row that were no better.

    Better is what becomes the best of the run; with a `min_delta`, only what is above the last that counted by more
    than so many points of top-1.
    """

    def __init__(self, patience: int, min_delta: float = 0.0) -> None:
        self.patience, self.min_delta = patience, min_delta
        self.waited, self.top1, self.epoch = 0, -math.inf, 0.0

    def on_validation(self, run: RunView, figures: Mapping[str, Any]) -> Stop | None:
        """Count, and stop where it has been long enough."""
        better = figures["top1"] > self.top1 + self.min_delta if self.min_delta else figures["best"]
        if better:
            self.waited, self.top1, self.epoch = 0, figures["top1"], run.epoch
            return None
        self.waited += 1
        if self.waited < self.patience:
            return None
        times = "validation" if self.waited == 1 else "validations"
        before = f"epoch {self.epoch:.4g}" if self.epoch else "the head alone"
        return Stop(f"no better than {before} for {self.waited} {times}")

    def state_dict(self) -> dict[str, Any]:
        """What it has counted."""
        return {"waited": self.waited, "top1": self.top1, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Count on from there."""
        self.waited, self.top1, self.epoch = state["waited"], state["top1"], state["epoch"]
