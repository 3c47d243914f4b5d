from pathlib import Path

import numpy as np
import pytest

from resnetkit.cli import demo
from resnetkit.errors import UsageError
from resnetkit.images import drawn


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
