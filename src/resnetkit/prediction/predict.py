"""From inputs to answers, in order and in bounded memory: files are decoded while the network computes others."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Barrier, Event, Lock
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from resnetkit.arguments import checked
from resnetkit.averaging import averaged_outputs, view_outputs
from resnetkit.classifier import Classifier
from resnetkit.errors import DataError
from resnetkit.images.memory import picture
from resnetkit.images.protocol import ONE_VIEW, ViewProtocol, Views
from resnetkit.images.reading import with_image
from resnetkit.prediction.answer import Prediction
from resnetkit.prediction.archives import Packed
from resnetkit.prediction.inputs import Input, iter_inputs
from resnetkit.recipes.ranges import require

BATCH_SIZE = 32
AHEAD = 2
"""Pieces of work for each thread that are begun before their answers are asked for."""
MOST_DECODERS = 16


def predict_inputs(
    classifier: Classifier,
    inputs: Iterable[Input],
    *,
    top: int = 5,
    batch_size: int = BATCH_SIZE,
    protocol: ViewProtocol = ONE_VIEW,
) -> Iterator[Prediction]:
    """Exactly one for each input, in their order; the same to the bit whatever stands beside it, and for every batch.

    Inputs are asked for in the thread that asks for predictions, a bounded number ahead. Whoever stops early, closes
    the iterator or lets it go leaves no thread behind. `batch_size` is for speed only. With a `protocol`, probabilities
    are the mean of those of its views of a picture, prepared as it wants them.
    """
    require(top=top, batch_size=batch_size)
    return _Stream(classifier, protocol, top=top, batch_size=batch_size).predictions(inputs)


@checked("inputs", "top", "batch_size", classifier="resnetkit.load(FOLDER)")
def iter_predict(
    classifier: Classifier, inputs: Any, *, top: int = 5, batch_size: int = BATCH_SIZE
) -> Iterator[Prediction]:
    """As `predict`, one by one: for any number of pictures, of which only a few are in memory at a time.

    An iterator of inputs is asked for a bounded number ahead, in the thread that asks for predictions.
    """
    found = iter_inputs(inputs, classifier.preprocess.channels)
    return predict_inputs(classifier, found, top=top, batch_size=batch_size)


@checked("top", "batch_size", classifier="resnetkit.load(FOLDER)")
def predict(classifier: Classifier, inputs: Any, *, top: int = 5, batch_size: int = BATCH_SIZE) -> list[Prediction]:
    """The `top` most probable classes of images: files, or folders of them, all files below which are meant.

    Or of pictures in memory: PIL images, and arrays or tensors of (H, W), (H, W, C) or (C, H, W), one or a list of
    them, or a batch of one dimension more; they are prepared as files are. Their `file` is their number.
    A file that cannot be read, or is no image, gets a prediction with `error` set; it takes no other file's place.
    """
    return list(iter_predict(classifier, inputs, top=top, batch_size=batch_size))


Decoded = Views | str
"""What the network sees of one picture, or why there is nothing to see."""
Outputs = tuple[Tensor, Tensor | None]
"""Logits (N, classes) of the pictures that could be read, and, where there are any, their scores of novelty (N,)."""


class _Stream:
    """The way of pictures through threads.

    On the CPU a thread decodes a piece of work and computes it, alone, while others do the same: no thread waits for
    another, and the processor has always something to do. On other devices, and with a network of the user's own,
    which may not be asked from several threads, threads decode, and the one that asks for answers computes.
    """

    def __init__(self, classifier: Classifier, protocol: ViewProtocol, *, top: int, batch_size: int) -> None:
        look = protocol.preprocess(classifier.preprocess)
        self.classifier, self.protocol = replace(classifier.folded(), preprocess=look), protocol
        self.top, self.stop = min(top, len(classifier.classes)), Event()
        self.turn = Lock()  # one PIL image may be given several times, and no two threads may decode it
        chunk = self.classifier.chunk
        self.piece = -(-batch_size // chunk) * chunk
        self.side_by_side = classifier.device.type == "cpu" and classifier.ours
        self.threads = torch.get_num_threads() if self.side_by_side else min(os.cpu_count() or 1, MOST_DECODERS)

    def predictions(self, inputs: Iterable[Input]) -> Iterator[Prediction]:
        source, waiting = iter(inputs), deque[tuple[list[Input], Future[Any]]]()
        pool = ThreadPoolExecutor(self.threads, "predict")
        try:
            self._begin(pool)
            while True:
                while len(waiting) < AHEAD * self.threads and (piece := list(islice(source, self.piece))):
                    waiting.append((piece, pool.submit(self._work, piece)))
                if not waiting:
                    return
                piece, work = waiting.popleft()
                decoded, outputs = work.result()
                yield from self._answers(piece, decoded, outputs or self._outputs(decoded))
        finally:
            self.stop.set()
            pool.shutdown(cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor) -> None:
        """Start all threads; where they compute, with one thread each, while everything else stays as it was."""
        if not self.side_by_side:
            return
        before, ready = torch.get_num_threads(), Barrier(self.threads + 1)

        def alone() -> None:
            torch.set_num_threads(1)
            ready.wait()

        for _ in range(self.threads):
            pool.submit(alone)
        ready.wait()
        torch.set_num_threads(before)

    def _work(self, piece: list[Input]) -> tuple[list[Decoded], Outputs | None]:
        decoded = [self._decode(each) for each in piece if not self.stop.is_set()]
        return decoded, self._outputs(decoded) if self.side_by_side and not self.stop.is_set() else None

    def _decode(self, given: Input) -> Decoded:
        channels, source = self.classifier.preprocess.channels, given.source
        try:
            if isinstance(source, DataError):
                return source.reason
            if isinstance(source, Path):
                return with_image(source, self._see, channels)
            if isinstance(source, Packed):
                return with_image(given.name, self._see, channels, source.read())
            with self.turn if isinstance(source, Image.Image) else nullcontext():
                image = picture(source, channels, given.name)
            return self._see(image)
        except DataError as error:
            return error.reason

    def _see(self, image: Image.Image) -> Views:
        return self.protocol.views(image, self.classifier.preprocess)

    def _outputs(self, decoded: list[Decoded]) -> Outputs:
        classifier, seen = self.classifier, [views for views in decoded if isinstance(views, tuple)]
        if not self.protocol.plain or not seen:
            return averaged_outputs(classifier, seen)
        return view_outputs(classifier, torch.cat([group for (group,) in seen]))

    def _answers(self, piece: list[Input], decoded: list[Decoded], outputs: Outputs) -> Iterator[Prediction]:
        """Here logits, (N, classes), and scores of novelty become what is said of the pictures."""
        classifier, (logits, scores) = self.classifier, outputs
        best, probabilities = classifier.ranked(logits, self.top)
        threshold = classifier.unknown.threshold if classifier.unknown is not None else 0.0
        strange = [None] * len(logits) if scores is None else scores.tolist()
        rows = zip(best.tolist(), probabilities.numpy(), strange, strict=True)
        for given, outcome in zip(piece, decoded, strict=True):
            if isinstance(outcome, str):
                yield Prediction(given.name, error=outcome)
                continue
            labels, shares, score = next(rows)
            top = tuple((classifier.classes[label], shares[label].item()) for label in labels)
            unknown = None if score is None else score > threshold
            yield Prediction(given.name, top, probabilities=shares, unknown=unknown, unknown_score=score)
