"""Answers do not depend on what stands beside an image, and averaged ones are those of a plain loop."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

import resnetkit as rk
from conftest import TINY, trained_like
from pictures import draw, fill
from resnetkit.classifier import Classifier
from resnetkit.data.load import load_data
from resnetkit.errors import UsageError
from resnetkit.evaluation.answers import answer
from resnetkit.images.preprocess import Preprocess
from resnetkit.images.protocol import ViewProtocol
from resnetkit.machine.device import choose
from resnetkit.machine.ranks import Ranks
from resnetkit.recipes.schema import DataRecipe

LOOK = Preprocess(24, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), 32)
COLOURS = ("blue", "green", "red")
PROTOCOLS = {
    "one view": ViewProtocol(),
    "ten crops": ViewProtocol(crops=10),
    "mirrored": ViewProtocol(flip=True),
    "scales": ViewProtocol(scales=(16, 24, 40)),
    "scales, mirrored": ViewProtocol(scales=(16, 40), flip=True),
    "another size": ViewProtocol(size=36),
}


def make(look: Preprocess = LOOK, classes: tuple[str, ...] = COLOURS, seed: int = 0) -> Classifier:
    network = trained_like(num_classes=3, **TINY["model"])
    torch.manual_seed(seed)
    network.fc.weight.data.normal_()
    return Classifier(network.eval(), look, classes, "resnet20", choose("cpu"), temperature=1.5 + seed)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours, of several sizes, and two files that are no pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    fill(folder, 7, COLOURS)
    draw("red", 99, (70, 41)).save(folder / "red" / "wide.png")
    (folder / "blue" / "broken.png").write_bytes(b"no picture")
    (folder / "red" / "a-broken.png").write_bytes(b"nor this")
    return folder


def held(folder: Path):
    settings = DataRecipe(name=str(folder), max_unreadable=0.5, allow_missing=True)
    return load_data(str(folder), settings, whole=True).held_out()[1]


class Alone(Ranks):
    """One of several ranks that never meet: what it has is what there is."""

    def gather(self, value):
        return [value]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_answers_are_the_same_to_the_bit_for_every_batch_and_number_of_workers(name: str, pictures: Path) -> None:
    protocol, classifier, split = PROTOCOLS[name], make(), held(pictures)
    classifier = replace(classifier, preprocess=protocol.preprocess(classifier.preprocess))
    one = answer(classifier, split, batch_size=1, workers=0, protocol=protocol)
    assert len(one) == len(one.files) == 22
    for batch_size, workers in ((7, 0), (64, 0), (7, 1 if name == "scales" else 0)):
        other = answer(classifier, split, batch_size=batch_size, workers=workers, protocol=protocol)
        np.testing.assert_array_equal(other.logits, one.logits)
        np.testing.assert_array_equal(other.labels, one.labels)
        assert other.files == one.files
    for size in (2, 3):
        parts = [answer(classifier, split, protocol=protocol, ranks=Alone(rank, size)) for rank in range(size)]
        np.testing.assert_array_equal(np.concatenate([part.logits for part in parts]), one.logits)
        np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), one.labels)


def test_figures_of_digits_are_the_same_to_the_last_digit_for_every_batch(digits_run: Path) -> None:
    classifier = rk.load(digits_run)
    reports = [rk.evaluate(classifier, "digits", batch_size=batch_size) for batch_size in (1, 7, 64, 1000)]
    for report in reports:
        report.pop("test_opened")
    assert all(json.dumps(report) == json.dumps(reports[0]) for report in reports)


def test_ranks_have_the_figures_of_one_process_to_the_last_digit(digits_run: Path) -> None:
    """Real ranks, as torchrun starts them: one of them prints, and what one process prints."""
    code = "from resnetkit.cli.app import main; main()"
    command = [sys.executable, "-c", code, "evaluate", str(digits_run), "digits", "--json"]
    alone = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        subprocess.Popen(
            command,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=600)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert said[1] == ""
    one, two = json.loads(alone), json.loads(said[0])
    assert two.pop("test_opened")["times"] == one.pop("test_opened")["times"] + 1
    assert two == one


@pytest.mark.parametrize("name", ["mirrored", "scales", "scales, mirrored", "another size"])
def test_averaged_views_are_those_of_a_plain_loop(name: str, pictures: Path) -> None:
    """The oracle: torchvision's transforms, one view at a time, softmax, mean."""
    protocol, classifier, split = PROTOCOLS[name], make(), held(pictures)
    found = answer(replace(classifier, preprocess=protocol.preprocess(LOOK)), split, protocol=protocol)
    tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(LOOK.mean, LOOK.std)])
    looks = [v2.Resize(scale) for scale in protocol.scales]
    if not looks:
        size = protocol.size or 24
        looks = [v2.Compose([v2.Resize(size * 32 // 24), v2.CenterCrop(size)])]
    if protocol.flip:
        looks += [v2.Compose([look, v2.RandomHorizontalFlip(1.0)]) for look in looks]
    for file, logits in zip(found.files, found.logits, strict=True):
        with Image.open(file) as image, torch.inference_mode():
            shares = [classifier.network(tensor(look(image.convert("RGB")))[None])[0].softmax(0) for look in looks]
        shown = torch.from_numpy(logits).softmax(0)
        np.testing.assert_allclose(shown, torch.stack(shares).mean(0).numpy(), rtol=1e-4, atol=1e-6)


def test_an_ensemble_is_the_mean_of_its_members_probabilities(pictures: Path) -> None:
    """Members see their own sizes, have their own temperatures, and number the classes in their own order."""
    first, other = make(), make(replace(LOOK, size=28), ("red", "blue", "green"), seed=1)
    report = rk.evaluate(first, pictures, ensemble=[other])
    assert report["ensemble"] == ["resnet20"]
    losses, right = [], 0
    for name in COLOURS:
        for file in sorted((pictures / name).iterdir()):
            if "broken" in file.name:
                continue
            rows = [each.predict(file, top=3)[0] for each in (first, other)]
            shares = {colour: np.mean([dict(row.top)[colour] for row in rows]) for colour in COLOURS}
            losses.append(-np.log(shares[name]))
            right += max(shares, key=shares.get) == name
    assert report["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert report["top1"] == pytest.approx(100 * right / len(losses), abs=1e-3)
    assert len(report["unreadable"]) == 2


def test_an_ensemble_of_other_classes_is_refused(pictures: Path) -> None:
    with pytest.raises(UsageError, match=r"do not know the same classes: green is known to one of them only"):
        rk.evaluate(make(), pictures, ensemble=[make(classes=("blue", "red", "yellow"))])


def test_an_ensemble_that_shall_refuse_is_refused_itself(digits_run: Path) -> None:
    classifier = rk.load(digits_run)
    assert classifier.unknown is not None
    with pytest.raises(UsageError, match="an ensemble refuses nothing"):
        rk.evaluate(classifier, "digits", ensemble=[classifier], reject=True)


def test_the_command_line_has_the_same_views(pictures: Path, tmp_path: Path, cli) -> None:
    classifier = make()
    classifier.save(tmp_path / "one")
    make(seed=1).save(tmp_path / "two")
    done = cli("evaluate", tmp_path / "one", pictures, "--scales", "16,40", "--flip", "--json")
    assert done.code == 0, done.err
    expected = rk.evaluate(classifier, pictures, scales=(16, 40), flip=True)
    assert json.loads(done.out)["loss"] == expected["loss"]
    assert json.loads(done.out)["views"] == "whole pictures at 16, 40 px, mirrored too"
    both = cli("evaluate", tmp_path / "one", pictures, "--ensemble", tmp_path / "two", "--json")
    assert json.loads(both.out)["loss"] == rk.evaluate(classifier, pictures, ensemble=[make(seed=1)])["loss"]
    assert cli("evaluate", tmp_path / "one", pictures, "--crops", "10", "--flip").code == 2
