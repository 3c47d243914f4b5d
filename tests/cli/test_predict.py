"""`resnetkit predict` into files and folders: what it says, and what it refuses, each in a line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pictures import fill
from resnetkit.machine.csvfile import csv_records

MODEL = "resnet20.cifar10"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", 3)
    (tmp_path / "photos" / "red" / "bad.png").write_bytes(b"")
    return tmp_path


def test_the_answers_are_those_that_are_printed(here: Path, cli) -> None:
    printed = cli("predict", MODEL, "photos", "--json").out
    done = cli("predict", MODEL, "photos", "--out", "answers.jsonl")
    assert (done.code, done.out) == (0, "")
    assert (here / "answers.jsonl").read_text() == printed
    assert "answered: 9 files: " in done.err
    assert "1 image could not be read." in done.err
    assert "written: answers.jsonl" in done.err
    assert cli("predict", MODEL, "photos", "--out", "strict.csv", "--strict").code == 9
    told = json.loads(cli("predict", MODEL, "photos", "--out", "told.csv", "--json").out)
    assert (told["out"], told["count"], told["failed"], sum(told["labels"].values())) == ("told.csv", 10, 1, 9)


def test_a_file_that_is_there_is_replaced_only_where_that_is_said(here: Path, cli) -> None:
    (here / "answers.csv").write_text("mine")
    done = cli("predict", MODEL, "photos", "--out", "answers.csv")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: there are answers already in answers.csv. Try: --overwrite, or another --out\n"
    assert (here / "answers.csv").read_text() == "mine"
    assert cli("predict", MODEL, "photos", "--out", "answers.csv", "--overwrite").code == 0
    before = (here / "answers.csv").read_bytes()
    assert len(list(csv_records(before))) == 11
    done = cli("predict", MODEL, "photos", "--out", "answers.csv", "--resume")
    assert (done.code, done.out) == (0, "")
    assert "answers.csv is finished: nothing is left to do" in done.err
    assert (here / "answers.csv").read_bytes() == before
    assert sorted(each.name for each in here.iterdir()) == ["answers.csv", "photos"]


REFUSED = {
    "no kind": (("--out", "answers"), "does not say what it is to be"),
    "a folder": (("--out", "photos.csv"), "it is a folder"),
    "overwrite what": (("--overwrite",), "--overwrite would change nothing"),
    "resume what": (("--resume",), "--resume would change nothing"),
    "link what": (("--link",), "--link would change nothing"),
    "sorted into itself": (("--sort-into", "photos"), "it holds photos, which is looked at"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_one_line(name: str, here: Path, cli) -> None:
    words, expected = REFUSED[name]
    (here / "photos.csv").mkdir()
    done = cli("predict", MODEL, "photos", *words)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert expected in done.err


def unfinished(out: Path, **job: object) -> Path:
    part = out.with_name(f"{out.name}.part")
    part.mkdir()
    (part / "job.json").write_text(json.dumps(job))
    (part / "00000000-0123456789abcdef.rows").write_text('["x", [["a", 1.0]], null, null, null]\n')
    return part


def test_answers_of_another_job_are_not_gone_on_with(here: Path, cli) -> None:
    part = unfinished(here / "answers.csv", model="another")
    done = cli("predict", MODEL, "photos", "--out", "answers.csv")
    assert done.code == 2
    assert "there are unfinished answers in answers.csv.part. Try: --resume to go on with them" in done.err
    done = cli("predict", MODEL, "photos", "--out", "answers.csv", "--resume")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "unfinished answers of another job in answers.csv.part: the model is not the same" in done.err
    assert len(list(part.glob("*.rows"))) == 1
    assert cli("predict", MODEL, "photos", "--out", "answers.csv", "--overwrite").code == 0
    assert not part.exists()


def test_a_job_that_could_not_begin_leaves_nothing(here: Path, cli) -> None:
    (here / "empty").mkdir()
    assert cli("predict", MODEL, "empty", "--out", "answers.csv").code == 3
    assert sorted(each.name for each in here.iterdir()) == ["empty", "photos"]


def test_what_is_written_is_not_looked_at(here: Path, cli) -> None:
    """The answers, those on their way, and the sorted files lie in the folder that is answered."""
    words = ("predict", MODEL, "photos", "--out", "photos/answers.csv", "--sort-into", "photos/sorted")
    assert cli(*words).code == 0
    first = (here / "photos" / "answers.csv").read_bytes()
    assert cli(*words, "--overwrite").code == 0
    assert (here / "photos" / "answers.csv").read_bytes() == first
    assert len(list(csv_records(first))) == 11
    assert sum(each.is_file() for each in (here / "photos" / "sorted").rglob("*")) == 9


def test_rows_that_nobody_reads_end_it_quietly_and_files_are_sorted_all_the_same(here: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m resnetkit predict {MODEL} photos --sort-into sorted | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert sum(each.is_file() for each in (here / "sorted").rglob("*")) == 9


def test_names_on_stdin_are_gone_on_with_where_they_are_the_same(here: Path) -> None:
    names = [str(each) for each in sorted((here / "photos").rglob("*.png"))]
    words = [sys.executable, "-m", "resnetkit", "predict", MODEL, "-", "--out", "answers.csv", "--resume"]
    done = subprocess.run(words, input="\0".join(names), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [record[0] for record in csv_records((here / "answers.csv").read_bytes())][1:] == names
