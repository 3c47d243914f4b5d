"""Loading by name, folder, file and hub id; what a source does not say has to be given (W1, W4 to W9)."""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision

import resnetkit as rk
from pictures import fill
from resnetkit.errors import CheckpointError, UsageError
from resnetkit.images.preprocess import IMAGENET_MEAN, IMAGENET_STD
from resnetkit.networks.arch import Arch
from resnetkit.networks.resnet import build
from resnetkit.weights import load as weights
from resnetkit.weights import sources
from resnetkit.weights import table as pretrained
from resnetkit.weights.table import OWN, WEIGHTS, Weights, best_weights, own_config

PAPER = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "size": 32}


def of_torchvision(name: str):
    model, tag = name.split(".")
    return torchvision.models.get_model_weights(model)[tag.upper()]


@pytest.mark.parametrize("name", [name for name, each in WEIGHTS.items() if each.source == "torchvision"])
def test_the_table_says_what_torchvision_says(name: str) -> None:
    ours, theirs = WEIGHTS[name], of_torchvision(name)
    transforms, metrics = theirs.transforms(), theirs.meta["_metrics"]["ImageNet-1K"]
    assert ours.url == theirs.url
    assert ours.url.endswith(f"-{ours.digest}.pth")
    assert (ours.preprocess.size, ours.preprocess.resize) == (transforms.crop_size[0], transforms.resize_size[0])
    assert ours.preprocess.interpolation == transforms.interpolation.value
    assert (list(ours.preprocess.mean), list(ours.preprocess.std)) == (transforms.mean, transforms.std)
    assert (ours.top1, ours.top5) == (metrics["acc@1"], metrics["acc@5"])


def test_the_table_holds_all_of_torchvisions_resnets() -> None:
    theirs = {
        f"{name}.{each.name.lower()}"
        for name in torchvision.models.list_models(torchvision.models)
        if name.startswith(("resnet", "wide_resnet", "resnext"))
        for each in torchvision.models.get_model_weights(name)
    }
    assert theirs == {name for name, each in WEIGHTS.items() if each.source == "torchvision"}


