"""docs/first-hour.md: every command of a newcomer's first hour, in its order, against what it says there."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import progress

PAGE = Path(__file__).parents[1] / "docs" / "first-hour.md"
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
DEPENDS = re.compile(
    r"^(compute |time |more pictures |  points$|  the published head |  %$"
    r"|Most often |  \w+ answered as | (house|boat|balloon|tree) )"
)
"""Beginnings of lines that tell of the machine, or that a digit may turn into their opposite, and of their rests."""


def said(command: str, folder: Path) -> str:
    """What a command prints on a terminal of 80 columns, errors among it."""
    words = [sys.executable, "-m", "resnetkit", *shlex.split(command)[1:]]
    surroundings = os.environ | {"COLUMNS": "80", "RESNETKIT_CACHE": str(folder / "cache")}
    return progress.run(words, cwd=folder, env=surroundings, stderr=subprocess.STDOUT).stdout


def alike(text: str) -> list[str]:
    """Its words: numbers, and how the columns of a table are set for them, depend on the processor."""
    lines = [
        re.sub(r"(\d) best ", r"\1 ", line) for line in text.splitlines() if line.strip() and not DEPENDS.match(line)
    ]
    plain = re.sub(r"\b(fp32|bf16|fp16)\b", "PRECISION", "\n".join(lines))
    counted = re.sub(r"\d[\d,.:/]*", "N", plain).replace("─", "")
    return re.sub(r"\bN (s|min|h)\b", "TIME", counted).split()


def test_the_first_hour_holds_no_surprise(tmp_path: Path) -> None:
    assert len(BLOCKS) > 10
    for block in BLOCKS:
        first, _, expected = block.partition("\n")
        text = said(first.removeprefix("$ "), tmp_path)
        assert alike(text) == alike(expected), f"{first}\n{text}"
        assert max(map(len, text.splitlines()), default=0) <= 80 or "error: " in text, text
    # Of 88 drawn pictures of four things, cross-validated: far beyond the quarter that guessing gives.
    result = json.loads((tmp_path / "resnetkit-demo/run/metrics.jsonl").read_text().splitlines()[-1])
    assert result["cross_validation"]["top1"] > 70
