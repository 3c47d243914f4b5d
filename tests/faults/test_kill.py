"""T1 and T2: killed anywhere, the same command with --resume gives the same run to the bit."""

import random
import re
import shutil
from functools import partial
from pathlib import Path

import pytest

from faults import plants
from faults.harness import run
from faults.runs import VARIANTS, assert_same, begin, points, whole

DEFAULT_POINTS = {"memory": 30, "drop path": 4, "fp16": 3, "folder": 4, "workers": 4}


def kill_and_resume(variant: str, number: int, home: Path) -> None:
    labels, out = points(variant, home), home / "killed"
    where = f"{variant}, point {number} of {len(labels)}: {labels[number]}"
    settings = begin(variant, home, out)
    assert run(direct=settings, plant=partial(plants.at, out, number, plants.kill)).code == -9, where
    ended = run(direct=settings | {"resume": True})
    assert ended.code == 0, f"{where}\n{ended.err}"
    steps = labels[: number + 1].count("after update")
    resumed = re.search(r"resumed +at step (\d+)", ended.err)
    assert steps - int(resumed[1] if resumed else 0) <= VARIANTS[variant]["checkpoint"]["every_steps"], (
        f"{where}: too much is lost"
    )
    try:
        assert_same(out, whole(variant, home))
    except AssertionError as error:
        raise AssertionError(where) from error
    shutil.rmtree(out)


def spread(labels: list[str], count: int) -> list[int]:
    """Points of all kinds: of each kind of label in turn another one, drawn once and for all."""
    kinds: dict[str, list[int]] = {}
    for number in random.Random(0).sample(range(len(labels)), len(labels)):
        kinds.setdefault(re.sub(r"\d+|checkpoints/\S+?(/|$)", "", labels[number]), []).append(number)
    turns = [list(members) for members in kinds.values()]
    chosen: list[int] = []
    while len(chosen) < min(count, len(labels)):
        for members in turns:
            if members and len(chosen) < count:
                chosen.append(members.pop())
    return sorted(chosen)


@pytest.mark.parametrize("variant", DEFAULT_POINTS)
def test_killed_at_points_of_all_kinds_and_resumed(variant: str, home: Path) -> None:
    for number in spread(points(variant, home), DEFAULT_POINTS[variant]):
        kill_and_resume(variant, number, home)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("variant", DEFAULT_POINTS)
def test_killed_at_every_point_and_resumed(variant: str, home: Path) -> None:
    for number in range(len(points(variant, home))):
        kill_and_resume(variant, number, home)
