"""Names that people know from torchvision, timm and transformers: they work, or are answered with ours."""

import pytest
import timm
import torch
import torchvision
from torch import nn

import resnetkit as rk
from networks.families import images, shallow
from resnetkit.errors import UsageError
from resnetkit.networks.arch import get_arch
from resnetkit.networks.elsewhere import ARGUMENTS, ATTRIBUTES
from resnetkit.networks.resnet import build


@pytest.fixture(scope="module")
def network() -> rk.ResNet:
    return shallow("resnet20")


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_of_other_libraries_is_answered_and_not_there(name: str, network: rk.ResNet) -> None:
    """Tools ask with `hasattr`, and must be told no; people read the line."""
    assert not hasattr(network, name)
    with pytest.raises(AttributeError) as raised:
        getattr(network, name)
    assert str(raised.value) == f"a ResNet has no {name!r}. Try: {ATTRIBUTES[name]}"


@pytest.mark.parametrize("answer", sorted(set(ATTRIBUTES.values())))
def test_what_is_recommended_is_there(answer: str, network: rk.ResNet) -> None:
    part = network
    first = answer.split(",")[0].split(" = ")[0].split("(")[0]
    if first.startswith("net."):
        for name in first.split(".")[1:]:
            part = getattr(part, name)
    else:
        assert hasattr(rk, first.removeprefix("rk."))


def test_an_attribute_that_nobody_has_is_missing_as_in_any_module(network: rk.ResNet) -> None:
    with pytest.raises(AttributeError, match="'ResNet' object has no attribute 'fcc'"):
        _ = network.fcc


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_of_other_libraries_is_answered_in_a_line(name: str) -> None:
    key, _, value = name.partition("=")
    with pytest.raises(UsageError) as raised:
        get_arch("resnet18", **{key: int(value) if value else True})
    assert str(raised.value).endswith(f"Try: {ARGUMENTS[name]}")
    assert key in str(raised.value)


@pytest.mark.parametrize("wrong", ["resnet18", rk.BasicBlock])
def test_a_network_is_built_from_an_arch_or_by_name(wrong: object) -> None:
    with pytest.raises(UsageError, match=r"Try: resnetkit\.create_model"):
        rk.ResNet(wrong)


def test_the_names_of_timm_give_what_timms_give() -> None:
    ours, theirs = build("resnet18", num_classes=7).eval(), timm.create_model("resnet18", num_classes=7).eval()
    theirs.load_state_dict(ours.state_dict())
    x = images(ours)
    assert (ours.num_classes, ours.num_features) == (theirs.num_classes, theirs.num_features)
    with torch.inference_mode():
        features, expected = ours.forward_features(x), theirs.forward_features(x)
        torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
        for before in (False, True):
            one, other = (net.forward_head(features, pre_logits=before) for net in (ours, theirs))
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert ours.get_classifier() is ours.fc
    for net in (ours, theirs):
        net.reset_classifier(3)
        assert (net.num_classes, net(x).shape) == (3, (2, 3))


@pytest.mark.parametrize(("kind", "out"), [("BasicBlock", 6), ("Bottleneck", 24)])
def test_a_block_stands_alone(kind: str, out: int) -> None:
    """As torchvision's with the projection that it has to be given; parameters in the same order."""
    torch.manual_seed(0)
    ours = getattr(rk, kind)(3, 6, stride=2)
    projection = nn.Sequential(nn.Conv2d(3, out, 1, 2, bias=False), nn.BatchNorm2d(out))
    theirs = getattr(torchvision.models.resnet, kind)(3, 6, stride=2, downsample=projection)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(ours(x), theirs(x))
    assert ours(x).shape == (2, out, 4, 4)
    assert ours.expansion == theirs.expansion


def test_a_block_that_keeps_the_shape_has_no_projection() -> None:
    assert isinstance(rk.BasicBlock(6, 6).downsample, nn.Identity)
    assert isinstance(rk.Bottleneck(24, 6).downsample, nn.Identity)
    assert not list(rk.BasicBlock(3, 6, 2, rk.Arch(depths=(1,) * 4, shortcut="A")).downsample.parameters())
