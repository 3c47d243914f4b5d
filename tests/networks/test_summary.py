import random
from dataclasses import replace

import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

import resnetkit as rk
from resnetkit.errors import UsageError
from resnetkit.networks.arch import VARIANTS, Arch, get_arch
from resnetkit.networks.resnet import ResNet, build
from resnetkit.networks.summary import summarise


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_multiply_adds_match_torchvisions_published_figures(name: str) -> None:
    published = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].meta["_ops"]
    assert round(summarise(get_arch(name), 224).multiply_adds / 1e9, 3) == published


@pytest.mark.parametrize(("name", "size"), [("resnet20", 33), ("d2l_resnet18", 96), ("resnet50", 65)])
def test_multiply_adds_match_pytorchs_flop_counter(name: str, size: int) -> None:
    arch = get_arch(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build(name).eval()(torch.zeros(1, arch.in_channels, size, size))
    assert 2 * summarise(arch, size).multiply_adds == counter.get_total_flops()


def _any_arch(number: int) -> Arch:
    """A small network of randomly chosen parts."""
    pick = random.Random(number)
    block = pick.choice(["basic", "bottleneck"])
    widths = (8, 16, 24) if pick.random() < 0.5 else (16, 16, 32)
    return Arch(
        depths=(1, 2, 1),
        widths=widths,
        strides=pick.choice([(1, 2, 2), (2, 1, 3)]),
        block=block,
        stem=pick.choice(["imagenet", "cifar"]),
        stem_width=pick.choice([4, 8]),
        stem_padding=pick.random() < 0.7,
        residual=pick.random() < 0.8,
        preactivation=pick.random() < 0.4,
        shortcut=pick.choice("ABC"),
        stride_on=pick.choice(["3x3", "1x1"]),
        conv_bias=pick.random() < 0.4,
        projection_norm=pick.random() < 0.6,
        in_channels=pick.choice([1, 3]),
        num_classes=7,
        **({"groups": 2, "group_width": 32} if block == "bottleneck" and pick.random() < 0.5 else {}),
    )


ARCHES = {name: arch for name, arch in VARIANTS.items() if sum(arch.depths) < 60}
ARCHES |= {f"random {number}": _any_arch(number) for number in range(40)}


@pytest.mark.parametrize("name", ARCHES)
def test_every_figure_is_that_of_the_network_as_pytorch_has_it(name: str) -> None:
    arch, size = ARCHES[name], (45, 33)
    with torch.device("meta"):
        network, images = ResNet(arch).eval(), torch.empty(1, arch.in_channels, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes = [tuple(output.shape[1:]) for output in network.stages(images).values()]
        flops = counter.get_total_flops() + 2 * network.fc.weight.numel()
    parts = [("conv1", "bn1"), *((stage,) for stage in network.stage_names), ("norm", "fc")]
    parameters = [sum(p.numel() for part in of for p in network.get_submodule(part).parameters()) for of in parts]
    summary = summarise(arch, size)
    assert [stage.name for stage in summary.stages] == ["stem", *network.stage_names, "fc"]
    assert [stage.output for stage in summary.stages] == [*shapes, (arch.num_classes,)]
    assert [stage.parameters for stage in summary.stages] == parameters
    assert 2 * summary.multiply_adds == flops


def test_shapes_of_the_tutorials_resnet18_computed_by_hand() -> None:
    # 96 -> 7x7 stride 2 -> 48 -> pool stride 2 -> 24 -> 24, 12, 6, 3
    stages = summarise(get_arch("d2l_resnet18"), 96).stages
    shapes = [(64, 24, 24), (64, 24, 24), (128, 12, 12), (256, 6, 6), (512, 3, 3), (10,)]
    assert [stage.output for stage in stages] == shapes


def test_stages_add_up_and_sizes_may_differ() -> None:
    summary = summarise(get_arch("resnet18"), (128, 64))
    assert summary.parameters == sum(p.numel() for p in build("resnet18").parameters())
    assert summary.stages[1].output == (64, 32, 16)
    with pytest.raises(UsageError, match="0 x 0 px cannot be"):
        summarise(get_arch("resnet18"), 0)


def test_a_stem_without_padding_needs_an_image_as_large_as_its_kernel() -> None:
    arch = get_arch("resnet18", stem_padding=False)
    with pytest.raises(UsageError, match="the smallest that works is 7 x 7"):
        summarise(arch, 6)
    with torch.device("meta"):
        outputs = ResNet(arch).eval().stages(torch.empty(1, 3, 7, 7))
    assert summarise(arch, 7).stages[0].output == outputs["stem"].shape[1:] == (64, 1, 1)


def test_whatever_is_a_network_can_be_summarised() -> None:
    classifier = rk.load("resnet20.cifar10")
    by_name = rk.summarise("resnet20")
    assert by_name == replace(summarise(get_arch("resnet20"), 32), name="resnet20")
    assert rk.summarise(classifier) == by_name
    assert rk.summarise(classifier.network).stages == rk.summarise(classifier.network.arch).stages == by_name.stages
    assert rk.summarise("resnet20", 64).image_size == (64, 64)
    for wrong in (3, None, torch.nn.Linear(2, 2)):
        with pytest.raises(UsageError, match=r"cannot be summarised\. Try: a network's name"):
            rk.summarise(wrong)
    with pytest.raises(UsageError, match="unknown model 'resnet19'"):
        rk.summarise("resnet19")


def test_a_network_that_was_changed_by_hand_is_not_described_as_what_it_was() -> None:
    network = build("resnet20")
    network.fc = torch.nn.Linear(64, 5)
    with pytest.raises(UsageError, match=r"changed by hand: it has 269,397 parameters, and by its arch .* 269,722"):
        rk.summarise(network)
    network.reset_head(5)
    assert rk.summarise(network).parameters == 269_397


def test_a_summary_is_a_table_of_80_columns_that_the_command_prints_too(cli) -> None:
    for name in VARIANTS:
        text = str(rk.summarise(name))
        assert max(map(len, text.splitlines())) <= 80
        assert text.splitlines()[-1].split()[-2:] == [
            f"{number:,}" for number in (rk.summarise(name).parameters, rk.summarise(name).multiply_adds)
        ]
    assert cli("summary", "resnet50").out == f"{rk.summarise('resnet50')}\n"
