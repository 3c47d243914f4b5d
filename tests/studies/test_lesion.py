"""The study `lesion`: surgery against the arithmetic of one block, rows on a really trained net, made-up verdicts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import resnetkit as rk
from resnetkit.studies.laboratory import run_study
from resnetkit.studies.lesion import STUDY, blocks_of, deleted, shuffled
from resnetkit.studies.study import Place, combinations
from studies.made_up import lesion as made_up
from studies.tiny import shrink

SMALL = {"depths": (2, 2), "widths": (4, 8), "strides": (1, 2), "stem_width": 4}


def net(**changes) -> rk.ResNet:
    torch.manual_seed(0)
    return rk.create_model("resnet20", **SMALL, **changes).eval()


IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("name", ["layer1.0", "layer1.1", "layer2.1"])
def test_a_net_without_a_block_is_the_chain_of_the_others(residual: bool, name: str) -> None:
    """What leaves the block before is what the block behind gets: it is at least zero, and shapes are equal."""
    network = net(residual=residual)
    with torch.no_grad():
        x = network.relu(network.bn1(network.conv1(IMAGES)))
        for each, block in blocks_of(network):
            x = x if each == name else block(x)
        assert torch.equal(deleted(network, [name])(IMAGES), network.fc(x.mean((2, 3))))


@pytest.mark.parametrize("residual", [True, False])
def test_where_the_shape_changes_padded_identity_is_left_for_both(residual: bool) -> None:
    network = net(residual=residual, shortcut="A")
    with torch.no_grad():
        x = network.stages(IMAGES)["layer1"]
        left = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        expected = network.fc(network.layer2[1](left).mean((2, 3)))
        assert torch.equal(deleted(network, ["layer2.0"])(IMAGES), expected)


def test_of_a_projection_what_is_left_is_the_projection() -> None:
    network = net(shortcut="B")
    with torch.no_grad():
        x = network.stages(IMAGES)["layer1"]
        left = torch.relu(network.layer2[0].downsample(x))
        expected = network.fc(network.layer2[1](left).mean((2, 3)))
        assert torch.equal(deleted(network, ["layer2.0"])(IMAGES), expected)


def test_a_block_that_adds_nothing_is_not_missed_and_the_net_itself_is_not_touched() -> None:
    network = net()
    torch.nn.init.zeros_(network.layer1[1].bn2.weight)
    with torch.no_grad():
        whole = network(IMAGES)
        assert torch.equal(deleted(network, ["layer1.1"])(IMAGES), whole)
        assert not torch.equal(deleted(network, ["layer1.0"])(IMAGES), whole)
        shuffled(network, 3, np.random.default_rng(0))
        assert torch.equal(network(IMAGES), whole)


def test_blocks_change_places_with_blocks_of_their_shape_only() -> None:
    torch.manual_seed(0)
    network = rk.create_model("resnet20", depths=(3, 3), widths=(4, 8), strides=(1, 2), stem_width=4).eval()
    marks = {name: block.conv1.weight.sum().item() for name, block in blocks_of(network)}
    assert len(marks) == 6
    first, second = ({f"{stage}.{i}" for i in places} for stage, places in (("layer1", (0, 1, 2)), ("layer2", (1, 2))))
    for seed in range(20):
        hurt = shuffled(network, 1, np.random.default_rng(seed))
        hurt(IMAGES)
        now = {name: block.conv1.weight.sum().item() for name, block in blocks_of(hurt)}
        moved = {name for name in marks if now[name] != marks[name]}
        assert len(moved) == 2
        assert moved <= first or moved <= second
        assert sorted(now.values()) == sorted(marks.values())


def test_a_row_holds_every_lesion_and_starts_from_the_score_of_the_saved_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets = combinations(network=("residual", "plain"), depth=(14,))
    study = shrink(monkeypatch, "lesion", *nets, counts=(2, 3), draws=2, recipe={"epochs": 1})
    outcome = run_study("lesion", quick=True, out=tmp_path / "study")
    for network in ("residual", "plain"):
        lines = [line for line in outcome.results if line["network"] == network]
        assert [line["lesion"] for line in lines].count("one deleted") == 6
        assert len(lines) == 1 + 6 + 2 * 2 * 2
        saved = rk.load(str(tmp_path / "study" / "work" / f"{network}14-seed0"), precision="fp32")
        assert lines[0]["error"] == 100 - rk.evaluate(saved, "digits")["top1"]
        saved.network = deleted(saved.network, ["layer2.1"])
        (line,) = (line for line in lines if line["block"] == "layer2.1")
        assert line["error"] == 100 - rk.evaluate(saved, "digits")["top1"]
    row = {name: outcome.results[0][name] for name in STUDY.settings}
    again = study.measure(row, Place(True, tmp_path / "study" / "work"))
    assert [line["error"] for line in again] == [line["error"] for line in outcome.results[: len(again)]]
    assert "so this may be chance" in outcome.answer or "seeds overlap" in outcome.answer


def test_who_bears_the_loss_of_a_block_better_is_said_only_where_seeds_are_apart() -> None:
    said = STUDY.answer(made_up((4.0, 5.0, 6.0), (80.0, 85.0, 90.0)))
    assert "the residual net bears the loss of a block better than the plain one (no seed" in said
    assert "from 5.0 % without layer1.0 to 6.0 % without layer1.1" in said
    assert "the plain net bears" in STUDY.answer(made_up((80.0, 85.0, 90.0), (4.0, 5.0, 6.0)))
    assert "it cannot be told" in STUDY.answer(made_up((4.0, 5.0, 90.0), (80.0, 85.0, 90.0)))
    assert "may be chance" in STUDY.answer(made_up((4.0,), (80.0,)))
