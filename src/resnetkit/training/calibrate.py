"""What a classifier has to know beside its weights, from unseen images, at the end of training: its temperature."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from resnetkit.evaluation.answers import Answers, answer
from resnetkit.evaluation.calibration import FEWEST, calibration, fit_temperature
from resnetkit.machine.device import is_out_of_memory
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

    The first rank looks, and all have what it finds. Memory that does not suffice ends no run: T stays 1.
    """

    def look() -> Answers:
        found = answer(setup.classifier(network), setup.validation_split, workers=setup.recipe.data.workers)
        return replace(found, temperature=fit_temperature(found.logits, found.labels))

    return setup.ranks.from_first(lambda: _tolerant(look))


def calibrate_head(setup: Setup, answers: Answers | None) -> Calibrated:
    """What cross-validation says of a solved head: `answers` to each image by a head that has not seen it."""
    return setup.ranks.from_first(lambda: _calibrated(answers, "cross-validation"))


def _tolerant(look: Callable[[], Answers]) -> Calibrated:
    try:
        return _calibrated(look(), "validation")
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return Calibrated(said="no temperature was fitted: the memory does not suffice; probabilities stay as they are")


def _calibrated(answers: Answers | None, split: str) -> Calibrated:
    found = calibration(answers) if answers is not None else None
    if answers is None or found is None:
        return Calibrated(said="no temperature was fitted: there are no images for it; probabilities stay as they are")
    said = f"temperature {found.temperature:.3g}, fitted on {found.count:,} images of {split}"
    if found.count < FEWEST:
        said = f"no temperature was fitted: {found.count} images of {split}, and it takes {FEWEST}"
    return Calibrated(found.temperature, {"split": split} | found.to_dict(), said)
