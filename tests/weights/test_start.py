"""What training and `create_model` start from: the network that the weights are of, unless another one is asked for."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

import resnetkit as rk
from conftest import trained_like
from pictures import fill
from resnetkit.errors import CheckpointError, UsageError
from resnetkit.machine.device import choose
from resnetkit.runs.choice import choose_recipe

ONE_STEP = {"steps": 1, "optim": {"lr": 1e-9, "ema": 0.0}, "quiet": True}
CHANGED = {"shortcut": "B", "depths": (1, 1), "widths": (8, 12), "strides": (1, 2), "stem_width": 8}
LONGEST = 4 * 80


def equal(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    "fields", [{"shortcut": "B"}, {"shortcut": "C"}, {"conv_bias": True}, {"stem": "imagenet"}, CHANGED]
)
def test_a_plain_file_is_matched_against_the_network_that_was_asked_for(fields: dict, tmp_path: Path) -> None:
    theirs = trained_like("resnet20", **fields)
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    ours = rk.create_model("resnet20", weights=tmp_path / "w.pt", **fields)
    assert ours.arch == theirs.arch
    assert equal(ours, theirs)


def test_training_matches_a_plain_file_too(tmp_path: Path, cli) -> None:
    theirs = trained_like("resnet20", **CHANGED, num_classes=10, in_channels=1)
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    flags = ["--model", "resnet20", "--model.shortcut", "B", "--model.depths", 1, 1, "--model.widths", 8, 12]
    flags += ["--model.strides", 1, 2, "--model.stem-width", 8, "--data.mean", 0.5, "--data.std", 0.5, "--steps", 1]
    flags += ["--optim.lr", 1e-9, "--optim.ema", 0, "--out", tmp_path / "run", "--data.limit", 100]
    done = cli("train", "digits", "--weights", tmp_path / "w.pt", *flags)
    assert done.code == 0, done.err
    torch.testing.assert_close(rk.load(tmp_path / "run").network.layer2[0].conv1.weight, theirs.layer2[0].conv1.weight)


def test_a_folder_that_knows_its_network_brings_it_along(digits_run: Path, tmp_path: Path, cli) -> None:
    """Also over the recipe's own section, whose network is another one."""
    first = rk.load(digits_run)
    for number, place in enumerate((digits_run, digits_run / "model")):
        run = tmp_path / str(number)
        flags = ("--steps", 1, "--optim.lr", 1e-9, "--optim.ema", 0, "--data.limit", 100, "--out", run)
        done = cli("train", "digits", "--weights", place, *flags)
        assert done.code == 0, done.err
        assert f"{place}: its network is taken, resnet20 with depths 1,1, widths 8,16, strides 1,2" in done.err
        assert done.err.count("its network is taken") == 1
        assert rk.load(run).network.arch == first.network.arch
        torch.testing.assert_close(rk.load(run).network.fc.weight, first.network.fc.weight)
        done = cli("train", "--resume", "--out", run)
        assert done.code == 0, done.err
    assert rk.load_recipe(tmp_path / "0" / "recipe.toml").model.widths == (8, 16)


def test_create_model_takes_the_network_of_a_folder_of_its_name(digits_run: Path, caplog) -> None:
    with caplog.at_level(logging.INFO, logger="resnetkit"):
        net = rk.create_model("resnet20", weights=digits_run)
    assert equal(net, rk.load(digits_run).network)
    assert "its network is taken, resnet20 with depths 1,1" in caplog.text
    assert equal(rk.create_model("resnet20", weights="resnet8.digits"), rk.load("resnet8.digits").network)


def _recipe(text: str, folder: Path) -> Path:
    (folder / "mine.toml").write_text(f'base = "digits"\n[model]\n{text}\n')
    return folder / "mine.toml"


OTHERS = {
    "a name": lambda folder: ("--model", "resnet32"),
    "a deeper one": lambda folder: ("--model", "resnet50"),
    "widths": lambda folder: ("--model.widths", 8, 12),
    "widths and name": lambda folder: ("--model", "resnet20", "--model.widths", 8, 12),
    "a shortcut": lambda folder: ("--model.shortcut", "C"),
    "a recipe's name": lambda folder: ("--recipe", _recipe('name = "resnet56"', folder)),
    "a recipe's widths": lambda folder: ("--recipe", _recipe("widths = [8, 12]", folder)),
}


