import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

import resnetkit as rk
from pictures import draw
from resnetkit.classifier import Classifier, Origin
from resnetkit.errors import CheckpointError, UsageError
from resnetkit.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resnetkit.machine.device import choose


def test_what_is_saved_gives_the_same_logits(digits_run: Path, tmp_path: Path) -> None:
    one = rk.load(digits_run)
    other = rk.load(one.save(tmp_path / "copy"))
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(one.logits(images), other.logits(images))
    assert (other.classes, other.preprocess, other.recipe, other.metrics) == (
        one.classes,
        one.preprocess,
        one.recipe,
        one.metrics,
    )
    assert other.network.arch == one.network.arch
    assert not other.network.training


@pytest.mark.parametrize(
    ("recipe", "data", "validation"),
    [
        ({"data": {"name": "digits", "validation": 0.2}}, "digits", 0.2),
        ({"data": {"name": "photos"}}, "photos", None),
        ({"weights": "resnet18.imagenet1k_v1"}, None, None),  # as `load` has it for foreign weights
        ({"data": "photos"}, None, None),
        ({"data": {"name": ["photos"], "validation": "much"}}, None, None),
        ({}, None, None),
    ],
)
def test_a_classifier_says_what_it_was_trained_on_where_its_recipe_does(
    recipe: dict, data: str | None, validation: float | None, digits_run: Path
) -> None:
    assert replace(rk.load(digits_run), recipe=recipe).origin == Origin(data, validation)


def test_the_origin_of_a_run_survives_its_file(digits_run: Path) -> None:
    assert rk.load(digits_run).origin == Origin("digits", 0.1)


@pytest.mark.parametrize("temperature", [0.013, 0.7, 1.0, 3.7, 97.0])
def test_no_temperature_changes_the_order_of_answers(temperature: float, digits_run: Path) -> None:
    """Ties that are in the logits, and those that dividing and rounding make of neighbours."""
    classifier = replace(rk.load(digits_run, device="cpu", precision="fp32"), temperature=temperature)
    draw = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(20_000, 10, generator=draw)
    logits[:5000] = logits[:5000].round()
    logits[5000:10_000, 1:] = logits[5000:10_000, :1].nextafter(torch.tensor(float("inf")))
    labels, shares = classifier.ranked(logits, 3)
    assert labels[:, 0].tolist() == logits.numpy().argmax(1).tolist()
    assert torch.equal(labels, replace(classifier, temperature=1.0).ranked(logits, 3)[0])
    best = shares.gather(1, labels)
    assert bool((best.diff(dim=1) <= 0).all())
    assert torch.equal(best[:, 0], shares.max(1).values)
    torch.testing.assert_close(shares.double(), (logits.double() / temperature).softmax(1), rtol=1e-4, atol=1e-7)


def test_predictions_come_from_evaluation_mode_and_move_no_statistics(digits_run: Path, tmp_path: Path) -> None:
    """Somebody went on training the network: BatchNorm must not learn from what is predicted."""
    classifier = rk.load(digits_run, device="cpu", precision="fp32")
    pixels = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = classifier.preprocess.normalise(pixels)
    logits, shares = classifier.logits(images), classifier.probabilities(pixels)
    draw("red", 0).save(tmp_path / "a.png")
    answer = rk.predict(classifier, tmp_path / "a.png")
    before = {name: value.clone() for name, value in classifier.network.state_dict().items()}
    for part in (classifier.network, classifier.network.bn1):
        part.train()
        assert torch.equal(classifier.logits(images), logits)
        part.train()
        assert torch.equal(classifier.probabilities(pixels), shares)
        part.train()
        assert rk.predict(classifier, tmp_path / "a.png") == answer
    for name, value in classifier.network.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_timm_opens_the_folder_with_equal_logits(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    preprocess = Preprocess(96, IMAGENET_MEAN, IMAGENET_STD, resize=110, interpolation="bicubic")
    ours = Classifier(rk.create_model(name, num_classes=3), preprocess, ("a", "b", "c"), name, choose("cpu", "fp32"))
    ours.save(tmp_path / "model")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(ours.logits(images), theirs(images), rtol=1e-5, atol=1e-5)
    assert theirs.pretrained_cfg["mean"] == list(IMAGENET_MEAN)
    assert theirs.pretrained_cfg["label_names"] == ["a", "b", "c"]


def test_timm_takes_grey_networks_too(tmp_path: Path) -> None:
    preprocess = Preprocess(64, (0.5,), (0.25,))
    network = rk.create_model("resnet18", num_classes=2, in_channels=1)
    ours = Classifier(network, preprocess, ("no", "yes"), "resnet18", choose("cpu", "fp32"))
    ours.save(tmp_path / "model")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    images = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours.logits(images), theirs(images), rtol=1e-5, atol=1e-5)


def _flip(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-9] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _other_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["resnetkit"]["arch"]["widths"] = [8, 32]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("harm", [_flip, _no_weights, _no_json, _other_shape])
def test_a_damaged_model_is_refused(harm, digits_run: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_run / "model", tmp_path / "model")
    harm(tmp_path / "model")
    with pytest.raises(CheckpointError, match=f"the model is damaged in {tmp_path}|the model's settings in {tmp_path}"):
        rk.load(tmp_path / "model")


def test_what_is_no_model_is_refused(digits_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no model in /no/where: no such file or folder"):
        rk.load("/no/where")
    with pytest.raises(UsageError, match=r"it holds none of config\.json"):
        rk.load(tmp_path)
    shutil.copytree(digits_run / "checkpoints", tmp_path / "checkpoints")
    with pytest.raises(UsageError, match=r"its training is not finished. Try: resnetkit train --resume"):
        rk.load(tmp_path)
