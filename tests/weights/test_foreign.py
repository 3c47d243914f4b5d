"""What comes with weights of others is obeyed: settings, averages, what stands beside a network (W5 to W7)."""

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

import resnetkit as rk
from pictures import fill
from resnetkit.errors import CheckpointError
from resnetkit.weights.hints import read_classes
from resnetkit.weights.tensorfile import read_tensors

LOOK = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "size": 32}


@pytest.fixture(scope="module")
def networks() -> tuple[nn.Module, nn.Module]:
    """A network of torchvision and another one, as its average."""
    torch.manual_seed(0)
    return tuple(torchvision.models.resnet18(num_classes=3).eval() for _ in range(2))


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    state = theirs.state_dict()
    return all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())


# Settings


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [127.0] * 3, "image_std": [60.0] * 3},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
    ],
    ids=str,
)
def test_pixels_reach_the_network_as_hugging_faces_own_processor_makes_them(said: dict, tmp_path: Path) -> None:
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

    settings = {"size": {"shortest_edge": 32}, "crop_pct": 1.0, "image_mean": [0.5] * 3, "image_std": [0.25] * 3} | said
    ResNetForImageClassification(
        ResNetConfig(depths=[2, 2, 2, 2], layer_type="basic", hidden_sizes=[64, 128, 256, 512])
    ).save_pretrained(tmp_path)
    processor = ConvNextImageProcessor(**settings)
    processor.save_pretrained(tmp_path)
    image = Image.fromarray(np.full((32, 32, 3), 200, np.uint8))
    theirs = processor(image, return_tensors="pt")["pixel_values"].float()
    look = rk.load(tmp_path).preprocess
    torch.testing.assert_close(look.normalise(look.pixels(image)[None]), theirs, rtol=1e-5, atol=1e-5)


