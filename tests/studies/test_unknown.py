"""The study `unknown`: a row against the saved run's own arithmetic, verdicts on made-up results."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import resnetkit as rk
from resnetkit.data.load import load_data
from resnetkit.evaluation.answers import answer
from resnetkit.studies.laboratory import run_study
from resnetkit.studies.unknown import STUDY
from studies.made_up import SCORES
from studies.made_up import unknown as made_up
from studies.tiny import NETS, shrink


def test_a_row_says_what_the_saved_model_catches_of_the_class_that_it_never_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, "unknown", {"left_out": "3"}, recipe={"epochs": 2, "model": NETS})
    outcome = run_study("unknown", quick=True, out=tmp_path / "study")
    (line,) = (line for line in outcome.results if line["method"] == "virtual-logit")
    saved = rk.load(str(tmp_path / "study" / "work" / "without-3-seed0"), device="cpu", precision="fp32")
    assert len(saved.classes) == 9
    test = load_data("digits").test
    three = test.labels.numpy() == 3
    scores = answer(saved, test).strangeness
    assert line["caught"] == pytest.approx(100 * (scores[three] > saved.unknown.threshold).mean())
    assert line["refused"] == pytest.approx(100 * (scores[~three] > saved.unknown.threshold).mean())
    assert line["auroc"] == pytest.approx(100 * roc_auc_score(three, scores))
    assert line["top1"] == pytest.approx(saved.metrics["top1"])
    images = saved.preprocess.normalise(test.pixels[torch.from_numpy(three)])
    assert np.allclose(saved.strangeness(*saved.outputs(images)).numpy(), scores[three], rtol=1e-4, atol=1e-4)


def test_which_score_is_best_is_said_only_where_seeds_are_apart() -> None:
    said = STUDY.answer(made_up(SCORES))
    assert "catches the most here. All kinds of strangers count alike: energy 51.0 %" in said
    near = STUDY.answer(made_up(SCORES | {"neighbour": (79.0, 82.0, 90.0)}))
    assert "neighbour catches more here than virtual-logit, which classifiers keep, but their seeds overlap" in near
