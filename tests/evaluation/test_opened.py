"""How often a test split was opened stays with its run, and is said from the second time on."""

import json
import shutil
from pathlib import Path

import pytest

import resnetkit as rk
from conftest import TINY
from pictures import fill

SMALL = {"model": TINY["model"] | {"name": "resnet20"}, "data": {"image_size": 16, "workers": 0, "batch_size": 8}}


@pytest.fixture
def run(digits_run: Path, tmp_path: Path) -> Path:
    """A run of which only training has opened the test split."""
    copy = tmp_path / "run"
    shutil.copytree(digits_run, copy)
    lines = (copy / "test_opened.jsonl").read_text().splitlines(keepends=True)
    (copy / "test_opened.jsonl").write_text(lines[0])
    return copy


def lines_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "test_opened.jsonl").read_text().splitlines()]


def test_every_time_is_counted_and_said_from_the_second_on(run: Path, cli) -> None:
    (first,) = lines_of(run)
    assert (first["event"], first["by"]) == ("test opened", "train")
    done = cli("evaluate", run, "digits", "--json")
    report = json.loads(done.out)
    assert report["test_opened"] == {"times": 2, "by": {"train": 1, "evaluate": 1}}
    assert "the test split was opened once before (train): what is chosen by it is no test any more" in done.err
    done = cli("evaluate", run, "digits", "--out", run.parent / "out")
    assert "opened 2 times before (train, evaluate)" in done.err
    written = json.loads((run.parent / "out" / "evaluation.json").read_text())
    assert written["test_opened"] == {"times": 3, "by": {"train": 1, "evaluate": 2}}
    assert [line["by"] for line in lines_of(run)] == ["train", "evaluate", "evaluate"]


def test_going_on_does_not_forget_that_it_was_opened(run: Path) -> None:
    rk.evaluate(rk.load(run), "digits")
    before = (run / "metrics.jsonl").read_bytes()
    rk.train(out=run, resume=True, quiet=True)  # it has ended: nothing to do
    assert (run / "metrics.jsonl").read_bytes() == before
    rk.train(out=run, resume=True, quiet=True, epochs=5, allow_change=["epochs"])
    assert [line["by"] for line in lines_of(run)] == ["train", "evaluate", "train"]
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["event"] == "end"


def test_validation_stands_beside_the_test_on_own_data_only(run: Path, tmp_path: Path, cli) -> None:
    expected = rk.load(run).metrics["validation"]
    report = rk.evaluate(rk.load(run), "digits")
    assert {key: report["validation"][key] for key in ("count", "top1", "loss")} == {
        key: expected[key] for key in ("count", "top1", "loss")
    }
    done = cli("evaluate", run, "digits")
    assert f"validation top-1 {expected['top1']:.2f} % (" in done.out
    for number in "01":
        (tmp_path / "other").mkdir(exist_ok=True)
        fill(tmp_path / "other", 2, ("red",))
        (tmp_path / "other" / "red").rename(tmp_path / "other" / number)
    other = rk.evaluate(rk.load(run), tmp_path / "other")
    assert (other["validation"], other["test_opened"]) == (None, None)
    assert len(lines_of(run)) == 3


def test_of_a_folder_the_test_split_counts_by_its_own_path_too(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        fill(tmp_path / "photos" / split, 4, ("blue", "red"), first=100 * number)
    run = tmp_path / "run"
    classifier = rk.train(tmp_path / "photos", "scratch", out=run, quiet=True, epochs=1, **SMALL)
    for times, place in ((2, "photos"), (3, "photos/test")):
        assert rk.evaluate(classifier, tmp_path / place)["test_opened"]["times"] == times
    assert rk.evaluate(classifier, tmp_path / "photos" / "val")["test_opened"] is None
    fill(tmp_path / "more", 1, ("blue", "red"), first=900)
    assert rk.evaluate(classifier, tmp_path / "more")["test_opened"] is None


def test_without_a_test_split_none_is_opened(tmp_path: Path) -> None:
    fill(tmp_path / "photos" / "train", 4, ("blue", "red"))
    fill(tmp_path / "photos" / "val", 2, ("blue", "red"), first=100)
    classifier = rk.train(tmp_path / "photos", "scratch", out=tmp_path / "run", quiet=True, epochs=1, **SMALL)
    report = rk.evaluate(classifier, tmp_path / "photos")
    assert (report["split"], report["test_opened"]) == ("validation", None)
    assert report["validation"]["top1"] == report["top1"]
    assert not (tmp_path / "run" / "test_opened.jsonl").exists()


def test_where_nothing_can_be_noted_the_figures_come_all_the_same(run: Path, caplog) -> None:
    """A folder stands where the file would be, which not even root writes to."""
    (run / "test_opened.jsonl").unlink()
    (run / "test_opened.jsonl").mkdir()
    report = rk.evaluate(rk.load(run), "digits")
    assert report["test_opened"] == {"times": 2, "by": {"train": 1, "evaluate": 1}}
    assert "cannot note in" in caplog.text


def test_a_damaged_line_is_no_time(run: Path) -> None:
    with (run / "test_opened.jsonl").open("a") as stream:
        stream.write('[]\n{"event": "test open\n')
    assert rk.evaluate(rk.load(run), "digits")["test_opened"]["times"] == 2


def test_a_model_that_lies_by_itself_leaves_no_file_beside_it(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "model", tmp_path / "shelf" / "digits")
    report = rk.evaluate(rk.load(tmp_path / "shelf" / "digits"), "digits")
    assert report["test_opened"] == {"times": 2, "by": {"train": 1, "evaluate": 1}}
    assert [path.name for path in (tmp_path / "shelf").iterdir()] == ["digits"]
