"""`--plugin`: what it may be, and that its errors are one line with file and line."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

import resnetkit as rk
from resnetkit.cli.plugin import load_plugin
from resnetkit.errors import HookError, UsageError


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch):
    """What is imported by a test goes again."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("plugin_"):
            del sys.modules[name]


def test_a_file_and_a_module_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_one.py").write_text("from plugin_beside import loss\ncallbacks = []\nother = 3\n")
    (tmp_path / "plugin_beside.py").write_text("def loss(logits, targets): ...\n")
    found = load_plugin(str(tmp_path / "plugin_one.py"))
    assert sorted(found) == ["callbacks", "loss"]
    assert found["loss"].__module__ == "plugin_beside"  # what a process that decodes has to find
    monkeypatch.chdir(tmp_path)
    assert load_plugin("plugin_one") == found


WRONG = {
    "syntax": ("def loss(:\n", r"the plugin .* failed in .*plugin_syntax.py, line 1: SyntaxError: "),
    "raises": ("x = 1\ny = x / 0\n", r"the plugin .* failed in .*plugin_raises.py, line 2: ZeroDivisionError: div"),
    "inside": ("import json\njson.loads('')\n", r"the plugin .* failed in .*plugin_inside.py, line 2: JSONDecodeError"),
    "misses": ("\nimport plugin_none\n", r"the plugin .* failed in .*plugin_misses.py, line 2: ModuleNotFoundError"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_plugin_that_cannot_be_imported_names_file_and_line(name: str, tmp_path: Path) -> None:
    text, said = WRONG[name]
    (tmp_path / f"plugin_{name}.py").write_text(text)
    with pytest.raises(HookError, match=said) as caught:
        load_plugin(str(tmp_path / f"plugin_{name}.py"))
    assert caught.value.exit_code == 2


def test_a_plugin_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plugin_empty.py").write_text("losses = 3\n")
    with pytest.raises(UsageError, match=r"nothing for a run in .*plugin_empty.py: a plugin has some of network, loss"):
        load_plugin(str(tmp_path / "plugin_empty.py"))
    with pytest.raises(UsageError, match=r"there is no plugin in .*nowhere.py"):
        load_plugin(str(tmp_path / "nowhere.py"))
    with pytest.raises(UsageError, match=r"the plugin plugin_nowhere failed: ModuleNotFoundError"):
        load_plugin("plugin_nowhere")
    (tmp_path / "json.py").write_text("callbacks = []\n")
    with pytest.raises(UsageError, match=r"another module is called json .*Try: rename json.py"):
        load_plugin(str(tmp_path / "json.py"))


def test_the_command_line_trains_with_it(tmp_path: Path, cli) -> None:
    (tmp_path / "plugin_run.py").write_text(
        "class Says:\n    def on_end(self, run, figures):\n        print('ended at', run.step)\ncallbacks = [Says()]\n"
    )
    words = ("train", "digits", "--steps", 2, "--data.limit", 100, "--out", tmp_path / "run")
    done = cli(*words, "--plugin", tmp_path / "plugin_run.py")
    assert done.code == 0
    assert "ended at 2" in done.out


def test_a_model_with_a_network_of_the_plugin_is_used_on_the_command_line(tmp_path: Path, cli) -> None:
    plugin = tmp_path / "plugin_net.py"
    plugin.write_text("from torch import nn\nnetwork = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n")
    (tmp_path / "plugin_bare.py").write_text("callbacks = []\n")
    (tmp_path / "plugin_five.py").write_text("network = lambda: 5\n")
    run, picture = tmp_path / "run", tmp_path / "three.png"
    words = ("train", "digits", "--plugin", plugin, "--steps", 20, "--data.limit", 100, "--out", run, "--json")
    figures = json.loads(cli(*words).out)
    again = json.loads(cli("evaluate", run, "digits", "--plugin", plugin, "--json").out)
    assert (again["top1"], again["count"]) == (figures["top1"], figures["count"])
    assert again["loss"] == pytest.approx(figures["loss"], rel=1e-6)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture)
    assert json.loads(cli("predict", run, picture, "--plugin", plugin, "--json").out)["label"] in "0123456789"
    assert rk.load(run, network=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10))).classes == tuple("0123456789")
    for flags, code, said in (
        ((), 4, "or --plugin FILE"),
        (("--plugin", tmp_path / "plugin_bare.py"), 2, "the plugin has no network"),
        (("--plugin", tmp_path / "plugin_five.py"), 2, "gives a int. Try: a torch.nn.Module"),
    ):
        done = cli("predict", run, picture, *flags)
        assert (done.code, said in done.err) == (code, True), done.err
    done = cli("evaluate", "resnet8.digits", "digits", "--plugin", plugin)
    assert (done.code, "one of ours" in done.err) == (4, True), done.err


def test_verify_resume_hands_its_plugin_on(cli) -> None:
    done = cli("verify-resume", "--plugin", "nowhere.py")
    assert (done.code, "there is no plugin in nowhere.py" in done.err) == (2, True), done.err
