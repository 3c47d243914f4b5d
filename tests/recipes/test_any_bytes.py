"""Any file taken for a recipe is one, or is refused in one line that names it."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import resnetkit as rk
from resnetkit.errors import UsageError

KEYS = st.sampled_from(
    ["base", "epochs", "steps", "seed", "data.mean", "model.depths", "optim.lr", "optim.warmup", "x"]
)
VALUES = st.sampled_from(
    [
        "1",
        "-1",
        "1e400",
        "nan",
        "inf",
        "[]",
        "[[1]]",
        "{}",
        "{a = 1}",
        "true",
        '"digits"',
        '"x"',
        "1979-05-27",
        "9" * 40,
    ]
)
LINES = st.lists(st.builds("{} = {}".format, KEYS, VALUES), max_size=4).map("\n".join)


def refused_or_read(path: Path) -> None:
    said = ""
    try:
        rk.load_recipe(path)
    except UsageError as error:
        said = str(error)
    assert said == "" or str(path) in said
    assert "\n" not in said
    assert len(said) < 1000


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=60), LINES.map(str.encode), st.text(max_size=60).map(str.encode)))
def test_any_bytes_are_a_recipe_or_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(content)
    refused_or_read(tmp_path / "r.toml")


@pytest.mark.parametrize(
    "content",
    [
        b"a = " + b"[" * 100_000,
        b"a = " + b"{b=" * 100_000,
        b"a = " + b"[\n" * 100_000,
        b"a." * 100_000 + b"b = 1",
        b"epochs = " + b"9" * 100_000,
        b"#" * (2 << 20),
        b"base = 3",
        b"base = []",
        b'base = ""',
        b'base = "nobody"',
        b"\xef\xbb\xbfepochs = 1",
    ],
    ids=[
        "brackets",
        "tables",
        "lines of brackets",
        "dots",
        "digits",
        "large",
        "base 3",
        "base []",
        "base empty",
        "base unknown",
        "mark",
    ],
)
def test_no_recipe_costs_more_than_a_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(content)
    refused_or_read(tmp_path / "r.toml")
