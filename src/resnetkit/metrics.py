"""How well: loss, top-1 and top-5, summed over images and divided once."""

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.aggregation import SumMetric
from torchmetrics.classification import MulticlassAccuracy


class Tally:
    """Collects figures over batches; every image weighs the same, whatever batch it was in."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.accuracy = MetricCollection(
            {
                f"top{k}": MulticlassAccuracy(
                    num_classes=num_classes, top_k=min(k, num_classes), average="micro", validate_args=False
                )
                for k in (1, 5)
            },
            compute_groups=False,
        ).to(device)
        self.loss = SumMetric(nan_strategy="disable").to(device)
        self.count = 0

    def update(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Add a batch: logits (N, C), labels (N,), and the mean loss of the batch."""
        self.accuracy.update(logits.float(), labels)
        self.loss.update(loss * len(labels))
        self.count += len(labels)

    def compute(self) -> dict[str, float]:
        """`count`, `loss` (mean), `top1` and `top5` (percent); with fewer than five classes `top5` is 100."""
        if not self.count:
            return {"count": 0, "loss": float("nan"), "top1": float("nan"), "top5": float("nan")}
        shares = self.accuracy.compute()
        return {
            "count": self.count,
            "loss": float(self.loss.compute()) / self.count,
            "top1": round(100 * float(shares["top1"]), 4),
            "top5": round(100 * float(shares["top5"]), 4),
        }
