"""What a folder lists, and what of it cannot be read."""

from pathlib import Path

from resnetkit.data import scan
from resnetkit.data.dataset import Data
from resnetkit.data.survey import list_folder


def reasons(folder: Path) -> dict[str, str]:
    paths = [path for members, _ in list_folder(folder).splits.values() for path in members]
    found = zip(paths, scan.scan(folder, paths, cache=None), strict=True)
    return {str(path.relative_to(folder)): entry.why for path, entry in found if entry.why}


def count(data: Data) -> int:
    return sum(len(split) for split in (data.train, data.validation, data.test) if split is not None)
