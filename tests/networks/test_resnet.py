import json
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from networks.independent import D2LNet, PaperCifarNet, PaperPlainNet, PreactNet, TutorialNet
from resnetkit.errors import UsageError
from resnetkit.networks.arch import VARIANTS, get_arch, list_models
from resnetkit.networks.blocks import NarrowPointwise
from resnetkit.networks.resnet import build, overflows_untrained
from resnetkit.networks.summary import summarise
from resnetkit.weights.load import create_model

GOLDEN = json.loads((Path(__file__).parent / "golden" / "variants.json").read_text())
IN_TORCHVISION = [name for name in VARIANTS if name in torchvision.models.list_models(torchvision.models)]
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "resnet20": 269_722,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
}


@pytest.fixture(params=IN_TORCHVISION)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """Our net and torchvision's, with random BatchNorm statistics and equal parameters."""
    theirs = torchvision.models.get_model(request.param, weights=None).eval()
    generator = torch.Generator().manual_seed(0)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.0, generator=generator)
    ours = build(request.param).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def test_keys_order_and_logits_equal_torchvision_to_the_bit(pair) -> None:
    ours, theirs = pair
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(ours(image), theirs(image))


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_parameter_count_matches_the_paper(name: str, count: int) -> None:
    assert sum(p.numel() for p in build(name).parameters()) == count


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet20", 0.27),
        ("resnet32", 0.46),
        ("resnet44", 0.66),
        ("resnet56", 0.85),
        ("resnet110", 1.7),
        ("resnet1202", 19.4),
        ("preact_resnet110", 1.7),
        ("preact_resnet164", 1.7),
    ],
)
def test_parameters_match_table_6_to_its_digits(name: str, millions: float) -> None:
    count = sum(p.numel() for p in build(name).parameters()) / 1e6
    assert round(count, 1 if millions > 1 else 2) == millions


def test_preact_1001_is_within_two_percent_of_the_second_paper() -> None:
    # Its Table 5 says 10.2 M. Ours has 10.33 M: a bare projection of the activated input at each of three stages.
    count = sum(p.numel() for p in build("preact_resnet1001").parameters())
    assert count == pytest.approx(10.2e6, rel=0.02)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("resnet18", 1.8), ("resnet34", 3.6), ("resnet50", 3.8), ("resnet101", 7.6), ("resnet152", 11.3)],
)
def test_multiply_adds_match_table_1(name: str, billions: float) -> None:
    # Table 1 counts the paper's own v1 nets, and the convolutions' and classifier's multiply-adds alone.
    arch = get_arch(name, stride_on="1x1")
    assert summarise(arch, 224).multiply_adds / 1e9 == pytest.approx(billions, rel=0.025)


@pytest.mark.parametrize("depth", [18, 34])
def test_a_plain_net_has_the_residual_nets_multiply_adds_but_for_projections(depth: int) -> None:
    plain, residual = (summarise(get_arch(f"{kind}{depth}", **more), 224) for kind, more in
                       (("plain", {}), ("resnet", {"shortcut": "A"})))  # fmt: skip
    assert (plain.parameters, plain.multiply_adds) == (residual.parameters, residual.multiply_adds)


@pytest.mark.parametrize(
    ("name", "layers"), [(f"resnet{n}", n) for n in (18, 34, 50, 101, 152, 20, 32, 44, 56, 110, 1202)]
)
def test_layer_count_is_the_one_in_the_name(name: str, layers: int) -> None:
    assert VARIANTS[name].layers == layers


@pytest.mark.parametrize("name", VARIANTS)
def test_golden_table(name: str) -> None:
    summary = summarise(get_arch(name), GOLDEN[name]["pixels"])
    assert GOLDEN[name] == {
        "pixels": GOLDEN[name]["pixels"],
        "layers": summary.arch.layers,
        "parameters": summary.parameters,
        "multiply_adds": summary.multiply_adds,
        "last_stage": list(summary.stages[-2].output),
        "output": list(summary.stages[-1].output),
    }


