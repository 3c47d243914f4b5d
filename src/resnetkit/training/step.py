"""One training step: forward, backward, update. It is applied whole or not at all.

A step whose loss or gradient is not finite changes nothing. A batch for which memory does not suffice goes through the
network in parts; the update is that of the whole batch.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from resnetkit.data.batches import Batch
from resnetkit.errors import MemoryLimitError, UsageError
from resnetkit.machine.device import Compute, is_out_of_memory
from resnetkit.machine.ranks import Ranks
from resnetkit.networks.resnet import ResNet
from resnetkit.randomness import key
from resnetkit.recipes.schema import Recipe
from resnetkit.training.optim import Schedule, average_of, create_optimizer


@dataclass(frozen=True)
class Taken:
    """What a step gave, before its update."""

    logits: Tensor
    """(N, num_classes), of this rank's part of the batch."""
    loss: Tensor
    """Mean over this rank's images."""
    applied: bool
    """False where loss or gradient were not finite."""


class Stepper:
    """Takes steps: the network with its optimizer, its average, and the memory that it needs."""

    def __init__(
        self,
        network: ResNet,
        recipe: Recipe,
        schedule: Schedule,
        compute: Compute,
        frozen: list[nn.Module],
        ranks: Ranks,
        class_weights: Tensor | None = None,
    ) -> None:
        self.network, self.recipe, self.schedule, self.compute = network, recipe, schedule, compute
        self.frozen, self.ranks = frozen, ranks
        self.class_weights = compute.tensor(class_weights) if class_weights is not None else None
        self.average = average_of(network, recipe.optim.ema) if recipe.optim.ema else None
        self.micro_batch: int | None = recipe.data.micro_batch
        """Images that go through the network at a time; none means the whole batch."""
        self.slower = 1.0
        """Factor of every learning rate; less than 1 after a roll-back."""
        self.notes: list[str] = []
        """What has to be said once."""
        self._statistics = list(network.buffers())
        self._kept = [buffer.clone() for buffer in self._statistics]

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """Made when it is first needed: PyTorch's optimizers import the compiler, which takes seconds."""
        return create_optimizer(self.network, self.recipe.optim)

    @cached_property
    def _runner(self) -> nn.Module:
        """What gradients are averaged through: the network itself where there is one rank."""
        if self.ranks.alone:
            return self.network
        devices = [self.compute.device] if self.compute.device.type == "cuda" else None
        return DistributedDataParallel(self.network, device_ids=devices)

    @property
    def judged(self) -> ResNet:
        """The network that is scored and kept: the average where there is one."""
        return cast("ResNet", self.average.module) if self.average is not None else self.network

    def ready(self) -> None:
        """BatchNorm moves from here on, except in what is frozen."""
        self.network.train()
        for part in self.frozen:
            part.eval()

    def __call__(self, batch: Batch, step: int) -> Taken:
        """Take step `step`, counted from 0. Raises `MemoryLimitError` (exit code 6)."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule(step) * group["scale"] * self.slower
        if self._statistics:
            torch._foreach_copy_(self._kept, self._statistics)
        while (learnt := self._learn_if_it_fits(batch, step)) is None:
            # Only now, with the error and all that it held on to gone, is the memory free again.
            self._forget()
            self._cut_smaller(len(batch.images))
        logits, loss = learnt
        trained = [p for p in self.network.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([cast("Tensor", p.grad) for p in trained])
        if self.ranks.any(not bool(torch.isfinite(norm) & torch.isfinite(loss))):
            self._forget()
            return Taken(logits, loss, applied=False)
        if self.recipe.optim.clip is not None:
            nn.utils.clip_grads_with_norm_(trained, self.recipe.optim.clip, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return Taken(logits, loss, applied=True)

    def _learn_if_it_fits(self, batch: Batch, step: int) -> tuple[Tensor, Tensor] | None:
        try:
            return self._learn(batch, step)
        except RuntimeError as error:  # PyTorch's OutOfMemoryError is one; on the CPU it has no class of its own
            if is_out_of_memory(error):
                return None
            raise

    def _learn(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """Gradients of the mean loss over the whole batch, all ranks' parts together."""
        if self.network.arch.drop_path:
            torch.manual_seed(key(self.recipe.seed, "network", step, *([] if self.ranks.alone else [self.ranks.rank])))
        count = len(batch.images)
        share = 1.0
        if not self.ranks.alone:  # gradients are averaged over ranks, whose parts may differ by some images
            share = count * self.ranks.size / self.ranks.sum(count)[0]
        parts = list(self._parts(count))
        outputs, total = [], torch.zeros((), device=self.compute.device)
        for number, part in enumerate(parts):
            runner = self._runner
            waiting = number + 1 < len(parts) and isinstance(runner, DistributedDataParallel)
            with runner.no_sync() if waiting else nullcontext():
                with self.compute.autocast():
                    logits = runner(batch.images[part])
                    loss = self._loss(logits, batch.targets[part])
                weight = share * (len(logits) / count)
                (loss if weight == 1.0 else loss * weight).backward()
            outputs.append(logits.detach())
            total += loss.detach() * (len(logits) / count)
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0], total

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over the images. Class weights multiply an image's loss; their mean over the training images is one."""
        smoothing = self.recipe.optim.label_smoothing
        if self.class_weights is None:
            return F.cross_entropy(logits, targets, label_smoothing=smoothing)
        weights = self.class_weights.to(logits.dtype)
        return F.cross_entropy(logits, targets, weights, reduction="none", label_smoothing=smoothing).mean()

    def _parts(self, count: int) -> Iterator[slice]:
        """Slices of a batch, about equal, none of a single image: BatchNorm needs two."""
        size = self.micro_batch or count
        pieces = max(1, min(-(-count // size), count // 2))
        ends = [count * piece // pieces for piece in range(pieces + 1)]
        return (slice(first, last) for first, last in pairwise(ends))

    def _forget(self) -> None:
        """As if the step had not been tried: no gradient, and BatchNorm's statistics from before it."""
        self.optimizer.zero_grad()
        if self._statistics:
            torch._foreach_copy_(self._statistics, self._kept)

    def _cut_smaller(self, count: int) -> None:
        size = min(self.micro_batch or count, count)
        if not self.ranks.alone:
            # The others are waiting inside this step; only all of them together could begin it again.
            remedy = f"--resume --allow-change data.micro_batch --data.micro-batch {max(2, size // 2)}"
            raise MemoryLimitError(
                f"out of memory with {size} images at a time on rank {self.ranks.rank}", remedy=remedy
            )
        if size <= 3:
            raise MemoryLimitError(
                f"out of memory with {size} images at a time",
                why=self._peak(),
                remedy="--recompute, or a smaller --model",
            )
        self.micro_batch = (size + 1) // 2
        if self.compute.device.type == "cuda":
            torch.cuda.empty_cache()
        self.notes.append(
            f"memory does not suffice for {size} images at a time: from now on {self.micro_batch}, with the gradient "
            "of the whole batch; BatchNorm sees the smaller parts, and figures differ a little"
        )

    def _peak(self) -> str | None:
        if self.compute.device.type != "cuda":
            return None
        return f"the peak was {torch.cuda.max_memory_allocated(self.compute.device) / 2**30:.1f} GiB"


def with_sync_batchnorm(network: ResNet, compute: Compute) -> ResNet:
    """The network with BatchNorm over the batches of all ranks. Raises `UsageError` (exit code 2) on a CPU."""
    if compute.device.type == "cpu":
        raise UsageError("sync_batchnorm needs accelerators", remedy="leave it out on CPUs")
    return cast("ResNet", nn.SyncBatchNorm.convert_sync_batchnorm(network))
