"""One training step: forward, loss, backward, update. It is applied whole or not at all.

A step whose loss or gradient is not finite changes nothing. A batch for which memory does not suffice goes through the
network in parts; the update is that of the whole batch. In fp16 the loss is scaled, and a step whose gradients overflow
is begun again with half the scale.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from resnetkit.data.batches import Batch
from resnetkit.errors import MemoryLimitError, UsageError, blaming
from resnetkit.machine.device import Compute, is_out_of_memory
from resnetkit.machine.ranks import Ranks
from resnetkit.networks.resnet import ResNet
from resnetkit.randomness import key
from resnetkit.recipes.schema import Recipe
from resnetkit.training.hooks import Hooks, name_of
from resnetkit.training.optim import Schedule, average_of, create_optimizer, own_optimizer
from resnetkit.training.own_network import require_logits
from resnetkit.training.scale import LossScale


@dataclass(frozen=True)
class StepResult:
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
        hooks: Hooks = Hooks(),  # noqa: B008 - it is frozen
    ) -> None:
        self.network, self.recipe, self.schedule, self.compute = network, recipe, schedule, compute
        self.frozen, self.ranks, self.hooks = frozen, ranks, hooks
        self.class_weights = compute.tensor(class_weights) if class_weights is not None else None
        self.average = average_of(network, recipe.optim.ema) if recipe.optim.ema else None
        self.micro_batch: int | None = recipe.data.micro_batch
        """Images that go through the network at a time; none means the whole batch."""
        self.lr_factor = 1.0
        """Factor of every learning rate; less than 1 after a roll-back."""
        self.loss_scale = LossScale() if compute.precision == "fp16" else None
        self.notes: list[str] = []
        """What has to be said once."""
        self._statistics = list(network.buffers())
        self._kept = [buffer.clone() for buffer in self._statistics]
        self._updating = False
        self._draws = draws(network, hooks)

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """Made when it is first needed: PyTorch's optimizers import the compiler, which takes seconds."""
        if self.hooks.optimizer is None:
            return create_optimizer(self.network, self.recipe.optim)
        made = own_optimizer(self.hooks.optimizer, self.network)
        settings = self.schedule.settings.model_copy(update={"lr": float(made.param_groups[0]["lr"])})
        self.schedule = replace(self.schedule, settings=settings)
        return made

    @cached_property
    def _parallel(self) -> DistributedDataParallel:
        """The network through which gradients are averaged over ranks."""
        devices = [self.compute.device] if self.compute.device.type == "cuda" else None
        return DistributedDataParallel(self.network, device_ids=devices)

    @property
    def eval_network(self) -> ResNet:
        """The network that is scored and kept: the average where there is one."""
        return cast("ResNet", self.average.module) if self.average is not None else self.network

    def lr(self, step: int) -> float:
        """Learning rate of a step, before the factor of each group of parameters."""
        return self.schedule(step) * self.lr_factor

    def train_mode(self) -> None:
        """BatchNorm moves from here on, except in what is frozen."""
        self.network.train()
        for part in self.frozen:
            part.eval()

    def __call__(self, batch: Batch, step: int) -> StepResult:
        """Take step `step`, counted from 0. Raises `MemoryLimitError` (exit code 6)."""
        if self._statistics:
            torch._foreach_copy_(self._kept, self._statistics)
        while True:
            try:
                return self._take_scaled(batch, step)
            except RuntimeError as error:  # PyTorch's OutOfMemoryError is one; on the CPU it has no class of its own
                if not is_out_of_memory(error) or self._updating:
                    raise
            # Only out here, with the error and all that it held on to gone, is the memory free again.
            self._forget()
            self._halve_micro_batch(len(batch.images))

    def _take_scaled(self, batch: Batch, step: int) -> StepResult:
        """Take the step; in fp16 with the largest scale, up to the present one, at which the gradients are finite."""
        scale = self.loss_scale
        if scale is None:
            return self._take(batch, step)
        before = replace(scale)
        while not (result := self._take(batch, step)).applied:
            if scale.factor <= 1:
                self.loss_scale = before  # it is not the scale
                return result
            scale.halve()
        scale.count()
        return result

    def _take(self, batch: Batch, step: int) -> StepResult:
        """Forward, loss, backward; and the update, where all of it is finite."""
        self._seed(step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(step) * group["scale"]

        # The mean loss over the whole batch, all ranks' parts together, has the gradients that add up here.
        logits, loss = [], torch.zeros((), device=self.compute.device)
        rank_weight = self._rank_weight(len(batch.images))
        scale = self.loss_scale.factor if self.loss_scale is not None else 1.0
        for part, share, is_last in self._parts(len(batch.images)):
            with self._averaging(is_last):
                with self.compute.autocast():
                    outputs = self._forward(batch.images[part])
                    part_loss = self._loss(outputs, batch.targets[part])
                weight = rank_weight * share * scale
                (part_loss if weight == 1.0 else part_loss * weight).backward()
            logits.append(outputs.detach())
            loss += part_loss.detach() * share
        result = torch.cat(logits) if len(logits) > 1 else logits[0]

        trained = [p for p in self.network.parameters() if p.grad is not None]
        gradients = [cast("Tensor", p.grad) for p in trained]
        if scale != 1.0:
            torch._foreach_mul_(gradients, 1 / scale)
        norm = nn.utils.get_total_norm(gradients)
        if self.ranks.any(not bool(torch.isfinite(norm) & torch.isfinite(loss))):
            self._forget()
            return StepResult(result, loss, applied=False)
        if self.recipe.optim.clip is not None:
            nn.utils.clip_grads_with_norm_(trained, self.recipe.optim.clip, norm)

        self._updating = True  # from here on a step cannot be begun again
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.network)
        self._updating = False
        return StepResult(result, loss, applied=True)

    def _seed(self, step: int) -> None:
        """What is drawn within a step is a function of the step, and differs between ranks."""
        if self._draws:
            torch.manual_seed(key(self.recipe.seed, "network", step, *([] if self.ranks.alone else [self.ranks.rank])))

    def _forward(self, images: Tensor) -> Tensor:
        images = self.compute.images(images)
        if not self.ranks.alone:
            return self._parallel(images)
        if self.hooks.network is None:
            return self.network(images)
        name = name_of(self.hooks.network)
        with blaming(f"the network {name}", but=_is_out_of_memory):
            logits = self.network(images)
        return require_logits(logits, len(images), None, name)

    def _averaging(self, is_last: bool) -> AbstractContextManager[None]:
        """Gradients are averaged over ranks once a step, behind its last part."""
        return nullcontext() if self.ranks.alone or is_last else self._parallel.no_sync()

    def _rank_weight(self, count: int) -> float:
        """What makes a mean over ranks the mean over images, where the ranks' parts differ by some images."""
        return 1.0 if self.ranks.alone else count * self.ranks.size / self.ranks.sum(count)[0]

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over the images. Class weights multiply an image's loss; their mean over the training images is one."""
        smoothing = self.recipe.optim.label_smoothing
        if self.hooks.loss is not None:
            return self._own_loss(logits.float(), targets)
        if self.class_weights is None:
            return F.cross_entropy(logits, targets, label_smoothing=smoothing)
        weights = self.class_weights.to(logits.dtype)
        return F.cross_entropy(logits, targets, weights, reduction="none", label_smoothing=smoothing).mean()

    def _own_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean of the user's loss. Raises `HookError` (exit code 2) where it fails, memory that runs out aside."""
        name = f"the loss {name_of(self.hooks.loss)}"
        soft = "the targets are soft, (N, classes): --augment.mixup 0 --augment.cutmix 0" if targets.ndim > 1 else None
        with blaming(name, remedy=soft, but=_is_out_of_memory):
            loss = cast("Callable", self.hooks.loss)(logits, targets)
        if not isinstance(loss, Tensor) or tuple(loss.shape) not in ((), (len(logits),)):
            given = f"{tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise UsageError(f"{name} gives {given} for {len(logits)} images", remedy="a mean, or a loss for each")
        return loss.mean() if loss.ndim else loss

    def _parts(self, count: int) -> Iterator[tuple[slice, float, bool]]:
        """A batch in parts: where each is, its share, whether it is the last. About equal, none of a single image.

        One part where memory suffices. BatchNorm needs two images.
        """
        size = self.micro_batch or count
        pieces = max(1, min(-(-count // size), count // 2))
        ends = [count * piece // pieces for piece in range(pieces + 1)]
        for first, last in pairwise(ends):
            yield slice(first, last), (last - first) / count, last == count

    def _forget(self) -> None:
        """As if the step had not been tried: no gradient, and BatchNorm's statistics from before it."""
        self.optimizer.zero_grad()
        if self._statistics:
            torch._foreach_copy_(self._statistics, self._kept)

    def _halve_micro_batch(self, count: int) -> None:
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


def draws(network: nn.Module, hooks: Hooks) -> bool:
    """Whether random numbers are drawn within a step. Of what is not ours nobody knows it."""
    return hooks.loss is not None or not isinstance(network, ResNet) or bool(network.arch.drop_path)


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and is_out_of_memory(error)
