import pytest

from resnetkit.data.unreadable import FEW, too_many
from resnetkit.errors import DataError


@pytest.mark.parametrize(
    ("lost", "share", "count", "ranks", "expected"),
    [
        (FEW, 0.01, 10, 1, False),  # a few in any case
        (FEW + 1, 0.01, 10, 1, True),
        (12, 0.01, 1200, 1, False),
        (13, 0.01, 1200, 1, True),
        (6, 0.01, 1200, 2, False),  # a rank loses files of its own part only
        (7, 0.01, 1200, 2, True),
        (FEW, 0.0, 10**9, 1, False),
        (10, 1.0, 10, 1, False),  # all of them where all may be lost
    ],
)
def test_how_many_are_too_many(lost: int, share: float, count: int, ranks: int, expected: bool) -> None:
    assert too_many(lost, share, count, ranks) is expected


def test_the_reason_of_an_error_is_why_or_else_what() -> None:
    assert DataError("cannot read the image", file="a.png", why="the file is empty").reason == "the file is empty"
    assert DataError("there is one class only", file="photos").reason == "there is one class only"
