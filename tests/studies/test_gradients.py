import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import resnetkit as rk
from resnetkit.data.load import load_data
from resnetkit.recipes.load import load_recipe
from resnetkit.studies import gradients
from resnetkit.studies.derivative import check_identity, layer_gradients
from resnetkit.studies.fit import SHAPES, build_network, images_of, train_with_stops, without_norm
from resnetkit.studies.gradients import answer
from resnetkit.studies.health import verdict
from resnetkit.studies.study import Place
from studies.made_up import gradients as made_up

IMAGES = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.arange(12) % 10


def small(shape: str = "residual", **changes) -> nn.Module:
    return build_network(shape, 8, load_data("digits"), seed=0, **changes).double()


def loss_of(network: nn.Module) -> torch.Tensor:
    return sum(F.cross_entropy(network(IMAGES[i : i + 4]), LABELS[i : i + 4]) for i in (0, 4, 8)) / 3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batchnorm", [True, False])
def test_a_layers_gradient_matches_finite_differences(shape: str, batchnorm: bool) -> None:
    """Along its own gradient the loss rises by the gradient's norm."""
    network = small(shape, batchnorm=batchnorm).train()
    _, found = layer_gradients(network, IMAGES, LABELS, 3)
    weight = network.layer2[0].conv1.weight
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    figures = found[[layer.weight is weight for layer in layers].index(True)]
    (gradient,) = torch.autograd.grad(loss_of(network), weight)
    nudge = 1e-6 * gradient / gradient.norm()
    with torch.no_grad():
        weight += nudge
        above = loss_of(network)
        weight -= 2 * nudge
        below = loss_of(network)
        weight += nudge
    weight = weight.detach()
    assert figures["gradient"] == pytest.approx(float(above - below) / 2e-6, rel=1e-4)
    assert figures["relative"] == pytest.approx(figures["gradient"] / float(weight.norm()), rel=1e-6)


def test_signal_to_noise_matches_its_definition_in_plain_words() -> None:
    network = small().train()
    loss, found = layer_gradients(network, IMAGES, LABELS, 3)
    each = []
    for i in (0, 4, 8):
        part = F.cross_entropy(network(IMAGES[i : i + 4]), LABELS[i : i + 4])
        each.append(torch.autograd.grad(part, network.conv1.weight)[0].flatten())
    stacked = torch.stack(each)
    noise = float(stacked.var(0, correction=1).sum())
    signal = max(0.0, float(stacked.mean(0).square().sum()) - noise / 3)
    assert found[0]["snr"] == pytest.approx(math.sqrt(signal / noise), rel=1e-6, abs=1e-9)
    assert loss == pytest.approx(float(loss_of(network).detach()))


def test_the_signal_is_the_derivative_by_a_layers_output() -> None:
    """The first convolution's output is an input that we can differentiate by ourselves."""
    network = small(batchnorm=False).train()
    _, found = layer_gradients(network, IMAGES, LABELS, 3)
    out = network.conv1(IMAGES).detach().requires_grad_()
    x = network.relu(out)
    for name in network.stage_names:
        x = network.get_submodule(name)(x)
    loss = F.cross_entropy(network.forward_head(x), LABELS, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, out)
    expected = math.sqrt(float(gradient.square().sum()) / len(IMAGES))
    assert found[0]["signal"] == pytest.approx(expected, rel=1e-6)


