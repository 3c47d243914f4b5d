"""How parameters move: groups, optimizer, learning rate as a function of the step, averaged weights."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from resnetkit.errors import UsageError, blaming
from resnetkit.recipes.schema import OptimRecipe, duration_steps
from resnetkit.training.hooks import name_of
from resnetkit.training.packing import same_layout

Tensors = tuple[Tensor, ...] | list[Tensor]


def parameter_groups(network: nn.Module, settings: OptimRecipe) -> list[dict]:
    """All trained parameters once; BatchNorm and biases without weight decay unless `decay_all`.

    `scale` multiplies a group's learning rate: 1 for the head, `layer_decay` once more for each stage towards the stem.
    """
    stages = [name for name, _ in network.named_children() if name.startswith("layer")]
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decay = settings.weight_decay if settings.decay_all or parameter.ndim > 1 else 0.0
            groups.setdefault((decay, settings.layer_decay ** _below_head(name, stages)), []).append(parameter)
    return [{"params": members, "weight_decay": decay, "scale": scale} for (decay, scale), members in groups.items()]


def _below_head(name: str, stages: list[str]) -> int:
    """Stages between a parameter and the head: 0 for the head itself, one more for the stem than for layer1."""
    part = name.partition(".")[0]
    if part in stages:
        return len(stages) - stages.index(part)
    return 0 if part in ("fc", "norm") else len(stages) + 1


def create_optimizer(network: nn.Module, settings: OptimRecipe) -> torch.optim.Optimizer:
    """The optimizer of a recipe over a network's parameters."""
    groups = parameter_groups(network, settings)
    if settings.name == "sgd":
        nesterov = settings.nesterov and settings.momentum > 0
        sgd = without_compiler(torch.optim.SGD)
        return sgd(groups, settings.lr, momentum=settings.momentum, nesterov=nesterov, fused=True)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    return without_compiler(kind)(groups, settings.lr, fused=True)


Kind = TypeVar("Kind", bound=type[torch.optim.Optimizer])


def without_compiler(kind: Kind) -> Kind:
    """The same optimizer, but its methods do not import PyTorch's compiler, which takes longer than PyTorch itself.

    They are decorated for `torch.compile`, and the decorators import it also where nothing is compiled.
    """
    names = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")
    plain: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    plain["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return cast("Kind", type(kind.__name__, (kind,), plain))


Factory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def own_optimizer(make: Factory, network: nn.Module) -> torch.optim.Optimizer:
    """The user's optimizer over the parameters that are trained; `scale` is a group's rate as part of the first one's.

    Raises `HookError` (exit code 2) where making it fails, `UsageError` (2) where what is made cannot be used.
    """
    name = name_of(make)
    with blaming(f"the optimizer {name}"):
        optimizer = make([each for each in network.parameters() if each.requires_grad])
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(f"optimizer {name} gives a {type(optimizer).__name__}", remedy="a torch.optim.Optimizer")
    rates = [float(group.get("lr", 0.0)) for group in optimizer.param_groups]
    if not rates[0] > 0:
        raise UsageError(f"the optimizer {name} has no learning rate", remedy="an lr above 0 in its first group")
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["scale"] = rate / rates[0]
    return optimizer


def restore_own_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Put back the `state_dict` of a user's optimizer, each tensor in the precision that it had."""
    optimizer.load_state_dict(dict(saved))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for position, entry in saved["state"].items():
        parameter = parameters[position]
        for name, value in entry.items():
            if isinstance(value, Tensor):
                value = value.to(optimizer.state[parameter][name].device)
                same = value.shape == parameter.shape
                optimizer.state[parameter][name] = same_layout(value, parameter) if same else value


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's memory as named tensors, `POSITION.NAME`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{position}.{name}": value
        for position, entry in state.items()
        for name, value in entry.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave. Raises `ValueError` where it is of other parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        position, name = key.split(".", 1)
        state.setdefault(int(position), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    # Fused kernels walk a parameter and its memory side by side and take their layouts to be equal: a buffer that was
    # stored contiguous must become channels-last again, or it would be applied to the wrong weights.
    for parameter, entry in optimizer.state.items():
        for name, value in entry.items():
            if isinstance(value, Tensor) and value.ndim:
                if value.shape != parameter.shape:
                    raise ValueError(f"the optimizer's {name} is of shape {tuple(value.shape)}")
                entry[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every step, and nothing remembered between them."""

    settings: OptimRecipe
    total_steps: int
    images: int
    batch_size: int

    def _steps(self, duration: str) -> int:
        return duration_steps(duration, total_steps=self.total_steps, images=self.images, batch_size=self.batch_size)

    def __call__(self, step: int) -> float:
        """The rate of step `step`, counted from 0."""
        settings = self.settings
        warmup = self._steps(settings.warmup)
        if step < warmup:
            done = (step + 1) / warmup if settings.warmup_shape == "linear" else 0.0
            return settings.lr * (settings.warmup_factor + (1 - settings.warmup_factor) * done)
        done = (step - warmup) / max(1, self.total_steps - warmup)
        if settings.schedule == "cosine":
            return settings.lr * 0.5 * (1 + math.cos(math.pi * done))
        if settings.schedule == "linear":
            return settings.lr * (1 - done)
        if settings.schedule == "steps":
            return settings.lr * settings.gamma ** sum(step >= self._steps(m) for m in settings.milestones)
        return settings.lr


def average_of(network: nn.Module, decay: float) -> AveragedModel:
    """A moving average of a network's parameters and BatchNorm statistics.

    After n updates it keeps min(decay, (1 + n) / (10 + n)) of itself: else a short run is left with a large share
    of its random start. n is the average's own `n_averaged`, which is stored with it.
    """

    def update(averaged: Tensors, current: Tensors, updates: Tensor | int) -> None:
        count = int(updates)
        get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))(averaged, current, updates)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)
