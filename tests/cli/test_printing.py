"""What reaches a terminal, and what a stream that is closed, full or not UTF-8 gets.

Names are those of real files and folders; the streams are real ones too.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import progress
import resnetkit as rk
from conftest import TINY
from pictures import draw
from resnetkit.cli.app import main
from resnetkit.cli.list import ROWS as list_rows  # noqa: N811

SMALL = ("--model.depths", 1, "--model.depths", 1, "--model.widths", 8, "--model.widths", 16, "--model.strides", 1)
SMALL += ("--model.strides", 2, "--model.stem-width", 8, "--data.image-size", 16, "--data.resize", 16, "--steps", 2)
SMALL += ("--data.workers", 0, "--recipe", "cifar10-paper", "--data.max-unreadable", 0.5)

TITLE = "title\x1b]0;owned\x07\x9b31m"
LINE = "new\nline"
RIGHT = "\u202eright\u2066[bold]:cat:"
NOT_UTF8 = "caf\udce9"
CLASSES = (TITLE, LINE, RIGHT, NOT_UTF8)
BROKEN = "\x1b[2J\u202e.png"


def album(root: Path, classes: tuple[str, ...], count: int = 5) -> Path:
    """A folder with a few pictures of each class."""
    for place, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(count):
            draw("red", 10 * place + number, (16, 16)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in folders that a stranger has named, and a run on them, in folders of such names."""
    root = tmp_path_factory.mktemp("wild")
    photos = album(root / "photos\x1b[8m", CLASSES)
    (photos / TITLE / BROKEN).write_bytes(b"rubbish")
    settings = {"data": {"image_size": 16, "resize": 16, "workers": 0, "max_unreadable": 0.5}} | TINY
    rk.train(photos, "cifar10-paper", out=root / f"run{NOT_UTF8}\x1b[7m", quiet=True, steps=2, **settings)
    return root


def harmless(text: str) -> bool:
    """Whether it does no more than to be read, line by line."""
    return all(line.isprintable() for line in text.split("\n"))


COMMANDS = {
    "train": ("train", "{photos}", "--out", "{out}", *SMALL),
    "evaluate": ("evaluate", "{run}", "{photos}", "--include-seen", "--workers", 0),
    "compare": ("compare", "{run}", "{run}/model", "{photos}", "--include-seen", "--workers", 0),
    "predict": ("predict", "{run}", "{photos}"),
    "check": ("check", "{photos}", "--workers", 1),
    "shard": ("shard", "{photos}", "--out", "{out}"),
    "summary": ("summary", "{run}"),
}
MISTAKES = {
    "no such folder": (("train", "{gone}"), 3),
    "a folder that is not UTF-8": (("train", "{out}"), 2),
    "no model": (("predict", "{photos}", "{photos}"), 2),
    "unknown command": (("{out}",), 2),
    "not a number": (("train", "--steps", "{out}"), 2),
    "unknown recipe": (("train", "--recipe", "{out}"), 2),
}


