"""What is on an image: one answer for every input file, in the order of the files."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from resnetkit.classifier import Classifier
from resnetkit.data.walk import list_files
from resnetkit.errors import DataError
from resnetkit.recipes.ranges import require

BATCH_SIZE = 32


@dataclass(frozen=True)
class Prediction:
    """The answer for one file. `top` holds (class, probability), best first; it is empty where `error` says why."""

    file: str
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None

    @property
    def label(self) -> str | None:
        """The most probable class."""
        return self.top[0][0] if self.top else None

    def to_dict(self) -> dict[str, Any]:
        """One JSON object: `file, status, label, probability, top`, or `file, status, error`."""
        if self.error is not None:
            return {"file": self.file, "status": "error", "error": self.error}
        top = [{"label": label, "probability": probability} for label, probability in self.top]
        return {"file": self.file, "status": "ok", **top[0], "top": top}


def find_files(inputs: Iterable[str | Path]) -> list[Path]:
    """Files as they are given, and in place of a folder all files below it, sorted, whatever their names.

    What a file is, its content says. Only hidden files and those of the system (`Thumbs.db`) are left aside.
    Raises `DataError` (exit code 3) for a folder without files.
    """
    files: list[Path] = []
    for given in map(Path, inputs):
        if not given.is_dir():
            files.append(given)
        elif inside := list_files(given):
            files += inside
        else:
            raise DataError("there is no image", file=given)
    return files


def predict_each(
    classifier: Classifier, inputs: Iterable[str | Path], *, top: int = 5, batch_size: int = BATCH_SIZE
) -> Iterator[Prediction]:
    """Predictions one by one, as they are ready: one for each file, also for a file that cannot be read.

    Raises `UsageError` (exit code 2) for a number that cannot be.
    """
    require(top=top, batch_size=batch_size)
    top = min(top, len(classifier.classes))
    files = find_files(inputs)
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), batch_size):
            chunk = files[start : start + batch_size]
            decoded = list(pool.map(lambda file: _read(classifier, file), chunk))
            good = [pixels for pixels in decoded if not isinstance(pixels, DataError)]
            rows = iter(classifier.probabilities(torch.stack(good)).cpu() if good else ())
            for file, outcome in zip(chunk, decoded, strict=True):
                if isinstance(outcome, DataError):
                    yield Prediction(str(file), error=outcome.reason)
                    continue
                best = next(rows).topk(top)
                pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                yield Prediction(str(file), tuple((classifier.classes[label], share) for label, share in pairs))


def predict(
    classifier: Classifier, inputs: Iterable[str | Path] | str | Path, *, top: int = 5, batch_size: int = BATCH_SIZE
) -> list[Prediction]:
    """The `top` most probable classes of images: files, or folders of them, all files below which are meant.

    A file that cannot be read, or is no image, gets a prediction with `error` set; it takes no other file's place.
    """
    if isinstance(inputs, str | Path):
        inputs = [inputs]
    return list(predict_each(classifier, inputs, top=top, batch_size=batch_size))


def _read(classifier: Classifier, file: Path) -> torch.Tensor | DataError:
    try:
        return classifier.preprocess.read(file)
    except DataError as error:
        return error
