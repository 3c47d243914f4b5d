"""docs/hooks.md: every example is run as it stands."""

import re
from pathlib import Path

import pytest

import resnetkit as rk

TEXT = (Path(__file__).parents[1] / "docs" / "hooks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|toml|console)\n(.*?)```", TEXT, re.DOTALL)
PYTHON = {re.search(r"runs/(\w+)", text)[1]: text for kind, text in BLOCKS if kind == "python" and "rk.train" in text}
COMMANDS = [text.strip().removeprefix("$ ") for kind, text in BLOCKS if kind == "console"]
FILES = {text.splitlines()[0].removeprefix("# "): text for _, text in BLOCKS if text.startswith("# ")}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text)


def test_there_is_an_example_of_each() -> None:
    assert list(PYTHON) == ["network", "loss", "transform", "optimizer", "callbacks"]
    assert list(FILES) == ["bright.toml", "mine.py"]
    assert [re.search(r"runs/(\w+)", command)[1] for command in COMMANDS] == ["early", "plugin"]


@pytest.mark.parametrize("name", PYTHON)
def test_an_example_in_python(name: str, capfd) -> None:
    exec(compile(PYTHON[name], "docs/hooks.md", "exec"), {"__name__": "example"})
    said = capfd.readouterr().err
    assert (Path("runs") / name / "model" / "config.json").is_file()
    if name == "callbacks":
        assert "stopped at epoch" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_an_example_on_the_command_line(command: str, cli) -> None:
    done = cli(*command.split()[1:])
    assert done.code == 0, done.err
    assert re.search(r"model: .*in runs/", done.out)
    assert ("stopped at epoch" in done.err) == ("early" in command)


def test_the_recipe_with_augmentations_by_name() -> None:
    trained = rk.train("digits", "bright.toml", out="runs/bright", quiet=True)
    assert trained.recipe["augment"]["extra"][0] == ["ColorJitter", {"brightness": 0.4}]
