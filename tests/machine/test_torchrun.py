import subprocess
import sys
import time
from pathlib import Path

import pytest

from resnetkit.machine.ranks import Ranks, current
from resnetkit.machine.torchrun import Place, place


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, Place()),
        ({"RANK": "1"}, Place()),  # nobody says among how many
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Place(5, 8, 1)),
        ({"RANK": "0", "WORLD_SIZE": "2"}, Place(0, 2, 0)),
    ],
)
def test_the_place_is_what_torchrun_says(
    said: dict[str, str], expected: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert place() == expected
    assert current() == Ranks(expected.rank, expected.size, expected.local)
    assert (place().first, place().alone) == (expected.rank == 0, expected.size == 1)


def test_the_end_of_the_agent_before_the_kernel_was_asked_is_noticed(tmp_path: Path) -> None:
    """The agent starts a rank, ends once it is there, and the rank looks only then."""
    rank = f"""
import os, time
from pathlib import Path
from resnetkit.machine.torchrun import agent_gone
agent, said = os.getppid(), [agent_gone()]
Path({str(tmp_path / "there")!r}).touch()
while os.getppid() == agent:
    time.sleep(0.01)
Path({str(tmp_path / "said.tmp")!r}).write_text(repr([*said, agent_gone()]))
os.replace({str(tmp_path / "said.tmp")!r}, {str(tmp_path / "said")!r})
"""
    agent = f"""
import subprocess, sys, time
from pathlib import Path
subprocess.Popen([sys.executable, "-c", {rank!r}])
while not Path({str(tmp_path / "there")!r}).exists():
    time.sleep(0.01)
"""
    subprocess.run([sys.executable, "-c", agent], check=True)
    while not (tmp_path / "said").exists():
        time.sleep(0.01)
    assert (tmp_path / "said").read_text() == "[False, True]"