def test_golden_table_is_complete() -> None:
    assert list(GOLDEN) == list(VARIANTS)


@pytest.mark.parametrize(
    ("name", "independent", "image"),
    [
        ("resnet20", lambda: PaperCifarNet(3), (2, 3, 32, 32)),
        ("resnet110", lambda: PaperCifarNet(18), (2, 3, 32, 32)),
        ("plain20", lambda: PaperPlainNet(3), (2, 3, 32, 32)),
        ("preact_resnet110", lambda: PreactNet(18, bottleneck=False), (2, 3, 32, 32)),
        ("preact_resnet164", lambda: PreactNet(18, bottleneck=True), (2, 3, 32, 32)),
        ("d2l_resnet18", D2LNet, (2, 1, 96, 96)),
        ("tutorial_resnet34", TutorialNet, (1, 3, 224, 224)),
    ],
)
def test_logits_match_an_independent_implementation(name, independent, image) -> None:
    torch.manual_seed(0)
    theirs, ours = independent(), build(name)
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert mine.shape == other.shape
            mine.copy_(other)
    x = torch.randn(image)
    ours.eval()  # with fresh running statistics: one image's batch statistics would hide a wrong scale
    theirs.eval()
    with torch.inference_mode():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_plain_block_adds_nothing() -> None:
    torch.manual_seed(0)
    residual, plain = build("resnet20"), build("resnet20", residual=False)
    plain.load_state_dict(residual.state_dict())
    x = torch.randn(2, 16, 8, 8)
    mine, other = residual.layer1[0], plain.layer1[0]
    torch.testing.assert_close(other(x), torch.relu(mine.residual(x)))
    assert not torch.allclose(other(x), mine(x))


@pytest.mark.parametrize(("shortcut", "projections"), [("A", 0), ("B", 3), ("C", 16)])
def test_shortcut_options_of_table_3(shortcut: str, projections: int) -> None:
    net = build("resnet34", shortcut=shortcut)
    assert sum(key.endswith("downsample.0.weight") for key in net.state_dict()) == projections


def test_stages_end_in_what_the_head_sees() -> None:
    net = build("resnet18", stem="cifar", in_channels=1, num_classes=7).eval()
    x = torch.randn(1, 1, 28, 28)
    stages = net.stages(x)
    assert {name: tuple(out.shape[1:]) for name, out in stages.items()} == {
        "stem": (64, 28, 28),
        "layer1": (64, 28, 28),
        "layer2": (128, 14, 14),
        "layer3": (256, 7, 7),
        "layer4": (512, 4, 4),
    }
    assert torch.equal(net.forward_head(stages["layer4"]), net(x))
    assert net(x).shape == (1, 7)


def test_reset_head_changes_the_classes_and_nothing_else() -> None:
    net = build("resnet20").eval()
    before = {key: value.clone() for key, value in net.state_dict().items() if not key.startswith("fc")}
    net.reset_head(3)
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    assert net.arch.num_classes == 3
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown model 'resnet19'.*resnet1"):
        build("resnet19")
    with pytest.raises(UsageError, match=r"unknown field of a network 'shortcuts'. Try: shortcut"):
        build("resnet18", shortcuts="A")
    with pytest.raises(UsageError, match="stem = 'imagnet' cannot be"):
        build("resnet18", stem="imagnet")
    with pytest.raises(UsageError, match="differ in length"):
        build("resnet18", depths=(1, 1))
    with pytest.raises(UsageError, match="shortcut A cannot be built"):
        build("resnet20", widths=(16, 8, 64))


def test_list_models_matches_a_pattern() -> None:
    assert list_models("resnet1*") == ["resnet18", "resnet101", "resnet152", "resnet110", "resnet1202"]


