import gc
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

import progress
import resnetkit as rk
from faults import harness
from pictures import fill
from readme import COMMANDS_OF_THE_README
from resnetkit.cli.app import COMMANDS
from resnetkit.data.load import load_data

TINY = ("--model.depths", 1, "--model.depths", 1, "--model.widths", 8, "--model.widths", 16)
TINY += ("--model.strides", 1, "--model.strides", 2, "--model.stem-width", 8)
QUICK = ("--steps", 3, *TINY)


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_teaches_without_importing_torch(name: str | None) -> None:
    words = ([name] if name else []) + ["--help"]
    code = (
        "import sys; from resnetkit.cli.app import main\n"
        f"try: main({words!r})\n"
        "except SystemExit as left: assert not left.code\n"
        "assert not {'torch', 'torchvision', 'numpy', 'PIL', 'sklearn'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"}
    )
    assert done.returncode == 0, done.stderr
    assert f"Usage: resnetkit {name or 'COMMAND'}" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    if name:
        assert f"resnetkit {name} " in done.stdout.partition("╭")[0].partition("\n")[2]
    else:
        assert all(line in done.stdout for line in COMMANDS)


QUICK_ANSWERS = {
    "version": (("--version",), {"pydantic"}),
    "check": (("check", "photos", "--workers", "1"), {"pydantic"}),
    "check --json": (("check", "photos", "--json"), {"pydantic"}),
    "list models": (("list", "models"), set()),
    "list recipes": (("list", "recipes"), set()),
    "list weights": (("list", "weights"), set()),
    "list data": (("list", "data"), set()),
    "summary": (("summary", "resnet50"), set()),
    "summary of a changed network": (("summary", "resnet34", "--model.shortcut", "A"), set()),
    "summary of weights that ship": (("summary", "resnet8.digits"), set()),
    "summary of weights to be fetched": (("summary", "resnet50.imagenet1k_v2"), set()),
    "help with all keys": (("train", "--help-all"), set()),
}
"""Commands that compute with no network, and what they leave alone beside torch and NumPy."""


