"""What a run keeps to tell strangers by: fitted to what it has learnt from, its threshold to its validation split."""

from pathlib import Path

import numpy as np
import pytest
import torch

import resnetkit as rk
from conftest import TINY
from pictures import fill
from resnetkit.data.load import load_data
from resnetkit.evaluation.answers import answer
from resnetkit.novelty.unknown import learn_unknown
from resnetkit.recipes.schema import DataRecipe


def test_a_run_refuses_the_share_of_its_validation_split_that_it_states(digits_run: Path) -> None:
    classifier = rk.load(digits_run, device="cpu", precision="fp32")
    data = load_data("digits", DataRecipe(name="digits", validation=0.1))
    learnt, held_out = (answer(classifier, each, features=True) for each in (data.train, data.validation))
    assert (held_out.strangeness > classifier.unknown.threshold).sum() == int(0.05 * (len(held_out) + 1)) - 1
    again = learn_unknown(
        *map(torch.from_numpy, (learnt.features, learnt.labels, learnt.logits)),
        (torch.from_numpy(held_out.features), torch.from_numpy(held_out.logits)),
    )
    assert again.to_bytes() == classifier.unknown.to_bytes()
    drawn = np.random.default_rng(0).integers(0, 256, (50, 8, 8), dtype=np.uint8)
    assert np.mean([row.unknown for row in rk.predict(classifier, drawn)]) > 4 * 0.05  # a weak net: 77 %


@pytest.mark.parametrize("test", [False, True])
def test_a_head_alone_has_it_too(tmp_path: Path, test: bool) -> None:
    """With a test split the head learns from validation, whose features the backbone has never learnt from."""
    for split, count, first in (("train", 8, 0), ("val", 4, 100), ("test", 4, 200))[: 2 + test]:
        fill(tmp_path / "photos" / split, count, first=first)
    model = {"name": "resnet20", "weights": "resnet20.cifar10"}
    classifier = rk.train(str(tmp_path / "photos"), "head", out=tmp_path / "run", quiet=True, model=model)
    assert classifier.unknown is not None
    assert classifier.unknown.known.shape == (12,)
    again = rk.load(tmp_path / "run")
    assert again.unknown.to_bytes() == classifier.unknown.to_bytes()


def test_where_it_cannot_be_measured_there_is_none(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    own = rk.train("digits", out=tmp_path / "own", quiet=True, network=network, steps=1)
    assert own.unknown is None
    assert own.invariant_outputs(torch.zeros(3, 1, 8, 8))[1] is None


def test_a_network_of_another_width_has_no_use_for_it(digits_run: Path, tmp_path: Path) -> None:
    one = rk.load(digits_run)
    other = rk.Classifier(
        rk.create_model("resnet20", num_classes=10, in_channels=1, **TINY["model"] | {"widths": (8, 24)}),
        *(one.preprocess, one.classes, "resnet20", one.compute),
        unknown=one.unknown,
    )
    logits, features = other.outputs(torch.zeros(2, 1, 8, 8))
    assert features.shape == (2, 24)
    assert other.strangeness(logits, features) is None
    assert rk.load(other.save(tmp_path / "other")).unknown is None