@pytest.mark.parametrize("name", ["preact_resnet110", "resnext50_32x4d", "resnet18", "plain20"])
@pytest.mark.parametrize("size", [1, 5, 33])
def test_any_size_works_also_alone_in_a_batch(name: str, size: int) -> None:
    with torch.inference_mode():
        assert build(name).eval()(torch.randn(1, 3, size, size + 2)).isfinite().all()


@pytest.mark.parametrize(
    ("changes", "theirs"),
    [
        ({"stride_on": "1x1"}, {"block": "v1"}),
        ({"in_channels": 4, "num_classes": 5}, {"in_chans": 4, "num_classes": 5}),
    ],
)
def test_logits_match_timm_for_what_torchvision_lacks(changes: dict, theirs: dict) -> None:
    torch.manual_seed(0)
    ours = build("resnet50", **changes).eval()
    if theirs.pop("block", None):
        reference = timm.create_model("resnet50", pretrained=False).eval()
        for module in reference.modules():  # timm has no v1; its v1.5 with the stride moved is one
            if isinstance(module, timm.models.resnet.Bottleneck) and module.conv2.stride != (1, 1):
                module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)
    else:
        reference = timm.create_model("resnet50", pretrained=False, **theirs).eval()
    reference.load_state_dict(ours.state_dict())
    x = torch.randn(2, changes.get("in_channels", 3), 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), reference(x), rtol=1e-5, atol=1e-5)


TINY_ARCHS = [
    {"block": "basic"},
    {"block": "bottleneck", "stride_on": "1x1"},
    {"block": "bottleneck", "groups": 2, "group_width": 32},
    {"block": "basic", "preactivation": True},
    {"block": "bottleneck", "preactivation": True, "shortcut": "B", "projection_norm": False},
    {"block": "basic", "residual": False},
    {"block": "basic", "shortcut": "C"},
]


@pytest.mark.parametrize("changes", TINY_ARCHS)
def test_gradients_match_finite_differences(changes: dict) -> None:
    torch.manual_seed(0)
    small = {"depths": (1, 2), "widths": (4, 8), "strides": (1, 2), "stem_width": 4, "num_classes": 3}
    net = build("resnet20", **small, **changes).double().train()
    # ReLU has kinks, at which a difference quotient says nothing; a smooth stand-in leaves all else as it is.
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Softplus(beta=3))
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda image: net(image), (x,), eps=1e-6, atol=1e-5)


def test_zero_init_starts_every_block_as_the_identity() -> None:
    ours = build("resnet50", zero_init_residual=True)
    theirs = torchvision.models.resnet50(weights=None, zero_init_residual=True)
    zeros = [name for name, p in ours.named_parameters() if (p == 0).all() and name.endswith("weight")]
    assert zeros == [name for name, p in theirs.named_parameters() if (p == 0).all() and name.endswith("weight")]
    block = build("resnet20", zero_init_residual=True).layer1[1]
    x = torch.randn(2, 16, 8, 8).relu()
    torch.testing.assert_close(block(x), x)
    with pytest.raises(UsageError, match="zero_init_residual cannot be with preactivation"):
        build("preact_resnet110", zero_init_residual=True)


def test_stochastic_depth_drops_the_share_that_the_linear_rule_says() -> None:
    torch.manual_seed(0)
    net = build("resnet20", drop_path=0.6)
    rates = [block.drop_path.p for name in net.stage_names for block in net.get_submodule(name)]
    assert rates == pytest.approx([0.6 * number / 9 for number in range(1, 10)])
    block = net.layer3[2].train()
    x = torch.randn(4000, 64, 1, 1).relu() + 1
    kept = (block(x) != x).flatten(1).any(1).float().mean()
    assert kept == pytest.approx(0.4, abs=0.03)
    assert torch.equal(net.eval()(x.new_ones(1, 3, 8, 8)), net(x.new_ones(1, 3, 8, 8)))


