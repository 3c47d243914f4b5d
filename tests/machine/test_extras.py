import json
import tomllib
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from resnetkit.machine.extras import with_extra

ROOT = Path(__file__).parents[2]
LOCAL = {"url": "file:///home/ada/my%20code", "dir_info": {}}


@pytest.mark.parametrize(
    ("tool", "origin", "command"),
    [
        ("pip", None, "pip install 'resnetkit[report]'"),
        ("uv", None, "uv pip install 'resnetkit[report]'"),
        ("pip", LOCAL, "pip install '/home/ada/my code[report]'"),
        ("uv", LOCAL | {"dir_info": {"editable": True}}, "uv sync --extra report"),
        ("pip", LOCAL | {"dir_info": {"editable": True}}, "pip install '/home/ada/my code[report]'"),
    ],
)
def test_the_command_is_that_of_the_tool_that_installed_us(
    tool: str, origin: dict | None, command: str, tmp_path: Path
) -> None:
    """From the records that installers leave: the file INSTALLER, and direct_url.json (PEP 610)."""
    (tmp_path / "METADATA").write_text("Metadata-Version: 2.1\nName: resnetkit\nVersion: 0.1.0\n")
    (tmp_path / "INSTALLER").write_text(f"{tool}\n")
    if origin is not None:
        (tmp_path / "direct_url.json").write_text(json.dumps(origin))
    assert with_extra("report", Distribution.at(tmp_path)) == command


def test_every_extra_is_used() -> None:
    """One that nothing imports promises what is not there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    for name, packages in extras.items():
        for package in packages if name != "all" else ():
            assert package.partition(">=")[0].replace("-", "_") in source, (name, package)
