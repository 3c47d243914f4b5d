"""Networks that are changed by hand: whatever was done, the artefact gives equal answers, or nothing is written."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

import resnetkit as rk
from conftest import trained_like
from resnetkit.classifier import Classifier
from resnetkit.errors import UsageError
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.device import choose
from resnetkit.networks.arch import get_arch
from resnetkit.networks.handmade import described

SMALL = {"depths": (1, 2), "widths": (8, 16), "strides": (1, 2), "stem_width": 8, "num_classes": 3}


class LoRA(nn.Module):
    """A layer with a low-rank addition, as the libraries wrap it."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner
        self.a, self.b = nn.Linear(inner.in_features, 2, bias=False), nn.Linear(2, inner.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + self.b(self.a(x))


class Counting:
    """A hook with state."""

    seen = 0

    def __call__(self, _module: nn.Module, _given: object, out: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return out + self.seen


def _set(path: str, value: Callable[[nn.Module], object]) -> Callable[[rk.ResNet], None]:
    owner, _, name = path.rpartition(".")

    def change(net: rk.ResNet) -> None:
        place = net.get_submodule(owner)
        setattr(place, name, value(getattr(place, name, None)))

    return change


def _tie(net: rk.ResNet) -> None:
    net.layer1[0].conv2.weight = net.layer1[0].conv1.weight


def _share(net: rk.ResNet) -> None:
    net.layer1[0].bn2.weight.data = net.layer1[0].bn1.weight.data


def _turn(net: rk.ResNet) -> None:
    first = net.layer2._modules.pop("0")
    net.layer2._modules["0"] = first


def _widen(net: rk.ResNet) -> None:
    net.layer1[0].bn1.register_buffer("extra", torch.zeros(8))


def _sub(net: rk.ResNet) -> None:
    net.__class__ = type("Mine", (rk.ResNet,), {"forward": lambda self, x: -rk.ResNet.forward(self, x)})


SAVED = {
    "untouched": lambda net: None,
    "a head of five": _set("fc", lambda old: nn.Linear(old.in_features, 5)),
    "a head of one": _set("fc", lambda old: nn.Linear(old.in_features, 1)),
    "a head of as many": _set("fc", lambda old: nn.Linear(old.in_features, 3)),
    "reset_head": lambda net: net.reset_head(7),
    "other numbers": lambda net: nn.init.normal_(net.conv1.weight),
    "an equal convolution": _set("conv1", lambda old: nn.Conv2d(3, 8, 3, padding=1, bias=False)),
    "frozen": lambda net: net.requires_grad_(False),
    "training mode": lambda net: net.train(),
    "no inplace": _set("relu", lambda old: nn.ReLU()),
    "momentum": _set("bn1.momentum", lambda old: 0.01),
    "synchronised": lambda net: nn.SyncBatchNorm.convert_sync_batchnorm(net.layer1),
    "backward hook": lambda net: net.fc.register_full_backward_hook(lambda *_: None),
    "a note": _set("remark", lambda old: "mine"),
    "compiled in place": lambda net: net.compile(backend="eager"),
}
REFUSED = {
    "a head without a bias": (_set("fc", lambda old: nn.Linear(16, 3, bias=False)), "reset_head"),
    "dropout before the head": (
        _set("fc", lambda old: nn.Sequential(nn.Dropout(), nn.Linear(16, 3))),
        "fc is Sequential.*reset_head",
    ),
    "a head of another width": (_set("fc", lambda old: nn.Linear(8, 3)), "reset_head"),
    "no head": (_set("fc", lambda old: nn.Identity()), "fc is Identity"),
    "a wrapped head": (_set("fc", LoRA), "fc is LoRA"),
    "a wider kernel": (_set("conv1", lambda old: nn.Conv2d(3, 8, 5, padding=2, bias=False)), "conv1.kernel_size is"),
    "grey input": (
        _set("conv1", lambda old: nn.Conv2d(1, 8, 3, padding=1, bias=False)),
        "conv1.in_channels is 1 for 3",
    ),
    "another stride": (_set("conv1.stride", lambda old: (2, 2)), r"conv1.stride is \(2, 2\) for \(1, 1\)"),
    "reflected padding": (
        _set("conv1", lambda old: nn.Conv2d(3, 8, 3, padding=1, bias=False, padding_mode="reflect")),
        "conv1.padding_mode is reflect",
    ),
    "another eps": (_set("layer1.0.bn1.eps", lambda old: 0.1), "layer1.0.bn1.eps is 0.1"),
    "another norm": (_set("bn1", lambda old: nn.GroupNorm(2, 8)), "bn1 is a GroupNorm for a BatchNorm2d"),
    "another activation": (_set("layer2.0.relu", lambda old: nn.GELU()), "layer2.0.relu is a GELU"),
    "max pooling": (_set("avgpool", lambda old: nn.AdaptiveMaxPool2d(1)), "avgpool is a AdaptiveMaxPool2d"),
    "a layer more": (_set("layer1.0.attention", lambda old: nn.Sigmoid()), "a part more, layer1.0.attention"),
    "a block more": (lambda net: net.layer1.append(nn.Identity()), "a part more, layer1.1"),
    "a block less": (lambda net: net.layer1.__delitem__(0), "layer1.0 is missing"),
    "one block twice": (lambda net: net.layer1.append(net.layer1[0]), "a part more, layer1.1"),
    "stages turned round": (_turn, "layer2 has its parts in another order"),
    "a wrapped convolution": (_set("conv1", nn.Sequential), "conv1 is a Sequential"),
    "hook with state": (lambda net: net.layer1.register_forward_hook(Counting()), "layer1 has forward hooks"),
    "hook before": (lambda net: net.register_forward_pre_hook(lambda _, x: x), "the network has forward pre hooks"),
    "hook of the state": (
        lambda net: net.register_state_dict_post_hook(lambda _, tensors, *more: tensors.clear()),
        "state dict hooks",
    ),
    "parametrised": (lambda net: parametrizations.spectral_norm(net.conv1), "conv1 is a ParametrizedConv2d"),
    "a parametrised head": (lambda net: parametrizations.weight_norm(net.fc), "fc is ParametrizedLinear"),
    "weight norm of old": (lambda net: weight_norm(net.layer1[0].conv1), "layer1.0.conv1"),
    "pruned": (lambda net: prune.l1_unstructured(net.conv1, "weight", 0.5), "conv1 has forward pre hooks"),
    "tied": (_tie, "layer1.0.conv2.weight is missing, or stands in two places"),
    "one memory for two": (_share, "two of its tensors lie in one place"),
    "a buffer more": (_widen, "layer1.0.bn1.extra is a tensor more"),
    "a forward of your own": (_set("forward", lambda old: lambda x: -old(x)), "the network.forward is a function"),
    "a block's forward": (_set("layer1.0.forward", lambda old: lambda x: x), "layer1.0.forward is a function"),
    "a subclass": (_sub, "the network is a Mine"),
}


def classifier_of(net: nn.Module, classes: int = 3) -> Classifier:
    preprocess = Preprocess(16, (0.5,) * 3, (0.25,) * 3)
    names = tuple("abcdefg"[:classes])
    return Classifier(net, preprocess, names, "resnet20", choose("cpu", "fp32"))


@pytest.fixture(autouse=True)
def no_warning_of_old(recwarn: pytest.WarningsRecorder) -> None:
    """The old `weight_norm` is deprecated, and people have it."""


@pytest.mark.parametrize("change", SAVED)
def test_what_is_saved_gives_equal_answers(change: str, tmp_path: Path) -> None:
    net = trained_like("resnet20", **SMALL)
    SAVED[change](net)
    one = classifier_of(net, net.fc.out_features)
    other = rk.load(one.save(tmp_path / "model"), device="cpu", precision="fp32")
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(one.logits(images), other.logits(images))
    assert other.classes == one.classes
    assert other.network.arch.num_classes == net.fc.out_features


@pytest.mark.parametrize("change", REFUSED)
def test_what_would_answer_otherwise_is_refused_and_nothing_written(change: str, tmp_path: Path) -> None:
    net = trained_like("resnet20", **SMALL)
    apply, said = REFUSED[change]
    apply(net)
    with pytest.raises(UsageError, match=said) as caught:
        classifier_of(net).save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert len(str(caught.value)) <= 320


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_wrapped_network_is_named(wrap: Callable, tmp_path: Path) -> None:
    net = wrap(trained_like("resnet20", **SMALL))
    with pytest.raises(UsageError, match=f"the network is a {type(net).__name__}: .*Try: the network inside it"):
        classifier_of(net).save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "plain20", "preact_resnet164", "d2l_resnet18", "resnet56"])
