"""What several commands share: their flags, and how they print."""

import gc
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

FOREIGN = Group("For weights that do not say it themselves", sort_key=8)
RECIPE_KEYS = Group("Recipe keys", help="Each overrides the recipe's own value.", sort_key=9)
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[Literal["auto", "fp32", "bf16"], Parameter(help="auto takes bf16 where it is native.")]
DataRoot = Annotated[Path | None, Parameter(help="Where named sets lie; nothing is downloaded there.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object on stdout.")]
Strict = Annotated[bool, Parameter(negative="", help="Exit with 9 where an input could not be read.")]
Model = Annotated[str, Parameter(name="MODEL", help="A run's folder, a model's, a file, a hub id, a name.")]
Workers = Annotated[int | None, Parameter(help="Processes that decode files.")]


@dataclass(frozen=True)
class Foreign:
    """What has to be said of weights that do not say it themselves."""

    model: str | None = None
    """The network, a name from `resnetkit list models`, where it cannot be told from the weights."""
    mean: str | None = None
    """Of each channel in 0-1, as R,G,B."""
    std: str | None = None
    """Of each channel in 0-1, as R,G,B."""
    size: int | None = None
    """Side in pixels of what the network sees."""
    classes: Path | None = None
    """A text file of class names, one a line, in the order of the head."""


@contextmanager
def importing() -> Iterator[None]:
    """Look for no garbage while PyTorch is imported, nor later among what that made: a third of a second in all.

    Its objects live as long as the process, and there are very many of them; without this, Python looks through them on
    its way in and on its way out. Where PyTorch was there already, the process is someone else's and is left alone.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def told(foreign: Foreign | None) -> dict[str, Any]:
    """What the flags say of weights that do not say it themselves, as `load` takes it."""
    from resnetkit.weights.load import read_classes

    if foreign is None:
        return {}
    return {
        "model": foreign.model,
        "mean": _numbers("--mean", foreign.mean),
        "std": _numbers("--std", foreign.std),
        "size": foreign.size,
        "classes": read_classes(foreign.classes) if foreign.classes is not None else None,
    }


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    from resnetkit.errors import UsageError

    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{flag} {text} cannot be", why="numbers with commas between", remedy=f"{flag} 0.485,0.456,0.406"
        ) from error


def print_json(report: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    line = json.dumps(report, ensure_ascii=False)
    # A file name that is not UTF-8 reaches us with lone surrogates; escaped, it parses back to the same name.
    if any("\ud800" <= character <= "\udfff" for character in line):
        line = json.dumps(report)
    print(line, flush=True)


def console() -> Any:
    """Where tables go: stdout, as wide as it is."""
    from rich.console import Console

    return Console(highlight=False)
