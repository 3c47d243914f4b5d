import json

import pytest
import torch
from torch import nn

import resnetkit as rk
from networks.families import KINDS, shallow
from resnetkit.networks.arch import VARIANTS
from resnetkit.networks.inventory import take_inventory


@pytest.mark.parametrize("kind", KINDS)
def test_the_inventory_is_what_pytorch_says_of_the_real_network(kind: str) -> None:
    """Against a network with numbers in it, run on an image, every output's shape taken by a hook."""
    network = shallow(KINDS[kind])
    shapes: dict[nn.Module, tuple[int, ...]] = {}
    for module in network.modules():
        module.register_forward_hook(lambda module, _given, out: shapes.update({module: tuple(out.shape[1:])}))
    with torch.inference_mode():
        network(torch.zeros(1, network.arch.in_channels, 40, 33))
    found = take_inventory(network.arch, (40, 33))
    assert [(each.name, each.type, each.output) for each in found.modules] == [
        (name, type(module).__name__, shapes[module]) for name, module in network.named_modules()
    ]
    assert [each.parameters for each in found.modules] == [
        sum(p.numel() for p in module.parameters()) for module in network.modules()
    ]
    assert [(each.name, each.shape, each.parameters) for each in found.parameters] == [
        (name, tuple(p.shape), p.numel()) for name, p in network.named_parameters()
    ]
    gives = {"state_dict": network.state_dict()} | {
        name: list(getattr(network, name)()) for name in found.counts if name != "state_dict"
    }
    assert found.counts == {name: len(what) for name, what in gives.items()}


def test_the_command_lists_modules_and_parameters_within_80_columns(cli) -> None:
    done = cli("summary", "d2l_resnet18", "--modules", "--parameters", "--image-size", 96)
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [" ".join(line.split()) for line in lines]
    assert "layer2.0.conv1 Conv2d 128 x 12 x 12 73,856" in rows
    assert "layer2.0.conv1.weight Conv2d 128 x 64 x 3 x 3 73,728" in rows
    text = " ".join(rows)
    network = rk.create_model("d2l_resnet18")
    for method in ("parameters", "named_parameters", "modules", "named_modules", "children", "named_children",
                   "buffers"):  # fmt: skip
        count = len(list(getattr(network, method)()))
        assert any(f"net.{method}() gives {the}{count} " in text for the in ("", "the same "))
    assert f"net.state_dict() gives {len(network.state_dict())} tensors" in text
    assert "conv1, bn1, relu, maxpool, layer1" in text
    assert "layer2.0.conv1.weight" not in cli("summary", "d2l_resnet18", "--modules").out


@pytest.mark.parametrize("name", ["preact_resnet1001", "resnext101_64x4d", "plain110"])
def test_the_longest_names_fit(name: str) -> None:
    arch = VARIANTS[name]
    found = take_inventory(arch, (arch.native_size, arch.native_size))
    assert max(map(len, [*found.module_table(), *found.parameter_table()])) <= 80


def test_json_has_all_of_it(cli) -> None:
    plain = json.loads(cli("summary", "resnet20", "--json").out)
    report = json.loads(cli("summary", "resnet20", "--modules", "--json").out)
    assert plain.items() <= report.items()
    network = rk.create_model("resnet20")
    assert [row["name"] for row in report["named_modules"]] == [name for name, _ in network.named_modules()]
    assert {row["name"]: row["shape"] for row in report["named_parameters"]} == {
        name: list(parameter.shape) for name, parameter in network.named_parameters()
    }
    assert report["counts"]["state_dict"] == len(network.state_dict())
