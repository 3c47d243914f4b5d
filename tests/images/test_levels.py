"""What numbers of more than 8 bits mean: the oracle is the 8-bit picture that they were made from."""

import logging
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from pictures import draw
from resnetkit.errors import DataError
from resnetkit.images import levels
from resnetkit.images.reading import read_image

GREY = np.random.default_rng(0).integers(100, 200, (24, 40))


@pytest.fixture(autouse=True)
def nothing_was_said() -> None:
    levels._SAID[:] = bytes(len(levels._SAID))


def grey(file: Path) -> np.ndarray:
    return np.asarray(read_image(file, 1)).astype(int)


def save(file: Path, values: np.ndarray, **tags: float) -> Path:
    """A picture of any type of numbers, by Pillow; `tags` are those of a TIFF, by number."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        info[int(name[1:])] = value
    options = {"tiffinfo": info} if tags else {}
    Image.fromarray(values).save(file, **options)
    return file


def png(file: Path, values: np.ndarray, colour: int, extra: bytes = b"") -> Path:
    """A 16-bit PNG of any kind of pixels, which Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    height, width = values.shape[:2]
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, colour, 0, 0, 0])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    bits = chunk(b"sBIT", extra) if extra else b""
    body = chunk(b"IHDR", head) + bits + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return file


@pytest.mark.parametrize(
    ("name", "kind", "factor", "said"),
    [
        ("8-in-16.png", "uint16", 1, "8 bits"),
        ("8-in-16.tif", "uint16", 1, "8 bits"),
        ("8-in-32.tif", "int32", 1, "8 bits"),
        ("12-in-16.png", "uint16", 16, "12 bits"),
        ("12-in-32.tif", "int32", 16, "12 bits"),
        ("16-in-16.png", "uint16", 257, ""),
        ("16-in-32.tif", "int32", 257, "16 bits"),
        ("unit.tif", "float32", 1 / 255, "0-1"),
        ("float.tif", "float32", 1, "0-255"),
    ],
)
def test_one_picture_in_any_numbers_is_one_picture(
    name: str, kind: str, factor: float, said: str, tmp_path: Path, caplog
) -> None:
    caplog.set_level(logging.WARNING, "resnetkit")
    file = save(tmp_path / name, (GREY * factor).astype(kind))
    assert np.array_equal(grey(file), GREY)
    grey(file)
    assert [record.getMessage().split("read as ")[1].split(" (")[0] for record in caplog.records] == [said] * bool(said)
    if said:
        assert caplog.records[0].getMessage().startswith(f"{file} holds ")


def test_what_a_file_declares_counts_more_than_what_is_found(tmp_path: Path, caplog) -> None:
    """Dark pictures of a camera of 12 bits: none of their numbers reaches 256."""
    dark = GREY.astype("uint16")
    assert np.array_equal(grey(save(tmp_path / "a.tif", dark, t281=4095)), GREY >> 4)
    assert np.array_equal(grey(save(tmp_path / "b.tif", dark, t281=1023)), GREY >> 2)
    assert np.array_equal(grey(save(tmp_path / "c.tif", dark, t281=65535)), GREY >> 8)
    assert np.array_equal(grey(png(tmp_path / "d.png", dark, 0, b"\x0c")), GREY >> 4)
    assert np.array_equal(grey(save(tmp_path / "e.tif", GREY.astype("float32"), t341=1000.0)), np.rint(GREY * 0.255))
    assert caplog.records == []
    # What is declared and not true says nothing; a largest number that is none of bits was found, not declared.
    assert np.array_equal(grey(save(tmp_path / "f.tif", dark * 16, t281=255)), GREY)
    assert np.array_equal(grey(save(tmp_path / "g.tif", dark * 16, t281=3184)), GREY)
    assert np.array_equal(grey(save(tmp_path / "i.tif", dark * 7, t281=1393)), GREY * 7 >> 4)
    # Of 12 bits brought to 16, as the PNG specification has it.
    assert np.array_equal(grey(png(tmp_path / "h.png", dark * 257, 0, b"\x0c")), GREY)


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize(("factor", "opaque"), [(1, 65535), (1, 255), (16, 65535), (16, 4095), (257, 65535)])
def test_colours_of_sixteen_bits_are_no_exception(
    colour: int, channels: int, factor: int, opaque: int, tmp_path: Path, caplog
) -> None:
    picture = np.asarray(draw("red", 0)).astype(int)
    if colour == 4:
        picture = np.repeat(picture[..., :1], 3, axis=2)
    values = np.concatenate([picture * factor, np.full((*picture.shape[:2], 1), opaque)], 2)
    values = values[..., [0, 3] if colour == 4 else slice(channels)]
    file = png(tmp_path / "a.png", values, colour)
    assert np.array_equal(np.asarray(read_image(file)), picture)
    assert len(caplog.records) == (factor < 257)


