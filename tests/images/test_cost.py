"""A small file costs neither gigabytes nor minutes: memory and processor time, measured in processes of their own."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from measured import measure
from pictures import draw
from resnetkit.errors import DataError, UsageError
from resnetkit.images import budget
from resnetkit.images.jpeg import MAX_IDLE, MAX_SCANS, MAX_SEGMENTS, read_markers
from resnetkit.images.reading import check_header, read_image


def zeros(count: int) -> bytes:
    """`count` zeros as a zlib stream, made from one piece of it."""
    piece, packer = 2**20, zlib.compressobj(9, zlib.DEFLATED, -15)
    one = packer.compress(bytes(piece)) + packer.flush(zlib.Z_FULL_FLUSH)
    last = zlib.compressobj(9, zlib.DEFLATED, -15)
    rest = last.compress(bytes(count % piece)) + last.flush()
    checksum = (count % 65521 << 16 | 1).to_bytes(4, "big")
    return b"\x78\xda" + one * (count // piece) + rest + checksum


def png(path: Path, side: int, depth: int, colour: int, channels: int, extra: bytes = b"") -> Path:
    """A square PNG of zeros, in a few kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + bytes([depth, colour, 0, 0, 0])
    palette = chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", b"\x80") if colour == 3 else b""
    rows = zeros((side * channels * depth // 8 + 1) * side)
    content = chunk(b"IHDR", head) + palette + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def webp(path: Path, width: int, height: int) -> Path:
    """A lossless WebP of one colour, in 34 bytes."""
    bits = (width - 1) | (height - 1) << 14 | (0b0001_0001_0001_0001_0001 << 3) << 32
    body = b"\x2f" + bits.to_bytes(9, "little")
    chunk = b"VP8L" + len(body).to_bytes(4, "little") + body
    path.write_bytes(b"RIFF" + (len(chunk) + 4).to_bytes(4, "little") + b"WEBP" + chunk)
    return path


def jpeg(path: Path, side: int, scans: int = 0, **options: object) -> Path:
    """A JPEG that says to have `side` pixels a side, and has `scans` further ones, without any pixels."""
    stream = io.BytesIO()
    draw("red", 0, (16, 16)).save(stream, "JPEG", **options)
    content = bytearray(stream.getvalue())
    frame = next(at for mark in (b"\xff\xc0", b"\xff\xc2") if (at := content.find(mark)) > 0)
    content[frame + 5 : frame + 9] = side.to_bytes(2, "big") * 2
    last = content.rindex(b"\xff\xda")
    scan = content[last : last + 2 + int.from_bytes(content[last + 2 : last + 4], "big")]
    path.write_bytes(bytes(content[:-2] + scan * scans + content[-2:]))
    return path


def test_no_small_file_takes_more_than_its_budget(tmp_path: Path) -> None:
    """Every picture is read within 1 GiB and 10 s, or refused for what it would take, at no cost."""
    side = 9459  # the most that is allowed: 89,472,681 pixels
    read = [
        png(tmp_path / "palette.png", side, 8, 3, 1),
        png(tmp_path / "grey-alpha.png", side, 8, 4, 2),
        png(tmp_path / "deep.png", side, 16, 0, 1),
        png(tmp_path / "alpha.png", side, 8, 6, 4),
        webp(tmp_path / "fits.webp", 7000, 7000),
        jpeg(tmp_path / "progressive.jpg", 9000, progressive=True),
        jpeg(tmp_path / "camera.jpg", 10_500),  # 110 megapixels
    ]
    refused = {
        webp(tmp_path / "large.webp", 16_383, 5461): "GiB, more than 1.00",
        jpeg(tmp_path / "200.jpg", 9000, 200, progressive=True): f"more than {MAX_SCANS} scans",
        jpeg(tmp_path / "2000.jpg", 9000, 2000, progressive=True): f"more than {MAX_SCANS} scans",
        jpeg(tmp_path / "60.jpg", 9000, 60, progressive=True): "go over 81,000,000 pixels each",
    }
    for name, filler in (("fill", b"\xff"), ("junk", b"\0"), ("restarts", b"\xff\xd0"), ("ends", b"\xff\xd9")):
        whole = jpeg(tmp_path / f"{name}.jpg", 16).read_bytes()
        filled = b"\xff" * 30_000_000 if name == "fill" else filler * (30_000_000 // len(filler))
        (tmp_path / f"{name}.jpg").write_bytes(whole[:2] + filled + whole[2:])
        refused[tmp_path / f"{name}.jpg"] = f"more than {MAX_IDLE:,} bytes between its segments mean nothing"
    comments = jpeg(tmp_path / "comments.jpg", 16).read_bytes()
    (tmp_path / "comments.jpg").write_bytes(comments[:2] + b"\xff\xfe\0\x02" * MAX_SEGMENTS + comments[2:])
    refused[tmp_path / "comments.jpg"] = "segments before its pixels"
    found = measure(tmp_path, *([file] for file in (*refused, *read)))
    for file, ((why,), grown, seconds) in zip((*refused, *read), found, strict=True):
        assert refused[file] in why if file in refused else why == "", (file, why)
        assert grown < (100 if file in refused else 1024), file
        assert seconds < (1 if file in refused else 10), file


def test_pictures_that_are_decoded_at_a_time_share_one_budget(tmp_path: Path) -> None:
    files = [png(tmp_path / f"{number}.png", 7000, 8, 6, 4) for number in range(6)]  # 0.4 GiB each
    ((why, grown, _),) = measure(tmp_path, files)
    assert why == [""] * 6
    assert grown < 1024


def test_what_reads_little_by_little_is_stopped_in_time(tmp_path: Path, monkeypatch) -> None:
    """A PPM of other than 256 levels is read pixel by pixel in Python, and so are empty chunks of a PNG."""
    levels = tmp_path / "levels.ppm"
    levels.write_bytes(b"P6 2000 2000 254\n" + bytes(2000 * 2000 * 3))
    nothing = len(b"").to_bytes(4, "big") + b"noTh" + zlib.crc32(b"noTh").to_bytes(4, "big")
    chunks = png(tmp_path / "chunks.png", 8, 8, 0, 1, extra=nothing * 300_000)
    monkeypatch.setenv(budget.SECONDS, "0.2")
    for file in (levels, chunks):
        with pytest.raises(DataError, match=rf"{file.name}: decoding it takes more than 0\.2 s of processor time"):
            read_image(file)


def test_the_budget_can_be_chosen(tmp_path: Path, monkeypatch) -> None:
    draw("red", 0, (400, 300)).save(tmp_path / "a.jpg")
    monkeypatch.setenv(budget.BYTES, "1e6")
    for look in (read_image, check_header):
        with pytest.raises(DataError, match=r"a.jpg: to decode its 400 x 300 pixels takes"):
            look(tmp_path / "a.jpg")
    monkeypatch.setenv(budget.BYTES, "none")
    with pytest.raises(UsageError, match=r"RESNETKIT_IMAGE_BYTES cannot be 'none'"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_markers_say_what_a_jpeg_is(subsampling: str) -> None:
    samples = {"4:4:4": 3.0, "4:2:2": 2.0, "4:2:0": 1.5}[subsampling]
    for progressive in (False, True):
        stream = io.BytesIO()
        draw("red", 0).save(stream, "JPEG", progressive=progressive, subsampling=subsampling)
        found = read_markers(stream)
        assert found is not None
        assert found.samples == samples
        assert found.kept is progressive
        assert found.scans == (stream.getvalue().count(b"\xff\xda") if progressive else 1)
    assert read_markers(io.BytesIO(b"\x89PNG")) is None


def test_scans_are_counted_behind_pixels_that_look_like_markers() -> None:
    """Libjpeg counts as we do: what it takes for further scans it decodes, and a marker inside of a table is none."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG", progressive=True, quality=95)
    found = read_markers(stream)
    assert found is not None
    assert found.scans == 10


def tiff(path: Path, entries: dict[int, int | tuple[int, int]], large: bool = False) -> Path:
    """A TIFF of a table alone: a number for each tag, or how many there are and where."""
    width, size = (8, 8) if large else (4, 2)
    table = len(entries).to_bytes(size, "little")
    for tag, value in entries.items():
        count, number = value if isinstance(value, tuple) else (1, value)
        table += tag.to_bytes(2, "little") + (4).to_bytes(2, "little") + count.to_bytes(width, "little")
        table += number.to_bytes(width, "little")
    head = b"II\x2b\0\x08\0\0\0" + (16).to_bytes(8, "little") if large else b"II*\0" + (8).to_bytes(4, "little")
    path.write_bytes(head + table + bytes(width))
    return path


def test_a_tile_far_larger_than_its_picture_is_refused(tmp_path: Path) -> None:
    """A TIFF of 16 x 16 pixels with one tile of 60,000 x 60,000."""
    entries = {256: 16, 257: 16, 258: 8, 259: 5, 262: 1, 277: 1, 322: 60_000, 323: 60_000, 324: 8, 325: 4}
    with pytest.raises(DataError, match=r"its tiles of 60000 x 60000 pixels are far larger than the picture"):
        read_image(tiff(tmp_path / "a.tif", entries))


@pytest.mark.parametrize("large", [False, True])
def test_a_picture_in_millions_of_tiles_is_refused_before_they_are_listed(large: bool, tmp_path: Path) -> None:
    """4,000,000 tiles of a pixel, which would become 1.2 GB of Python's numbers."""
    entries = {256: 2000, 257: 2000, 258: 8, 259: 1, 262: 1, 277: 1, 322: 1, 323: 1}
    file = tiff(tmp_path / "a.tif", entries | {324: (4_000_000, 300), 325: (4_000_000, 300)}, large)
    with file.open("ab") as stream:
        stream.write(bytes(300) + (100).to_bytes(4, "little") * 4_000_000)
    ((why, grown, seconds),) = measure(tmp_path, [file])
    assert why == ["it is in 4,000,000 strips or tiles"]
    assert grown < 100
    assert seconds < 1
