"""Several classifiers as one: the mean of what each of them is sure of."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from resnetkit.evaluation.answers import Answers

LEAST = np.float32(-1e4)
"""Stands for the logarithm of a probability of 0."""


def average(answers: Sequence[Answers]) -> Answers:
    """The answers of an ensemble to the same images: the mean of the members' calibrated probabilities.

    The result has temperature 1, and no score of novelty.
    """
    shares = sum(each.probabilities for each in answers) / len(answers)
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(shares).astype(np.float32), LEAST)
    return replace(answers[0], logits=logits, temperature=1.0, strangeness=None, features=None)