def test_looking_changes_nothing_and_recomputing_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network("residual", 8, load_data("digits"), seed=0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = layer_gradients(network, IMAGES, LABELS, 3)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert not network.recompute
    monkeypatch.setattr("resnetkit.studies.derivative.RECOMPUTED", 0)
    again = layer_gradients(network, IMAGES, LABELS, 3)
    assert again[0] == found[0]
    for one, other in zip(found[1], again[1], strict=True):
        assert one == pytest.approx(other, rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_formula_of_a_shortcut_is_that_of_finite_differences(seed: int) -> None:
    assert check_identity("preactivation", seed).mismatch < 1e-7
    assert check_identity("residual", seed).mismatch < 1e-7
    assert check_identity("preactivation", seed).open == 1
    assert 0.1 < check_identity("residual", seed).open < 0.9
    assert check_identity("plain", seed).mismatch == pytest.approx(1, abs=1e-6)  # the identity, and nothing else


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("depth", [20, 56, 110, 1001])
def test_depths_are_counted_as_in_the_papers(shape: str, depth: int) -> None:
    network = build_network(shape, depth, load_data("digits"), seed=0, init="torch")
    assert network.arch.layers == depth
    assert network.arch.out_widths == (16, 32, 64)
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == depth - 1


def test_no_other_depth_is_built() -> None:
    with pytest.raises(ValueError, match="57 layers"):
        build_network("plain", 57, load_data("digits"), seed=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_without_batchnorm_is_its_convolutions_and_shortcut(shape: str) -> None:
    """The block in plain words; a ReLU that works in place would spoil what the shortcut carries."""
    network = without_norm(build_network(shape, 14, load_data("digits"), seed=0)).double()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    block = network.layer1[1]
    x = torch.randn(2, 16, 5, 5, dtype=torch.float64)
    one, two = (lambda t, w=conv.weight: F.conv2d(t, w, padding=1) for conv in (block.conv1, block.conv2))
    expected = {
        "plain": lambda x: two(one(x).clamp(min=0)).clamp(min=0),
        "residual": lambda x: (two(one(x).clamp(min=0)) + x).clamp(min=0),
        "preactivation": lambda x: two(one(x.clamp(min=0)).clamp(min=0)) + x,
    }[shape](x.clone())
    assert torch.allclose(block(x.clone()), expected)


def test_the_study_trains_as_the_product_does(tmp_path: Path) -> None:
    """The same recipe through `train` and through the study's stops gives the same weights to the last bit."""
    changes = {"seed": 3, "steps": 4, "data": {"batch_size": 32}, "augment": {"flip": False, "pad_crop": 1}}
    model = {"name": "resnet20", "depths": (1, 1, 1)}
    rk.train("digits", "cifar10-paper", out=tmp_path / "run", quiet=True, **changes, model=model)
    from resnetkit.weights.tensorfile import read_tensors

    stored = read_tensors(tmp_path / "run" / "model" / "model.safetensors").tensors
    recipe = load_recipe("cifar10-paper", changes)
    data = images_of(Place(True, tmp_path))
    network = build_network("residual", 8, data, seed=3)
    found = train_with_stops(network, data, recipe, (0, 2, 4), 64)
    stops = [(step, applied, len(images)) for step, applied, images, _ in found]
    assert stops == [(0, 0, 64), (2, 2, 64), (4, 4, 64)]
    for name, value in network.state_dict().items():
        assert torch.equal(value, stored[name]), name


@pytest.mark.parametrize("shape", SHAPES)
def test_a_net_of_no_batchnorm_trains_too(shape: str, tmp_path: Path) -> None:
    """It has no buffers to put back; every convolution moves in a step, or the step is counted as not applied."""
    recipe = load_recipe("cifar10-paper", {"steps": 2, "data": {"batch_size": 32}, "augment": {"flip": False}})
    data = images_of(Place(True, tmp_path))
    network = build_network(shape, 8, data, seed=0, batchnorm=False)
    before = [parameter.clone() for parameter in network.parameters()]
    applied = [applied for _, applied, _, _ in train_with_stops(network, data, recipe, (0, 2), 64)]
    assert applied == [0, 2]
    assert not any(torch.equal(one, other) for one, other in zip(before, network.parameters(), strict=True))


def test_the_full_study_measures_a_folder_of_pictures(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "stops", lambda row, place: (0, 1))
    monkeypatch.setattr(gradients, "PART", 4)
    row = {"shape": "residual", "batchnorm": True, "init": "he", "depth": 8, "seed": 0}
    lines = gradients.measure(row, Place(False, tmp_path, photos))
    assert [line["step"] for line in lines] == [0] * 7 + [1] * 7
    assert all(line["relative"] > 0 for line in lines)


def test_the_answer_follows_from_the_results() -> None:
    healthy, gone, blown = (0.01, 0.1), (1e-9, 0.1), (0.01, 1e4)
    both = {(shape, norm): healthy for shape in SHAPES for norm in (True, False)}
    confirmed = answer(made_up(both | {("plain", False): gone}))
    assert "Without BatchNorm the plain net's gradient vanished in 2 of 2 conditions" in confirmed
    assert "left a healthy one in 2 of these" in confirmed
    assert "vanished in none at initialisation: in this the paper (section 4.1) is confirmed" in confirmed
    assert "does not mention" not in confirmed
    against = answer(made_up(both | {("plain", True): gone, ("residual", False): blown}))
    assert "section 4.1 is not confirmed here" in against
    assert "vanished in 0 of 2 conditions" in against
    exploding = made_up(both | {("plain", True): blown})
    assert "it explodes towards the input with 20 layers" in answer(exploding)
    assert "After 10 steps" not in answer(exploding)
    assert "has vanished somewhere: the weights of its second" in answer(
        exploding + made_up(both | {("plain", True): gone}, 10)
    )
    assert "20 layers is healthy (the weights" in answer(exploding + made_up(both, 10))


@pytest.mark.parametrize(
    ("plain", "residual", "said"),
    [
        ("vanishes", "healthy", "right"),
        ("vanishes", "explodes", "half right"),
        ("vanishes", "vanishes", "wrong"),
        ("explodes", "healthy", "shortcuts cure that"),
        ("explodes", "explodes", "with shortcuts it explodes"),
        ("healthy", "healthy", "nothing to cure"),
        ("healthy", "explodes", "with them the gradient explodes"),
    ],
)
def test_the_verdict_can_say_either(plain: str, residual: str, said: str) -> None:
    assert said in verdict(plain, residual)
