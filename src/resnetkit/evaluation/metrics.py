"""How well: loss, top-1 and top-5, summed over images and divided once.

Written here although torchmetrics has it: importing torchmetrics takes longer than many of our runs.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Score:
    """How good on `count` images. Accuracies are in percent; NaN where there was no image."""

    count: int
    loss: float
    """Mean cross-entropy."""
    top1: float
    top5: float
    """100 with fewer than five classes."""
    lost: dict[str, str] = field(default_factory=dict)
    """Files that are not counted, for they could not be read, and why."""

    def to_dict(self) -> dict[str, float]:
        """For the journal and `--json`: `count, loss, top1, top5`."""
        return {"count": self.count, "loss": self.loss, "top1": self.top1, "top5": self.top5}


def widest(device: torch.device) -> torch.dtype:
    """The widest floating-point type of a device: Metal has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class Tally:
    """Collects figures over batches; every image weighs the same, whatever batch it was in."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.best = min(5, num_classes)
        # Sums stay on the device, so that counting does not wait for it.
        self.sums = torch.zeros(3, dtype=widest(device), device=device)
        self.count = 0

    def update(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Add a batch: logits (N, C), labels (N,), and the mean loss of the batch."""
        hits = logits.topk(self.best, dim=1).indices == labels.unsqueeze(1)
        self.sums += torch.stack([loss.to(self.sums.dtype) * len(labels), hits[:, 0].sum(), hits.any(1).sum()])
        self.count += len(labels)

    def compute(self) -> Score:
        """The figures of all images so far."""
        if not self.count:
            return Score(0, float("nan"), float("nan"), float("nan"))
        loss, top1, top5 = (self.sums / self.count).tolist()
        return Score(self.count, loss, round(100 * top1, 4), round(100 * top5, 4))

    def state(self) -> list[float]:
        """The sums so far, exact."""
        return [*self.sums.tolist(), float(self.count)]

    def restore(self, state: list[float]) -> None:
        """Go on from what `state` gave."""
        self.sums.copy_(torch.tensor(state[:-1], dtype=self.sums.dtype))
        self.count = round(state[-1])