def test_transparency_that_uses_all_bits_is_kept(tmp_path: Path) -> None:
    """Dark colours, half transparent: the oracle is the same picture in 8 bits."""
    picture = np.concatenate([np.asarray(draw("red", 0)), np.full((40, 48, 1), 128, "uint8")], 2)
    Image.fromarray(picture).save(tmp_path / "8.png")
    deep = picture.astype(int)
    deep[..., 3] = 0x8000
    assert np.array_equal(
        np.asarray(read_image(png(tmp_path / "16.png", deep, 6))), np.asarray(read_image(tmp_path / "8.png"))
    )


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("order", ["<", ">"])
def test_colours_in_a_tiff_too(order: str, compression: int, tmp_path: Path) -> None:
    """Stored bare and deflated, which libtiff unpacks, in either order of bytes."""
    picture = np.asarray(draw("red", 0)).astype(int)
    height, width = picture.shape[:2]
    code = "little" if order == "<" else "big"

    def tiff(pixels: bytes) -> bytes:
        depths_at = 8 + 2 + 12 * 9 + 4
        tags = {256: width, 257: height, 258: depths_at, 259: compression, 262: 2, 273: depths_at + 6, 277: 3}
        tags |= {278: height, 279: len(pixels)}
        table = len(tags).to_bytes(2, code)
        for tag, value in tags.items():
            kind, count = (3, 3) if tag == 258 else (4, 1)
            table += tag.to_bytes(2, code) + kind.to_bytes(2, code) + count.to_bytes(4, code) + value.to_bytes(4, code)
        head = (b"II" if order == "<" else b"MM") + (42).to_bytes(2, code) + (8).to_bytes(4, code)
        return head + table + bytes(4) + (16).to_bytes(2, code) * 3 + pixels

    for number, factor in enumerate((1, 16, 257)):
        pixels = (picture * factor).astype(f"{order}u2").tobytes()
        (tmp_path / f"{number}.tif").write_bytes(tiff(zlib.compress(pixels) if compression == 8 else pixels))
        assert np.array_equal(np.asarray(read_image(tmp_path / f"{number}.tif")), picture)


def test_a_black_picture_stays_black(tmp_path: Path) -> None:
    assert not grey(save(tmp_path / "a.png", np.zeros((8, 8), "uint16"))).any()
    assert not np.asarray(read_image(png(tmp_path / "b.png", np.zeros((8, 8, 3)), 2))).any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(value: float, tmp_path: Path) -> None:
    values = np.full((8, 8), 0.5, "float32")
    values[3, 4] = value
    with pytest.raises(DataError, match=r"a.tif: it holds numbers that are none"):
        grey(save(tmp_path / "a.tif", values))


def test_large_pictures_are_mapped_as_small_ones(tmp_path: Path) -> None:
    """In bands, of which the first alone says nothing."""
    values = np.zeros((1100, 2100), "uint16")
    values[-1] = 4000
    assert np.array_equal(grey(save(tmp_path / "a.png", values)), values >> 4)
