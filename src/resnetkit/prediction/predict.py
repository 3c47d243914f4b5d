"""From inputs to answers: files are decoded by threads, and computed in batches."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnetkit.arguments import checked
from resnetkit.classifier import Classifier
from resnetkit.errors import DataError
from resnetkit.images.memory import picture
from resnetkit.prediction.answer import Prediction
from resnetkit.prediction.inputs import find_pictures
from resnetkit.recipes.ranges import require

BATCH_SIZE = 32


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
            rows = iter(_answers(classifier, torch.stack(good)) if good else ())
            for (name, _), outcome in zip(chunk, decoded, strict=True):
                if isinstance(outcome, DataError):
                    yield Prediction(name, error=outcome.reason)
                    continue
                probabilities, unknown, score = next(rows)
                best = probabilities.topk(top)
                pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                named = tuple((classifier.classes[label], share) for label, share in pairs)
                yield Prediction(name, named, unknown=unknown, unknown_score=score)


@checked("top", "batch_size", classifier="resnetkit.load(FOLDER)")
def predict(classifier: Classifier, inputs: Any, *, top: int = 5, batch_size: int = BATCH_SIZE) -> list[Prediction]:
    """The `top` most probable classes of images: files, or folders of them, all files below which are meant.

    Or of pictures in memory: PIL images, and arrays or tensors of (H, W), (H, W, C) or (C, H, W), one or a list of
    them, or a batch of one dimension more; they are prepared as files are. Their `file` is their number.
    A file that cannot be read, or is no image, gets a prediction with `error` set; it takes no other file's place.
    """
    return list(predict_each(classifier, inputs, top=top, batch_size=batch_size))


def _answers(classifier: Classifier, pixels: Tensor) -> Iterator[tuple[Tensor, bool | None, float | None]]:
    """Of each picture, uint8 (C, size, size): calibrated probabilities, whether unknown, how strange."""
    images = classifier.preprocess.normalise(classifier.compute.tensor(pixels))
    logits, features = classifier.outputs(images)
    probabilities = classifier.calibrated(logits).cpu()
    if (strangeness := classifier.strangeness(logits, features)) is None or classifier.unknown is None:
        return ((row, None, None) for row in probabilities)
    threshold = classifier.unknown.threshold
    return ((row, score > threshold, score) for row, score in zip(probabilities, strangeness.tolist(), strict=True))


def _read(classifier: Classifier, name: str, source: Any) -> torch.Tensor | DataError:
    look = classifier.preprocess
    try:
        return look.read(source) if isinstance(source, Path) else look.pixels(picture(source, look.channels, name))
    except DataError as error:
        return error
