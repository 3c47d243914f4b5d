"""An AVIF costs no more than its streams are seen to hold. Oracles: Pillow's encoder, and the specification of AV1."""

import io
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from measured import measure
from resnetkit.errors import DataError
from resnetkit.images import avif, budget
from resnetkit.images.avif import Coded, read_coded
from resnetkit.images.reading import check_header, read_image


def encode(side: int, frames: int = 1, mode: str = "RGB") -> bytes:
    stream, picture = io.BytesIO(), Image.new(mode, (side, side), (255, 0, 0, 128)[: len(mode)])
    more = {"save_all": True, "append_images": [picture] * (frames - 1)} if frames > 1 else {}
    picture.save(stream, "AVIF", speed=10, **more)
    return stream.getvalue()


def stream_of(file: bytes) -> bytes:
    """The AV1 streams of a file, which are what its last box holds."""
    return file[file.index(b"mdat") + 4 :]


def units(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and bytes of each OBU, of less than 16 KiB."""
    at = 0
    while at < len(stream):
        low, high = stream[at + 1], stream[at + 2] if stream[at + 1] & 128 else 0
        size = 2 + (low & 127) + (high << 7) + (low >> 7)
        yield stream[at] >> 3 & 15, stream[at : at + size]
        at += size


def box(kind: bytes, *parts: bytes, full: int | None = None) -> bytes:
    body = (b"" if full is None else full.to_bytes(4, "big")) + b"".join(parts)
    return (len(body) + 8).to_bytes(4, "big") + kind + body


def short(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(2, "big") for number in numbers)


def long(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in numbers)


def build(path: Path, stream: bytes, side: int, across: int = 1, pieces: int = 1) -> Path:
    """A grid of `across` x `across` tiles that says to be of `side` pixels; all share one stream, in `pieces`."""
    tiles = list(range(2, 2 + across * across))
    kinds = [(1, b"grid\0"), *((number, b"av01\0") for number in tiles)]
    about = box(b"iinf", short(len(kinds)), *(box(b"infe", short(n, 0), k, full=2 << 24) for n, k in kinds), full=0)
    colours = box(b"colr", b"nclx", short(1, 13, 6), b"\x80")
    common = [box(b"pixi", b"\3\x08\x08\x08", full=0), box(b"av1C", b"\x81\0\x0c\0"), colours]
    sizes = [box(b"ispe", long(each, each), full=0) for each in (side // across, side)]
    owned = [short(1) + b"\3\5\2\4", *(short(number) + b"\4\1\2\x83\4" for number in tiles)]
    owned_box = box(b"ipma", long(len(owned)), *owned, full=0)
    properties = box(b"iprp", box(b"ipco", sizes[0], *common, sizes[1]), owned_box)
    parts = box(b"iref", box(b"dimg", short(1, len(tiles), *tiles)), full=0)
    grid = bytes((0, 1, across - 1, across - 1)) + long(side, side)
    cuts = [len(stream) * piece // pieces for piece in range(pieces + 1)]

    def head(begin: int) -> bytes:
        """`begin` is where the pixels begin, behind the head."""
        extents = b"".join(long(begin + a, b - a) for a, b in pairwise(cuts))
        places = [short(1, 0, 1) + long(begin - len(grid), len(grid))]
        places += [short(number, 0, pieces) + extents for number in tiles]
        where = box(b"iloc", b"\x44\0", short(len(places)), *places, full=0)
        start = box(b"hdlr", bytes(4), b"pict", bytes(13), full=0) + box(b"pitm", short(1), full=0)
        kind = box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf")
        return kind + box(b"meta", start, where, about, properties, parts, full=0)

    begin = len(head(len(grid))) + 8 + len(grid)
    path.write_bytes(head(begin) + box(b"mdat", grid, stream))
    return path


@pytest.mark.parametrize(
    ("file", "coded"),
    [
        (encode(72), Coded(72 * 72, 1, 72 * 72)),
        (encode(72, mode="RGBA"), Coded(72 * 72, 1, 2 * 72 * 72)),
        (encode(72, frames=4), Coded(72 * 72, 1, 2 * 72 * 72)),
    ],
    ids=["still", "transparent", "film"],
)
def test_streams_hold_what_the_encoder_was_given(file: bytes, coded: Coded) -> None:
    """Transparency is a stream of its own; of a film, which has its first picture twice, only that is read."""
    assert read_coded(io.BytesIO(file)) == coded
    assert read_image("a.avif", stream=io.BytesIO(file)).size == (72, 72)


def test_a_grid_is_read(tmp_path: Path) -> None:
    file = build(tmp_path / "a.avif", stream_of(encode(64)), 128, across=2, pieces=3)
    image = read_image(file)
    assert image.size == (128, 128)
    red, green, blue = image.getpixel((100, 20))
    assert red > 200 > 60 > max(green, blue)
    with file.open("rb") as stream:
        assert read_coded(stream) == Coded(64 * 64, 1, 4 * 64 * 64)


def test_tiles_that_hold_more_than_they_say_cost_nothing(tmp_path: Path) -> None:
    """400 tiles of 64 x 64 pixels share one stream of 2048 x 2048: 18 kB, and 20 s of a decoder's time."""
    stream = stream_of(encode(2048))
    hostile = build(tmp_path / "hostile.avif", stream, 20 * 64, across=20)
    usual = build(tmp_path / "usual.avif", stream, 2048)
    assert hostile.stat().st_size < 20_000
    found = measure(tmp_path, [hostile], [usual])
    (why, grown, seconds), (fine, *_) = found
    assert why == ["it has 1,638,400 pixels, and its decoder goes over 1,677,721,600"]
    assert grown < 100
    assert seconds < 1
    assert fine == [""]


def test_memory_is_that_of_what_the_stream_holds(tmp_path: Path, monkeypatch) -> None:
    file = build(tmp_path / "a.avif", stream_of(encode(2048)), 64)
    monkeypatch.setenv(budget.BYTES, "4e7")
    for look in (read_image, check_header):
        with pytest.raises(DataError, match="the image is too large"):
            look(file)


def test_frames_are_counted_whether_they_are_shown_or_not(tmp_path: Path) -> None:
    """A picture of 256 x 256 and what makes another one of it, 4,000 times."""
    found = list(units(stream_of(encode(256, frames=4))))
    further = next(unit for kind, unit in found[3:] if kind == 6)
    file = build(tmp_path / "a.avif", b"".join(unit for _, unit in found[:3]) + further * 4000, 256)
    with pytest.raises(DataError, match=r"it has 65,536 pixels, and its decoder goes over 262,\d{3},\d{3}\. Try"):
        check_header(file)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda file: build(file, stream_of(encode(64)), 64, pieces=avif.MAX_PARTS), "it has more than 2,000 parts"),
        (lambda file: build(file, b"\x12\0" * avif.MAX_UNITS, 64), "more than 20,000 units"),
        (lambda file: file.write_bytes(encode(64)[:24] + box(b"free") * 20_000), "more than 10,000 boxes"),
        (lambda file: file.write_bytes(encode(64)[:24] + bytes(avif.MAX_BYTES)), "more than 100,000,000 bytes"),
        (
            lambda file: build(file, stream_of(encode(64)) + bytes(1_000_000), 20 * 64, across=20),
            "more than 100,000,000 bytes in all its parts",
        ),
    ],
    ids=["parts", "units", "boxes", "bytes", "shared bytes"],
)
def test_what_would_keep_a_decoder_busy_is_refused(make, why: str, tmp_path: Path) -> None:
    make(tmp_path / "a.avif")
    with pytest.raises(DataError, match=why):
        check_header(tmp_path / "a.avif")