def test_a_network_that_timm_calls_by_another_name_is_said_to_be_read_as_ours(
    networks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(networks[0].state_dict(), tmp_path / "pytorch_model.bin")
    settings = {"mean": [0.5] * 3, "std": [0.25] * 3, "input_size": [3, 32, 32], "label_names": ["a", "b", "c"]}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnetblur18", "pretrained_cfg": settings}))
    with caplog.at_level(logging.INFO, logger="resnetkit"):
        assert rk.load(tmp_path).model == "resnet18"
    assert "its settings name resnetblur18, which is not one of ours: read as resnet18" in caplog.text


# A network and its average


def _torchvisions(raw: nn.Module, average: nn.Module, file: Path) -> None:
    """As `references/classification/train.py` writes it."""
    averaged = torch.optim.swa_utils.AveragedModel(average).state_dict()
    optimizer = torch.optim.SGD(raw.parameters(), 0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 30)
    saved = {"model": raw.state_dict(), "optimizer": optimizer.state_dict(), "lr_scheduler": scheduler.state_dict()}
    torch.save(saved | {"epoch": 3, "args": argparse.Namespace(lr=0.1), "model_ema": averaged}, file)


def _timms(raw: nn.Module, average: nn.Module, file: Path) -> None:
    """As timm's `CheckpointSaver` writes it."""
    about = {"epoch": 3, "arch": "resnet18", "version": 2, "args": argparse.Namespace(lr=0.1), "metric": np.float64(7)}
    torch.save(about | {"state_dict": raw.state_dict(), "state_dict_ema": average.state_dict()}, file)


@pytest.mark.parametrize("save", [_torchvisions, _timms])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_average_is_taken_and_said_unless_the_network_itself_is_asked_for(
    save, networks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw, average = networks
    save(raw, average, tmp_path / "c.pth")
    with caplog.at_level(logging.INFO, logger="resnetkit"):
        assert same(rk.load(tmp_path / "c.pth", **LOOK).network, average)
    assert "took the average, " in caplog.text
    assert "--which raw takes the network itself" in caplog.text
    assert same(rk.load(tmp_path / "c.pth", which="ema", **LOOK).network, average)
    assert same(rk.load(tmp_path / "c.pth", which="raw", **LOOK).network, raw)


def test_a_file_of_one_network_holds_no_average(networks, tmp_path: Path, cli) -> None:
    torch.save({"model": networks[0].state_dict()}, tmp_path / "c.pth")
    assert same(rk.load(tmp_path / "c.pth", which="raw", **LOOK).network, networks[0])
    flags = ("--mean", "0,0,0", "--std", "1,1,1", "--size", 32, "--which", "ema")
    done = cli("predict", tmp_path / "c.pth", "x.png", *flags)
    assert done.code == 4
    assert "the file holds no average of a network" in done.err
    torch.save({"model_ema": networks[0].state_dict()}, tmp_path / "c.pth")
    assert same(rk.load(tmp_path / "c.pth", **LOOK).network, networks[0])
    with pytest.raises(CheckpointError, match="the average of a network alone"):
        rk.load(tmp_path / "c.pth", which="raw", **LOOK)


# What stands beside a network, and a network without a head


def test_the_weights_of_a_loss_are_left_out_by_name(networks, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tensors = {f"model.{name}": value for name, value in networks[0].state_dict().items()}
    torch.save({"state_dict": tensors | {"criterion.weight": torch.ones(3)}}, tmp_path / "lightning.ckpt")
    with caplog.at_level(logging.INFO, logger="resnetkit"):
        assert same(rk.load(tmp_path / "lightning.ckpt", **LOOK).network, networks[0])
    assert "left out criterion.weight" in caplog.text
    torch.save(networks[0].state_dict() | {"criterion.weight": torch.ones(3)}, tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match=r"unexpected criterion\.weight"):
        rk.load(tmp_path / "bare.pth", **LOOK)


def test_two_tensors_of_one_name_are_refused(networks, tmp_path: Path) -> None:
    tensors = {f"model.{name}": value for name, value in networks[0].state_dict().items()}
    torch.save(tensors | {"fc.weight": torch.zeros(3, 512)}, tmp_path / "twice.pth")
    with pytest.raises(CheckpointError, match=r"two of the tensors would be fc\.weight"):
        rk.load(tmp_path / "twice.pth", **LOOK)


def test_a_head_behind_a_dropout_is_a_head(networks, tmp_path: Path) -> None:
    raw = networks[0]
    tensors = {name.replace("fc.", "fc.1."): value for name, value in raw.state_dict().items()}
    torch.save(tensors, tmp_path / "dropout.pth")
    assert same(rk.load(tmp_path / "dropout.pth", **LOOK).network, raw)


BACKBONES = {
    "no head": lambda name: name,
    "an encoder": lambda name: f"encoder.{name}",
    "a wrapped encoder": lambda name: f"module.encoder.{name}",
}


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_backbone_is_a_start_for_training_and_no_classifier(
    kind: str, networks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = networks[0].state_dict()
    tensors = {BACKBONES[kind](name): value for name, value in raw.items() if not name.startswith("fc.")}
    if kind != "no head":  # contrastive learning leaves its own head beside the encoder
        tensors |= {"projector.0.weight": torch.ones(8, 512), "projector.0.bias": torch.ones(8)}
    torch.save({"state_dict": tensors}, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=r"the weights have no head.*Try: resnetkit train"):
        rk.load(tmp_path / "b.pth", **LOOK)
    with caplog.at_level(logging.INFO, logger="resnetkit"):
        net = rk.create_model("resnet18", weights=tmp_path / "b.pth", num_classes=5)
    assert "holds a backbone without a head: new head for 5 classes" in caplog.text
    assert ("left out projector.0.weight, projector.0.bias" in caplog.text) == (kind != "no head")
    assert net.fc.weight.shape == (5, 512)
    assert torch.equal(net.layer4[1].conv2.weight, raw["layer4.1.conv2.weight"])


def test_training_starts_from_a_backbone(networks, tmp_path: Path, cli) -> None:
    torch.save({k: v for k, v in networks[0].state_dict().items() if not k.startswith("fc.")}, tmp_path / "b.pth")
    photos = fill(tmp_path / "photos", 6)
    flags = ("--model.name", "resnet18", "--data.mean", 0.5, 0.5, 0.5, "--data.std", 0.25, 0.25, 0.25)
    flags += (
        "--data.image-size",
        32,
        "--data.resize",
        32,
        "--data.batch-size",
        4,
        "--optim.lr",
        1e-9,
        "--optim.ema",
        0,
    )
    done = cli(
        "train",
        photos,
        "--recipe",
        "scratch",
        "--weights",
        tmp_path / "b.pth",
        "--out",
        tmp_path / "run",
        "--steps",
        1,
        *flags,
    )
    assert done.code == 0, done.err
    assert "new head for 3 classes" in done.err
    trained = rk.load(tmp_path / "run").network.conv1.weight
    torch.testing.assert_close(trained, networks[0].conv1.weight)


# Names of classes


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + "größe\nb".encode(),
        "größe\nb\n".encode("utf-16"),
        b"\xfe\xff" + "größe\nb\n".encode("utf-16-be"),
        "größe\r\nb\r\n\r\n".encode(),
        "  größe \n\n b".encode(),
    ],
)
def test_class_lists_of_other_editors_are_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    assert read_classes(tmp_path / "names.txt") == ("größe", "b")


@pytest.mark.parametrize("content", [b"\xff", b"a\0b\0", b"\xff\xfea", b"a" * (33 << 20)])
def test_what_is_no_class_list_is_a_usage_error(content: bytes, tmp_path: Path, cli) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    done = cli("predict", "x", "y.png", "--classes", tmp_path / "names.txt")
    assert done.code == 2
    assert "cannot read the class names in" in done.err


def test_the_order_of_numbered_classes_is_said(networks, tmp_path: Path, cli) -> None:
    torch.manual_seed(0)
    torch.save(rk.create_model("resnet20", num_classes=11).state_dict(), tmp_path / "w.pth")
    flags = ("--model", "resnet20", "--mean", "0,0,0", "--std", "1,1,1", "--size", 32)
    for number in range(11):
        fill(tmp_path / "p", 1, ("red",), first=number)
        (tmp_path / "p" / "red").rename(tmp_path / "p" / str(number + 1))
    done = cli("evaluate", tmp_path / "w.pth", tmp_path / "p", *flags)
    assert done.code == 0, done.err
    assert "classes 1 to 11 are taken in the order of their numbers; --classes says another" in done.err
    (tmp_path / "names.txt").write_text("\n".join(str(number + 1) for number in range(11)))
    done = cli("evaluate", tmp_path / "w.pth", tmp_path / "p", *flags, "--classes", tmp_path / "names.txt")
    assert "order of their numbers" not in done.err


def test_notes_of_a_file_are_part_of_what_is_read(networks, tmp_path: Path) -> None:
    torch.save({"model": networks[0].state_dict(), "model_ema": networks[1].state_dict()}, tmp_path / "c.pth")
    assert read_tensors(tmp_path / "c.pth").notes == (
        "took the average, model_ema; --which raw takes the network itself",
    )
    assert read_tensors(tmp_path / "c.pth", "raw").notes == ()
