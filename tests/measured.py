"""What reading pictures costs: memory and processor time, measured in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

from pictures import draw

MEASURE = """
import gc, json, resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from resnetkit.errors import DataError
from resnetkit.images.preprocess import Preprocess
from resnetkit.images.reading import check_header

def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_maxrss // 1024, usage.ru_utime + usage.ru_stime

preprocess = Preprocess(224, (0.5,) * 3, (0.5,) * 3, resize=256)
preprocess.read(sys.argv[1])  # everything is imported
base = used()[0]

def outcome(file):
    try:
        check_header(file)
        preprocess.read(file)
        return ""
    except DataError as error:
        assert str(error.file) == file
        return error.why

for files in json.loads(sys.argv[2]):
    before = used()[1]
    with ThreadPoolExecutor(len(files)) as pool:
        why = list(pool.map(outcome, files))
    print(json.dumps([why, used()[0] - base, used()[1] - before]), flush=True)
"""


def measure(tmp_path: Path, *files: list[Path]) -> list[tuple[list[str], int, float]]:
    """Of each list of files, read at the same time: why they are refused, MiB at the peak so far, seconds."""
    draw("red", 0).save(tmp_path / "first.png")
    given = json.dumps([[str(file) for file in group] for group in files])
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "first.png"), given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]
