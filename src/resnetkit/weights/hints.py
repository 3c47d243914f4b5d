"""What has to be said of weights that do not say it themselves."""

from dataclasses import dataclass
from pathlib import Path

from resnetkit.errors import UsageError


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
    """What the classes are called, in the order of the head; as a flag, a text file with one name a line."""


def read_classes(file: Path) -> tuple[str, ...]:
    """Class names from a text file, one a line. Raises `UsageError` (exit code 2)."""
    try:
        names = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("cannot read the class names", file=file, why=str(error)) from error
    if len(set(names)) != len(names):
        raise UsageError("a class name stands twice", file=file)
    return names
