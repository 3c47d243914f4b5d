"""Loggers: the figures of a run for TensorBoard, Weights & Biases, MLflow. One that fails ends nothing.

To a run they are callbacks. Each works in a thread of its own, so that a network that is down keeps nobody waiting.
"""

import importlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from resnetkit.errors import UsageError
from resnetkit.machine.extras import with_extra
from resnetkit.reporting import mlflow, tensorboard, wandb

PATIENCE = 30.0
"""Seconds that the end of a run waits for a logger to have written everything."""


class Sink(Protocol):
    """What takes the figures."""

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """Scalars by name."""

    def close(self) -> None:
        """All is written."""


SINKS: dict[str, tuple[str, str | None, Callable[..., Sink]]] = {
    "tensorboard": ("torch.utils.tensorboard", None, tensorboard.TensorBoard),
    "wandb": ("wandb", "wandb", wandb.WeightsAndBiases),
    "mlflow": ("mlflow", "mlflow", mlflow.MLflow),
}
"""By the name of `--log`: the module that it needs, its package where that is no extra of ours, and what writes."""


def require_loggers(names: str | Sequence[str]) -> None:
    """Raises `UsageError` (exit code 2) for a name that is not known, and for one whose package is not installed."""
    for name in _each(names):
        if name not in SINKS:
            raise UsageError.unknown("logger", name, SINKS)
        module, package, _ = SINKS[name]
        try:
            importlib.import_module(module)
        except Exception as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            remedy = f"pip install {package}" if package is not None else with_extra("log")
            raise UsageError(f"--log {name} cannot be used", why=why, remedy=remedy) from error


def open_loggers(names: str | Sequence[str], say: Callable[[str], None], *, on: bool = True) -> "list[Logger]":
    """The loggers of some names; `say` takes a line where one is switched off.

    Of several processes that train together one is `on`; the others have loggers too, which do nothing, so that
    callbacks are asked at the same places on all.
    """
    return [Logger(name, SINKS[name][2], say, on=on) for name in _each(names)]


def _each(names: str | Sequence[str]) -> list[str]:
    return list(dict.fromkeys([names] if isinstance(names, str) else names))


class Logger:
    """One logger, as a callback. Whatever goes wrong: one warning, and it is off."""

    def __init__(self, name: str, sink: Callable[..., Sink], say: Callable[[str], None], *, on: bool = True) -> None:
        self.name, self.off = name, not on
        self._make, self._say = sink, say
        self._work: queue.SimpleQueue[tuple[Any, Mapping[str, Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def on_epoch(self, run: Any, figures: Mapping[str, Any]) -> None:
        """A row of the journal."""
        self._take(run, figures)

    def on_end(self, run: Any, figures: Mapping[str, Any]) -> None:
        """What the run ends with, on the split that it is scored on."""
        self._take(run, {f"{figures['split']}_{name}": figures[name] for name in ("loss", "top1", "top5")})

    def close(self) -> None:
        """Wait until everything is written, but not for ever."""
        if self._thread is None:
            return
        self._work.put(None)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._switch_off(f"it has not ended within {PATIENCE:.0f} s")

    def _take(self, run: Any, figures: Mapping[str, Any]) -> None:
        if self.off:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"log {self.name}", daemon=True)
            self._thread.start()
        self._work.put((run, figures))

    def _run(self) -> None:
        sink: Sink | None = None
        try:
            while (item := self._work.get()) is not None:
                run, figures = item
                if sink is None:
                    sink = self._make(run.folder, run.recipe.model_dump(mode="json", exclude_none=True), run.step)
                sink.write({name: float(value) for name, value in figures.items() if name not in PLACE}, run.step)
            if sink is not None:
                sink.close()
        except BaseException as error:  # whatever a stranger's library raises, SystemExit too
            first = (str(error).strip().splitlines() or [""])[0][:160]
            self._switch_off(f"{type(error).__name__}: {first}".rstrip(": "))

    def _switch_off(self, why: str) -> None:
        if not self.off:
            self.off = True
            self._say(f"warning   --log {self.name} has failed and is off; training goes on: {why}")


PLACE = ("step",)
"""Of a row, what says where it stands and is no figure."""
