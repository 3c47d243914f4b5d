"""What other tools do with a network: they hook its modules, walk through its children, trace it, compile it."""

from collections import Counter

import pytest
import torch
from captum.attr import DeepLift
from torch import Tensor, nn

from networks.families import KINDS, images, shallow
from resnetkit.networks.arch import VARIANTS
from resnetkit.networks.resnet import ResNet, build
from resnetkit.training.setup import freeze


@pytest.mark.parametrize("kind", KINDS)
def test_full_backward_hooks_fire_once_on_every_module_and_change_nothing(kind: str) -> None:
    network = shallow(KINDS[kind]).train()
    x = images(network).requires_grad_()

    def gradients() -> list[Tensor]:
        network.zero_grad()
        network(x).square().sum().backward()
        return [parameter.grad.clone() for parameter in network.parameters()]

    without = gradients()
    seen: Counter[str] = Counter()
    for name, module in network.named_modules():
        module.register_full_backward_pre_hook(lambda *_, name=name: seen.update([f"{name} before"]))
        module.register_full_backward_hook(lambda *_, name=name: seen.update([name]))
    hooked = gradients()
    names = [name for name, _ in network.named_modules()]
    assert seen == Counter([*names, *(f"{name} before" for name in names)])
    assert all(torch.equal(one, other) for one, other in zip(without, hooked, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_changed_in_place_but_statistics(kind: str) -> None:
    """In the graph that quantizers and exporters see; `relu_` and `add_` are what some of them refuse."""
    network = shallow(KINDS[kind])
    graph = torch.export.export(network, (images(network),)).graph
    operations = {str(node.target) for node in graph.nodes if node.op == "call_function"}
    assert "aten.relu.default" in operations
    assert not [name for name in operations if name.split(".")[1].endswith("_")]


class Rescale:
    """DeepLift's rule for a ReLU (arXiv 1704.02685): its derivative is the quotient of differences to a baseline.

    Every ReLU remembers what it was given and gave for (image, baseline), which fails where one module serves twice.
    """

    def __init__(self, network: nn.Module) -> None:
        for module in network.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(self.forward)
                module.register_full_backward_hook(self.backward)
        self.quotients: dict[nn.Module, Tensor] = {}

    def forward(self, module: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
        before, after = given[0].detach(), out.detach()
        change = before[:1] - before[1:]
        quotient = torch.where(change.abs() > 1e-10, (after[:1] - after[1:]) / change, (before[:1] > 0).double())
        self.quotients[module] = quotient.expand_as(before)

    def backward(self, module: nn.Module, _given: object, gradient: tuple[Tensor]) -> tuple[Tensor]:
        return (gradient[0] * self.quotients[module],)


@pytest.mark.parametrize("kind", [kind for kind, name in KINDS.items() if VARIANTS[name].stem == "cifar"])
def test_deeplift_by_hand_adds_up_to_what_it_explains(kind: str) -> None:
    """Its theorem: attributions sum to the difference of the outputs. Without maxima, which have their own rule."""
    network = shallow(KINDS[kind]).double()
    Rescale(network)
    pair = torch.cat([images(network, 1), torch.zeros(1, 3, 32, 32)]).double().requires_grad_()
    logits = network(pair)[:, 3]
    (gradient,) = torch.autograd.grad(logits.sum(), pair)
    pair, logits = pair.detach(), logits.detach()
    attributions = (gradient[0] * (pair[0] - pair[1])).sum()
    assert float(attributions) == pytest.approx(float(logits[0] - logits[1]), rel=1e-8)


@pytest.mark.filterwarnings("ignore::UserWarning")  # it says that it sets hooks and asks for gradients
@pytest.mark.parametrize("kind", KINDS)
def test_captums_deeplift_takes_every_network(kind: str) -> None:
    network = shallow(KINDS[kind])
    x = images(network)
    _, error = DeepLift(network).attribute(x, torch.zeros_like(x), target=3, return_convergence_delta=True)
    with torch.no_grad():
        scale = float((network(x) - network(torch.zeros_like(x)))[:, 3].abs().max())
    assert float(error.abs().max()) < 0.01 * scale


@pytest.mark.parametrize("name", VARIANTS)
def test_the_tutorials_loop_over_children_is_the_forward_pass(name: str) -> None:
    network = shallow(name)
    x = given = images(network)
    for _, layer in network.named_children():
        x = layer(x)
    with torch.inference_mode():
        assert torch.equal(x, network(given))


@pytest.mark.parametrize("kind", KINDS)
def test_all_children_but_two_are_the_feature_extractor_of_every_tutorial(kind: str) -> None:
    network = shallow(KINDS[kind])
    x = images(network)
    with torch.inference_mode():
        features = network.forward_features(x)
        assert torch.equal(nn.Sequential(*list(network.children())[:-2])(x), features)
        pooled = nn.Sequential(*list(network.children())[:-1])(x)
        assert torch.equal(pooled, network.forward_head(features, pre_logits=True))
        assert pooled.shape == (2, network.num_features)
        network.avgpool = nn.AdaptiveMaxPool2d(1)  # as people put it in; it does not flatten
        assert torch.equal(network(x), network.fc(features.amax((2, 3))))


def small(**changes) -> ResNet:
    torch.manual_seed(0)
    return build("resnet20", depths=(4, 1), widths=(8, 16), strides=(1, 2), stem_width=8, **changes)


@pytest.mark.parametrize("changes", [{}, {"preactivation": True}])
def test_a_network_that_recomputes_can_be_compiled_and_keeps_less(changes: dict) -> None:
    """Against the same network neither compiled nor recomputing: gradients and statistics to the bit."""
    x = torch.randn(4, 3, 8, 8)
    networks = {kind: small(**changes) for kind in ("plain", "compiled", "both")}
    networks["both"].recompute = True
    kept = Counter()
    for kind, network in networks.items():
        run = network if kind == "plain" else torch.compile(network, backend="aot_eager", fullgraph=True)

        def keep(tensor: Tensor, kind: str = kind) -> Tensor:
            kept[kind] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = run(x).square().sum()
        loss.backward()
        for mine, plain in zip(network.parameters(), networks["plain"].parameters(), strict=True):
            assert torch.equal(mine.grad, plain.grad)
        for mine, plain in zip(network.buffers(), networks["plain"].buffers(), strict=True):
            assert torch.equal(mine, plain)
    assert kept["both"] < 0.8 * kept["compiled"]


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:The TorchScript type system:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_traced_and_scripted_networks_give_the_same(kind: str) -> None:
    network = shallow(KINDS[kind])
    x = images(network)
    with torch.inference_mode():
        expected = network(x)
        traced = torch.fx.symbolic_trace(network)
        assert torch.equal(traced(x), expected)
        assert torch.equal(torch.jit.script(traced)(x), expected)


FROZEN = {
    "evaluating": lambda network: network.requires_grad_(False),
    "training its head": lambda network: freeze(network.train(), f"stem..{network.stage_names[-1]}"),
}


@pytest.mark.parametrize("through", ["the images", "a hook"])
@pytest.mark.parametrize("how", FROZEN)
def test_a_frozen_network_gives_gradients_of_activations(how: str, through: str) -> None:
    """As Grad-CAM wants them. The oracle: of a mean over the plane, a logit's derivative is its weight per position."""
    network = shallow("resnet18")
    FROZEN[how](network)
    x, seen = images(network), []
    if through == "the images":
        x.requires_grad_()
    else:
        network.layer4[-1].register_forward_hook(lambda _module, _given, out: out.requires_grad_())
    network.layer4[-1].register_forward_hook(lambda _module, _given, out: seen.append(out))
    (gradient,) = torch.autograd.grad(network(x)[:, 7].sum(), seen)
    height, width = seen[0].shape[2:]
    expected = network.fc.weight[7].detach().view(1, -1, 1, 1).expand_as(seen[0]) / (height * width)
    torch.testing.assert_close(gradient, expected)
    assert all(parameter.grad is None for parameter in network.parameters())
