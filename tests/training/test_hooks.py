"""What is the user's own: against the recipe's own where both say the same, and killed and resumed to the bit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import resnetkit as rk
from conftest import TINY
from faults.harness import run
from faults.runs import assert_same, same_tensors
from resnetkit.data.load import load_data
from resnetkit.errors import CheckpointError, HookError, UsageError
from resnetkit.evaluation.score import score
from resnetkit.randomness import torch_seed

OWN = Path(__file__).parent / "own.py"
SHORT = {"data": {"limit": 100, "batch_size": 24}, "epochs": 2, "quiet": True}
PLAIN = {"schedule": "constant", "warmup": "0%", "label_smoothing": 0.0, "ema": 0.0}


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def tiny_net() -> nn.Module:
    return rk.create_model("resnet20", **TINY["model"], in_channels=1, num_classes=10)


class Wrapped(nn.Module):
    """One of ours, as a stranger: nothing of it is known but what it maps."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = tiny_net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inside(x)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The recipe's own network, loss and optimizer."""
    settings = {**SHORT, "optim": {**PLAIN, "lr": 0.05, "weight_decay": 0.0}}
    return rk.train("digits", out=tmp_path_factory.mktemp("plain") / "run", **settings, **TINY).network.state_dict()


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_loss_that_is_the_recipes_gives_the_same_bits(reduction: str, plain: dict, tmp_path: Path) -> None:
    settings = {**SHORT, "optim": {**PLAIN, "lr": 0.05, "weight_decay": 0.0}}

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, targets, reduction=reduction)

    trained = rk.train("digits", out=tmp_path / "run", loss=loss, **settings, **TINY)
    for name, value in trained.network.state_dict().items():
        torch.testing.assert_close(value, plain[name], rtol=1e-5, atol=1e-6)


def test_an_optimizer_that_is_the_recipes_gives_the_same_bits(plain: dict, tmp_path: Path) -> None:
    """The recipe's rate is another one: the factory's own counts, and the journal has it."""

    def make(parameters) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, fused=True)

    settings = {**SHORT, "optim": {**PLAIN, "lr": 0.7}}
    trained = rk.train("digits", out=tmp_path / "run", optimizer=make, **settings, **TINY)
    same_tensors(trained.network.state_dict(), plain)
    assert rows(tmp_path / "run")[0]["lr"] == 0.05


def test_the_schedule_is_a_factor_of_the_optimizers_own_rates(tmp_path: Path) -> None:
    """A quarter of the way down a line to 0, in each of two groups."""
    seen = []

    def make(parameters) -> torch.optim.Optimizer:
        first, *rest = parameters
        seen.append(torch.optim.Adagrad([{"params": [first], "lr": 0.08}, {"params": rest, "lr": 0.02}]))
        return seen[0]

    class Rates:
        def on_step(self, run, figures) -> None:
            seen.append([group["lr"] for group in seen[0].param_groups])

    rk.train(
        "digits",
        out=tmp_path / "run",
        optimizer=make,
        callbacks=[Rates()],
        **{**SHORT, "epochs": None, "steps": 4},
        optim={**PLAIN, "schedule": "linear"},
        **TINY,
    )
    assert seen[2] == pytest.approx([0.06, 0.015])


def test_a_network_that_is_the_recipes_gives_the_same_weights_and_scores(plain: dict, tmp_path: Path) -> None:
    """The same draws, the same order: equal but for the memory layout, in which ours is faster."""
    settings = {**SHORT, "optim": {**PLAIN, "lr": 0.05, "weight_decay": 0.0}}
    trained = rk.train("digits", out=tmp_path / "run", network=Wrapped, **settings)
    for name, value in trained.network.inside.state_dict().items():
        torch.testing.assert_close(value, plain[name], rtol=1e-3, atol=1e-4)
    assert isinstance(trained.network, Wrapped)
    assert score(trained, load_data("digits").test).top1 == trained.metrics["top1"]

    again = rk.load(tmp_path / "run", network=Wrapped())
    same_tensors(again.network.state_dict(), trained.network.state_dict())
    assert again.classes == trained.classes
    with pytest.raises(CheckpointError, match=r"network of the model is the user's own Wrapped .*Try: rk.load"):
        rk.load(tmp_path / "run")
    with pytest.raises(CheckpointError, match="the weights are of another network"):
        rk.load(tmp_path / "run", network=tiny_net())
    with pytest.raises(UsageError, match="nobody else could load the classifier"):
        rk.push(again, "someone/something")
    assert rk.load_recipe(tmp_path / "run" / "recipe.toml").model.name == "Wrapped"


