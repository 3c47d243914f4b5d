"""How well: loss, top-1 and top-5, summed over images and divided once.

Written here although torchmetrics has it: importing torchmetrics takes longer than many of our runs.
"""

import torch
from torch import Tensor


class Tally:
    """Collects figures over batches; every image weighs the same, whatever batch it was in."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.best = min(5, num_classes)
        # Sums stay on the device, so that counting does not wait for it; Metal has no float64.
        self.sums = torch.zeros(3, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
        self.count = 0

    def update(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Add a batch: logits (N, C), labels (N,), and the mean loss of the batch."""
        hits = logits.topk(self.best, dim=1).indices == labels.unsqueeze(1)
        self.sums += torch.stack([loss.to(self.sums.dtype) * len(labels), hits[:, 0].sum(), hits.any(1).sum()])
        self.count += len(labels)

    def compute(self) -> dict[str, float]:
        """`count`, `loss` (mean), `top1` and `top5` (percent); with fewer than five classes `top5` is 100."""
        if not self.count:
            return {"count": 0, "loss": float("nan"), "top1": float("nan"), "top5": float("nan")}
        loss, top1, top5 = (self.sums / self.count).tolist()
        return {"count": self.count, "loss": loss, "top1": round(100 * top1, 4), "top5": round(100 * top5, 4)}

    def state(self) -> list[float]:
        """The sums so far, exact."""
        return [*self.sums.tolist(), float(self.count)]

    def restore(self, state: list[float]) -> None:
        """Go on from what `state` gave."""
        self.sums.copy_(torch.tensor(state[:-1], dtype=self.sums.dtype))
        self.count = round(state[-1])
