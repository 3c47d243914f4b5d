"""What comes of refusing, by counting on made-up answers; and `evaluate --reject` and `predict --reject` on a run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import resnetkit as rk
from resnetkit.classifier import Classifier
from resnetkit.data.load import load_data
from resnetkit.errors import UsageError
from resnetkit.evaluation.answers import Answers, answer
from resnetkit.evaluation.intervals import wilson
from resnetkit.evaluation.rejection import rejection
from resnetkit.novelty.unknown import Unknown


@pytest.fixture(scope="module")
def classifier(digits_run: Path) -> Classifier:
    return rk.load(digits_run, device="cpu", precision="fp32")


def made_up(classifier: Classifier, scores: list[float], right: list[bool]) -> tuple[Classifier, Answers]:
    """Four answers with these scores; what is beyond 1 is unknown."""
    unknown = Unknown("energy", {}, torch.tensor([0.0, 1.0]), 3, share=0.2)
    labels = np.zeros(len(right), dtype=np.int64)
    logits = np.eye(2, dtype=np.float32)[[0 if each else 1 for each in right]]
    strangeness = np.array(scores, dtype=np.float32)
    answers = Answers(tuple(map(str, right)), labels, logits, ("a", "b"), strangeness=strangeness)
    return replace(classifier, unknown=unknown), answers


def test_coverage_and_accuracy_are_counted(classifier: Classifier) -> None:
    found = rejection(*made_up(classifier, [0.5, 1.5, 1.0, 9.0, 0.1], [True, True, False, False, True]))
    assert (found["count"], found["answered"], found["refused"], found["coverage"]) == (5, 3, 2, 60.0)
    assert found["top1"] == pytest.approx(200 / 3)
    assert found["interval"] == list(wilson(2, 3))
    assert (found["refused_right"], found["refused_wrong"]) == (1, 1)
    assert (found["share"], found["method"]) == (0.2, "energy")


def test_where_all_are_refused_there_is_no_accuracy(classifier: Classifier) -> None:
    found = rejection(*made_up(classifier, [2.0, 3.0], [True, False]))
    assert (found["answered"], found["coverage"], found["top1"], found["interval"]) == (0, 0.0, None, None)
    assert json.dumps(found)


def test_a_run_says_what_it_refuses_and_the_same_of_one_picture_as_of_all(
    classifier: Classifier, digits_run: Path, cli
) -> None:
    done = cli("evaluate", digits_run, "digits", "--reject", "--json", "--device", "cpu", "--precision", "fp32")
    report = json.loads(done.out)
    test = load_data("digits").test
    answers = answer(classifier, test)
    assert answers.strangeness is not None
    refused = answers.strangeness > classifier.unknown.threshold
    assert report["reject"]["refused"] == refused.sum()
    for size in (1, 7):
        again = answer(classifier, test, batch_size=size)
        assert np.array_equal(again.strangeness, answers.strangeness)
    rows = classifier.predict([each.numpy() for each in test.pixels[:40, 0]])
    assert [row.unknown for row in rows] == refused[:40].tolist()
    assert [row.unknown_score for row in rows] == pytest.approx(answers.strangeness[:40].tolist(), rel=1e-4, abs=1e-4)
    shown = cli("evaluate", digits_run, "digits", "--reject")
    assert f"refuses {refused.sum():,} as unknown" in shown.out
    assert all(len(line) <= 80 for line in shown.out.splitlines() if "reject" in line or "interval" in line)
    assert "reject" not in json.loads(cli("evaluate", digits_run, "digits", "--json").out)


def test_noise_is_unknown_and_stands_as_that(digits_run: Path, tmp_path: Path, cli) -> None:
    """A class that is itself called `unknown` is told from it by the key."""
    run = tmp_path / "model"
    shutil.copytree(digits_run / "model", run)
    config = json.loads((run / "config.json").read_text())
    config["resnetkit"]["classes"][0] = "unknown"
    (run / "config.json").write_text(json.dumps(config))
    stripes = np.tile(np.array([[255, 0]], dtype=np.uint8), (8, 4))
    Image.fromarray(stripes).save(tmp_path / "strange.png")
    test = load_data("digits").test
    zero = int((test.labels == 0).nonzero()[0])
    Image.fromarray(test.pixels[zero, 0].numpy()).save(tmp_path / "zero.png")
    files = tmp_path / "strange.png", tmp_path / "zero.png"
    strange, nought = (json.loads(line) for line in cli("predict", run, *files, "--reject", "--json").out.splitlines())
    assert (strange["label"], strange["unknown"], strange["probability"]) == ("unknown", True, None)
    assert (nought["label"], nought["unknown"], nought["top"][0]["label"]) == ("unknown", False, "unknown")
    assert strange["unknown_score"] > nought["unknown_score"]
    assert len(strange["top"]) == 3
    (plain, _) = (json.loads(line) for line in cli("predict", run, *files, "--json").out.splitlines())
    assert (plain["unknown"], plain["label"]) == (True, plain["top"][0]["label"])
    shown = cli("predict", run, tmp_path / "strange.png", "--reject").out
    assert "unknown" in shown
    assert plain["label"] in shown


@pytest.mark.parametrize("words", [("predict", "x.png"), ("evaluate", "digits")])
def test_a_model_that_cannot_say_it_is_told_so(words: tuple[str, str], digits_run: Path, tmp_path: Path, cli) -> None:
    bare = replace(rk.load(digits_run), unknown=None).save(tmp_path / "bare")
    command, what = words
    done = cli(command, bare, what, "--reject")
    assert done.code == 2
    (line,) = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert "cannot tell what it does not know" in line
    assert "Try: the same without --reject" in line
    with pytest.raises(UsageError, match="cannot tell what it does not know"):
        rk.evaluate(rk.load(bare), "digits", reject=True)
