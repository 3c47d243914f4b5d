"""What several commands share: their flags, and how PyTorch is imported."""

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter, Token

from resnetkit.data.labelling import Labelling
from resnetkit.errors import UsageError
from resnetkit.weights.hints import Hints, read_classes

FOREIGN = Group("For weights that do not say it themselves", sort_key=8)
SELDOM = Group("Seldom needed", sort_key=7)
LABELS = Group("Where no folder says the class", sort_key=7)
RECIPE_KEYS = Group("Recipe keys", sort_key=9)
NETWORK_KEYS = Group("Keys of the network", sort_key=9)
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[
    Literal["auto", "fp32", "tf32", "bf16", "fp16"],
    Parameter(help="auto chooses by the hardware."),
]
DataRoot = Annotated[Path | None, Parameter(group=SELDOM, help="Where named sets lie; nothing is downloaded there.")]
Plugin = Annotated[
    str | None, Parameter(group=SELDOM, help="A Python file, or module, with the network that was trained.")
]
Json = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object on stdout.")]
Strict = Annotated[bool, Parameter(negative="", help="Exit with 9 where an input could not be read.")]
Model = Annotated[str, Parameter(name="MODEL", help="A run's folder, a model's, a file, a hub id, a name.")]
Workers = Annotated[int | None, Parameter(help="Processes that decode files.")]


def _numbers(_type: object, tokens: Sequence[Token]) -> tuple[float, ...]:
    token = tokens[0]
    try:
        return tuple(float(part) for part in token.value.split(","))
    except ValueError as error:
        raise UsageError(
            f"{token.keyword} {token.value} cannot be",
            why="numbers with commas between",
            remedy=f"{token.keyword} 0.485,0.456,0.406",
        ) from error


def _class_names(_type: object, tokens: Sequence[Token]) -> tuple[str, ...]:
    return read_classes(Path(tokens[0].value))


Numbers = Annotated[tuple[float, ...] | None, Parameter(converter=_numbers, n_tokens=1, negative="", metavar="R,G,B")]
ClassNames = Annotated[
    tuple[str, ...] | None, Parameter(converter=_class_names, n_tokens=1, negative="", metavar="FILE")
]


@dataclass(frozen=True)
class HintFlags(Hints):
    """How the hints are written as flags."""

    mean: Numbers = None
    std: Numbers = None
    classes: ClassNames = None


@dataclass(frozen=True)
class LabellingFlags(Labelling):
    """The keys of a recipe that say how classes are found, as flags of a command without a recipe."""

    path_column: Annotated[str | None, Parameter(help="Column of a table with the paths.")] = None
    label_column: Annotated[str | None, Parameter(help="Column of a table with the classes.")] = None
    split_column: Annotated[str | None, Parameter(help="Column of a table with the splits; none: no column.")] = None
    image_root: Annotated[str | None, Parameter(help="Folder that the paths of a table count from.")] = None
    label_from: Annotated[str | None, Parameter(help="Regular expression whose group is the class.")] = None


HowLabelled = Annotated[LabellingFlags | None, Parameter(name="data", group=LABELS)]
ForWeights = Annotated[HintFlags | None, Parameter(name="*", group=FOREIGN)]


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