@pytest.mark.parametrize("name", [name for name, each in WEIGHTS.items() if each.source == "timm"])
def test_the_table_says_what_timm_says(name: str) -> None:
    ours, theirs = WEIGHTS[name], timm.models.get_pretrained_cfg(name)
    # The repository has moved since some of these lines were written; the file and its hash have not.
    assert (ours.file, ours.hub) == (theirs.url.rpartition("/")[2], theirs.hf_hub_id)
    assert ours.url.endswith(f"-{ours.digest}.pth")
    transform = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=theirs.to_dict()))
    resize, crop = transform.transforms[:2]
    assert (ours.preprocess.resize, ours.preprocess.size) == (resize.size, crop.size[0])
    assert ours.preprocess.interpolation == resize.interpolation.value
    assert (ours.preprocess.mean, ours.preprocess.std) == (theirs.mean, theirs.std)
    assert ours.licence.lower() == theirs.license


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as torchvision publishes it, with random weights, in the cache; and its line in the table."""
    torch.manual_seed(0)
    made = tmp_path / "made.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), made)
    digest = hashlib.sha256(made.read_bytes()).hexdigest()[:8]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    line = pretrained._torchvision("resnet18", digest, 256, 50.0, 75.0)
    monkeypatch.setitem(WEIGHTS, "resnet18.imagenet1k_v1", line)
    line.cached().parent.mkdir(parents=True)
    made.rename(line.cached())
    return line.cached()


def test_a_name_gives_a_classifier_with_its_preprocessing_and_classes(published: Path, tmp_path: Path) -> None:
    classifier = rk.load("resnet18.imagenet1k_v1")
    reference = torchvision.models.resnet18(weights=None)
    reference.load_state_dict(torch.load(published, weights_only=True))
    image = fill(tmp_path / "p", 1, ("red",)) / "red" / "000.png"
    (row,) = rk.predict(classifier, image)
    with torch.inference_mode():
        from PIL import Image

        transforms = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
        expected = reference.eval()(transforms(Image.open(image)).unsqueeze(0)).softmax(1)[0]
    assert row.label == torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"][int(expected.argmax())]
    assert row.top[0][1] == pytest.approx(expected.max().item(), rel=1e-3)
    assert classifier.recipe == {"weights": "resnet18.imagenet1k_v1"}


def test_the_cache_is_shared_with_torch_hub(published: Path) -> None:
    assert published == Path(torch.hub.get_dir()) / "checkpoints" / published.name


@pytest.mark.parametrize("harm", ["flip", "cut"])
def test_a_cached_file_that_is_damaged_is_not_trusted(harm: str, published: Path) -> None:
    content = bytearray(published.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
    else:
        del content[-1000:]
    published.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"Try: fetch https://.* by hand and put it at"):
        rk.load("resnet18.imagenet1k_v1")
    assert not published.exists()


def test_without_network_one_line_says_what_to_fetch_and_where_to_put_it(published: Path) -> None:
    published.unlink()
    with pytest.raises(CheckpointError) as caught:
        rk.create_model("resnet18", weights="resnet18.imagenet1k_v1")
    line = str(caught.value)
    assert "\n" not in line
    assert WEIGHTS["resnet18.imagenet1k_v1"].url in line
    assert str(published) in line


def test_another_head_and_another_input_are_adapted_and_said(published: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="resnetkit"):
        net = rk.create_model("resnet18", weights="resnet18.imagenet1k_v1", num_classes=5, in_channels=1)
    reference = torch.load(published, weights_only=True)
    torch.testing.assert_close(net.conv1.weight, reference["conv1.weight"].sum(1, keepdim=True))
    assert torch.equal(net.layer4[1].conv2.weight, reference["layer4.1.conv2.weight"])
    assert net.fc.weight.shape == (5, 512)
    assert "first convolution adapted to 1 input channels" in caplog.text
    assert "new head for 5 classes in place of 1000" in caplog.text
    # A grey image is answered as the old filters answer it in three equal channels.
    grey = torch.randn(1, 1, 32, 32)
    expected = torch.nn.functional.conv2d(grey.repeat(1, 3, 1, 1), reference["conv1.weight"], stride=2, padding=3)
    torch.testing.assert_close(net.conv1(grey), expected, rtol=1e-4, atol=1e-4)


def test_heads_follow_the_names_of_the_classes(tmp_path: Path) -> None:
    settings = {
        "data": {"image_size": 16, "resize": 16, "batch_size": 4},
        "quiet": True,
        "optim": {"lr": 1e-9, "ema": 0},
    }
    small = {"depths": (1, 1, 1), "widths": (8, 8, 8), "stem_width": 8}
    fill(tmp_path / "one", 6)
    first = rk.train(
        tmp_path / "one", "scratch", out=tmp_path / "a", steps=1, model={"name": "resnet20", **small}, **settings
    )
    start = {"name": "resnet20", "weights": str(tmp_path / "a"), **small}
    fill(tmp_path / "two", 6)
    for old, new in (("blue", "x"), ("red", "blue"), ("x", "red")):  # the same names, in other places
        (tmp_path / "two" / old).rename(tmp_path / "two" / new)
    kept = rk.train(tmp_path / "two", "scratch", out=tmp_path / "b", steps=1, model=start, **settings)
    torch.testing.assert_close(kept.network.fc.weight, first.network.fc.weight)
    (tmp_path / "two" / "red").rename(tmp_path / "two" / "yellow")
    fresh = rk.train(tmp_path / "two", "scratch", out=tmp_path / "c", steps=1, model=start, seed=1, **settings)
    assert not torch.allclose(fresh.network.fc.weight, first.network.fc.weight)
    torch.testing.assert_close(fresh.network.conv1.weight, first.network.conv1.weight)


def test_a_head_in_another_order_is_put_into_order(digits_run: Path) -> None:
    found = weights.read_source(digits_run)
    turned = found.classes[::-1]
    net = weights.pretrained_network(found.model, found, asked={}, classes=turned)
    assert torch.equal(net.fc.weight, found.tensors["fc.weight"].flip(0))
    assert torch.equal(net.fc.bias, found.tensors["fc.bias"].flip(0))


def test_weights_of_another_network_are_refused(published: Path) -> None:
    with pytest.raises(CheckpointError, match=r"do not fill resnet34 .*--model resnet18"):
        rk.create_model("resnet34", weights=published)
    with pytest.raises(CheckpointError, match="of another network"):
        rk.create_model("resnet18", weights=published, shortcut="C")


def test_training_starts_from_the_weights_and_their_preprocessing(published: Path, tmp_path: Path, caplog) -> None:
    fill(tmp_path / "photos", 6)
    settings = {
        "steps": 1,
        "data": {"image_size": 32, "resize": 32, "batch_size": 4},
        "optim": {"lr": 1e-9, "ema": 0.0},
    }
    start = {"name": "resnet18", "weights": "resnet18.imagenet1k_v1"}
    with caplog.at_level(logging.INFO, logger="resnetkit"):
        run = rk.train(tmp_path / "photos", "scratch", out=tmp_path / "run", model=start, **settings)
    reference = torch.load(published, weights_only=True)
    torch.testing.assert_close(run.network.layer1[0].conv1.weight, reference["layer1.0.conv1.weight"])
    assert "new head for 3 classes" in caplog.text
    assert run.preprocess.mean == IMAGENET_MEAN
    fresh = rk.train(
        tmp_path / "photos", "scratch", out=tmp_path / "b", quiet=True, model={"weights": "none"}, **settings
    )
    assert not torch.equal(fresh.network.conv1.weight, run.network.conv1.weight)


def _release(path: Path, net: torch.nn.Module) -> None:
    """A checkpoint as the CIFAR-10 ResNets of 2018 were released: wrapped, prefixed, `linear`, no batch counts."""
    tensors = {
        f"module.{name}".replace("fc.", "linear."): value
        for name, value in net.state_dict().items()
        if "num_batches" not in name
    }
    torch.save({"state_dict": tensors, "best_prec1": 91.7}, path, _use_new_zipfile_serialization=False)


def test_a_release_of_2018_scores_what_its_network_scores(tmp_path: Path, cli) -> None:
    torch.manual_seed(0)
    net = build("resnet20", num_classes=3).eval()
    _release(tmp_path / "resnet20.th", net)
    photos = fill(tmp_path / "photos", 10)
    flags = ("--model", "resnet20", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--size", "32")
    report = json.loads(cli("evaluate", tmp_path / "resnet20.th", photos, *flags, "--json").out)
    classifier = rk.load(tmp_path / "resnet20.th", model="resnet20", **PAPER)
    files = sorted(photos.rglob("*.png"))
    pixels = torch.stack([classifier.preprocess.read(file) for file in files])
    with torch.inference_mode():
        guesses = net(classifier.preprocess.normalise(pixels)).argmax(1)
    labels = torch.tensor([("blue", "green", "red").index(file.parent.name) for file in files])
    assert report["count"] == 30
    assert report["top1"] == pytest.approx(100 * (guesses == labels).float().mean().item(), abs=1e-3)
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\nthree\n")
    row = json.loads(cli("predict", tmp_path / "resnet20.th", files[0], *flags, "--classes", names, "--json").out)
    assert row["label"] == ("one", "two", "three")[int(guesses[0])]
    summary = json.loads(cli("summary", tmp_path / "resnet20.th", "--json").out)
    assert summary["stages"][-1]["output"] == [3]


BAD_FLAGS = {
    "nothing said": ((), 2, "do not say how images are prepared for them in w.th: --mean, --std, --size are not given"),
    "size missing": (("--mean", "0,0,0", "--std", "1,1,1"), 2, "--size is not given. Try: --mean R,G,B"),
    "not numbers": (("--mean", "a,b,c"), 2, "--mean a,b,c cannot be: numbers with commas between"),
    "two numbers": (("--mean", "0,0", "--std", "1,1,1", "--size", 32), 2, "--mean has 2 numbers: the network takes 3"),
    "too few names": (("--mean", "0,0,0", "--std", "1,1,1", "--size", 32, "--classes", "two.txt"), 2, "2 class names"),
    "names twice": (("--classes", "twice.txt"), 2, "a class name stands twice in twice.txt"),
    "wrong network": (("--model", "resnet56"), 4, "do not fill resnet56"),
    "unknown network": (("--model", "resnet21"), 2, "unknown model 'resnet21'"),
}


@pytest.mark.parametrize("case", BAD_FLAGS)
def test_what_a_file_does_not_say_has_to_be_given(case: str, tmp_path: Path, cli, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    _release(tmp_path / "w.th", build("resnet20"))
    (tmp_path / "two.txt").write_text("a\nb\n")
    (tmp_path / "twice.txt").write_text("a\na\n")
    flags, code, message = BAD_FLAGS[case]
    done = cli("predict", "w.th", "x.png", *flags)
    assert (done.code, done.out) == (code, "")
    assert message in done.err


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_timms_folder_gives_timms_answers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=3).eval()
    settings = {"input_size": [3, 96, 96], "crop_pct": 0.9, "interpolation": "bicubic", "label_names": ["x", "y", "z"]}
    settings |= {"num_classes": 3}
    timm.models.save_for_hf(theirs, tmp_path / "m", model_config={"pretrained_cfg": theirs.pretrained_cfg | settings})
    classifier = rk.load(tmp_path / "m")
    assert (classifier.preprocess.size, classifier.preprocess.resize) == (96, 106)
    assert (classifier.preprocess.interpolation, classifier.classes) == ("bicubic", ("x", "y", "z"))
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(classifier.logits(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_hugging_faces_folder_gives_their_answers(tmp_path: Path) -> None:
    from PIL import Image
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    labels = {0: "ant", 1: "bee"}
    config = ResNetConfig(depths=[3, 4, 6, 3], downsample_in_bottleneck=True, id2label=labels)
    theirs = ResNetForImageClassification(config).eval()
    theirs.save_pretrained(tmp_path / "m")
    settings = {"size": {"shortest_edge": 96}, "crop_pct": 0.8, "resample": 3}
    processor = ConvNextImageProcessor(image_mean=[0.5] * 3, image_std=[0.25] * 3, **settings)
    processor.save_pretrained(tmp_path / "m")
    classifier = rk.load(tmp_path / "m")
    assert classifier.classes == ("ant", "bee")
    assert classifier.network.arch.stride_on == "1x1"
    image = Image.effect_noise((200, 150), 80).convert("RGB")
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    ours = classifier.preprocess.normalise(classifier.preprocess.pixels(image).unsqueeze(0))
    assert (ours - pixels).abs().mean() < 0.02  # their resize works on tensors, ours on the image
    with torch.inference_mode():
        torch.testing.assert_close(classifier.logits(pixels), theirs(pixels).logits, rtol=1e-4, atol=1e-4)


def test_our_own_folders_load_and_continue(digits_run: Path, tmp_path: Path) -> None:
    one = rk.load(digits_run)
    net = rk.create_model("resnet20", weights=digits_run / "model", **{
        key: getattr(one.network.arch, key) for key in ("depths", "widths", "strides", "stem_width")
    })  # fmt: skip
    assert torch.equal(net.fc.weight, one.network.fc.weight)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    with pytest.raises(UsageError, match="it holds none of"):
        rk.load(tmp_path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="not the weights of a ResNet"):
        rk.load(tmp_path)


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown weights 'resnet50.imagenet1k_v3'. Try: resnet50.imagenet1k_v2"):
        rk.load("resnet50.imagenet1k_v3")
    with pytest.raises(UsageError, match=r"resnet50 names a network and no weights. Try: resnet50.imagenet1k_v1 or"):
        rk.load("resnet50")
    with pytest.raises(UsageError, match=r"there is no model in no/such/file.pth"):
        rk.load("no/such/file.pth")


def test_hubconf_builds_every_network(published: Path) -> None:
    root = str(Path(__file__).parents[2])
    assert torch.hub.load(root, "resnet20", source="local").arch == build("resnet20").arch
    net = torch.hub.load(root, "resnet18", source="local", pretrained=True, num_classes=2)
    assert net.fc.out_features == 2
    assert torch.equal(net.conv1.weight, torch.load(published, weights_only=True)["conv1.weight"])
    assert best_weights("resnet50") == "resnet50.imagenet1k_v2"
    ours = torch.hub.load(root, "resnet20", source="local", pretrained=True)
    assert torch.equal(ours.fc.weight, rk.load("resnet20.cifar10").network.fc.weight)
    with pytest.raises(UsageError, match="there are no weights of resnet32"):
        torch.hub.load(root, "resnet32", source="local", pretrained=True)


@pytest.mark.parametrize("name", OWN)
def test_our_own_weights_are_the_networks_that_they_say(name: str) -> None:
    """No download: they come with the package, and the loader holds them to their hash."""
    classifier = rk.load(name)
    about = own_config(name)
    assert Arch(**about["arch"]) == classifier.network.arch
    assert f"resnet{classifier.network.arch.layers}" == name.partition(".")[0]
    assert about["recipe"]["data"]["name"] == name.partition(".")[2]
    assert classifier.classes == tuple(about["classes"])
    journal = [json.loads(line) for line in (OWN[name] / "metrics.jsonl").read_text().splitlines()]
    assert journal[-1]["top1"] == about["metrics"]["top1"]
    assert journal[-1]["best_step"] == max(journal[:-1], key=lambda line: line["validation_top1"])["step"]


def test_our_digits_score_what_is_written_with_them() -> None:
    assert rk.evaluate(rk.load("resnet8.digits"), "digits")["top1"] == own_config("resnet8.digits")["metrics"]["top1"]


@pytest.mark.slow
@pytest.mark.skipif("RESNETKIT_TEST_DATA" not in os.environ, reason="needs real data")
@pytest.mark.parametrize("name", [name for name in OWN if not name.endswith("digits")])
def test_our_other_weights_score_what_is_written_with_them(name: str, tmp_path: Path) -> None:
    root, data = Path(os.environ["RESNETKIT_TEST_DATA"]), name.partition(".")[2]
    if data == "cifar10":
        shutil.unpack_archive(root / "cifar10-test.zip", tmp_path)
        data = str(tmp_path)
    found = rk.evaluate(rk.load(name), data, data_root=root)["top1"]
    assert found == pytest.approx(own_config(name)["metrics"]["top1"], abs=0.02)


def test_training_that_starts_from_our_weights_has_their_network(tmp_path: Path) -> None:
    done = rk.train("digits", out=tmp_path / "run", quiet=True, steps=1, model={"weights": "resnet8.digits"})
    assert done.network.arch == rk.load("resnet8.digits").network.arch
    with pytest.raises(CheckpointError, match="of another network"):
        rk.train("digits", out=tmp_path / "b", quiet=True, model={"weights": "resnet8.digits", "depths": (2, 1, 1)})


def test_names_of_weights_begin_with_their_network() -> None:
    assert all(name.partition(".")[0] == each.model for name, each in WEIGHTS.items())
    assert all(isinstance(each, Weights) for each in WEIGHTS.values())
    assert len(sources.imagenet_classes()) == 1000


def test_a_model_folder_with_one_flipped_bit_is_never_used(digits_run: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_run / "model", tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    content = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for place in torch.randint(len(content), (200,), generator=generator).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="the model is damaged"):
            rk.load(tmp_path / "m")
