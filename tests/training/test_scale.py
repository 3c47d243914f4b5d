"""Training in fp16. The oracle is PyTorch's own scaler in a plain loop on the same batches."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnetkit.data.batches import Batch
from resnetkit.machine.device import Compute
from resnetkit.machine.ranks import ALONE
from resnetkit.networks.resnet import ResNet, build
from resnetkit.recipes.schema import Recipe
from resnetkit.training.optim import Schedule
from resnetkit.training.scale import GROWTH_STEPS, LossScale
from resnetkit.training.step import Stepper

FP16 = Compute(torch.device("cpu"), "fp16")


def network() -> ResNet:
    torch.manual_seed(0)
    return build("resnet20", depths=(1, 1), widths=(8, 16), strides=(1, 2), stem_width=8, in_channels=1, num_classes=10)


def stepper(net: nn.Module, compute: Compute = FP16, **data: object) -> Stepper:
    optim = {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0, "schedule": "constant"}
    recipe = Recipe.model_validate({"data": {"batch_size": 16} | data, "optim": optim})
    made = Stepper(compute.network(net), recipe, Schedule(recipe.optim, 10, 160, 16), compute, [], ALONE)
    made.train_mode()
    return made


def batch(step: int = 0, factor: float = 1.0) -> Batch:
    drawn = torch.Generator().manual_seed(step)
    labels = torch.randint(10, (16,), generator=drawn)
    return Batch(torch.randn(16, 1, 8, 8, generator=drawn) * factor, labels, labels)


def weights(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def assert_equal(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    for name, value in theirs.items():
        assert torch.equal(mine[name], value), name


def test_steps_are_those_of_gradscaler() -> None:
    made = stepper(network())
    theirs = FP16.network(network()).train()
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9, fused=True)
    scaler = torch.amp.GradScaler("cpu")
    for step in range(5):
        one = batch(step)
        assert made(one, step).applied
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(theirs(one.images), one.targets)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        optimizer.step()
        scaler.update()
        optimizer.zero_grad()
    assert made.loss_scale.factor == scaler.get_scale()
    assert_equal(weights(made.network), weights(theirs))


def test_small_gradients_are_kept() -> None:
    """A head whose answers hardly reach the loss: in fp16 alone most gradients of the stem are zero."""

    def stem_gradient(compute: Compute, factor: float) -> torch.Tensor:
        net = network()
        nn.init.constant_(net.fc.weight, 1e-6)
        net.fc.weight.data[0] *= 2
        made = stepper(net, compute)
        made.loss_scale = LossScale(factor) if compute.precision == "fp16" else None
        before = weights(net)["conv1.weight"]
        assert made(batch(), 0).applied
        return before - weights(net)["conv1.weight"]

    true = stem_gradient(Compute(torch.device("cpu"), "fp32"), 1.0)
    scaled, bare = (stem_gradient(FP16, factor) for factor in (2.0**16, 1.0))
    errors = [float((found - true).norm() / true.norm()) for found in (scaled, bare)]
    assert errors[0] < 0.1, errors
    assert errors[1] > 0.5, errors


def test_a_step_that_overflows_is_begun_again_with_half_the_scale() -> None:
    made, reference = stepper(network()), stepper(network())
    made.loss_scale = LossScale(2.0**40, steps=7)
    assert made(batch(), 0).applied
    assert 1 < made.loss_scale.factor < 2.0**40
    assert made.loss_scale.steps == 1
    reference.loss_scale = LossScale(made.loss_scale.factor)
    assert reference(batch(), 0).applied
    assert_equal(weights(made.network), weights(reference.network))  # BatchNorm has seen the batch once


def test_parts_of_a_batch_overflow_together() -> None:
    made = stepper(network(), micro_batch=4)
    made.loss_scale = LossScale(2.0**40)
    assert made(batch(), 0).applied
    assert made.loss_scale.factor < 2.0**40


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_what_is_not_finite_of_itself_does_not_move_the_scale(factor: float) -> None:
    made = stepper(network())
    before, scale = weights(made.network), replace(made.loss_scale)
    assert not made(batch(factor=factor), 0).applied
    assert made.loss_scale == scale
    assert_equal(weights(made.network), before)


def test_a_gradient_that_no_scale_makes_finite_does_not_move_the_scale() -> None:
    made = stepper(network())
    made.network.fc.weight.register_hook(lambda gradient: gradient * float("nan"))
    before, scale = weights(made.network), copy.copy(made.loss_scale)
    result = made(batch(), 0)
    assert torch.isfinite(result.loss)
    assert not result.applied
    assert made.loss_scale == scale
    assert_equal(weights(made.network), before)


def test_the_scale_grows_where_nothing_overflows() -> None:
    scale = LossScale(8.0)
    for _ in range(GROWTH_STEPS - 1):
        scale.count()
    assert scale == LossScale(8.0, GROWTH_STEPS - 1)
    scale.count()
    assert scale == LossScale(16.0, 0)