def test_pieces_of_a_part_are_no_more_than_the_file_is_long(tmp_path: Path) -> None:
    """Each of 1,000 pieces of an item is all of the file: together they would be a gigabyte."""
    file = build(tmp_path / "a.avif", bytes(1_000_000), 64, pieces=1000)
    content = bytearray(file.read_bytes())
    last = content.index(b"iinf") - 4  # the table of pieces ends where the next box begins
    content[last - 8000 : last] = long(0, len(content)) * 1000
    file.write_bytes(content)
    with pytest.raises(DataError, match="bytes in one part"):
        check_header(file)


def bits(*numbers: tuple[int, int]) -> bytes:
    """Numbers of so many bits, most significant first."""
    text = "".join(f"{value:0{count}b}" for value, count in numbers)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")


def test_a_sequence_header_of_every_kind_says_its_size(tmp_path: Path) -> None:
    """Written down by the specification (5.5.1): timing, decoder model, delays, two operating points."""
    timing = ((1, 1), (1, 32), (1, 32), (1, 1), (0b00101, 5))
    model = ((1, 1), (9, 5), (1, 32), (1, 5), (1, 5))
    points = ((1, 1), (1, 5))
    first = ((0, 12), (9, 5), (1, 1), (1, 1), (3, 10), (3, 10), (1, 1), (1, 1), (2, 4))
    second = ((0, 12), (3, 5), (0, 1), (0, 1))
    size = ((10, 4), (9, 4), (1499, 11), (999, 10))
    header = bits((0, 3), (0, 1), (0, 1), *timing, *model, *points, *first, *second, *size)
    stream = b"\x0a" + bytes((len(header),)) + header + b"\x1a\x01\x10"
    with build(tmp_path / "a.avif", stream, 64).open("rb") as opened:
        assert read_coded(opened) == Coded(1500 * 1000, 1, 1500 * 1000)


def test_a_damaged_file_is_refused_in_a_line_wherever_it_is_damaged() -> None:
    """Each byte of the head, and each length that the file may be cut to: an image, or a `DataError`."""
    whole = encode(64, mode="RGBA")
    head = whole.index(b"mdat") + 24
    for at in range(12, head):
        for damaged in (whole[:at], whole[:at] + bytes((whole[at] ^ 0xFF,)) + whole[at + 1 :]):
            with suppress(DataError):
                read_image("a.avif", stream=io.BytesIO(damaged))