@pytest.mark.parametrize("name", QUICK_ANSWERS)
def test_what_runs_no_network_imports_no_torch(name: str, photos: Path) -> None:
    words, spared = QUICK_ANSWERS[name]
    code = (
        "import sys; from resnetkit.cli.app import main\n"
        f"try: main({list(words)!r})\n"
        "except SystemExit as left: assert not left.code\n"
        f"found = {spared | {'torch', 'torchvision', 'sklearn', 'numpy'}!r} & set(sys.modules)\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=photos.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_list_of_commands_says_the_first_line_of_each_commands_own_help(cli) -> None:
    """The oracle is the docstring of the imported function; the list reads it from the source."""
    shown = " ".join(cli("--help").out.replace("│", " ").split())
    for name in COMMANDS:
        module = name.replace("-", "_")
        function = getattr(import_module(f"resnetkit.cli.{module}"), f"{module}_command")
        assert f"{name} {function.__doc__.partition(chr(10))[0]}" in shown


def test_train_evaluate_predict_in_a_row(tmp_path: Path, cli, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    trained = cli("train", "digits", "--out", run, "--json", "--epochs", 3, *TINY)
    assert trained.code == 0
    report = json.loads(trained.out)
    assert {"run", "model", "data", "top1", "loss", "steps", "seconds", "images_per_second"} <= report.keys()
    assert report["validation"].keys() == {"count", "loss", "top1", "top5"}
    assert 1 <= report["best_epoch"] < 3.1
    assert (report["run"], report["data"], report["model"]) == (str(run), "digits", "resnet20")
    evaluated = json.loads(cli("evaluate", run, "digits", "--json").out)
    assert (evaluated["count"], evaluated["top1"]) == (359, report["top1"])
    assert evaluated["loss"] == pytest.approx(report["loss"])
    assert evaluated["top5"] >= evaluated["top1"]

    digits = load_data("digits").test
    for number in range(3):
        Image.fromarray(digits.pixels[number, 0].numpy()).save(tmp_path / f"{number}.png")
    (tmp_path / "9.png").write_bytes(b"")
    predicted = cli("predict", run, tmp_path / "0.png", tmp_path / "1.png", tmp_path / "9.png", "--json")
    rows = [json.loads(line) for line in predicted.out.splitlines()]
    assert [row["status"] for row in rows] == ["ok", "ok", "error"]
    assert predicted.code == 0
    assert cli("predict", run, tmp_path / "9.png", "--strict").code == 9
    monkeypatch.chdir(tmp_path)
    table = cli("predict", run, "0.png").out
    assert "0.png" in table
    assert "%" in table


def test_results_on_stdout_and_the_rest_on_stderr(tmp_path: Path, cli) -> None:
    done = cli("train", "--out", tmp_path / "run", *QUICK)
    assert done.code == 0
    assert "epoch" in done.err
    assert "fp32" in done.err or "bf16" in done.err
    assert "epoch" not in done.out
    assert "Next:" in done.out
    assert "resnetkit train photos/" in done.out


def test_flags_override_the_recipe_and_are_saved_with_the_run(tmp_path: Path, cli) -> None:
    flags = ("--optim.lr", 0.025, "--seed", 7, "--data.batch-size", 32, "--precision", "fp32", "--model", "resnet32")
    cli("train", "--out", tmp_path / "run", *QUICK, *flags)
    saved = rk.load_recipe(tmp_path / "run" / "recipe.toml")
    assert (saved.optim.lr, saved.seed, saved.data.batch_size, saved.precision) == (0.025, 7, 32, "fp32")
    assert (saved.model.name, saved.steps, saved.epochs, saved.model.widths) == ("resnet32", 3, None, (8, 16))
    assert saved.optim.weight_decay == rk.load_recipe("digits").optim.weight_decay


def test_summary_prints_what_the_tutorial_prints_by_hand(cli) -> None:
    done = cli("summary", "d2l_resnet18", "--image-size", 96)
    for row in ("64 x 24 x 24", "128 x 12 x 12", "256 x 6 x 6", "512 x 3 x 3", "11,178,378"):
        assert row in done.out
    report = json.loads(cli("summary", "resnet50", "--json").out)
    assert (report["parameters"], report["multiply_adds"]) == (25_557_032, 4_089_184_256)
    changed = json.loads(cli("summary", "resnet34", "--model.shortcut", "A", "--json").out)
    assert changed["parameters"] < 21_797_672


def test_summary_of_a_run(digits_run: Path, cli) -> None:
    report = json.loads(cli("summary", digits_run, "--json").out)
    assert report["image_size"] == [8, 8]


SUMMARIES = {
    "resnet20": "resnet20, input 3 x 32 x 32",
    "resnet20 --model.depths 1,1,1": "resnet20 changed: depths 1,1,1 (8 layers), input 3 x 32 x 32",
    "resnet18 --model.name resnet18": "resnet18, input 3 x 224 x 224",
    "resnet8.digits": "resnet8.digits: resnet20 changed: depths 1,1,1, widths 32,64,128, stem_width 32 (8 layers)",
    "resnet50.a3_in1k": "resnet50.a3_in1k: resnet50, input 3 x 160 x 160",
    "run": "run: resnet20 changed: depths 1,1, widths 8,16, strides 1,2, stem_width 8 (6 layers), input 1 x 8 x 8",
    "run/model": "run/model: resnet20 changed: depths 1,1, widths 8,16",
}


@pytest.mark.parametrize("words", SUMMARIES)
def test_summary_takes_whatever_has_a_network_and_says_how_it_was_changed(
    words: str, digits_run: Path, tmp_path: Path, cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(digits_run, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert cli("summary", *words.split()).out.startswith(SUMMARIES[words])


def test_training_says_how_its_network_was_changed(tmp_path: Path, cli) -> None:
    said = cli("train", "--out", tmp_path / "run", *QUICK).err
    assert "resnet20 changed: depths 1,1, widths 8,16, strides 1,2, stem_width 8 (6 layers)" in said


@pytest.mark.parametrize("words", ["list models", "summary resnet152", "list weights"])
def test_what_computes_nothing_takes_less_than_two_seconds_of_the_processor(words: str) -> None:
    code = (
        "import sys, time; from resnetkit.cli.app import main\n"
        f"try: main({words.split()!r})\n"
        "except SystemExit: print(time.process_time(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert float(done.stderr) < 2


@pytest.mark.parametrize("kind", ["recipes", "weights", "data"])
def test_lists(kind: str, cli) -> None:
    rows = json.loads(cli("list", kind, "--json").out)[kind]
    expected = {"recipes": "cifar10-paper", "weights": "resnet50.imagenet1k_v2", "data": "digits"}
    assert expected[kind] in {row["name"] for row in rows}
    assert expected[kind] in cli("list", kind).out


def test_list_models_shows_size_work_source_and_weights(cli) -> None:
    rows = {row["name"]: row for row in json.loads(cli("list", "models", "--json").out)["models"]}
    assert list(rows) == rk.list_models()
    assert rows["resnet50"]["multiply_adds"] == 4_089_184_256
    assert (rows["resnet50"]["source"], rows["preact_resnet164"]["source"]) == ("He 2015", "He 2016")
    assert "resnet50.imagenet1k_v2" in rows["resnet50"]["weights"]
    assert rows["resnet20"]["weights"] == ["resnet20.cifar10"]
    assert rows["resnet32"]["weights"] == []


def test_check_reports_and_is_strict_only_when_asked(workshop: Path, cli) -> None:
    before = _tree(workshop)
    plain = cli("check", workshop / "lacks")
    assert plain.code == 0
    assert "green" in plain.out
    assert cli("check", workshop / "lacks", "--strict").code == 3
    report = json.loads(cli("check", workshop / "lacks", "--json").out)
    assert report["serious"]
    assert "missing-class" in report["counts"]
    assert cli("check", workshop / "empty").code == 3
    assert _tree(workshop) == before


def _tree(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


BAD_INPUT = {
    "unknown command": (("trian",), 2, 'Did you mean "train"'),
    "unknown data set": (("train", "digit"), 2, "unknown data set 'digit'. Try: digits"),
    "unknown model": (("train", "--model", "resnet19"), 2, "unknown model 'resnet19'. Try: resnet18"),
    "unknown recipe": (("train", "--recipe", "digitz"), 2, "unknown recipe 'digitz'. Try: digits"),
    "unknown flag": (("train", "--optim.lrr", 1), 2, "Did you mean --optim.lr"),
    "misspelt key": (("train", "--recipe", "bad.toml"), 2, "unknown key 'optim.lrr' in bad.toml. Try: optim.lr"),
    "out of range": (("train", "--optim.lr", -1), 2, "--optim.lr -1 cannot be: input should be greater than 0"),
    "not a number": (("train", "--epochs", "many"), 2, "many"),
    "two lengths": (("train", "--epochs", 2, "--steps", 9), 2, "one length"),
    "unknown device": (("train", "--device", "cuda:99"), 2, "device 'cuda:99' is not on this machine"),
    "empty folder": (("train", "empty"), 3, "it holds no image"),
    "no class folders": (("train", "flat"), 3, "in no class folder"),
    "one class": (("train", "one"), 3, "there is one class only (red)"),
    "class missing in val": (("train", "lacks"), 3, "the validation split has no image of green"),
    "missing folder": (("train", "no/such/folder"), 3, "no such folder"),
    "other run": (("train", "--out", "run"), 2, "the output folder holds another run in run. Try: --resume"),
    "out is a file": (("train", "--out", "bad.toml"), 2, "the output folder cannot be made in bad.toml: it is a file"),
    "changed recipe": (("train", "--resume", "--out", "run", "--seed", 5), 2, "seed has changed since the run began"),
    "resume what": (("train", "--resume"), 2, "the run to go on with is not named"),
    "set not there": (("train", "fashion-mnist", "--data-root", "empty"), 3, "fashion-mnist is not complete in empty"),
    "no model": (("evaluate", "empty", "digits"), 2, "there is no model in empty"),
    "damaged model": (("evaluate", "damaged", "digits"), 4, "the model is damaged in damaged/model/model.safetensors"),
    "damaged checkpoints": (
        ("train", "--resume", "--out", "damaged", "--steps", 9, "--allow-change", "steps"),
        4,
        "no checkpoint can be used",
    ),
    "unknown class": (("evaluate", "run", "lacks"), 3, "the classifier does not know blue, green, red"),
    "top 0": (("predict", "run", "flat", "--top", 0), 2, "--top 0 cannot be"),
    "size 0": (("summary", "resnet18", "--image-size", 0), 2, "0 x 0 px cannot be"),
    "weights of that name": (("summary", "resnet8"), 2, "Try: resnet8.digits or resnet8.fashion-mnist"),
    "change of weights": (("summary", "run", "--model.depths", 1), 2, "--model.depths cannot change run"),
    "hint that is not needed": (("predict", "run", "flat", "--size", 8), 2, "--size would change nothing in run"),
    "idle key": (("train", "--optim.momentum", 0.5, "--optim.name", "adam"), 2, "it needs --optim.name sgd"),
    "idle key of the head": (
        ("train", "one", "--recipe", "head", "--epochs", 3),
        2,
        "it needs --transfer.mode finetune",
    ),
    "idle flag": (("train", "--allow-change", "seed"), 2, "it needs --resume"),
    "two networks": (("train", "--model", "resnet20", "--model.name", "resnet32"), 2, "are two. Try: one of them"),
    "mean of three": (("train", "--data.mean", 0, 0, 0, "--data.std", 1, 1, 1), 2, "the images have 1 channels"),
    "unknown list": (("list", "model"), 2, "models"),
    "unknown weights": (("train", "--weights", "resnet18.imagenet1k_v9"), 2, "unknown weights"),
    "weights of another net": (("train", "--weights", "run/model", "--model", "resnet56"), 4, "of another network"),
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, digits_run: Path) -> Path:
    """A folder with one of everything that can be wrong."""
    root = tmp_path_factory.mktemp("workshop")
    (root / "bad.toml").write_text("[optim]\nlrr = 0.1\n")
    (root / "empty").mkdir()
    fill(root / "flat" / "inside", 1, ("red",))
    (root / "flat" / "inside" / "red" / "000.png").rename(root / "flat" / "000.png")
    shutil.rmtree(root / "flat" / "inside")
    fill(root / "one", 2, ("red",))
    fill(root / "lacks" / "train", 2)
    fill(root / "lacks" / "val", 2, ("red", "blue"))
    shutil.copytree(digits_run, root / "run")
    shutil.copytree(digits_run, root / "damaged")
    (root / "damaged" / "model" / "model.safetensors").write_bytes(b"rubbish")
    for folder in (root / "damaged" / "checkpoints").iterdir():
        (folder / "model.safetensors").write_bytes(b"rubbish")
    return root


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_an_exit_code_and_changes_nothing(
    case: str, workshop: Path, cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workshop)
    words, code, message = BAD_INPUT[case]
    before = _tree(workshop)
    done = cli(*words)
    assert message in done.err
    assert done.code == code
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert done.err.splitlines()[-1] == errors[0]
    assert len(errors[0]) <= 4 * 80
    assert done.out == ""
    assert _tree(workshop) == before


def test_an_unreadable_image_is_named_left_out_and_counted(photos: Path, tmp_path: Path, cli) -> None:
    (photos / "train" / "red" / "broken.jpg").write_bytes(b"<html>")
    words = ("train", photos, "--out", tmp_path / "run", "--model", "resnet20", "--data.image-size", 16, *QUICK)
    done = cli(*words, "--data.resize", 16, "--json", "--strict")
    assert done.code == 9
    assert json.loads(done.out)["unreadable"] == 1
    assert re.search(r"left out  .*broken.jpg: it is not an image \(it looks like HTML\)", done.err)


def test_no_space_left_is_one_line_and_keeps_what_was_saved(tmp_path: Path) -> None:
    """The kernel itself refuses to write more than 40 kB a file, which a checkpoint of this net needs."""
    words = ("train", "--out", tmp_path / "run", "--steps", 2)
    done = harness.run(*words, cwd=str(tmp_path), limits={resource.RLIMIT_FSIZE: 40_000})
    assert done.code == 7
    assert done.error.startswith("error: cannot save the checkpoint in ")
    assert "no space left. Try: free some space" in done.error
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [sys.executable, "-m", "resnetkit", "train", "--out", str(run), "--epochs", "500", *map(str, TINY)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    progress.until(lambda: list(run.glob("checkpoints/step-*")), process.pid)
    process.send_signal(signal.SIGINT)
    _, err = progress.finish(process)
    assert process.returncode == 130
    assert err.splitlines()[-1].endswith(f"Try: resnetkit train --resume --out {run}")
    assert "Traceback" not in err


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m resnetkit list recipes --json | true", shell=True, capture_output=True, text=True
    )
    assert done.stderr == ""


def test_the_garbage_collector_of_a_process_that_is_not_ours_is_left_alone(cli) -> None:
    before = gc.get_freeze_count()
    assert cli("evaluate", "no-such-model.pth", "digits").code == 2
    assert (gc.isenabled(), gc.get_freeze_count()) == (True, before)


def test_debug_shows_where_it_happened(tmp_path: Path) -> None:
    done = progress.run([sys.executable, "-m", "resnetkit", "trian", "--debug"])
    assert "Traceback" in done.stderr


def test_public_names_are_sorted_and_there() -> None:
    assert rk.__all__ == sorted(rk.__all__)
    for name in rk.__all__:
        assert getattr(rk, name) is not None


def test_the_version_is_the_newest_in_the_changelog() -> None:
    changelog = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
    assert re.search(r"^## (\S+)", changelog, re.MULTILINE)[1] == rk.__version__


@pytest.mark.parametrize("line", [line for line in COMMANDS_OF_THE_README if "verify-resume" not in line])
def test_every_command_of_the_readme_runs(line: str, photos: Path, digits_run: Path, cli, monkeypatch, request) -> None:
    """With smaller settings and small stand-ins for the folders that it names; one has a test of its own."""
    if "fashion-mnist" in line or "cifar10" in line:
        request.applymarker(pytest.mark.skipif("RESNETKIT_TEST_DATA" not in os.environ, reason="needs real data"))
    monkeypatch.chdir(photos.parent)
    shutil.copytree(digits_run, "runs/digits")
    Image.fromarray(load_data("digits").test.pixels[0, 0].numpy()).save("three.png")
    words = line.split("#")[0].split()[1:]
    if words[0] == "train":
        words = [word if before != "--epochs" else "1" for before, word in zip(["", *words], words, strict=False)]
        words += [*map(str, TINY if "--epochs" in words else QUICK), "--data.limit", "64", "--data.batch-size", "8"]
        words += ["--model", "resnet20"] if "photos/" in words else []
    assert cli(*words).code == 0
