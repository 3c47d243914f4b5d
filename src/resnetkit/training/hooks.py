"""What a run takes of the user's own: network, loss, transform, optimizer, callbacks; and how callbacks are asked.

Nothing here costs a run anything that brings none.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from resnetkit.errors import UsageError, blaming
from resnetkit.recipes.schema import Recipe

MOMENTS = ("on_step", "on_validation", "on_epoch", "on_save", "on_end")


@dataclass(frozen=True)
class Stop:
    """What a callback returns to end the run early, as if its last step had been taken."""

    why: str = ""


STOP = Stop()
"""`return rk.STOP` from a callback ends the run."""


@dataclass(frozen=True)
class RunView:
    """What a callback is told of the run, beside the figures of the moment."""

    step: int
    """Steps behind us."""
    total_steps: int
    epoch: float
    """How often each image has been seen."""
    folder: Path
    recipe: Recipe
    network: nn.Module
    """The one that is trained. What a callback changes in it is its own affair."""
    rank: int
    """Of several processes that train together, which. Callbacks are asked on each."""


@runtime_checkable
class Stateful(Protocol):
    """What declares its state: tensors, numbers and text, in dicts and lists. It is kept with every checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Be again as when `state_dict` gave this."""
        ...


@dataclass(frozen=True)
class Hooks:
    """What is the user's own in a run. Raises `UsageError` (exit code 2) for what cannot be."""

    network: nn.Module | Callable[[], nn.Module] | None = None
    """Maps (N, C, H, W) to logits (N, classes); or makes one that does, with the recipe's seed."""
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    """Logits (N, classes) and targets, (N,) or (N, classes) where images are mixed, to a mean or to (N,) losses."""
    transform: Callable[[Tensor], Tensor] | None = None
    """uint8 (C, size, size) to the same."""
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None
    """Makes an optimizer of the parameters that are trained."""
    callbacks: Sequence[object] = ()

    def __post_init__(self) -> None:
        if isinstance(self.optimizer, torch.optim.Optimizer):
            remedy = "optimizer=lambda parameters: torch.optim.RMSprop(parameters, lr=0.01)"
            raise UsageError("optimizer is one that is made already", why="it has other parameters", remedy=remedy)
        for kind in ("network", "loss", "transform", "optimizer"):
            given = getattr(self, kind)
            if given is not None and not callable(given):
                raise UsageError(f"{kind} cannot be {given!r:.60}", why="it is something to be called")
        if isinstance(self.loss, nn.Module) and any(each.requires_grad for each in self.loss.parameters()):
            why = "the optimizer has those of the network"
            raise UsageError(
                f"the loss {name_of(self.loss)} has parameters", why=why, remedy="put them into a network="
            )
        if not isinstance(self.callbacks, Sequence) or isinstance(self.callbacks, str):
            raise UsageError("callbacks is no list", remedy="callbacks=[…]")
        for each in self.callbacks:
            _check_callback(each)

    def names(self) -> dict[str, Any]:
        """What each is called; by these a run that goes on knows them again."""
        single = {kind: getattr(self, kind) for kind in ("network", "loss", "transform", "optimizer")}
        names: dict[str, Any] = {kind: name_of(given) for kind, given in single.items() if given is not None}
        return names | ({"callbacks": list(map(name_of, self.callbacks))} if self.callbacks else {})

    def require_same(self, before: Mapping[str, Any], folder: Path) -> None:
        """Raises `UsageError` (exit code 2) where the run in `folder` was begun with others."""
        now = self.names()
        for kind in ("network", "loss", "transform", "optimizer", "callbacks"):
            was, given = before.get(kind), now.get(kind)
            if was != given:
                raise UsageError(
                    f"{kind} has changed since the run began",
                    file=folder,
                    why=f"it was {_said(was)} and is now {_said(given)}",
                    remedy=f"the old one, with {kind}= or --plugin, or another --out",
                )


def _said(name: str | list[str] | None) -> str:
    return ", ".join(name) if isinstance(name, list) else name or "the recipe's own"


def _check_callback(given: object) -> None:
    name = name_of(given)
    if isinstance(given, type):
        raise UsageError(f"the callback {name} is a class", remedy=f"callbacks=[{name}()]")
    for each in dir(given):
        if each.startswith("on_") and each not in MOMENTS:
            raise UsageError.unknown(f"moment of the callback {name}:", each, MOMENTS)
    if not any(callable(getattr(given, moment, None)) for moment in MOMENTS):
        why = f"a callback is an object with {', '.join(MOMENTS[:-1])} or {MOMENTS[-1]}"
        raise UsageError(f"the callback {name} has no moment", why=why)


def name_of(hook: object) -> str:
    """What the user has called something."""
    while isinstance(hook, partial):
        hook = hook.func
    return getattr(hook, "__qualname__", type(hook).__qualname__)


class Callbacks:
    """The callbacks of a run, in their order: those that the user has `given`, then `ours`."""

    def __init__(self, given: Sequence[object] = (), ours: Sequence[object] = ()) -> None:
        self._given, self._ours = tuple(given), {name_of(each): each for each in ours}
        self._at = {moment: [each for each in (*given, *ours) if hasattr(each, moment)] for moment in MOMENTS}

    def hear(self, moment: str) -> bool:
        """Whether anybody wants to know of a moment."""
        return bool(self._at[moment])

    def ask(self, moment: str, view: RunView, figures: Mapping[str, Any]) -> Stop | None:
        """Ask all; the first that ends the run is the one that is named. Raises `HookError` (exit code 2)."""
        said: Stop | None = None
        for each in self._at[moment]:
            with blaming(f"{moment} of the callback {name_of(each)}"):
                answer = getattr(each, moment)(view, dict(figures))
            if isinstance(answer, Stop) and said is None:
                said = answer if answer.why else Stop(f"{name_of(each)} has said so in {moment}")
        return said

    def forgetful(self) -> list[str]:
        """The user's callbacks that declare no state, and so begin anew where a run goes on."""
        return [name_of(each) for each in self._given if not isinstance(each, Stateful)]

    def state(self) -> dict[str, Any]:
        """What each remembers; None of one that does not say."""
        given = []
        for each in self._given:
            with blaming(f"state_dict of the callback {name_of(each)}"):
                given.append(each.state_dict() if isinstance(each, Stateful) else None)
        ours = {name: each.state_dict() for name, each in self._ours.items() if isinstance(each, Stateful)}
        return ({"given": given} if given else {}) | ({"ours": ours} if ours else {})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        for each, remembered in zip(self._given, state.get("given", ()), strict=True):
            if remembered is not None and isinstance(each, Stateful):
                with blaming(f"load_state_dict of the callback {name_of(each)}"):
                    each.load_state_dict(remembered)
        for name, each in self._ours.items():
            if isinstance(each, Stateful) and name in state.get("ours", {}):
                each.load_state_dict(state["ours"][name])
