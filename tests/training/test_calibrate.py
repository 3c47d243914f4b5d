"""The temperature at the end of real runs: by whichever images it is, it is never by those of the test split."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from torch import nn

import resnetkit as rk
from conftest import TINY
from pictures import fill
from resnetkit.data.load import load_data
from resnetkit.evaluation.answers import answer
from resnetkit.evaluation.calibration import calibration, fit_temperature
from resnetkit.transfer.features import Features
from resnetkit.transfer.head import solve_head


def temperature_by(classifier: rk.Classifier, split: str) -> float:
    found = answer(classifier, getattr(load_data("digits"), split))
    return fit_temperature(found.logits, found.labels)


def test_the_temperature_of_a_run_is_that_of_its_validation_split_with_the_best_weights(digits_run: Path) -> None:
    classifier = rk.load(digits_run)
    config = json.loads((digits_run / "model" / "config.json").read_text())["resnetkit"]
    assert classifier.temperature == config["temperature"] == temperature_by(classifier, "validation") != 1
    assert classifier.temperature != temperature_by(classifier, "test")
    end = json.loads((digits_run / "metrics.jsonl").read_text().splitlines()[-1])
    told = calibration(answer(classifier, load_data("digits").validation))
    assert end["calibration"] == config["metrics"]["calibration"] == {"split": "validation"} | told
    assert told["nll"] < told["nll_uncalibrated"]
    unseen = calibration(answer(classifier, load_data("digits").test))
    assert unseen["nll"] < unseen["nll_uncalibrated"]


def test_a_run_that_is_stopped_and_goes_on_has_the_same_temperature_to_the_bit(
    digits_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(digits_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    for later in sorted((tmp_path / "run" / "checkpoints").iterdir())[-2:]:
        shutil.rmtree(later)
    resumed = rk.train(out=tmp_path / "run", resume=True, quiet=True)
    assert resumed.temperature == rk.load(digits_run).temperature != 1
    assert resumed.metrics["calibration"] == rk.load(digits_run).metrics["calibration"]


def test_too_few_images_are_no_reason_to_change_anything_and_it_is_said(tmp_path: Path, capfd) -> None:
    fill(tmp_path / "photos" / "train", 8)
    fill(tmp_path / "photos" / "val", 3, first=100)
    look = {"data": {"image_size": 16, "resize": 16, "workers": 0}}
    run = rk.train(tmp_path / "photos", recipe="scratch", out=tmp_path / "run", steps=2, **look, **TINY)
    assert run.temperature == 1
    assert run.metrics["calibration"]["count"] == 9
    assert "no temperature was fitted: 9 images of validation, and it takes 20" in capfd.readouterr().err


class Large(nn.Module):
    """The user's own: in evaluation it takes as many images at a time as validation has at once, and no more."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training and len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return self.net(x)


def test_a_network_of_the_users_own_is_calibrated_too(tmp_path: Path) -> None:
    own = rk.train("digits", out=tmp_path / "run", network=Large(1000), epochs=1, quiet=True)
    assert own.temperature != 1
    again = rk.load(tmp_path / "run", network=Large(1000))
    assert again.temperature == own.temperature == temperature_by(again, "validation")


def test_memory_that_does_not_suffice_for_a_batch_changes_nothing(tmp_path: Path) -> None:
    own = rk.train("digits", out=tmp_path / "run", network=Large(150), epochs=1)
    assert own.temperature != 1
    assert own.metrics["calibration"]["count"] == 143


def test_of_a_head_it_is_that_of_answers_by_heads_that_have_not_seen_the_image() -> None:
    """Oracle: scikit-learn's regression, fold by fold, at the strength that was chosen."""
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    rows = (draw.standard_normal((3, 50))[labels] + 3 * draw.standard_normal((120, 50))).astype(np.float32)
    head = solve_head(Features(rows[:, None], labels, tuple(map(str, range(120))), 120), 3)
    logits = np.empty((120, 3))
    for rest, held in StratifiedKFold(5, shuffle=True, random_state=0).split(rows, labels):
        model = LogisticRegression(C=head.strength, tol=1e-8, max_iter=20_000).fit(rows[rest], labels[rest])
        logits[held] = model.decision_function(rows[held])
    expected = fit_temperature(logits, labels)
    assert head.answers is not None
    assert head.answers.temperature == pytest.approx(expected, rel=1e-3)
    by_learnt = fit_temperature(rows @ head.weight.T + head.bias, labels)
    assert by_learnt < 0.8 * head.answers.temperature  # of what it has learnt it could be surer


def test_the_head_recipe_keeps_it_and_what_cross_validation_says_of_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path / "cache"))
    fill(tmp_path / "photos" / "train", 10)
    fill(tmp_path / "photos" / "test", 4, first=50)
    look = {"image_size": 24, "resize": 24}
    model = {"name": "resnet20", "stem": "cifar", "weights": "none"}
    head = rk.train(tmp_path / "photos", recipe="head", out=tmp_path / "run", quiet=True, model=model, data=look)
    told = head.metrics["calibration"]
    assert (told["split"], told["count"]) == ("cross-validation", 30)
    assert rk.load(tmp_path / "run").temperature == head.temperature == told["temperature"] != 1
