"""The threshold by counting, what is saved bit by bit, and files that cannot be."""

import math

import numpy as np
import pytest
import safetensors.torch
import torch

from novelty.test_methods import CLASSES, WIDTH, known, strangers
from resnetkit.novelty.methods import METHODS
from resnetkit.novelty.unknown import Unknown, learn_unknown, restored


def learnt(method: str = "virtual-logit", held_out: int = 200, share: float = 0.05) -> Unknown:
    features, labels, logits = known(400)
    others = known(held_out, seed=2)
    found = learn_unknown(features, labels, logits, (others[0], others[2]), method=method, share=share)
    assert found is not None
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_of_validation_just_the_stated_share_is_refused(method: str, share: float) -> None:
    unknown = learnt(method, held_out=400, share=share)
    features, _, logits = known(400, seed=2)
    refused = int((unknown.score(features, logits) > unknown.threshold).sum())
    assert refused == math.floor(share * 401) - 1  # with a new one among them, it would be the next to be refused


def test_of_new_known_pictures_at_most_the_stated_share_is_refused_on_average() -> None:
    """The promise of split conformal prediction, on scores from any continuous distribution; 20,000 draws."""
    rng = np.random.default_rng(0)
    for count in (19, 30, 143):
        draws = np.sort(rng.exponential(size=(20_000, count)), axis=1).astype(np.float32)
        thresholds = [Unknown("energy", {}, torch.from_numpy(each), 3).threshold for each in draws]
        assert np.exp(-np.array(thresholds)).mean() <= 0.05 + 0.001


def test_too_few_known_pictures_refuse_none_of_them() -> None:
    unknown = learnt(held_out=10)
    assert unknown.threshold == unknown.known.max()


@pytest.mark.parametrize("method", METHODS)
def test_a_score_is_the_same_to_the_bit_in_any_company(method: str) -> None:
    unknown, (features, logits) = learnt(method), strangers(150)
    whole = unknown.score(features, logits)
    for size in (1, 7, 64):
        parts = [unknown.score(*pair) for pair in zip(features.split(size), logits.split(size), strict=True)]
        assert torch.equal(torch.cat(parts), whole)
    assert unknown.score(features[:0], logits[:0]).shape == (0,)


def test_what_is_not_finite_is_as_strange_as_can_be() -> None:
    unknown = learnt()
    assert unknown.score(torch.full((1, WIDTH), math.nan), torch.zeros(1, CLASSES)).tolist() == [math.inf]


def test_nothing_is_learnt_from_too_little_or_from_what_is_not_finite() -> None:
    features, labels, logits = known(40)
    assert learn_unknown(features[:1], labels[:1], logits[:1], (features, logits)) is None
    assert learn_unknown(features, labels, logits, (features[:0], logits[:0])) is None
    assert learn_unknown(features * math.nan, labels, logits, (features, logits)) is None


@pytest.mark.parametrize("method", METHODS)
def test_what_is_saved_comes_back_bit_by_bit(method: str) -> None:
    one = learnt(method)
    other = restored(one.to_bytes(), method, one.share, WIDTH)
    features, logits = strangers(30)
    assert torch.equal(one.score(features, logits), other.score(features, logits))
    assert (one.threshold, one.width, one.share) == (other.threshold, other.width, other.share)
    assert one.to_bytes() == other.to_bytes()


def changed(**tensors: torch.Tensor | None) -> bytes:
    held = safetensors.torch.load(learnt().to_bytes()) | tensors
    return safetensors.torch.save({name: each for name, each in held.items() if each is not None})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no file of tensors"),
        (b"\xff" * 40, "no file of tensors"),
        (changed(scale=None), "it holds centre, directions, known, and virtual-logit needs"),
        (changed(more=torch.zeros(1)), "it holds"),
        (changed(centre=torch.zeros(WIDTH + 1)), "its centre cannot be"),
        (changed(centre=torch.full((WIDTH,), math.nan)), "its centre cannot be"),
        (changed(directions=torch.zeros(0, WIDTH)), "its directions cannot be"),
        (changed(directions=torch.zeros(3)), "its directions cannot be"),
        (changed(scale=torch.zeros((), dtype=torch.float64)), "its scale cannot be"),
        (changed(known=torch.zeros(0)), "its known cannot be"),
        (changed(known=torch.tensor([2.0, 1.0])), "not in order"),
        (changed(known=torch.tensor([1.0, math.nan])), "not in order"),
    ],
)
def test_a_file_that_cannot_be_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        restored(content, "virtual-logit", 0.05, WIDTH)


def test_a_score_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="no score of novelty is called 'magic'"):
        restored(learnt().to_bytes(), "magic", 0.05, WIDTH)
