"""How classes are found where no folder says them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Labelling:
    """Columns of a table, or a pattern for names of files. Each is a key of a recipe's section on data too."""

    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    image_root: str | None = None
    label_from: str | None = None
