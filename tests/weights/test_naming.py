"""Other people's names for the same parameters (W5)."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from networks.independent import D2LBlock, D2LNet, TutorialNet
from resnetkit.errors import CheckpointError
from resnetkit.networks.resnet import ResNet, build
from resnetkit.weights.naming import adapt_input, match_arch


def randomise(net: nn.Module) -> nn.Module:
    """Numbers in every parameter and statistic, so that a swap of any two would show."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
    return net.eval()


def same_answers(tensors: dict, theirs: nn.Module, image: torch.Tensor, model: str | None = None, expect=None):
    found = match_arch(tensors, file="f", model=model)
    ours = ResNet(found.arch).eval()
    ours.load_state_dict(found.tensors)
    with torch.inference_mode():
        expected = theirs.eval()(image)
        scale = float(expected.abs().max())
        torch.testing.assert_close(ours(image), expected, rtol=1e-4, atol=1e-5 * scale)
    assert found.model == expect
    return found


WRAPPERS = {
    "DataParallel": lambda t: {f"module.{k}": v for k, v in t.items()},
    "torch.compile": lambda t: {f"_orig_mod.{k}": v for k, v in t.items()},
    "DDP of compile": lambda t: {f"module._orig_mod.{k}": v for k, v in t.items()},
    "Lightning": lambda t: {f"model.{k}": v for k, v in t.items()},
    "Lightning with net": lambda t: {f"net.{k}": v for k, v in t.items()},
    "backbone and classifier": lambda t: {
        (k.replace("fc.", "classifier.") if k.startswith("fc.") else f"backbone.{k}"): v for k, v in t.items()
    },
    "averaged": lambda t: {"n_averaged": torch.tensor(7)} | {f"module.{k}": v for k, v in t.items()},
    "linear, no counts": lambda t: {
        f"module.{k}".replace("fc.", "linear."): v for k, v in t.items() if "num_batches" not in k
    },
    "shortcut": lambda t: {k.replace("downsample", "shortcut"): v for k, v in t.items()},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapped_networks_are_unwrapped(wrapper: str) -> None:
    theirs = randomise(build("resnet20", num_classes=7))
    tensors = WRAPPERS[wrapper](dict(theirs.state_dict()))
    found = same_answers(tensors, theirs, torch.randn(2, 3, 32, 32), expect="resnet20")
    assert found.arch.num_classes == 7


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d"])
def test_torchvisions_networks_are_recognised(name: str) -> None:
    theirs = randomise(torchvision.models.get_model(name, weights=None, num_classes=5))
    same_answers(dict(theirs.state_dict()), theirs, torch.randn(1, 3, 64, 64), expect=name)


def test_timms_networks_are_recognised_also_with_four_channels() -> None:
    theirs = randomise(timm.create_model("resnet18", num_classes=3, in_chans=4))
    found = same_answers(dict(theirs.state_dict()), theirs, torch.randn(1, 4, 64, 64), expect="resnet18")
    assert found.arch.in_channels == 4


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_hugging_faces_networks_are_recognised(kind: str) -> None:
    from transformers import ResNetConfig, ResNetForImageClassification

    sizes = [64, 128, 256, 512] if kind == "basic" else [256, 512, 1024, 2048]
    depths = [2, 2, 2, 2] if kind == "basic" else [3, 4, 6, 3]
    config = ResNetConfig(layer_type=kind, hidden_sizes=sizes, depths=depths, num_labels=4)
    theirs = randomise(ResNetForImageClassification(config))

    class Logits(nn.Module):
        def forward(self, x):
            return theirs(x).logits

    expect = "resnet18" if kind == "basic" else "resnet50"
    found = same_answers(dict(theirs.state_dict()), Logits(), torch.randn(1, 3, 64, 64), expect=expect)
    assert "Hugging Face" in found.notes[0]


class TutorialNames(nn.Module):
    """Tutorial 1's own attribute names around the plain implementation of the tests."""

    def __init__(self) -> None:
        super().__init__()
        layers = list(TutorialNet())
        self.pre = nn.Sequential(*layers[:4])
        self.layer1, self.layer2 = nn.Sequential(*layers[4:7]), nn.Sequential(*layers[7:11])
        self.layer3, self.layer4 = nn.Sequential(*layers[11:17]), nn.Sequential(*layers[17:20])
        self.pool, self.fc = layers[20], layers[22]

    def forward(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.pre(x)))))
        return self.fc(self.pool(x).flatten(1))


