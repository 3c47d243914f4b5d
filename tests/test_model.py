import json
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from resnetkit.errors import UsageError
from resnetkit.model import VARIANTS, create_model, get_arch, list_models
from resnetkit.summary import summarise

GOLDEN = json.loads((Path(__file__).parent / "golden" / "variants.json").read_text())
IN_TORCHVISION = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
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
    ours = create_model(request.param).eval()
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
    assert sum(p.numel() for p in create_model(name).parameters()) == count


@pytest.mark.parametrize(
    ("name", "layers"), [(f"resnet{n}", n) for n in (18, 34, 50, 101, 152, 20, 32, 44, 56, 110, 1202)]
)
def test_layer_count_is_the_one_in_the_name(name: str, layers: int) -> None:
    assert VARIANTS[name].layers == layers


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "resnet1202"])
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


class PaperBlock(nn.Module):
    """Section 4.2 in the plainest words: two 3x3 convolutions and an identity padded with zeros."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.a, self.na = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.b, self.nb = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.stride, self.before, self.after = stride, before, after

    def forward(self, x):
        identity = x[:, :, :: self.stride, :: self.stride]
        if self.before != self.after:
            zeros = torch.zeros(len(x), (self.after - self.before) // 2, *identity.shape[2:])
            identity = torch.cat([zeros, identity, zeros], dim=1)
        return torch.relu(self.nb(self.b(torch.relu(self.na(self.a(x))))) + identity)


class PaperCifarNet(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        widths = [16] * n + [32] * n + [64] * n
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.blocks = nn.ModuleList(
            PaperBlock(before, after, 1 if before == after else 2)
            for before, after in zip([16, *widths], widths, strict=False)
        )
        self.classify = nn.Linear(64, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.classify(x.mean((2, 3)))


class D2LBlock(nn.Module):
    """The tutorial's block: convolutions with bias, and a bare 1x1 convolution where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.c1, self.n1 = nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after)
        self.c2, self.n2 = nn.Conv2d(after, after, 3, 1, 1), nn.BatchNorm2d(after)
        self.c3 = nn.Conv2d(before, after, 1, stride) if stride != 1 else None

    def forward(self, x):
        y = self.n2(self.c2(F.relu(self.n1(self.c1(x)))))
        return F.relu(y + (x if self.c3 is None else self.c3(x)))


class D2LNet(nn.Sequential):
    def __init__(self) -> None:
        stem = [nn.Conv2d(1, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        shapes = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
        blocks = [D2LBlock(*shape) for shape in [*shapes, (512, 512, 1)]]
        super().__init__(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


@pytest.mark.parametrize(
    ("name", "independent", "image"),
    [("resnet20", lambda: PaperCifarNet(3), (2, 3, 32, 32)), ("d2l_resnet18", D2LNet, (2, 1, 96, 96))],
)
def test_logits_match_an_independent_implementation(name, independent, image) -> None:
    torch.manual_seed(0)
    theirs, ours = independent(), create_model(name)
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert mine.shape == other.shape
            mine.copy_(other)
    x = torch.randn(image)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_plain_block_adds_nothing() -> None:
    torch.manual_seed(0)
    residual, plain = create_model("resnet20"), create_model("resnet20", residual=False)
    plain.load_state_dict(residual.state_dict())
    x = torch.randn(2, 16, 8, 8)
    mine, other = residual.layer1[0], plain.layer1[0]
    torch.testing.assert_close(other(x), torch.relu(mine.residual(x)))
    assert not torch.allclose(other(x), mine(x))


@pytest.mark.parametrize(("shortcut", "projections"), [("A", 0), ("B", 3), ("C", 16)])
def test_shortcut_options_of_table_3(shortcut: str, projections: int) -> None:
    net = create_model("resnet34", shortcut=shortcut)
    assert sum(key.endswith("downsample.0.weight") for key in net.state_dict()) == projections


def test_stages_end_in_what_the_head_sees() -> None:
    net = create_model("resnet18", stem="cifar", in_channels=1, num_classes=7).eval()
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
    net = create_model("resnet20").eval()
    before = {key: value.clone() for key, value in net.state_dict().items() if not key.startswith("fc")}
    net.reset_head(3)
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    assert net.arch.num_classes == 3
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown model 'resnet19'.*resnet1"):
        create_model("resnet19")
    with pytest.raises(UsageError, match=r"unknown field of a network 'shortcuts'. Try: shortcut"):
        create_model("resnet18", shortcuts="A")
    with pytest.raises(UsageError, match="stem = 'imagnet' cannot be"):
        create_model("resnet18", stem="imagnet")
    with pytest.raises(UsageError, match="differ in length"):
        create_model("resnet18", depths=(1, 1))
    with pytest.raises(UsageError, match="shortcut A cannot be built"):
        create_model("resnet20", widths=(16, 8, 64))


def test_list_models_matches_a_pattern() -> None:
    assert list_models("resnet1*") == ["resnet18", "resnet101", "resnet152", "resnet110", "resnet1202"]
