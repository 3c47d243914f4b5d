"""Shards and their descriptions as a stranger may have made them: one clean line, soon, in little memory."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from outside import End, read_outside, refused
from pictures import png, samples, write_tar
from resnetkit.data.load import load_data
from resnetkit.data.shards.index import find_index, make_index
from resnetkit.data.shards.read import open_shards
from resnetkit.errors import DataError

LABELS = [("0.png", png(0)), ("0.cls", b"0"), ("1.png", png(1)), ("1.cls", b"1")]


def _header(name: bytes = b"a.png", size: int | bytes = 0, kind: bytes = b"0", tail: bytes = b"") -> bytes:
    """A header of 512 bytes whose sum is right, whatever it says."""
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    parts = (name.ljust(100, b"\0"), b"0000644\0", b"0000000\0", b"0000000\0", field, b"00000000000\0")
    block = bytearray(b"".join(parts) + b" " * 8 + kind + bytes(100) + b"ustar\x0000" + tail).ljust(512, b"\0")
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _binary(size: int) -> bytes:
    """A size as GNU writes large and negative ones."""
    return (b"\xff" if size < 0 else b"\x80") + (size % (1 << 88)).to_bytes(11, "big")


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def _pax(*records: tuple[str, str], kind: bytes = b"x") -> bytes:
    text = b""
    for key, value in records:
        rest = f" {key}={value}\n".encode()
        length = len(rest) + len(str(len(rest) + 3))
        text += str(length).encode() + rest
    return _header(b"pax", len(text), kind) + _padded(text)


def _tar(members: list[tuple[str, bytes]] = LABELS) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


GOOD = _tar()[: 512 * 8]
"""Two samples, without the end mark."""
END = bytes(1024)
BODY = _header(size=4) + _padded(b"abcd")
MAP = _header(b"s.png", 512, b"S", bytes(482 - 265) + b"\x01" + b"%011o\0" % 512)


def _deep_json(brackets: bytes) -> bytes:
    return _tar([*LABELS, ("2.png", png(2)), ("2.json", brackets * 100_000)])


TARS: dict[str, Callable[[], bytes]] = {
    "size -512": lambda: GOOD + _header(size=_binary(-512)) + END,
    "size -1024, back to itself": lambda: _header(size=_binary(-1024)) + END,
    "size -2^80": lambda: GOOD + _header(size=_binary(-(2**80))) + END,
    "size 2^80": lambda: GOOD + _header(size=_binary(2**80)) + END,
    "size of 8 GiB": lambda: GOOD + _header(size=_binary(2**33)) + END,
    "size in octal digits that are none": lambda: GOOD + _header(size=b"-0000000512\0") + END,
    "size of letters": lambda: GOOD + _header(size=b"0x000000010\0") + END,
    "pax of 8 GiB": lambda: GOOD + _header(b"pax", _binary(2**33), b"x") + END,
    "pax of -1": lambda: GOOD + _header(b"pax", _binary(-1), b"x") + BODY + END,
    "pax of 2 MB": lambda: GOOD + _pax(("comment", "x" * 2_000_000)) + BODY + END,
    "pax size below 0": lambda: GOOD + _pax(("size", "-512")) + BODY + END,
    "pax size of 4,000 digits": lambda: GOOD + _pax(("size", "9" * 4000)) + BODY + END,
    "pax size beyond the file": lambda: GOOD + _pax(("size", "99999999999")) + BODY + END,
    "pax record of length 0": lambda: GOOD + _header(b"pax", 9, b"x") + _padded(b"0 path=a\n") + BODY + END,
    "pax record beyond its header": lambda: GOOD + _header(b"pax", 11, b"x") + _padded(b"999 path=a\n") + BODY + END,
    "pax of brackets": lambda: GOOD + _header(b"pax", 100_000, b"x") + _padded(b"[" * 100_000) + BODY + END,
    "pax before the end": lambda: GOOD + _pax(("path", "x.png")) + END,
    "pax for all, 3,000 times": lambda: GOOD + _pax(("a", "b"), kind=b"g") * 3_000 + BODY + END,
    "long name of -1": lambda: GOOD + _header(b"././@LongLink", _binary(-1), b"L") + BODY + END,
    "long name of -512": lambda: GOOD + _header(b"././@LongLink", _binary(-512), b"L") + BODY + END,
    "long link of -512": lambda: GOOD + _header(b"././@LongLink", _binary(-512), b"K") + BODY + END,
    "long name of 4 GiB": lambda: GOOD + _header(b"././@LongLink", _binary(2**32), b"L") + BODY + END,
    "3,000 long names": lambda: GOOD + (_header(b"././@LongLink", 2, b"L") + _padded(b"a\0")) * 3_000 + BODY + END,
    "long name before the end": lambda: GOOD + _header(b"././@LongLink", 2, b"L") + _padded(b"a\0") + END,
    "sparse map without end": lambda: GOOD + MAP + (bytes(504) + b"\x01" + bytes(7)) * 1000,
    "sparse of -512": lambda: GOOD + _header(b"s.png", _binary(-512), b"S") + END,
    "cut in a header": lambda: GOOD + _header()[:300],
    "no end": lambda: GOOD,
    "a sum that is wrong": lambda: GOOD + _header().replace(b"a.png", b"b.png") + END,
    "random bytes behind a member": lambda: GOOD + bytes(range(256)) * 4,
    "json of 100,000 brackets": lambda: _deep_json(b"["),
    "json of 100,000 braces": lambda: _deep_json(b'{"a":'),
    "json of 2 MB": lambda: _tar(
        [*LABELS, ("2.png", png(2)), ("2.json", b'{"label": 1, "x": "' + b"x" * 2_000_000 + b'"}')]
    ),
    "label of 100,000 digits": lambda: _tar(
        [*LABELS, ("2.png", b""), ("2.json", b'{"label": ' + b"9" * 100_000 + b"}")]
    ),
    "label that is a list": lambda: _tar([*LABELS, ("2.png", b""), ("2.json", b'{"label": [[[1]]]}')]),
    "json that is a list": lambda: _tar([*LABELS, ("2.png", b""), ("2.json", b"[1]")]),
    "json that is no UTF-8": lambda: _tar([*LABELS, ("2.png", b""), ("2.json", b'{"label": "\xff"}')]),
    "names of a megabyte": lambda: GOOD + _header(b"././@LongLink", 2**20 + 1, b"L") + bytes(2**20 + 512) + BODY + END,
}

SHARD = {"file": "train-0.tar", "samples": 2, "bytes": len(_tar()), "sha256": "0" * 64}


def _description(**changes: object) -> bytes:
    whole = {"format": "resnetkit shards 1", "classes": ["a", "b"], "splits": {"train": [SHARD]}, "left_out": {}}
    return json.dumps({key: value for key, value in (whole | changes).items() if value != "gone"}).encode()


DESCRIPTIONS: dict[str, Callable[[], bytes]] = {
    "no classes": lambda: _description(classes="gone"),
    "classes null": lambda: _description(classes=None),
    "nested classes": lambda: _description(classes=[["a"], ["b"]]),
    "classes of numbers": lambda: _description(classes=[0, 1]),
    "classes a text": lambda: _description(classes="ab"),
    "classes an object": lambda: _description(classes={"a": 0, "b": 1}),
    "a class of a megabyte": lambda: _description(classes=["a", "b" * 1_000_000]),
    "two million classes": lambda: _description(classes=["a"] * 2_000_000),
    "no splits": lambda: _description(splits="gone"),
    "splits null": lambda: _description(splits=None),
    "splits a list": lambda: _description(splits=[SHARD]),
    "a split null": lambda: _description(splits={"train": None}),
    "a split of numbers": lambda: _description(splits={"train": [1, 2]}),
    "a split of names": lambda: _description(splits={"train": ["train-0.tar"]}),
    "a split an object": lambda: _description(splits={"train": {"file": "train-0.tar"}}),
    "a file a number": lambda: _description(splits={"train": [SHARD | {"file": 7}]}),
    "a file null": lambda: _description(splits={"train": [SHARD | {"file": None}]}),
    "a file elsewhere": lambda: _description(splits={"train": [SHARD | {"file": "../../etc/passwd"}]}),
    "a file with a zero": lambda: _description(splits={"train": [SHARD | {"file": "a\0b"}]}),
    "a file of half a character": lambda: _description(splits={"train": [SHARD | {"file": "\ud800.tar"}]}),
    "a file of 5,000 letters": lambda: _description(splits={"train": [SHARD | {"file": "a" * 5000}]}),
    "no file": lambda: _description(splits={"train": [{"samples": 2, "bytes": 1}]}),
    "no samples": lambda: _description(splits={"train": [{"file": "train-0.tar", "bytes": 1}]}),
    "samples a text": lambda: _description(splits={"train": [SHARD | {"samples": "2"}]}),
    "samples below 0": lambda: _description(splits={"train": [SHARD | {"samples": -2}]}),
    "samples a fraction": lambda: _description(splits={"train": [SHARD | {"samples": 2.5}]}),
    "bytes null": lambda: _description(splits={"train": [SHARD | {"bytes": None}]}),
    "a number of 10,000 digits": lambda: _description().replace(b'"samples": 2', b'"samples": ' + b"9" * 10_000),
    "100,000 brackets": lambda: b"[" * 100_000,
    "100,000 brackets as classes": lambda: _description(classes=None).replace(b"null", b"[" * 100_000),
    "100,000 braces": lambda: b'{"a":' * 100_000,
    "ten million lists": lambda: _description(classes=None).replace(b"null", b"[" + b"[]," * 10_000_000 + b"0]"),
    "no UTF-8": lambda: b"\xff\xfe\xfd",
    "cut": lambda: _description()[:-20],
    "another number of samples": lambda: _description(splits={"train": [SHARD | {"samples": 3}]}),
    "a class too few": lambda: _description(classes=["a"]),
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], End]:
    """How each of the sets ends, all read in one process."""
    root, places = tmp_path_factory.mktemp("outside"), {}
    for kind, files in (("tar", TARS), ("json", DESCRIPTIONS)):
        for number, (name, content) in enumerate(files.items()):
            folder = places[kind, name] = root / f"{kind}{number}"
            folder.mkdir()
            (folder / "train-0.tar").write_bytes(content() if kind == "tar" else _tar())
            if kind == "json":
                (folder / "dataset.json").write_bytes(content())
    found = read_outside("resnetkit.data.load:load_data", list(places.values()))
    return {key: found[str(folder)] for key, folder in places.items()}


@pytest.mark.parametrize("name", TARS)
def test_a_shard_that_was_made_to_harm_is_refused_by_name(name: str, ends: dict[tuple[str, str], End]) -> None:
    said = refused(ends["tar", name], 3)
    assert "train-0.tar" in said
    assert "held out" not in said


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_description_of_a_wrong_shape_is_refused_by_name(name: str, ends: dict[tuple[str, str], End]) -> None:
    assert "dataset.json" in refused(ends["json", name], 3)


def test_the_set_that_these_are_made_from_is_read(tmp_path: Path) -> None:
    (tmp_path / "train-0.tar").write_bytes(_tar())
    (tmp_path / "dataset.json").write_bytes(_description())
    assert open_shards(str(tmp_path)).classes == ("a", "b")
    for more in (
        _pax(("path", "2.png"), ("size", "4")) + BODY,
        _header(b"././@LongLink", 6, b"L") + _padded(b"2.png\0"),
    ):
        (tmp_path / "a.tar").write_bytes(GOOD + more + (b"" if b"path" in more else BODY) + _padded(b"") + END)
        with pytest.raises(DataError, match=r"a picture has no label in .*a\.tar:2: its sample has \.png"):
            make_index(tmp_path / "a.tar")


def test_sizes_in_binary_are_read(tmp_path: Path) -> None:
    more = _header(b"2.png", _binary(4)) + _padded(b"abcd") + _header(b"2.cls", _binary(1)) + _padded(b"1")
    (tmp_path / "a.tar").write_bytes(GOOD + more + END)
    assert make_index(tmp_path / "a.tar").read(2) == b"abcd"


# Names with further dots


def _dotted(count: int) -> list[tuple[str, bytes]]:
    return [
        member for i in range(count) for member in ((f"p_{i}.v2.png", png(i)), (f"p_{i}.v2.cls", str(i % 2).encode()))
    ]


def test_samples_whose_names_hold_further_dots_are_read(tmp_path: Path) -> None:
    index = make_index(write_tar(tmp_path / "a.tar", samples(4, classes=2) + _dotted(4)))
    assert (index.count, index.left_out) == (8, 0)
    assert [index.read(row) for row in range(8)] == [png(i) for i in range(4)] * 2
    assert index.records()["label"].tolist() == [0, 1, 0, 1] * 2
    assert index.name(5) == f"{tmp_path / 'a.tar'}:p_1.v2.png"


def test_several_versions_of_one_key_are_samples_of_their_own(tmp_path: Path) -> None:
    members = [("a.png", png(0)), ("a.cls", b"0"), ("a.v1.cls", b"1"), ("a.v1.png", png(1)), ("a.v1.x.png", png(9))]
    members += [("a.v2.png", png(2)), ("a.v2.json", b'{"label": 0}')]
    index = make_index(write_tar(tmp_path / "a.tar", members))
    found = {index.read(row): int(index.records()["label"][row]) for row in range(index.count)}
    assert found == {png(0): 0, png(1): 1, png(2): 0}
    assert index.left_out == 1


def test_what_is_left_out_is_counted_and_named_whenever_the_set_is_opened(tmp_path: Path) -> None:
    members = [*LABELS, ("1.mask.png", png(2)), ("c.d.jpg", png(3)), ("c.d.txt", b"no label")]
    path = write_tar(tmp_path / "train-0.tar", members)
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("2.png")
        link.type, link.linkname = tarfile.SYMTYPE, "0.png"
        tar.addfile(link)
    said = f"3 pictures in the shards have no label of their own and are left out, such as {path}:1.mask.png"
    assert said in open_shards(str(tmp_path)).notes
    assert find_index(path).left_out == 3
    assert open_shards(str(tmp_path)).notes == [said]


def test_a_mask_beside_each_picture_hides_no_sample(tmp_path: Path) -> None:
    members = [("0.cls", b"0"), ("0.mask.png", png(7)), ("0.mask.jpg", png(8)), ("0.png", png(0))]
    index = make_index(write_tar(tmp_path / "a.tar", members))
    assert (index.count, index.read(0), index.left_out) == (1, png(0), 2)


@pytest.mark.parametrize("content", [b"a\r\nb\r\n", "a\nb".encode("utf-16"), b"\xef\xbb\xbfa\nb\n"])
def test_class_lists_of_other_editors_are_read(content: bytes, tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", samples(20, classes=2))
    (tmp_path / "classes.txt").write_bytes(content)
    assert load_data(str(tmp_path)).classes == ("a", "b")
