from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import resnetkit as rk
from resnetkit.data.load import load_data
from resnetkit.studies import responses
from resnetkit.studies.fit import PAPER, SHAPES, build_network, fit, stacked
from resnetkit.studies.responses import answer, means
from resnetkit.studies.study import Place
from studies.made_up import responses as made_up


def test_deviations_match_a_net_of_two_layers_computed_by_hand() -> None:
    """Two convolutions that double and negate, BatchNorm with known statistics, four pixels."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0)
            self.conv2, self.bn2 = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu_(self.bn1(self.conv1(x)))  # in place, as the product's nets have it
            return self.bn2(self.conv2(x))

    net = Two()
    for conv, norm, factor, mean, weight in ((net.conv1, net.bn1, 2.0, 5.0, 1.0), (net.conv2, net.bn2, -1.0, 0.0, 3.0)):
        nn.init.constant_(conv.weight, factor)
        norm.running_mean.fill_(mean)
        nn.init.constant_(norm.weight, weight)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(2, 1, 2, 1)
    # 2x - 5 = -3, -1, 1, 3: mean 0, mean square 5. After the ReLU and -3x: 0, 0, -3, -9: mean -3, mean square 22.5.
    expected = [5**0.5, (22.5 - 9) ** 0.5]
    assert responses.responses(net, [x]) == pytest.approx(expected, rel=1e-6)
    assert responses.responses(net, [x[:1], x[1:]]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", ["plain", "residual"])
def test_every_3x3_layer_is_seen_and_nothing_else_is_changed(shape: str) -> None:
    """Against the outputs of the BatchNorms in a forward pass written out, with NumPy's deviation."""
    network = build_network(shape, 14, load_data("digits"), seed=0).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    images = torch.randn(6, 1, 8, 8)
    seen = []
    with torch.no_grad():
        x = network.bn1(network.conv1(images))
        seen.append(x.numpy().copy())
        x = torch.relu(x)
        for stage in network.stage_names:
            for block in network.get_submodule(stage):
                one = block.bn1(block.conv1(x))
                two = block.bn2(block.conv2(torch.relu(one)))
                seen += [one.numpy().copy(), two.numpy().copy()]
                x = torch.relu(two + block.downsample(x)) if SHAPES[shape].get("residual", True) else torch.relu(two)
    found = responses.responses(network, [images[:4], images[4:]])
    assert found == pytest.approx([float(np.std(out.astype(np.float64))) for out in seen], rel=1e-5)
    assert len(found) == 13
    assert not any(module._forward_hooks for module in network.modules())


def test_the_papers_experiment_runs_on_a_folder_of_pictures(tmp_path: Path, photos: Path) -> None:
    """The way of the full study, shortened: the recipe is the paper's, the accuracy that of `evaluate`."""
    place = Place(False, tmp_path / "work", photos)
    changes = {"steps": 2, "data": {"batch_size": 8}, "augment": {"flip": True}, "seed": 1}
    model = stacked(8) | SHAPES["plain"]
    classifier = fit(place, "plain8-seed1", base=PAPER, model=model, **changes).classifier
    assert (
        classifier.recipe["optim"] | {"lr": 0.1, "nesterov": False, "schedule": "steps"} == classifier.recipe["optim"]
    )
    assert classifier.recipe["seed"] == 1
    assert not classifier.network.arch.residual
    images = list(responses.held_out_images(classifier, place))
    assert sum(map(len, images)) == rk.evaluate(classifier, photos)["count"]
    assert len(responses.responses(classifier.network, images)) == 7
    again = fit(place, "plain8-seed1", base=PAPER, model=model, **changes)  # finished: loaded, not trained again
    assert again.classifier.metrics == classifier.metrics


def test_the_answer_follows_from_the_results() -> None:
    plain = {("plain", 20): (1.0, 1.1, 1.2)}
    residual = {("residual", 20): (0.6, 0.7, 0.8), ("residual", 56): (0.4, 0.5, 0.6)}
    said = answer(made_up(plain | residual))
    assert "has the smaller responses in 3 of 3 comparisons of equal seed: as the paper says" in said
    assert "with 20 and with 56 layers, the deeper one has the smaller responses in 3 of 3" in said
    against = answer(made_up(plain | {("residual", 20): (1.6, 1.7, 1.8), ("residual", 56): (1.9, 1.9, 1.9)}))
    assert "the residual net has the larger responses in all 3: against the paper" in against
    assert "the deeper one has the larger responses in all 3: against the paper" in against
    assert "not conclusive" in answer(made_up(plain | {("residual", 20): (0.6, 1.7, 0.8)}))
    assert "too few to conclude from" in answer(made_up({("plain", 20): (1.0,), ("residual", 20): (0.5,)}))
    assert means(made_up(plain))["plain", 20] == pytest.approx({0: 1.0, 1: 1.1, 2: 1.2})
