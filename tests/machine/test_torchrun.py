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
