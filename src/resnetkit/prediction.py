"""What is on an image: one answer for every picture, in the order in which they are given."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from resnetkit.arguments import checked, shortened
from resnetkit.classifier import Classifier
from resnetkit.data.walk import list_files
from resnetkit.errors import DataError, UsageError
from resnetkit.images.memory import SHAPES, is_array, is_picture, picture, pictures
from resnetkit.recipes.ranges import require

BATCH_SIZE = 32


@dataclass(frozen=True)
class Prediction:
    """The answer for one file, or for a picture in memory, of which `file` is the number.

    `top` holds (class, probability), best first; it is empty where `error` says why.
    """

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


def find_pictures(inputs: Any, channels: int) -> list[tuple[str, Any]]:
    """What to look at, each with its name: files, found as `find_files` does, and pictures in memory.

    One of these or a list of them; an array may be a batch. A picture in memory is called by its number, or by the file
    that Pillow opened. `channels` are those that the network sees.
    Raises `UsageError` (exit code 2) for anything else, `DataError` (exit code 3) for a folder without files.
    """
    if is_array(inputs):
        given = pictures(inputs, "inputs", channels)
    elif isinstance(inputs, str | Path | Image.Image) or not isinstance(inputs, Iterable):
        given = [inputs]
    else:
        given = list(inputs)
    found: list[tuple[str, Any]] = []
    for number, each in enumerate(given):
        if isinstance(each, str | Path):
            found += [(str(file), file) for file in find_files([each])]
        elif is_picture(each):
            found.append((getattr(each, "filename", None) or str(number), each))
        else:
            shape = f" of the shape {tuple(each.shape)}" if is_array(each) else ""
            name = "inputs" if given[0] is inputs else f"inputs[{number}]"
            takes = f"files, folders, PIL images, arrays or tensors, {SHAPES}"
            raise UsageError(f"predict({name}={shortened(each)}{shape}) cannot be", why=f"it takes {takes}")
    return found


def predict_each(
    classifier: Classifier, inputs: Any, *, top: int = 5, batch_size: int = BATCH_SIZE
) -> Iterator[Prediction]:
    """Predictions one by one, as they are ready: one for each picture, also for a file that cannot be read.

    Raises `UsageError` (exit code 2) for a number that cannot be, and as `find_pictures` does.
    """
    require(top=top, batch_size=batch_size)
    top = min(top, len(classifier.classes))
    found = find_pictures(inputs, classifier.preprocess.channels)
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(found), batch_size):
            chunk = found[start : start + batch_size]
            decoded = list(pool.map(lambda each: _read(classifier, *each), chunk))
            good = [pixels for pixels in decoded if not isinstance(pixels, DataError)]
            rows = iter(classifier.probabilities(torch.stack(good)).cpu() if good else ())
            for (name, _), outcome in zip(chunk, decoded, strict=True):
                if isinstance(outcome, DataError):
                    yield Prediction(name, error=outcome.reason)
                    continue
                best = next(rows).topk(top)
                pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                yield Prediction(name, tuple((classifier.classes[label], share) for label, share in pairs))


@checked("top", "batch_size", classifier="resnetkit.load(FOLDER)")
def predict(classifier: Classifier, inputs: Any, *, top: int = 5, batch_size: int = BATCH_SIZE) -> list[Prediction]:
    """The `top` most probable classes of images: files, or folders of them, all files below which are meant.

    Or of pictures in memory: PIL images, and arrays or tensors of (H, W), (H, W, C) or (C, H, W), one or a list of
    them, or a batch of one dimension more; they are prepared as files are. Their `file` is their number.
    A file that cannot be read, or is no image, gets a prediction with `error` set; it takes no other file's place.
    """
    return list(predict_each(classifier, inputs, top=top, batch_size=batch_size))


def _read(classifier: Classifier, name: str, source: Any) -> torch.Tensor | DataError:
    look = classifier.preprocess
    try:
        return look.read(source) if isinstance(source, Path) else look.pixels(picture(source, look.channels, name))
    except DataError as error:
        return error
