"""Before something long: how long it takes; and Ctrl-C keeps what there is. Real runs, a real signal."""

import json
import logging
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import progress
import resnetkit as rk
from resnetkit.data.load import load_data
from resnetkit.runs.folder import open_run

SMALL = ("--model.depths", "1,1", "--model.widths", "8,16", "--model.strides", "1,2", "--model.stem-width", "8")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of a day that was stopped by Ctrl-C after its first epochs, and what it said."""
    root = tmp_path_factory.mktemp("stopped")
    words = [sys.executable, "-m", "resnetkit", "train", "--out", "run", "--epochs", "100000", *SMALL]
    with (root / "err").open("w") as err:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=err, text=True, cwd=root)
        progress.until(lambda: "time  " in (said := (root / "err").read_text()) and " best " in said, process.pid)
        process.send_signal(signal.SIGINT)
        progress.finish(process)
    assert process.returncode == 130
    return root / "run", (root / "err").read_text()


def test_the_time_is_told_once_in_a_pipe_too(stopped: tuple[Path, str]) -> None:
    told = [line for line in stopped[1].splitlines() if line.startswith("time  ")]
    assert len(told) == 1
    assert re.fullmatch(r"time      about [\d ]+(min|h|h \d\d min) for 100000 epochs", told[0])


def test_ctrl_c_says_how_to_go_on_and_what_can_be_used(stopped: tuple[Path, str]) -> None:
    lines = stopped[1].splitlines()
    assert lines[-1].endswith("Try: resnetkit train --resume --out run")
    assert lines[-2] == "use them  resnetkit predict run PICTURE"
    assert lines[-3].startswith("kept      the best weights so far, of step ")


def test_what_is_kept_are_the_best_weights_so_far(stopped: tuple[Path, str], caplog: pytest.LogCaptureFixture) -> None:
    """The oracle is the journal."""
    run = stopped[0]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = max(rows, key=lambda row: (row["validation_top1"], -row["validation_loss"]))
    caplog.set_level(logging.INFO, "resnetkit")
    logging.getLogger("resnetkit").propagate = True
    classifier = rk.load(run)
    assert f"its training is not finished: the best weights so far, of step {best['step']:,} of" in caplog.text
    assert classifier.metrics["top1"] == best["validation_top1"]
    from resnetkit.evaluation.score import score

    again = score(classifier, load_data("digits").validation)
    assert (again.top1, again.loss) == (best["validation_top1"], pytest.approx(best["validation_loss"], abs=1e-3))


def test_the_stopped_run_predicts_evaluates_and_still_goes_on(stopped: tuple[Path, str], tmp_path: Path, cli) -> None:
    run = stopped[0]
    Image.fromarray(load_data("digits").test.pixels[0, 0].numpy()).save(tmp_path / "0.png")
    assert cli("predict", run, tmp_path / "0.png").code == 0
    assert cli("evaluate", run, "digits").code == 0
    going_on = open_run(None, None, out=run, resume=True, changes={})
    assert going_on.reached is not None
    assert not going_on.finished
