"""Classifiers on the same images. The oracle is `evaluate`, one by one, and scikit-learn's counting."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

import resnetkit as rk
from conftest import TINY
from pictures import fill
from resnetkit.data.load import load_data
from resnetkit.errors import DataError, UsageError


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("short") / "run"
    rk.train("digits", out=folder, quiet=True, epochs=2, optim={"ema": 0.0}, **TINY)
    return folder


def reordered(classifier: rk.Classifier) -> rk.Classifier:
    """The same classifier, whose head has its classes in another order."""
    order = np.random.default_rng(0).permutation(len(classifier.classes))
    network = rk.ResNet(classifier.network.arch)
    network.load_state_dict(classifier.network.state_dict())
    with torch.no_grad():
        network.fc.weight.copy_(classifier.network.fc.weight[order])
        network.fc.bias.copy_(classifier.network.fc.bias[order])
    return replace(classifier, network=network, classes=tuple(classifier.classes[place] for place in order))


def test_the_counts_are_those_of_predictions_one_by_one(digits_run: Path, short_run: Path) -> None:
    first, second = rk.load(short_run), rk.load(digits_run)
    found = rk.compare([first, second], "digits")
    (pair,) = found.pairs
    test = load_data("digits").test
    right = [(each.probabilities(test.pixels).argmax(1) == test.labels).numpy() for each in (first, second)]
    assert confusion_matrix(*right).tolist() == [[pair.neither, pair.only_second], [pair.only_first, pair.both]]
    for classifier, figures in zip((first, second), found.figures, strict=True):
        alone = rk.evaluate(classifier, "digits")
        assert (figures["count"], figures["top1"]) == (alone["count"], pytest.approx(alone["top1"], abs=1e-4))
        assert figures["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert pair.better == found.names[1] == str(digits_run)


def test_images_on_which_they_differ_have_both_answers(digits_run: Path, short_run: Path) -> None:
    classifiers = rk.load(short_run), rk.load(digits_run)
    found = rk.compare(classifiers, "digits")
    test = load_data("digits").test
    place_of = {test.name(place): place for place in range(len(test))}
    assert len(found.images) == found.pairs[0].differ == len({image.file for image in found.images})
    for image in found.images:
        place = place_of[image.file]
        assert found.to_dict()["differ"] == len(found.images)
        assert image.label == classifiers[0].classes[test.labels[place]]
        for classifier, answer, share in zip(classifiers, image.answers, image.probabilities, strict=True):
            expected = classifier.probabilities(test.pixels[place : place + 1])[0]
            assert answer == classifier.classes[int(expected.argmax())]
            assert share == pytest.approx(float(expected.max()), rel=1e-4)
    known = [any(image.right) for image in found.images]
    assert known == sorted(known, reverse=True)


def test_classes_are_matched_by_name(digits_run: Path, short_run: Path) -> None:
    first, second = rk.load(short_run), rk.load(digits_run)
    straight, turned = rk.compare([first, second], "digits"), rk.compare([first, reordered(second)], "digits")
    assert replace(straight.pairs[0], second="") == replace(turned.pairs[0], second="")
    assert [image.answers for image in straight.images] == [image.answers for image in turned.images]


def test_each_sees_images_through_its_own_preprocessing(digits_run: Path) -> None:
    classifier = rk.load(digits_run)
    look = classifier.preprocess
    dazzled = replace(classifier, preprocess=replace(look, mean=tuple(each + 3 for each in look.mean)))
    (pair,) = rk.compare([classifier, dazzled], "digits").pairs
    assert pair.same_weights
    assert pair.differ
    assert "weights" not in pair.verdict()


def test_equal_weights_are_said_to_be_equal(digits_run: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_run, tmp_path / "copy")
    found = rk.compare([rk.load(digits_run), rk.load(tmp_path / "copy")], "digits", names=["A", "B"])
    assert found.pairs[0].verdict() == "A and B have the very same weights"
    assert not found.images


def test_other_classes_are_refused_in_a_line(digits_run: Path) -> None:
    classifier = rk.load(digits_run)
    other = replace(classifier, classes=("zero", *classifier.classes[1:]))
    with pytest.raises(UsageError, match="do not know the same classes: 0 is known to one of them only"):
        rk.compare([classifier, other], "digits", names=["A", "B"])
    with pytest.raises(UsageError, match="two classifiers"):
        rk.compare([classifier], "digits")


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A folder of splits, a run on it, and a run on another folder, into which half of the test pictures got."""
    root = tmp_path_factory.mktemp("colours")
    fill(root / "one" / "train", 6)
    fill(root / "one" / "test", 4, first=100)
    fill(root / "two" / "train", 6, first=200)
    fill(root / "two" / "train", 2, first=100)
    settings = {"data": {"image_size": 16, "resize": 20, "batch_size": 8, "workers": 0, "allow_missing": True}}
    settings["model"] = {"name": "resnet20", **TINY["model"]}
    for name in ("one", "two"):
        rk.train(str(root / name), "scratch", out=root / f"run-{name}", quiet=True, steps=1, **settings)
    return root / "one", root / "run-one", root / "run-two"


