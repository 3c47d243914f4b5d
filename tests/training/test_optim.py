import math
import sys
from pathlib import Path

import pytest
import torch

import progress
from resnetkit.networks.resnet import build
from resnetkit.recipes.load import load_recipe
from resnetkit.recipes.schema import OptimRecipe
from resnetkit.training.optim import (
    Schedule,
    average_of,
    create_optimizer,
    optimizer_tensors,
    parameter_groups,
    restore_optimizer,
    without_compiler,
)


def schedule(total: int = 100, **settings: object) -> Schedule:
    return Schedule(OptimRecipe(lr=2.0, **settings), total, images=640, batch_size=64)


def test_schedules_by_hand() -> None:
    assert schedule(schedule="constant")(99) == 2.0
    assert schedule(schedule="cosine")(50) == pytest.approx(1.0)
    assert schedule(schedule="cosine")(25) == pytest.approx(1 + math.cos(math.pi / 4))
    assert schedule(schedule="linear")(75) == pytest.approx(0.5)
    warm = schedule(schedule="linear", warmup="20%", warmup_factor=0.5)
    assert [warm(step) for step in (0, 9, 19, 20, 60)] == pytest.approx([1.05, 1.5, 2.0, 2.0, 1.0])
    in_epochs = schedule(schedule="steps", milestones=("3 epochs", "80 steps"), gamma=0.1)
    assert [in_epochs(step) for step in (29, 30, 79, 80)] == pytest.approx([2.0, 0.2, 0.2, 0.02])


def test_the_papers_schedule() -> None:
    optim = load_recipe("cifar10-paper").optim
    rate = Schedule(optim, 64_000, images=45_000, batch_size=128)
    assert [rate(step) for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )
    warm = Schedule(optim.model_copy(update={"warmup": "400 steps"}), 64_000, images=45_000, batch_size=128)
    assert [warm(step) for step in (0, 399, 400)] == pytest.approx([0.01, 0.01, 0.1])


def test_norms_and_biases_are_spared_where_the_recipe_says_so() -> None:
    net = build("resnet20")
    decayed, spared = parameter_groups(net, OptimRecipe(weight_decay=0.5, decay_all=False))
    names = {id(p): name for name, p in net.named_parameters()}
    assert {names[id(p)].rpartition(".")[2] for p in decayed["params"]} == {"weight"}
    assert not any("bn" in names[id(p)] for p in decayed["params"])
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.5, 0.0)
    assert len(decayed["params"]) + len(spared["params"]) == len(list(net.parameters()))
    (everything,) = parameter_groups(net, OptimRecipe(weight_decay=0.5))
    assert len(everything["params"]) == len(list(net.parameters()))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_an_optimizer_that_was_stored_goes_on_to_the_bit(name: str) -> None:
    def start(seed: int):
        torch.manual_seed(seed)
        net = build("resnet20", depths=(1, 1, 1)).to(memory_format=torch.channels_last)
        return net, create_optimizer(net, OptimRecipe(name=name, lr=0.01))

    def advance(net, optimizer, steps: range) -> None:
        for step in steps:
            x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(step))
            net(x.to(memory_format=torch.channels_last)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    net, optimizer = start(0)
    advance(net, optimizer, range(3))
    stored = {key: value.clone().contiguous() for key, value in optimizer_tensors(optimizer).items()}
    other, other_optimizer = start(1)
    other.load_state_dict({key: value.clone().contiguous() for key, value in net.state_dict().items()})
    restore_optimizer(other_optimizer, stored)
    advance(net, optimizer, range(3, 6))
    advance(other, other_optimizer, range(3, 6))
    for (key, mine), theirs in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), key


def test_the_average_matches_the_formula() -> None:
    torch.manual_seed(0)
    net = build("resnet20", depths=(1, 1, 1))
    average = average_of(net, 0.75)
    average.update_parameters(net)
    expected = {key: value.clone().double() for key, value in net.state_dict().items() if value.is_floating_point()}
    for keep in [min(0.75, (1 + n) / (10 + n)) for n in range(1, 31)]:
        with torch.no_grad():
            for tensor in net.state_dict().values():
                if tensor.is_floating_point():
                    tensor.add_(torch.randn_like(tensor))
        average.update_parameters(net)
        for key, value in expected.items():
            value.mul_(keep).add_(net.state_dict()[key].double(), alpha=1 - keep)
    for key, value in expected.items():
        torch.testing.assert_close(average.module.state_dict()[key].double(), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_an_optimizer_without_the_compiler_is_pytorchs_to_the_bit(name: str) -> None:
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    ends, states = [], []
    for make in (kind, without_compiler(kind)):
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        optimizer = make(layer.parameters(), 0.1, weight_decay=0.01, fused=True)
        told: list[int] = []
        optimizer.register_step_post_hook(lambda *_, told=told: told.append(1))
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        assert isinstance(optimizer, kind)
        assert len(told) == 3
        ends.append(layer.weight)
        states.append(optimizer.state_dict())
    assert torch.equal(*ends)
    assert str(states[0]) == str(states[1])


def test_a_short_run_imports_neither_compiler_nor_scipy(tmp_path: Path) -> None:
    code = (
        "import sys, resnetkit as rk\n"
        f"rk.train('digits', out={str(tmp_path / 'run')!r}, quiet=True, epochs=1, data={{'limit': 64}})\n"
        "print(sorted({'torch._dynamo', 'torch._inductor', 'scipy', 'sklearn', 'sympy'} & set(sys.modules)))"
    )
    assert progress.run([sys.executable, "-c", code]).stdout == "[]\n"