@pytest.fixture
def places(wild: Path, tmp_path: Path) -> dict[str, Path]:
    """What a stranger may have named."""
    return {
        "photos": wild / "photos\x1b[8m",
        "run": wild / f"run{NOT_UTF8}\x1b[7m",
        "out": tmp_path / f"out\x1b]0;owned\x07\u202e{NOT_UTF8}",
        "gone": tmp_path / "gone\x1b[1m\u202e",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_stranger_named_does_nothing_to_a_terminal(name: str, places: dict, cli) -> None:
    done = cli(*(str(word).format(**places) for word in COMMANDS[name]))
    assert done.code == 0
    assert done.out
    assert harmless(done.out + done.err)


@pytest.mark.parametrize("name", COMMANDS)
def test_json_gives_the_true_names_back(name: str, places: dict, cli) -> None:
    done = cli(*(str(word).format(**places) for word in COMMANDS[name]), "--json")
    assert done.code == 0
    assert harmless(done.out + done.err)
    told = json.dumps([json.loads(line) for line in done.out.splitlines()])
    expected = {"train": places["out"], "shard": TITLE, "check": BROKEN, "predict": LINE, "evaluate": BROKEN}
    assert json.dumps(str(expected.get(name, places["run"])))[1:-1] in told


@pytest.mark.parametrize("name", MISTAKES)
def test_an_error_that_names_it_is_one_harmless_line(name: str, places: dict, cli) -> None:
    words, code = MISTAKES[name]
    done = cli(*(word.format(**places) for word in words))
    assert (done.code, done.out) == (code, "")
    assert len(done.err.splitlines()) == 1
    assert harmless(done.err)


def test_a_name_is_not_taken_for_markup_or_for_an_emoji(wild: Path, cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    done = cli("predict", wild / f"run{NOT_UTF8}\x1b[7m", wild / "photos\x1b[8m" / RIGHT / "0.png")
    assert r"\u202eright\u2066[bold]:cat:" in done.out


def test_a_class_whose_name_is_not_utf8_is_trained_saved_and_answered(wild: Path, cli) -> None:
    """Linux allows any bytes in a name. What Python makes of them is what `os.fsencode` turns back."""
    run = wild / f"run{NOT_UTF8}\x1b[7m"
    classifier = rk.load(run)
    assert set(classifier.classes) == set(CLASSES)
    (row,) = map(
        json.loads, cli("predict", run, wild / "photos\x1b[8m" / NOT_UTF8 / "0.png", "--json").out.splitlines()
    )
    assert {each["label"] for each in row["top"]} <= set(CLASSES)
    assert b"caf\xe9" in os.fsencode(row["file"])


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose classes have Chinese names, beside its pictures."""
    root = tmp_path_factory.mktemp("chinese")
    settings = {"data": {"image_size": 16, "resize": 16, "workers": 0}} | TINY
    rk.train(album(root / "猫舍", ("猫", "狗")), "cifar10-paper", out=root / "run", quiet=True, steps=2, **settings)
    return root


class Console(io.TextIOWrapper):
    """A stream with an encoding of its own, which refuses what it cannot encode until it is told otherwise."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)

    def text(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize(
    ("command", "encoding"),
    [("train", "ascii"), ("evaluate", "ascii"), ("check", "cp1252")]
    + [("predict", encoding) for encoding in ("cp1252", "ascii", "cp936", "utf-8")],
)
def test_a_console_shows_what_it_can_and_escapes_the_rest(
    command: str, encoding: str, chinese: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle is Python's own codec."""
    words = {
        "evaluate": ("evaluate", chinese / "run", chinese / "猫舍", "--include-seen", "--workers", 0),
        "predict": ("predict", chinese / "run", chinese / "猫舍"),
        "check": ("check", chinese / "猫舍", "--workers", 1),
        "train": ("train", chinese / "猫舍", "--out", tmp_path / "跑", *SMALL),
    }[command]
    monkeypatch.setenv("COLUMNS", "200")
    expected = "猫".encode(encoding, "backslashreplace").decode(encoding)
    for kind in ((), ("--json",)):
        out, err = Console(encoding), Console(encoding)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit) as left:
                main([*map(str, words), *kind])
        assert left.value.code == 0, err.text()
        if kind:
            told = [json.loads(line) for line in out.text().splitlines()]
            assert "\\u" not in json.dumps(told, ensure_ascii=False)
            assert out.text().isascii() or encoding == "utf-8"
        else:
            assert expected in out.text() + err.text()
        shutil.rmtree(tmp_path / "跑", ignore_errors=True)


def test_the_c_locale_is_a_console_like_any_other(chinese: Path) -> None:
    surroundings = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LANG": "C"}
    words = (sys.executable, "-m", "resnetkit", "check", chinese / "猫舍", "--workers", 1)
    done = progress.run(words, env=surroundings)
    assert (done.returncode, done.stderr) == (0, "")
    done = progress.run((*words, "--json"), env=surroundings)
    assert done.stdout.isascii()
    names = json.loads(done.stdout)["classes"]["all"]
    assert {name.encode("ascii", "surrogateescape").decode() for name in names} == {"猫", "狗"}


STREAMS = {
    "closed stdout": (">&-", 0),
    "closed stderr": ("2>&-", 0),
    "both closed": (">&- 2>&-", 0),
    "all closed": ("<&- >&- 2>&-", 0),
    "nobody reads": ("| true", 0),
    "nobody reads stderr": ("2> >(true)", 0),
    "full": ("> /dev/full", 7),
    "full stderr": ("2> /dev/full", 0),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "") for name in STREAMS] + [(name, "--json") for name in ("closed stdout", "nobody reads", "full")],
)
def test_an_answer_that_nobody_takes_is_no_fault(name: str, kind: str) -> None:
    where, code = STREAMS[name]
    command = f"set -o pipefail; sleep 0.01; {sys.executable} -m resnetkit list recipes {kind} {where}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert ("no space left" in done.stderr) == (code == 7)
    assert len(done.stderr.splitlines()) == (code == 7)
    if "stderr" in name:
        assert "cifar10-paper" in done.stdout


def test_a_run_is_saved_also_where_nobody_takes_its_answer(tmp_path: Path) -> None:
    words = " ".join(map(str, ("train", "--json", "--out", tmp_path / "run", "--epochs", 0.01)))
    command = f"set -o pipefail; {sys.executable} -m resnetkit {words} 2>&- | true"
    assert progress.run(["bash", "-c", command]).returncode == 0
    assert rk.load(tmp_path / "run").metrics["steps"] >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is heeded by Linux")
def test_too_little_memory_for_pytorch_is_said_so(tmp_path: Path) -> None:
    command = f"ulimit -v 400000; {sys.executable} -m resnetkit train --out {tmp_path / 'run'}"
    done = progress.run(["bash", "-c", command], env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 6, done.stderr
    assert done.stderr.startswith("error: there is not enough memory to load PyTorch: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_pipe_that_breaks_elsewhere_is_not_taken_for_success(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where nobody takes the answer has a command done its work."""

    def broken(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setitem(list_rows, "recipes", broken)
    assert cli("list", "recipes").code == 1


TYPOS = {
    "a command": (("trian",), 'Did you mean "train"'),
    "a flag": (("train", "--epoch", 3), "--epochs"),
    "a key": (("train", "--optim.lrr", 3), "--optim.lr"),
    "a flag of predict": (("predict", "run", "x.png", "--topp", 3), "--top"),
    "a choice": (("list", "modles"), "models"),
    "a precision": (("train", "--precision", "fp8"), "bf16"),
    "weights": (("predict", "resnet50.imagenet1k_v3", "x.png"), "resnet50.imagenet1k_v"),
    "junk": (("list", "\x1b[31m" * 200), "models"),
    "a study": (("study", "depht"), "depth"),
    "a long word": (("train", "--recipe", "z" * 5000), "zzz"),
    "a key with leave": (("train", "--resume", "--out", "x", "--allow-change", "qqq"), "qqq"),
}


@pytest.mark.parametrize("name", TYPOS)
def test_a_slip_of_the_pen_is_answered_in_four_lines_at_most(name: str, cli) -> None:
    words, expected = TYPOS[name]
    done = cli(*words)
    assert (done.code, done.out) == (2, "")
    assert expected in done.err
    assert len(done.err.splitlines()) == 1
    assert len(done.err) <= 4 * 80
