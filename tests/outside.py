"""Files from outside, read in a child process that may take only so much memory and processor time."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SECONDS = 10
"""Of processor time a file: what hangs would take them all, and what ends takes a fraction."""
MEMORY = 1 << 30
"""More than the process had when it began; what any of these files may cost is far below."""

CHILD = """
import importlib, json, resource, sys, time
from resnetkit.errors import ResnetkitError
module, name = sys.argv[1].split(":")
read = getattr(importlib.import_module(module), name)
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv[2]), resource.RLIM_INFINITY))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for file in json.load(sys.stdin):
    began = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (int(began) + int(sys.argv[3]), resource.RLIM_INFINITY))
    try:
        read(file)
        code, said = 0, ""
    except ResnetkitError as error:
        code, said = error.exit_code, str(error)
    except Exception as error:
        code, said = 1, f"{type(error).__name__}: {error}"[:300]
    print(json.dumps([file, code, said, time.process_time() - began]), flush=True)
"""


@dataclass
class End:
    """How the reading of one file ended. `code` is None where the process did not live to say it."""

    code: int | None
    said: str
    seconds: float = 0.0


def read_outside(reader: str, files: list[Path]) -> dict[str, End]:
    """How `reader`, MODULE:FUNCTION, ends on each file, by its path; where one kills the process, another goes on."""
    ends: dict[str, End] = {}
    waiting = [str(file) for file in files]
    while waiting:
        child = subprocess.run(
            [sys.executable, "-c", CHILD, reader, str(MEMORY), str(SECONDS)],
            input=json.dumps(waiting),
            capture_output=True,
            text=True,
            check=False,
        )
        for line in child.stdout.splitlines():
            file, code, said, seconds = json.loads(line)
            ends[file] = End(code, said, seconds)
        waiting = [file for file in waiting if file not in ends]
        if waiting:
            assert child.returncode < 0, child.stderr
            ends[waiting.pop(0)] = End(None, f"killed by signal {-child.returncode}")
    return ends


def refused(end: End, code: int) -> str:
    """What was said of a file that was refused in one clean line, with this exit code, at little cost."""
    assert end.code == code, end.said
    assert "\n" not in end.said
    assert len(end.said) < 1000
    assert end.seconds < SECONDS / 2
    return end.said
