"""T10 and T11: steps that are not finite, and steps for which memory does not suffice."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from faults import plants
from faults.harness import run
from faults.runs import assert_same, begin, rows, same_tensors, whole
from resnetkit.data.batches import Batch
from resnetkit.errors import MemoryLimitError
from resnetkit.machine.device import Compute
from resnetkit.machine.ranks import ALONE
from resnetkit.networks.resnet import build
from resnetkit.recipes.schema import Recipe
from resnetkit.runs import checkpoint
from resnetkit.training.optim import Schedule
from resnetkit.training.step import Stepper

TINY = {"depths": (1, 1), "widths": (8, 16), "strides": (1, 2), "stem": "cifar", "stem_width": 8}


def stepper(batch_size: int = 24, *, norms: bool = True, **optim: object) -> Stepper:
    torch.manual_seed(0)
    network = build("resnet20", **TINY, in_channels=1, num_classes=10)
    if not norms:
        for block in network.modules():
            for name, part in block.named_children():
                if isinstance(part, nn.BatchNorm2d):
                    setattr(block, name, nn.Identity())
    recipe = Recipe.model_validate({"data": {"batch_size": batch_size}, "optim": optim})
    made = Stepper(
        network, recipe, Schedule(recipe.optim, 10, 100, batch_size), Compute(torch.device("cpu"), "fp32"), [], ALONE
    )
    made.train_mode()
    return made


def batch(count: int = 24, factor: float = 1.0) -> Batch:
    drawn = torch.Generator().manual_seed(1)
    labels = torch.randint(10, (count,), generator=drawn)
    return Batch(torch.randn(count, 1, 8, 8, generator=drawn) * factor, labels, labels)


def state(made: Stepper) -> dict[str, torch.Tensor]:
    """All that a step may change."""
    found = {f"network {name}": value for name, value in made.network.state_dict().items()}
    found |= {f"average {name}": value for name, value in made.average.state_dict().items()}
    for number, entry in enumerate(made.optimizer.state.values()):
        found |= {f"optimizer {number} {name}": value for name, value in entry.items()}
    return {name: value.detach().clone() for name, value in found.items()}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e38])
def test_a_step_that_is_not_finite_changes_nothing(factor: float, name: str) -> None:
    made = stepper(name=name, ema=0.9, lr=0.01, clip=1.0)
    made(batch(), 0)
    before = state(made)
    assert not made(batch(factor=factor), 1).applied
    same_tensors(state(made), before)
    assert made(batch(), 1).applied
    assert not torch.equal(state(made)["network conv1.weight"], before["network conv1.weight"])


def test_bad_batches_are_passed_over_and_written_down(home: Path) -> None:
    out = home / "poisoned"
    settings = begin("folder", home, out)
    ended = run(direct=settings, plant=partial(plants.poison, 1, 4))
    assert ended.code == 0, ended.err
    assert ended.err.count("not finite; the step was not applied") == 2
    written = [row for row in rows(out) if row["event"] == "not applied"]
    assert [(row["step"], row["loss"], len(row["files"])) for row in written] == [(1, "nan", 8), (4, "nan", 8)]
    assert all(Path(file).is_file() for row in written for file in row["files"])
    assert all(torch.isfinite(value).all() for value in saved(out))


def saved(out: Path) -> list[torch.Tensor]:
    """All tensors of all checkpoints and of the model."""
    files = [*out.glob("checkpoints/*/*.safetensors"), *out.glob("model/*.safetensors")]
    assert files
    return [tensor.double() for file in files for tensor in safetensors.torch.load_file(file).values()]


@pytest.mark.parametrize("variant", ["memory", "folder"])
@pytest.mark.parametrize("every", [1, 2])
def test_a_rate_that_is_too_high_is_rolled_back_once_and_ends_with_advice(variant: str, every: int, home: Path) -> None:
    out = home / f"explodes {variant} {every}"
    changes = {"optim": {"lr": 1e18, "warmup": "0%"}, "checkpoint": {"every_steps": every}, "epochs": 8}
    ended = run(direct=begin(variant, home, out, **changes))
    assert ended.code == 5, ended.err
    assert ended.err.count("once, with half the learning rate") == 1
    assert re.search(r"no longer finite by step \d+.*a learning rate of \d", ended.error)
    assert ended.error.endswith("Try: --optim.lr 1e+17 in another --out")
    events = [row["event"] for row in rows(out)]
    assert events.count("rolled back") == 1
    assert "not applied" in events
    assert all(torch.isfinite(value).all() for value in saved(out))
    if variant == "folder":
        file = Path(re.search(r" in (\S+\.png): ", ended.error)[1])
        assert file.is_file()
        assert str(out / "metrics.jsonl") in ended.error


def test_an_image_that_holds_no_number_spoils_nothing(home: Path) -> None:
    """A TIFF of floats may hold NaN, and pixels may not: the file is named, and figures are finite."""
    from faults.runs import pictures

    folder = pictures(home / "with nan")
    pixels = np.full((72, 80), np.nan, dtype=np.float32)
    Image.fromarray(pixels).save(folder / "train" / "blue" / "nan.tiff")
    out = home / "nan"
    ended = run(direct=begin("folder", home, out, data={"name": str(folder)}))
    assert ended.code == 0, ended.err
    assert re.search(r"left out  .*nan\.tiff: ", ended.err)
    assert all(torch.isfinite(value).all() for value in saved(out))
    assert [row["event"] for row in rows(out)] == ["epoch", "epoch", "end"]


@pytest.mark.parametrize("micro_batch", [12, 6, 5, 2])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(micro_batch: int) -> None:
    """The oracle: the same network without BatchNorm, all of the batch at a time."""
    moved = []
    for size in (None, micro_batch):
        made = stepper(norms=False, momentum=0.0, weight_decay=0.0, lr=1.0, warmup="0%")
        made.micro_batch = size
        before = {name: value.detach().clone() for name, value in made.network.named_parameters()}
        assert made(batch(), 0).applied
        moved.append(
            torch.cat([(before[name] - value.detach()).flatten() for name, value in made.network.named_parameters()])
        )
    assert moved[0].norm() > 0.1
    torch.testing.assert_close(moved[1], moved[0], rtol=0, atol=1e-6 * float(moved[0].abs().max()))


def test_where_memory_ends_a_step_is_begun_again_in_parts_as_if_nothing_had_happened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forward = type(stepper().network).forward
    monkeypatch.setattr(type(stepper().network), "forward", forward)
    plants.small_memory(10)
    made, expected = stepper(ema=0.9), stepper(ema=0.9)
    expected.micro_batch = 6
    assert made(batch(), 0).applied
    assert expected(batch(), 0).applied
    assert made.micro_batch == 6
    same_tensors(state(made), state(expected))
    assert len(made.notes) == 2
    assert "BatchNorm sees the smaller parts" in made.notes[0]
    monkeypatch.setattr(type(made.network), "forward", forward)
    plants.small_memory(1)
    with pytest.raises(MemoryLimitError, match=r"out of memory with 3 images at a time\. Try: --recompute"):
        stepper()(batch(), 0)


def test_a_run_that_is_short_of_memory_is_that_of_the_parts_also_when_killed(home: Path) -> None:
    out = home / "short"
    settings = begin("memory", home, out)
    ended = run(direct=settings, plant=partial(short_and_killed, out))
    assert ended.code == -9, ended.err
    assert "from now on 6, with the gradient of the whole batch; BatchNorm sees the smaller parts" in ended.err
    assert run(direct=settings | {"resume": True}).code == 0  # on a machine of more memory
    theirs = whole("memory", home, data={"micro_batch": 6})
    found, expected = (checkpoint.newest(each / "checkpoints")[0] for each in (out, theirs))
    for group, tensors in found.tensors.items():
        same_tensors(tensors, expected.tensors[group])
    assert rows(out)[:-1] == rows(theirs)[:-1]
    assert json.loads((found.folder / "state.json").read_bytes())["micro_batch"] == 6


def short_and_killed(out: Path) -> None:
    plants.small_memory(10)
    plants.at(out, 250, plants.kill)


def test_memory_that_suffices_for_nothing_is_exit_code_6(home: Path) -> None:
    out = home / "nothing"
    ended = run(direct=begin("memory", home, out), plant=partial(plants.small_memory, 1))
    assert ended.code == 6
    assert ended.error == "error: out of memory with 3 images at a time. Try: --recompute, or a smaller --model"
    assert run(direct=begin("memory", home, out) | {"resume": True}).code == 0
    assert_same(out, whole("memory", home))