def test_what_is_not_used_is_not_there() -> None:
    net = build("resnet20")
    assert not any("StochasticDepth" in type(module).__name__ for module in net.modules())
    assert "downsample" not in dict(build("plain20").layer2[0].named_children())


@pytest.mark.parametrize("name", ["resnet20", "preact_resnet110"])
def test_recomputing_changes_neither_gradients_nor_statistics_by_a_bit(name: str) -> None:
    torch.manual_seed(0)
    plain, saving = build(name, drop_path=0.2), build(name, drop_path=0.2)
    saving.load_state_dict(plain.state_dict())
    saving.recompute = True
    x = torch.randn(4, 3, 16, 16)
    for net in (plain, saving):
        torch.manual_seed(1)
        net(x).square().sum().backward()
    for (key, mine), theirs in zip(saving.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad), key
    for (key, mine), theirs in zip(saving.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), key


def test_networks_can_be_exported() -> None:
    program = torch.export.export(build("preact_resnet110").eval(), (torch.randn(1, 3, 32, 32),))
    assert program.module()(torch.randn(1, 3, 32, 32)).shape == (1, 10)


SLIM = {"widths": (8, 8, 8), "stem_width": 8}


@pytest.mark.parametrize(
    ("name", "slim", "deep"),
    [("resnet1202", SLIM, True), ("preact_resnet1001", {"widths": (4, 4, 4)}, True), ("resnet110", {}, False)],
)
def test_nets_too_deep_to_be_used_untrained_say_so_until_they_have_seen_images(
    name: str, slim: dict, deep: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What overflows is the running statistics' first guess; in training mode, and once measured, all is finite."""
    torch.manual_seed(0)
    net = create_model(name, **slim)
    assert ("may overflow in evaluation mode" in caplog.text) == deep
    assert overflows_untrained(net.arch) == deep
    images = [torch.randn(4, 3, 16, 16) * 3 for _ in range(3)]
    with torch.no_grad():
        assert (float(net.eval()(images[0]).abs().max()) < 1e12) == (not deep)  # nor where it is NaN
        assert net.train()(images[0]).isfinite().all()
        torch.optim.swa_utils.update_bn(images, net)
        answer = net.eval()(images[0])
    assert answer.isfinite().all()
    assert answer.abs().max() < 1e3


def test_deep_nets_that_do_not_grow_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    for fields in ({"zero_init_residual": True}, {"residual": False}):
        net = create_model("resnet1202", **SLIM, **fields).eval()
        with torch.no_grad():
            assert net(torch.randn(1, 3, 8, 8)).isfinite().all()
    assert not caplog.text


def test_a_narrow_pointwise_convolution_is_the_strided_one() -> None:
    torch.manual_seed(0)
    ours = NarrowPointwise(4, 8, 1, 2, bias=True)
    theirs = torch.nn.Conv2d(4, 8, 1, 2, bias=True)
    theirs.load_state_dict(ours.state_dict())
    for size in (7, 8):
        x = torch.randn(2, 4, size, size, requires_grad=True)
        assert ours(x).shape == (2, 8, 4, 4)
        torch.testing.assert_close(ours(x), theirs(x))
        torch.testing.assert_close(torch.autograd.grad(ours(x).sum(), x), torch.autograd.grad(theirs(x).sum(), x))


@pytest.mark.parametrize(("name", "changes"), [("resnet20", {"shortcut": "B"}), ("resnet50", {"stride_on": "1x1"})])
def test_strided_pointwise_convolutions_of_few_channels_alone_are_narrow(name: str, changes: dict) -> None:
    narrow = {"widths": tuple(2 * 2**n for n in range(3 if name == "resnet20" else 4)), "stem_width": 4}
    assert any(isinstance(each, NarrowPointwise) for each in build(name, **changes, **narrow).modules())
    assert not any(isinstance(each, NarrowPointwise) for each in build(name, **changes).modules())