@pytest.mark.parametrize("asked", OTHERS)
def test_a_folder_of_another_network_than_was_asked_for_is_refused_shortly(
    asked: str, digits_run: Path, tmp_path: Path, cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(digits_run.parent)
    done = cli("train", "digits", "--weights", "run", *OTHERS[asked](tmp_path), "--out", tmp_path / "out", "--steps", 1)
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert done.code == 4
    assert "the weights are of another network in run: they are of a resnet20" in errors[0]
    assert len(errors) == 1
    assert len(errors[0]) <= LONGEST
    assert not (tmp_path / "out").exists()


def test_a_recipe_of_your_own_that_names_no_network_takes_that_of_the_weights(digits_run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('base = "digits"\n[optim]\nlr = 1e-9\nema = 0.0\n')
    found = rk.train(
        "digits",
        tmp_path / "mine.toml",
        out=tmp_path / "run",
        steps=1,
        quiet=True,
        data={"limit": 100},
        model={"weights": str(digits_run)},
    )
    assert found.network.arch == rk.load(digits_run).network.arch


REFUSED = {
    "another name": ("resnet110", {}),
    "other widths": ("resnet20", {"widths": (8, 8, 8)}),
    "another order": ("resnet20", {"preactivation": True}),
    "no network like it": ("resnet50", {"depths": (1, 1, 1, 1)}),
    "a table's name": ("resnext101_64x4d", {}),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_every_refusal_of_weights_is_short(
    case: str, kind: str, digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(
        trained_like("resnet1202").state_dict() if case == "another name" else trained_like("resnet56").state_dict(),
        "w.pt",
    )
    (tmp_path / "run").symlink_to(digits_run)
    name, fields = REFUSED[case]
    with pytest.raises((CheckpointError, UsageError)) as caught:
        rk.create_model(name, weights="w.pt" if kind == "file" else "run", **fields)
    assert len(str(caught.value)) <= LONGEST
    assert "Try: " in str(caught.value)


class PlainBlock(nn.Module):
    """A block of the CIFAR networks that many repositories copy, written down anew in the plainest words."""

    def __init__(self, before: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        sizes = [(before, width, 3, stride), (width, width, 3, 1)]
        if expansion == 4:
            sizes = [(before, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]
        self.count = len(sizes)
        for number, (inner, outer, kernel, step) in enumerate(sizes, start=1):
            setattr(self, f"conv{number}", nn.Conv2d(inner, outer, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{number}", nn.BatchNorm2d(outer))
        after = width * expansion
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x
        for number in range(1, self.count + 1):
            out = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(out))
            out = torch.relu(out) if number < self.count else out
        return torch.relu(out + self.shortcut(x))


class PlainNet(nn.Module):
    def __init__(self, depths: tuple[int, ...], expansion: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        before = 64
        for number, (depth, width) in enumerate(zip(depths, (64, 128, 256, 512), strict=True), start=1):
            blocks = []
            for each in range(depth):
                blocks.append(PlainBlock(before, width, 2 if number > 1 and each == 0 else 1, expansion))
                before = width * expansion
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(before, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return self.linear(nn.functional.avg_pool2d(x, 4).flatten(1))


@pytest.mark.parametrize(
    ("name", "depths", "expansion"), [("resnet18", (2, 2, 2, 2), 1), ("resnet50", (3, 4, 6, 3), 4)]
)
def test_the_stem_of_common_cifar_networks_is_read_off_its_kernel(
    name: str, depths: tuple[int, ...], expansion: int, tmp_path: Path, caplog
) -> None:
    torch.manual_seed(0)
    theirs = PlainNet(depths, expansion)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
    wrapped = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({"net": wrapped, "acc": 95.4, "epoch": 199}, tmp_path / "ckpt.pth")
    with caplog.at_level(logging.INFO, logger="resnetkit"):
        ours = rk.create_model(name, weights=tmp_path / "ckpt.pth").eval()
    assert f"its network is taken, {name} with stem cifar" in caplog.text
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = theirs.eval()(images)
        torch.testing.assert_close(ours(images), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    with pytest.raises(CheckpointError, match=r"another network than resnet.. with stem imagenet"):
        rk.create_model(name, weights=tmp_path / "ckpt.pth", stem="imagenet")


def test_training_takes_that_stem_too(tmp_path: Path) -> None:
    theirs = PlainNet((2, 2, 2, 2), 1)
    torch.save({"net": theirs.state_dict()}, tmp_path / "ckpt.pth")
    look = {"image_size": 16, "resize": 16, "batch_size": 4, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    start = {"name": "resnet18", "weights": str(tmp_path / "ckpt.pth")}
    found = rk.train(fill(tmp_path / "photos", 6), "scratch", out=tmp_path / "run", model=start, data=look, **ONE_STEP)
    assert found.network.arch.stem == "cifar"
    torch.testing.assert_close(found.network.conv1.weight, theirs.conv1.weight)


def test_of_a_network_and_its_average_the_one_that_is_asked_for_is_the_start(tmp_path: Path, cli) -> None:
    raw, average = (trained_like("resnet20", **CHANGED) for _ in range(2))
    average.conv1.weight.data.fill_(0.25)
    torch.save({"state_dict": raw.state_dict(), "state_dict_ema": average.state_dict()}, tmp_path / "both.pth")
    for which, expected in ((None, average), ("ema", average), ("raw", raw)):
        net = rk.create_model("resnet20", weights=tmp_path / "both.pth", which=which, **CHANGED)
        assert torch.equal(net.conv1.weight, expected.conv1.weight)
    flags = ["--model", "resnet20", "--model.shortcut", "B", "--model.depths", 1, 1, "--model.widths", 8, 12]
    flags += ["--model.strides", 1, 2, "--model.stem-width", 8, "--steps", 1, "--optim.lr", 1e-9, "--optim.ema", 0]
    flags += ["--data.mean", 0.5, 0.5, 0.5, "--data.std", 0.5, 0.5, 0.5, "--data.image-size", 16, "--data.resize", 16]
    photos = fill(tmp_path / "photos", 6)
    for name, said, expected in (
        ("a", (), average),
        ("b", ("--which", "raw"), raw),
        ("c", ("--transfer.which", "ema"), average),
    ):
        out = tmp_path / name
        done = cli(
            "train", photos, "--recipe", "scratch", "--weights", tmp_path / "both.pth", *flags, *said, "--out", out
        )
        assert done.code == 0, done.err
        torch.testing.assert_close(rk.load(out).network.conv1.weight, expected.conv1.weight)


@pytest.mark.parametrize("names", [("1", "2", "10"), ("red", "green", "blue")])
def test_a_head_that_nobody_has_named_is_kept_in_the_order_that_is_said(
    names: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder lists 1, 10, 2; whoever numbers classes has them in the order 1, 2, 10, as `evaluate` does."""
    theirs = trained_like("resnet20", num_classes=3)
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    photos = fill(tmp_path / "photos", 6)
    for old, new in zip(("blue", "green", "red"), sorted(names), strict=True):
        (photos / old).rename(photos / f"_{new}")
    for new in names:
        (photos / f"_{new}").rename(photos / new)
    look = {"image_size": 16, "resize": 16, "batch_size": 4, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    start = {"name": "resnet20", "weights": str(tmp_path / "w.pt")}
    found = rk.train(photos, "scratch", out=tmp_path / "run", model=start, data=look, **ONE_STEP)
    head = names if names[0] == "1" else tuple(sorted(names))
    assert (
        "the order of " + ("their numbers" if names[0] == "1" else "your classes") + f", {', '.join(head)}"
        in caplog.text
    )
    rows = [head.index(name) for name in found.classes]
    torch.testing.assert_close(found.network.fc.weight, theirs.fc.weight[rows])
    unnamed = rk.load(tmp_path / "w.pt", model="resnet20", mean=(0.5,) * 3, std=(0.25,) * 3, size=16)
    score = rk.evaluate(unnamed, photos, include_seen=True)
    assert score["top1"] == rk.evaluate(found, photos, include_seen=True)["top1"]


def test_weights_of_a_net_without_shortcuts_are_not_taken_for_one_with_them(tmp_path: Path) -> None:
    """Their tensors have the same names and shapes."""
    preprocess = rk.Preprocess(32, (0.5,) * 3, (0.5,) * 3)
    net = trained_like("plain20", num_classes=3)
    rk.Classifier(net, preprocess, ("a", "b", "c"), "plain20", choose("cpu", "fp32")).save(tmp_path / "model")
    with pytest.raises(
        CheckpointError, match="they are of a plain20 with residual False, and resnet20 with residual True"
    ):
        rk.create_model("resnet20", weights=tmp_path / "model")


def test_the_network_of_weights_replaces_that_of_the_recipe_whole() -> None:
    """The recipe digits changes four fields of its variant, which these weights have as the table has them."""
    model = choose_recipe("digits", None, {"model": {"weights": "resnet20.cifar10"}}, None).model
    assert (model.name, model.depths, model.widths, model.stem_width) == ("resnet20", (3, 3, 3), (16, 32, 64), 16)