def _d2l_blocks() -> list[nn.Sequential]:
    blocks = list(D2LNet())[4:12]
    for block in blocks:  # the tutorial calls its layers conv1, conv2, conv3, bn1, bn2
        for ours, theirs in (("c1", "conv1"), ("c2", "conv2"), ("c3", "conv3"), ("n1", "bn1"), ("n2", "bn2")):
            setattr(block, theirs, getattr(block, ours))
            delattr(block, ours)
        type(block).forward = lambda self, x: torch.relu(
            self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + (x if self.conv3 is None else self.conv3(x))
        )
    return [nn.Sequential(*blocks[start : start + 2]) for start in (0, 2, 4, 6)]


@pytest.fixture
def restore_d2l_block():
    before = D2LBlock.forward
    yield
    D2LBlock.forward = before


def test_the_tutorials_left_and_right_branches_are_recognised() -> None:
    theirs = randomise(TutorialNames())
    same_answers(dict(theirs.state_dict()), theirs, torch.randn(1, 3, 224, 224), expect="tutorial_resnet34")


def test_the_tutorials_named_stages_are_recognised(restore_d2l_block) -> None:
    stem = [nn.Conv2d(1, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    theirs = nn.Sequential(*stem)
    for number, stage in enumerate(_d2l_blocks(), start=1):
        theirs.add_module(f"resnet_block{number}", stage)
    theirs.add_module("global_avg_pool", nn.AdaptiveAvgPool2d(1))
    theirs.add_module("fc", nn.Sequential(nn.Flatten(), nn.Linear(512, 10)))
    randomise(theirs)
    same_answers(dict(theirs.state_dict()), theirs, torch.randn(1, 1, 96, 96), expect="d2l_resnet18")


def test_the_tutorials_sequential_of_sequentials_is_recognised(restore_d2l_block) -> None:
    stem = nn.Sequential(nn.Conv2d(1, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    theirs = nn.Sequential(stem, *_d2l_blocks(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    randomise(theirs)
    same_answers(dict(theirs.state_dict()), theirs, torch.randn(1, 1, 96, 96), expect="d2l_resnet18")


def test_a_cifar_stem_is_read_off_the_kernel() -> None:
    theirs = randomise(build("resnet18", stem="cifar", num_classes=10))
    found = same_answers(dict(theirs.state_dict()), theirs, torch.randn(1, 3, 32, 32), expect="resnet18")
    assert found.arch.stem == "cifar"


def test_what_the_tensors_cannot_say_is_said() -> None:
    tensors = dict(build("resnet20").state_dict())
    assert "also fit plain20" in match_arch(tensors, file="f").notes[-1]
    assert match_arch(tensors, file="f", model="plain20").model == "plain20"


def test_a_network_that_is_not_filled_whole_is_refused_with_the_nearest() -> None:
    tensors = dict(build("resnet56").state_dict())
    with pytest.raises(
        CheckpointError, match=r"do not fill resnet20 in f: missing nothing; unexpected .*and .* more.*--model resnet56"
    ):
        match_arch(tensors, file="f", model="resnet20")
    tensors = dict(build("resnet50").state_dict())
    del tensors["layer3.1.conv2.weight"], tensors["layer1.0.bn1.bias"]
    with pytest.raises(
        CheckpointError, match=r"do not fill resnet50.*missing layer1.0.bn1.bias, layer3.1.conv2.weight; unexp"
    ):
        match_arch(tensors, file="f")
    tensors = dict(build("resnet18").state_dict()) | {"layer4.1.se.weight": torch.zeros(2, 2)}
    with pytest.raises(CheckpointError, match=r"unexpected layer4.1.se.weight. Try: the nearest network is resnet18"):
        match_arch(tensors, file="f")
    with pytest.raises(CheckpointError, match="not the weights of a ResNet"):
        match_arch(dict(timm.create_model("vgg11", num_classes=2).state_dict()), file="f")
    tensors = dict(build("resnet18").state_dict())
    tensors["layer1.0.conv1.weight"] = torch.zeros(64, 64, 5, 5)
    with pytest.raises(
        CheckpointError, match=r"unexpected layer1.0.conv1.weight \(64, 64, 5, 5\) for \(64, 64, 3, 3\)"
    ):
        match_arch(tensors, file="f")


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 7])
def test_other_input_channels_match_timm(channels: int) -> None:
    weight = torch.randn(8, 3, 7, 7)
    theirs = timm.models._manipulate.adapt_input_conv(channels, weight.clone())
    torch.testing.assert_close(adapt_input(weight, channels), theirs)
