"""What the README tells people to type."""

import re
from pathlib import Path

TEXT = (Path(__file__).parents[1] / "README.md").read_text()
LINES = [line for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
COMMANDS_OF_THE_README = [line[2:] for line in LINES if line.startswith("$ resnetkit")]
