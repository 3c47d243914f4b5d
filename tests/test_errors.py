"""Errors as lines."""

from resnetkit.errors import DataError


def test_a_long_reason_is_cut_so_that_file_and_remedy_stay() -> None:
    error = DataError("it cannot be", file="photos/a.png", why="because " * 199 + "because", remedy="another")
    line = error.brief(300)
    assert len(line) <= 300
    assert line.startswith("it cannot be in photos/a.png: because because")
    assert line.endswith("…. Try: another")


def test_a_long_statement_is_cut_where_there_is_no_reason() -> None:
    line = DataError("no " * 199 + "no", file="photos/a.png", remedy="another").brief(300)
    assert len(line) <= 300
    assert line.endswith("… in photos/a.png. Try: another")


def test_what_fits_stays_as_it_is_and_a_path_is_never_cut() -> None:
    error = DataError("it cannot be", file="a/" * 300, why="no", remedy="another")
    assert error.brief(1000) == error.brief(300) == str(error)