def test_one_of_each_is_killed_and_resumed_to_the_bit(tmp_path: Path) -> None:
    """The oracle: the same command, not killed."""
    words = ["train", "digits", "--plugin", OWN, "--epochs", 2, "--data.limit", 100, "--data.batch-size", 24]
    words += ["--augment.mixup", 0.2, "--augment.extra", '[["RandomRotation", {"degrees": 9}]]', "--precision", "fp32"]
    words += ["--checkpoint.every-steps", 3, "--device", "cpu"]
    whole = run(*words, "--out", tmp_path / "whole")
    assert whole.code == 0, whole.err
    assert "seen 9 [5, 9]" in whole.out
    env = {"DIES_AT": "7", "DIED": str(tmp_path / "died")}
    assert run(*words, "--out", tmp_path / "killed", env=env).code == -9
    ended = run(*words, "--out", tmp_path / "killed", "--resume", env=env)
    assert ended.code == 0, ended.err
    assert "resumed   at step 6" in ended.err
    assert "seen 9 [5, 9]" in ended.out
    assert_same(tmp_path / "killed", tmp_path / "whole")

    without = run("train", "--resume", "--out", tmp_path / "killed")
    assert without.code == 2
    assert "network has changed since the run began" in without.error
    assert "it was Net and is now the recipe's own. Try: the old one, with network= or --plugin" in without.error


class Stops:
    def __init__(self, moment: str, step: int) -> None:
        setattr(self, moment, lambda run, figures: rk.STOP if run.step >= step else None)


@pytest.mark.parametrize(("moment", "at", "steps"), [("on_step", 2, 2), ("on_validation", 5, 5), ("on_epoch", 6, 9)])
def test_a_callback_ends_the_run_and_it_stays_ended(moment: str, at: int, steps: int, tmp_path: Path, capfd) -> None:
    """As if it had been no longer: scored, journaled, its model written; going on changes nothing."""
    settings = {**SHORT, "epochs": 3, **TINY}
    ended = rk.train("digits", out=tmp_path / "run", callbacks=[Stops(moment, at)], **settings)
    assert ended.metrics["steps"] == steps
    events = [row["event"] for row in rows(tmp_path / "run")]
    assert events[-3:] == ["epoch", "stopped early", "end"]
    assert rows(tmp_path / "run")[-2]["why"] == f"Stops has said so in {moment}"
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    again = rk.train(
        "digits", out=tmp_path / "run", resume=True, callbacks=[Stops(moment, at)], **settings | {"quiet": False}
    )
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    assert again.metrics["top1"] == ended.metrics["top1"]
    assert "the callback Stops declares no state: it begins anew" in capfd.readouterr().err


class Fails:
    """Of several moments, one fails."""

    def __init__(self, moment: str) -> None:
        setattr(self, moment, self.fail)

    def fail(self, run, figures) -> None:
        if run.step >= 5:
            raise ZeroDivisionError("one and nothing")


@pytest.mark.parametrize("moment", ["on_step", "on_validation", "on_epoch", "on_save", "on_end"])
def test_a_callback_that_fails_is_named_and_the_run_is_saved(moment: str, tmp_path: Path) -> None:
    settings = {**SHORT, "epochs": 1, **TINY}
    with pytest.raises(
        HookError, match=rf"{moment} of the callback Fails failed in {__file__}, line \d+: Zero"
    ) as caught:
        rk.train("digits", out=tmp_path / "run", callbacks=[Fails(moment)], **settings)
    assert caught.value.exit_code == 2
    assert (tmp_path / "run" / "checkpoints" / "step-00000005").is_dir()
    if moment != "on_end":
        with pytest.raises(UsageError, match="callbacks has changed since the run began"):
            rk.train("digits", out=tmp_path / "run", resume=True, **settings)

    class Mended(Fails):
        def fail(self, run, figures) -> None: ...

    Mended.__qualname__ = "Fails"
    trained = rk.train("digits", out=tmp_path / "run", resume=True, callbacks=[Mended(moment)], **settings)
    assert trained.metrics["steps"] == 5


def test_callbacks_are_told_where_the_run_stands(tmp_path: Path) -> None:
    told = []

    class Tells:
        def on_step(self, run, figures) -> None:
            told.append(("step", run.step, sorted(figures)))

        def on_validation(self, run, figures) -> None:
            told.append(("validation", run.step, sorted(figures)))

        def on_epoch(self, run, figures) -> None:
            told.append(("epoch", run.step, figures["epoch"]))

        def on_save(self, run, figures) -> None:
            told.append(("save", run.step, figures["folder"].is_dir()))

        def on_end(self, run, figures) -> None:
            told.append(("end", run.step, figures["split"], run.folder.name, run.recipe.epochs, run.rank))

    rk.train("digits", out=tmp_path / "run", callbacks=[Tells()], **{**SHORT, "epochs": 1}, **TINY)
    steps = [("step", number, ["applied", "loss", "lr"]) for number in range(1, 6)]
    after = [("validation", 5, ["best", "loss", "top1"]), ("epoch", 5, 1.0 * 5 * 24 / 100), ("save", 5, True)]
    assert told == [("save", 0, True), *steps, *after, ("end", 5, "test", "run", 1.0, 0)]


