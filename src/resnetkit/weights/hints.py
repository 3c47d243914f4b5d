"""What has to be said of weights that do not say it themselves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from resnetkit.errors import UsageError
from resnetkit.machine.documents import read_lines


@dataclass(frozen=True)
class Hints:
    """What is known of weights besides what they say. It is asked for, never guessed."""

    model: str | None = None
    """The network, a name from `resnetkit list models`, where it cannot be told from the weights."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel, in 0-1."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each channel, in 0-1."""
    size: int | None = None
    """Side in pixels of what the network sees."""
    classes: tuple[str, ...] | None = None
    """What the classes are called, in the order of the head; as a flag, a file of names, one a line."""
    which: Literal["raw", "ema"] | None = None
    """Of a file with a network and its average, which one; the average where nothing is said."""


def read_classes(file: Path) -> tuple[str, ...]:
    """Class names from a text file, one a line. Raises `UsageError` (exit code 2)."""
    try:
        names = tuple(read_lines(file))
    except (OSError, ValueError) as error:
        raise UsageError("cannot read the class names", file=file, why=str(error)) from error
    if len(set(names)) != len(names):
        raise UsageError("a class name stands twice", file=file)
    return names
