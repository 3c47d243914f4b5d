import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import progress
from resnetkit.cli import demo
from resnetkit.errors import UsageError
from resnetkit.images import drawn


def test_the_demo_shows_what_was_spoilt_and_learns_the_rest(tmp_path: Path) -> None:
    done = progress.run([sys.executable, "-m", "resnetkit", "demo"], cwd=tmp_path, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    result = json.loads((tmp_path / "resnetkit-demo/run/metrics.jsonl").read_text().splitlines()[-1])
    for words in (
        "house/house-00.jpg",
        "boat/boat-00.jpg, tree/copy of boat-00.jpg: the bytes are the same",
        f"test top-1 {result['top1']:.2f} %",
        "88 more were seen in training and are not counted.",
        "Now your own",
    ):
        assert words in done.stdout
    # Of 88 pictures of four things, cross-validated: far beyond the quarter that guessing gives.
    assert result["cross_validation"]["top1"] > 70


def test_nothing_of_the_users_is_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match=r"the folder exists.*Try: --out with another name"):
        demo.demo_command(out=tmp_path / "mine")
    assert not list((tmp_path / "mine").iterdir())


def test_pictures_are_the_same_every_time_and_no_two_alike() -> None:
    pictures = [np.asarray(drawn.draw(thing, number)) for thing in drawn.THINGS for number in range(3)]
    again = np.asarray(drawn.draw("balloon", 0))
    assert np.array_equal(pictures[0], again)
    assert {picture.shape for picture in pictures} == {(drawn.SIDE, drawn.SIDE, 3)}
    for number, one in enumerate(pictures):
        for other in pictures[:number]:
            assert np.abs(one.astype(int) - other).mean() > 5