class Tuples(Wrapped):
    def forward(self, x):
        return self.inside(x), x


class TuplesInTraining(Wrapped):
    def forward(self, x):
        return (self.inside(x), x) if self.training else self.inside(x)


def soft(logits, targets):
    return F.nll_loss(logits.log_softmax(1), targets)


class Misspelt:
    def on_epochs(self, run, figures) -> None: ...


class NotKept:
    def on_step(self, run, figures) -> None: ...

    def state_dict(self):
        return {"what": object()}

    def load_state_dict(self, state) -> None: ...


WRONG = [
    ({"network": nn.Linear(3, 3)}, r"the network Linear failed: RuntimeError: "),
    ({"network": Tuples}, r"Tuples gives a tuple for 2 images: logits are a tensor \(2, 10\)"),
    ({"network": TuplesInTraining}, r"TuplesInTraining gives a tuple for 24 images"),
    ({"network": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 7))}, r"\(2, 7\) for .*Try: a last layer of 10"),
    ({"network": lambda: 3}, "gives a int"),
    ({"network": Wrapped, "model": {"name": "resnet18"}}, "model.name beside network="),
    ({"network": Wrapped, "recompute": True}, "recompute beside network="),
    ({"network": Wrapped, "recipe": "finetune"}, "transfer.mode beside network="),
    ({"loss": 3}, "loss cannot be 3"),
    ({"loss": nn.Linear(2, 2)}, "the loss Linear has parameters"),
    ({"loss": soft, "augment": {"mixup": 0.2}}, r"the loss soft failed in .*Try: the targets are soft"),
    ({"loss": lambda logits, targets: logits}, r"gives \(24, 10\) for 24 images"),
    ({"loss": soft, "class_weights": "balanced"}, "class_weights beside loss="),
    ({"optimizer": torch.optim.SGD([torch.zeros(1)], 0.1)}, "one that is made already"),
    ({"optimizer": lambda parameters: 3}, "gives a int"),
    ({"optimizer": torch.optim.SGD, "optim": {"lr": 0.1}}, None),
    ({"transform": lambda pixels: pixels.float()}, r"the transform gives float32 \(1, 8, 8\) for a picture of uint8"),
    ({"transform": lambda pixels: pixels.nothing()}, r"the transform failed in .*test_hooks.py, line"),
    ({"callbacks": [Misspelt()]}, "unknown moment of the callback Misspelt: 'on_epochs'. Try: on_epoch"),
    ({"callbacks": [NotKept]}, r"the callback NotKept is a class. Try: callbacks=\[NotKept\(\)\]"),
    ({"callbacks": [NotKept()]}, r"hooks.callbacks.given.0.what is a object"),
    ({"callbacks": [print]}, "has no moment"),
]


@pytest.mark.parametrize(("given", "said"), WRONG)
def test_what_cannot_be_is_refused_in_one_line(given: dict, said: str | None, tmp_path: Path) -> None:
    settings = {**SHORT, "epochs": None, "steps": 1, **({} if "network" in given else TINY), **given}
    if said is None:
        rk.train("digits", out=tmp_path / "run", **settings)
        return
    with pytest.raises(UsageError, match=said) as caught:
        rk.train("digits", out=tmp_path / "run", **settings)
    assert "\n" not in str(caught.value)


def test_the_global_random_states_are_left_alone(tmp_path: Path) -> None:
    def noisy(pixels: torch.Tensor) -> torch.Tensor:
        return pixels + torch.randint(2, pixels.shape, dtype=torch.uint8)

    def dropped(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(F.dropout(logits, 0.1), targets)

    before = torch.get_rng_state()
    rk.train("digits", out=tmp_path / "run", transform=noisy, loss=dropped, **{**SHORT, "epochs": 1}, **TINY)
    assert torch.equal(before, torch.get_rng_state())


def test_a_network_from_a_function_depends_on_the_seed_alone(tmp_path: Path) -> None:
    settings = {**SHORT, "epochs": None, "steps": 1, "optim": {"ema": 0.0}}
    first, same, other = (
        rk.train("digits", out=tmp_path / name, network=Wrapped, seed=seed, **settings).network.state_dict()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    same_tensors(first, same)
    assert not torch.equal(first["inside.conv1.weight"], other["inside.conv1.weight"])
    with torch_seed(0, "parameters"):
        assert not torch.equal(Wrapped().inside.conv1.weight, other["inside.conv1.weight"])
    shutil.rmtree(tmp_path / "c")
