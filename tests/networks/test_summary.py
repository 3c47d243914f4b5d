import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from resnetkit.errors import UsageError
from resnetkit.networks.arch import get_arch
from resnetkit.networks.resnet import build
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
