"""Loggers: what is written where, and that none of their faults reaches a run.

TensorBoard's own files are read back. For the other two a module of the same name stands in and notes what it is asked:
it shows our order of calls and nothing of theirs.
"""

import json
import os
import re
import sys
import threading
import types
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import resnetkit as rk
from conftest import TINY
from resnetkit.errors import UsageError
from resnetkit.machine.extras import with_extra
from resnetkit.reporting import loggers
from resnetkit.reporting.loggers import Logger, require_loggers

SHORT = {"data": {"limit": 100, "batch_size": 25}, "epochs": 2, **TINY}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What three stand-ins were asked, in its order; `fails` among it makes the next call fail."""
    calls: list[tuple] = []

    def note(name: str, result: object = None):
        def call(*words: object, **settings: object) -> object:
            if ("fails", name) in calls:
                raise OSError(28, "No space left on device")
            calls.append((name, words, settings))
            return result

        return call

    class Noting:
        def __init__(self, *words: object, **settings: object) -> None:
            note("SummaryWriter")(*words, **settings)

        def __getattr__(self, name: str):
            return note(name)

    stand_ins = {
        "torch.utils.tensorboard": {"SummaryWriter": Noting},
        "wandb": {"init": note("init", types.SimpleNamespace(log=note("log"), finish=note("finish")))},
        "mlflow": {name: note(name) for name in ("start_run", "log_params", "log_metrics", "end_run")},
    }
    for name, content in stand_ins.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return calls


def test_epochs_end_and_recipe_are_written_by_each(asked: list[tuple], tmp_path: Path) -> None:
    rk.train("digits", out=tmp_path / "run", quiet=True, log=["tensorboard", "wandb", "mlflow"], **SHORT)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    first = {name: float(value) for name, value in rows[0].items() if name not in ("event", "step")}
    end = {f"test_{name}": rows[-1][name] for name in ("loss", "top1", "top5")}
    by_name = {name: [each for each in asked if each[0] == name] for name, _, _ in asked}

    assert by_name["SummaryWriter"] == [("SummaryWriter", (str(tmp_path / "run" / "tensorboard"),), {"purge_step": 4})]
    scalars = [words for _, words, _ in by_name["add_scalar"]]
    assert scalars[: len(first)] == [(name, value, 4) for name, value in first.items()]
    assert scalars[-3:] == [(name, value, 8) for name, value in end.items()]
    assert '"batch_size": 25' in by_name["add_text"][0][1][1]

    (init,) = by_name["init"]
    assert init[2]["config"]["data"]["batch_size"] == 25
    assert (init[2]["name"], init[2]["resume"]) == ("run", "allow")
    assert [(words[0], settings) for _, words, settings in by_name["log"]][::2] == [
        (first, {"step": 4}),
        (end, {"step": 8}),
    ]
    assert by_name["log_params"][0][1][0]["data.batch_size"] == "25"
    assert [(words[0], settings) for _, words, settings in by_name["log_metrics"]][-1] == (end, {"step": 8})
    assert [len(by_name[name]) for name in ("close", "finish", "start_run", "end_run")] == [1, 1, 1, 1]


@pytest.mark.parametrize("call", ["SummaryWriter", "add_scalar", "close"])
def test_a_logger_that_fails_is_off_after_one_warning(call: str, asked: list[tuple], tmp_path: Path, capfd) -> None:
    """T21. The oracle: the same run without it."""
    asked.append(("fails", call))
    logged = rk.train("digits", out=tmp_path / "logged", log="tensorboard", **SHORT)
    said = capfd.readouterr().err
    assert said.count("warning") == 1
    why = "OSError: [Errno 28] No space left on device"
    assert f"warning   --log tensorboard has failed and is off; training goes on: {why}" in said
    plain = rk.train("digits", out=tmp_path / "plain", quiet=True, **SHORT)
    assert logged.metrics["top1"] == plain.metrics["top1"]
    assert logged.metrics["loss"] == plain.metrics["loss"]


class Figures:
    """As much of a run as a logger asks for."""

    step, folder = 3, Path()
    recipe = types.SimpleNamespace(model_dump=lambda **_: {})


@pytest.mark.parametrize(
    "error", [SystemExit(1), KeyboardInterrupt(), RuntimeError(), ConnectionError("down\nfor long")]
)
def test_whatever_is_raised_stays_within(error: BaseException) -> None:
    def make(*_: object) -> None:
        raise error

    said: list[str] = []
    logger = Logger("wandb", make, said.append)
    logger.on_epoch(Figures, {"step": 3, "top1": 1.0})
    logger.close()
    logger.on_epoch(Figures, {"step": 4, "top1": 1.0})
    assert logger.off
    assert len(said) == 1
    assert said[0].startswith(f"warning   --log wandb has failed and is off; training goes on: {type(error).__name__}")
    assert "\n" not in said[0]


@pytest.mark.timeout(60)  # where the wait has no limit
def test_a_logger_that_hangs_keeps_nobody_waiting_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "PATIENCE", 0.05)
    never, said = threading.Event(), []
    logger = Logger("mlflow", lambda *_: never.wait(), said.append)
    logger.on_epoch(Figures, {"step": 3, "top1": 1.0})
    logger.close()
    assert "it has not ended within" in said[0]
    never.set()


def test_what_is_not_installed_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cli) -> None:
    remedies = {"tensorboard": with_extra("log"), "wandb": "pip install wandb", "mlflow": "pip install mlflow"}
    for name, remedy in remedies.items():
        monkeypatch.setitem(sys.modules, loggers.SINKS[name][0], None)
        with pytest.raises(UsageError, match=rf"--log {name} cannot be used: .*Try: {re.escape(remedy)}$"):
            require_loggers(name)
        left = cli("train", "digits", "--steps", 1, "--out", tmp_path / "run", "--log", name)
        assert left.code == 2
        assert left.err.splitlines() == [left.err.strip()]
        assert left.err.strip().endswith(f"Try: {remedy}")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match=r"unknown logger 'tensorbord'. Try: tensorboard"):
        require_loggers(["tensorbord"])


def test_tensorboard_reads_back_what_the_journal_says(tmp_path: Path) -> None:
    rk.train("digits", out=tmp_path / "run", quiet=True, log="tensorboard", **SHORT)
    events = EventAccumulator(os.fspath(tmp_path / "run" / "tensorboard"))
    events.Reload()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [each.value for each in events.Scalars("validation_top1")] == pytest.approx(
        [row["validation_top1"] for row in rows[:-1]], rel=1e-6
    )
