"""One answer to many views of a picture: their mean probability."""

from collections.abc import Sequence

import torch
from torch import Tensor

from resnetkit.classifier import Classifier
from resnetkit.images.protocol import Views


@torch.inference_mode()
def averaged_outputs(classifier: Classifier, pictures: Sequence[Views]) -> tuple[Tensor, Tensor | None]:
    """Of N pictures the logarithm of the mean probability of their views, float32 (N, classes), and scores of novelty.

    Probabilities are those before calibration, so that dividing the result by the temperature changes no order. The
    score of a picture, (N,), is the mean of those of its views; None where the classifier has none. What is said of a
    picture is the same to the bit whatever stands beside it. On the CPU.
    """
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for views in pictures:
        for group in views:
            by_shape.setdefault(group.shape[1:], []).append(group)
    outputs = {shape: view_outputs(classifier, torch.cat(groups)) for shape, groups in by_shape.items()}
    reached = dict.fromkeys(by_shape, 0)
    logits, scores = [], []
    for views in pictures:
        shares, strange = [], []
        for group in views:
            begin = reached[group.shape[1:]]
            reached[group.shape[1:]] = end = begin + len(group)
            raw, strangeness = outputs[group.shape[1:]]
            shares.append(raw[begin:end].double().log_softmax(1))
            strange.append(None if strangeness is None else strangeness[begin:end])
        together = torch.cat(shares)
        logits.append(together.logsumexp(0) - torch.tensor(float(len(together)), dtype=torch.float64).log())
        known = [each for each in strange if each is not None]
        if known:
            scores.append(torch.cat(known).double().mean())
    nothing = torch.empty(0, len(classifier.classes))
    return torch.stack(logits).float() if logits else nothing, torch.stack(scores).float() if scores else None


def view_outputs(classifier: Classifier, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits (N, classes), and scores of novelty (N,) where there are any, of uint8 views (N, C, H, W), on the CPU.

    Of the size that the classifier is made for many at a time, in batches of one shape; of others, that a picture may
    have alone, one by one.
    """
    step = classifier.chunk if set(pixels.shape[2:]) == {classifier.preprocess.size} else 1
    parts = []
    # Floats of one chunk at a time: those of all views would take far more than their pixels.
    for some in pixels.split(step):
        images = classifier.preprocess.normalise(classifier.compute.tensor(some))
        logits, features = classifier.invariant_outputs(images) if step > 1 else classifier.outputs(images)
        parts.append((logits.cpu(), classifier.strangeness(logits, features)))
    scores = [score for _, score in parts if score is not None]
    return torch.cat([logits for logits, _ in parts]), torch.cat(scores) if scores else None