def test_pictures_that_any_of_them_has_learnt_from_are_left_out(colours: tuple[Path, Path, Path]) -> None:
    photos, *runs = colours
    one, two = map(rk.load, runs)
    for classifiers in ([one, two], [two, one]):
        found = rk.compare(classifiers, photos)
        assert (found.split, found.seen, found.figures[0]["count"]) == ("test", 6, 6)
    whole = rk.compare([one, two], photos, include_seen=True)
    assert (whole.seen, whole.figures[0]["count"]) == (0, 12)


def test_where_all_were_seen_by_one_nothing_is_compared(colours: tuple[Path, Path, Path], tmp_path: Path) -> None:
    fill(tmp_path, 2, first=100)
    with pytest.raises(DataError, match="all 6 pictures were seen in training by one of the models"):
        rk.compare(list(map(rk.load, colours[1:])), tmp_path)


def test_a_file_that_cannot_be_read_is_left_out_for_all(colours: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, *runs = colours
    fill(tmp_path, 4, first=500)
    broken = next(tmp_path.rglob("*.png"))
    broken.write_bytes(broken.read_bytes()[:60])
    found = rk.compare(list(map(rk.load, runs)), tmp_path)
    assert (list(found.unreadable), found.figures[0]["count"]) == ([str(broken)], 11)


def test_the_command_says_it_in_80_columns(digits_run: Path, short_run: Path, cli, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shutil.copytree(short_run, tmp_path / "a")
    shutil.copytree(digits_run, tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    said = cli("compare", "a", "b", "digits", "--show", 3, "--out", "differ.csv")
    assert said.code == 0
    assert "B is better: +" in said.out
    assert max(map(len, said.out.splitlines())) <= 80
    told = json.loads(cli("compare", "a", "b", "digits", "--json", "--out", "folder").out)
    assert told["pairs"][0]["better"] == "b"
    rows = list(csv.DictReader((tmp_path / "differ.csv").read_text().splitlines()))
    assert len(rows) == told["differ"] == len((tmp_path / "folder" / "differ.csv").read_text().splitlines()) - 1
    assert rows[0]["answer a"] == told["images"][0]["answers"][0]
    assert json.loads((tmp_path / "folder" / "comparison.json").read_text())["differ"] == len(rows)


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("a", "digits"), 2, "compare needs two models and data"),
        (("a", "a", "digits"), 2, "a is named twice"),
        (("a", "b", "digits", "--out", "there.csv"), 2, "the file exists in there.csv"),
        (("a", "nowhere", "digits"), 2, "nowhere"),
        (("a", "a/model", "gone/"), 3, "gone"),
    ],
)
def test_mistakes_are_one_line(words: tuple, code: int, line: str, digits_run, cli, tmp_path, monkeypatch) -> None:
    shutil.copytree(digits_run, tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").write_text("mine")
    said = cli("compare", *words)
    assert (said.code, said.out, len(said.err.splitlines())) == (code, "", 1)
    assert line in said.err
    assert (tmp_path / "there.csv").read_text() == "mine"
