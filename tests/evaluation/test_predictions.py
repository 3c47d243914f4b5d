"""`evaluate --out`: every answer and all figures, as a table and as JSON."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import resnetkit as rk
from conftest import TINY
from pictures import draw, fill
from resnetkit.classifier import Classifier
from resnetkit.errors import DataError, UsageError
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.csvfile import csv_records
from resnetkit.machine.device import choose


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """A network that has learnt nothing: what it answers does not matter here."""
    network = rk.create_model("resnet20", num_classes=3, **TINY["model"])
    look = Preprocess(16, (0.5,) * 3, (0.25,) * 3)
    return Classifier(network, look, ("blue", "green", "red"), "resnet20", choose("cpu", "fp32"))


def rows_of(folder: Path) -> list[dict[str, str]]:
    heads, *lines = csv_records((folder / "predictions.csv").read_bytes())
    return [dict(zip(heads, line, strict=True)) for line in lines]


def test_each_image_has_a_row_and_figures_are_those_of_the_rows(classifier: Classifier, tmp_path: Path) -> None:
    """The oracles are `predict` on the same files, and the report that Python gets."""
    photos = fill(tmp_path / "photos", 4)
    (photos / "red" / "broken.png").write_bytes(b"")
    report = rk.evaluate(classifier, photos, out=tmp_path / "out" / "deep")
    written = json.loads((tmp_path / "out" / "deep" / "evaluation.json").read_text())
    assert {key: written[key] for key in report} == json.loads(json.dumps(report))
    assert written["model"] == "resnet20"
    rows = rows_of(tmp_path / "out" / "deep")
    assert len(rows) == report["count"] == 12
    answers = rk.predict(classifier, [row["file"] for row in rows], top=3)
    for row, answer in zip(rows, answers, strict=True):
        assert row["label"] == Path(row["file"]).parent.name
        assert row["prediction"] == row["class_1"] == answer.label
        assert row["correct"] == ("true" if row["prediction"] == row["label"] else "false")
        told = [(row[f"class_{place}"], float(row[f"probability_{place}"])) for place in (1, 2, 3)]
        assert [name for name, _ in told] == [name for name, _ in answer.top]
        assert [share for _, share in told] == pytest.approx([share for _, share in answer.top], rel=1e-4)
    assert np.mean([row["correct"] == "true" for row in rows]) == pytest.approx(report["top1"] / 100, abs=1e-6)
    assert np.mean([float(row["loss"]) for row in rows]) == pytest.approx(report["loss"], rel=1e-5)
    assert sorted(path.name for path in (tmp_path / "out" / "deep").iterdir()) == ["evaluation.json", "predictions.csv"]


def test_probabilities_are_calibrated_and_the_loss_is_not(classifier: Classifier, tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", 3)
    plain = rk.evaluate(classifier, photos, out=tmp_path / "plain")
    soft = rk.evaluate(replace(classifier, temperature=4.0), photos, out=tmp_path / "soft")
    assert soft["loss"] == plain["loss"]
    for one, other in zip(rows_of(tmp_path / "plain"), rows_of(tmp_path / "soft"), strict=True):
        assert one["loss"] == other["loss"]
        assert float(one["probability_1"]) > float(other["probability_1"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_names_that_strangers_choose_survive_and_are_no_formulas(classifier: Classifier, tmp_path: Path) -> None:
    names = ["=1+1", "@x", 'say "cat", twice', "two\nlines", "\x1b[31mred", "🐈", os.fsdecode(b"caf\xe9")]
    photos = fill(tmp_path / "photos", 1)
    for number, name in enumerate(names):
        draw("red", number).save(photos / "red" / f"{name}.png")
    hostile = replace(classifier, classes=("blue", "green", "=red"))
    (photos / "red").rename(photos / "=red")
    rk.evaluate(hostile, photos, out=tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    expected = {str(photos / "=red" / f"{name}.png") for name in (*names, "000")}
    assert {row["file"] for row in rows if row["label"] == "=red"} == expected
    assert b",=red" not in (tmp_path / "out" / "predictions.csv").read_bytes()
    assert b",'=red" in (tmp_path / "out" / "predictions.csv").read_bytes()


def test_what_is_there_is_not_touched_unless_asked(classifier: Classifier, tmp_path: Path, cli, digits_run) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "evaluation.json").write_text("mine")
    done = cli("evaluate", digits_run, "digits", "--out", out)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: the output file exists in {out / 'evaluation.json'}. Try: --overwrite")
    assert (out / "evaluation.json").read_text() == "mine"
    assert cli("evaluate", digits_run, "digits", "--out", out, "--overwrite").code == 0
    assert json.loads((out / "evaluation.json").read_text())["count"] == 359
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=r"cannot be made in .*file: it is a file"):
        rk.evaluate(classifier, "digits", out=tmp_path / "file" / "out")


def test_nothing_to_score_is_an_error(classifier: Classifier, tmp_path: Path) -> None:
    photos = fill(tmp_path / "photos", 1)
    for path in photos.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError):
        rk.evaluate(classifier, photos)
    for name in ("blue", "green", "red"):
        (tmp_path / "empty" / name).mkdir(parents=True)
    with pytest.raises(DataError):
        rk.evaluate(classifier, tmp_path / "empty")
