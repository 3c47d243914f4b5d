"""Any bytes as a shard or its description: a result or one of our errors, and nothing else."""

import contextlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pictures import samples, write_tar
from resnetkit.data.shards.index import make_index
from resnetkit.data.shards.read import open_shards
from resnetkit.data.tar import TarError, iter_members
from resnetkit.errors import ResnetkitError

FEW = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tar(tmp_path_factory.mktemp("any") / "train-0.tar", samples(2)).parent


def _archive(kind: int, members: list[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300).filter(
    lambda name: name == name.strip("/")
)


@FEW
@given(
    kind=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    members=st.lists(st.tuples(NAMES, st.binary(max_size=1200)), max_size=4),
)
def test_what_tarfile_writes_is_read_as_tarfile_reads_it(folder: Path, kind: int, members: list) -> None:
    (folder / "t").write_bytes(_archive(kind, members))
    with (folder / "t").open("rb") as stream, tarfile.open(folder / "t") as tar:
        ours = [(member.name, member.offset, member.data, member.size) for member in iter_members(stream)]
        assert ours == [(each.name, each.offset, each.offset_data, each.size) for each in tar.getmembers()]


@FEW
@given(st.data())
def test_a_shard_with_bytes_changed_is_read_or_refused(folder: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    long = "ä" * 120 if kind != tarfile.USTAR_FORMAT else "b"
    content = bytearray(_archive(kind, [("0.png", b"x" * 700), ("0.json", b'{"label": 1}'), (f"{long}.cls", b"2")]))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=12))
        content[place : place + len(patch)] = patch
        if data.draw(st.booleans()):  # a sum that is right lets the change through
            header = place // 512 * 512
            content[header + 148 : header + 156] = b" " * 8
            content[header + 148 : header + 156] = b"%06o\0 " % sum(content[header : header + 512])
    (folder / "t").write_bytes(content)
    with contextlib.suppress(ResnetkitError):
        make_index(folder / "t")


@FEW
@given(st.binary(max_size=3000))
def test_any_bytes_are_a_shard_or_refused(folder: Path, content: bytes) -> None:
    (folder / "t").write_bytes(content)
    with (folder / "t").open("rb") as stream, contextlib.suppress(TarError):
        list(iter_members(stream))
    with contextlib.suppress(ResnetkitError):
        make_index(folder / "t")


@FEW
@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_description_is_read_or_refused(folder: Path, content: bytes) -> None:
    (folder / "dataset.json").write_bytes(content)
    with contextlib.suppress(ResnetkitError):
        open_shards(str(folder))


@FEW
@given(st.data())
def test_a_description_with_a_value_changed_is_read_or_refused(folder: Path, data: st.DataObject) -> None:
    entry = {"file": "train-0.tar", "samples": 2, "bytes": 10240, "sha256": ""}
    whole = {"format": "resnetkit shards 1", "classes": ["a", "b"], "splits": {"train": [entry]}}
    place = data.draw(st.sampled_from([whole, whole["splits"], entry]))
    place[data.draw(st.sampled_from(list(place)))] = data.draw(VALUES)
    (folder / "dataset.json").write_text(json.dumps(whole))
    with contextlib.suppress(ResnetkitError):
        open_shards(str(folder))
