"""IPython is not among what tests need; a stand-in for `IPython.display.display` keeps what it is handed, as its
documentation has it: a bundle for each output, and a handle that replaces the output that it was given for."""

import builtins
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import resnetkit as rk
from conftest import TINY
from pictures import fill
from resnetkit.machine.console import Reporter


class Handle:
    """One output of a cell, with every state that it was in."""

    def __init__(self, bundle: dict[str, str]) -> None:
        self.states = [bundle]

    def update(self, bundle: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.states.append(bundle)


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> list[Handle]:
    """The outputs of the cell that is running, in what rich takes for a notebook."""
    shown: list[Handle] = []

    def display(bundle: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        assert raw
        assert display_id
        shown.append(Handle(bundle))
        return shown[-1]

    package, module = ModuleType("IPython"), ModuleType("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    return shown


def test_a_run_is_one_output_with_one_bar_and_one_epoch(outputs: list[Handle], tmp_path: Path, capfd) -> None:
    rk.train("digits", out=tmp_path / "run", epochs=3, **TINY)
    (output,) = outputs
    bars = [state["text/html"].count("<progress") for state in output.states]
    assert max(bars) == 1
    assert bars[-1] == 0
    epochs = [len(re.findall(r"^ +\d+/3 ", state["text/plain"], re.M)) for state in output.states]
    assert set(epochs) == {0, 1}
    assert "test top-1" in output.states[-1]["text/plain"]
    assert capfd.readouterr().err == ""


def test_a_quiet_run_shows_nothing(outputs: list[Handle], tmp_path: Path) -> None:
    rk.train("digits", out=tmp_path / "run", steps=2, quiet=True, **TINY)
    assert not outputs


def test_what_a_stranger_named_is_text(outputs: list[Handle]) -> None:
    reporter = Reporter()
    reporter.line("<script>alert(1)</script>\x1b[8m")
    with reporter.progress(10, 0, unit="<b>") as move:
        move(3)
    (output,) = outputs
    for state in output.states:
        assert "<script" not in state["text/html"]
        assert "<b>" not in state["text/html"]
        assert "\x1b" not in state["text/plain"]


@pytest.mark.parametrize("kind", ["classifier", "recipe", "summary"])
def test_an_object_is_shown_as_a_short_table(kind: str, digits_run: Path) -> None:
    one = rk.load(digits_run)
    shown = {"classifier": one, "recipe": rk.load_recipe("digits"), "summary": rk.summarise(one.network.arch, 8)}[kind]
    html = shown._repr_html_()
    assert html.startswith("<table>")
    assert len(html) < 3000
    expected = {
        "classifier": ["resnet20", "0, 1, 2", f"top-1 {one.metrics['validation']['top1']:.2f} %", "parameters"],
        "recipe": ["<th style='text-align:left'>optim.lr</th>", "0.1", "data.batch_size"],
        "summary": ["<td>layer1</td>", f"{sum(p.numel() for p in one.network.parameters()):,}"],
    }
    for part in expected[kind]:
        assert part in html
    assert "Conv2d" not in repr(shown)


def test_names_of_classes_and_folders_are_escaped(tmp_path: Path) -> None:
    fill(tmp_path / "<i>photos", 6, ("blue", "red"))
    (tmp_path / "<i>photos" / "red").rename(tmp_path / "<i>photos" / "<b>red&")
    settings = {"steps": 1, "data": {"batch_size": 4}, "model": {"name": "resnet20", **TINY["model"]}}
    one = rk.train(tmp_path / "<i>photos", "scratch", out=tmp_path / "run", quiet=True, **settings)
    html = one._repr_html_()
    assert "&lt;b&gt;red&amp;" in html
    assert "<b>" not in html
    assert "<i>" not in html
    assert len(repr(one)) < 600