@pytest.mark.parametrize("turn", [lambda net: net, copy.deepcopy, nn.SyncBatchNorm.convert_sync_batchnorm])
def test_every_kind_of_network_is_as_it_describes_itself(name: str, turn: Callable) -> None:
    net = turn(rk.create_model(name))
    net.recompute = True
    assert described(net) == net.arch == get_arch(name)


def test_names_of_another_number_become_numbers_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = classifier_of(trained_like("resnet20", **SMALL))
    one.network.fc = nn.Linear(16, 5)
    with pytest.raises(UsageError, match=r"5 outputs and there are 3 class names. Try: classifier.classes = \["):
        one.logits(torch.zeros(1, 3, 16, 16))
    other = rk.load(one.save(tmp_path / "model"))
    assert "the head has 5 outputs for 3 class names: its classes are numbered" in caplog.text
    assert (other.classes, other.numbered) == (("0", "1", "2", "3", "4"), True)
    other.classes = tuple("vwxyz")
    named = rk.load(other.save(tmp_path / "named"))
    assert (named.classes, named.numbered) == (tuple("vwxyz"), False)


def test_preprocessing_of_other_channels_is_refused(tmp_path: Path) -> None:
    one = classifier_of(trained_like("resnet20", **SMALL, in_channels=1))
    with pytest.raises(UsageError, match="makes 3 channels and the network takes 1"):
        one.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_head_without_a_class_list_is_numbered_again_when_it_is_loaded(tmp_path: Path) -> None:
    """Saved and loaded twice, nobody has named the classes yet."""
    torch.save(trained_like("resnet20", num_classes=4).state_dict(), tmp_path / "w.pt")
    one = rk.load(tmp_path / "w.pt", model="resnet20", mean=(0.5,) * 3, std=(0.5,) * 3, size=32)
    assert one.numbered
    two = rk.load(rk.load(one.save(tmp_path / "a")).save(tmp_path / "b"))
    assert two.numbered
    assert described(two.network) == two.network.arch
