"""What a classifier has to know beside its weights, from unseen images, at the end of training: its temperature."""

from dataclasses import dataclass, field, replace
from typing import Any

from resnetkit.evaluation.answers import Answers, answer
from resnetkit.evaluation.calibration import FEWEST, calibration, fit_temperature
from resnetkit.networks.resnet import ResNet
from resnetkit.training.setup import Setup


@dataclass(frozen=True)
class Calibrated:
    """The temperature of a classifier, and how far it can be believed."""

    temperature: float = 1.0
    figures: dict[str, Any] = field(default_factory=dict)
    """Of the images that it was fitted on, which are called `split`; empty where there were none."""
    said: str = ""
    """What there is to say of it, for people."""


def calibrate(setup: Setup, network: ResNet) -> Calibrated:
    """What the validation split says of a network with its best weights; the test split is not looked at.

    The first rank looks, and all have what it finds.
    """

    def look() -> Answers:
        found = answer(setup.classifier(network), setup.validation_split, workers=setup.recipe.data.workers)
        return replace(found, temperature=fit_temperature(found.logits, found.labels))

    return setup.ranks.from_first(lambda: _calibrated(look(), "validation"))


def calibrate_head(setup: Setup, answers: Answers | None) -> Calibrated:
    """What cross-validation says of a solved head: `answers` to each image by a head that has not seen it."""
    return setup.ranks.from_first(lambda: _calibrated(answers, "cross-validation"))


def _calibrated(answers: Answers | None, split: str) -> Calibrated:
    found = calibration(answers) if answers is not None else None
    if answers is None or found is None:
        return Calibrated(said="no temperature was fitted: there are no images for it; probabilities stay as they are")
    said = f"temperature {answers.temperature:.3g}, fitted on {found['count']:,} images of {split}"
    if found["count"] < FEWEST:
        said = f"no temperature was fitted: {found['count']} images of {split}, and it takes {FEWEST}"
    return Calibrated(answers.temperature, {"split": split} | found, said)
