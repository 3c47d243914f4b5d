import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from pictures import draw
from resnetkit.errors import DataError
from resnetkit.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, to_tensor
from resnetkit.images.reading import check_header, read_image


@pytest.mark.parametrize("shape", [(500, 375), (375, 500), (256, 256), (301, 1024), (90, 71)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pixels_equal_torchvisions_preset(shape: tuple[int, int], interpolation: str) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (shape[1], shape[0], 3), dtype=np.uint8))
    mode = v2.InterpolationMode(interpolation)
    theirs = v2.Compose([v2.Resize(256, interpolation=mode), v2.CenterCrop(224), v2.PILToTensor()])(image)
    ours = Preprocess(224, IMAGENET_MEAN, IMAGENET_STD, resize=256, interpolation=interpolation)
    assert torch.equal(ours.pixels(image), theirs)


def test_normalised_values_match_torchvision() -> None:
    pixels = torch.arange(2 * 3 * 8 * 8, dtype=torch.int64).remainder(256).to(torch.uint8).view(2, 3, 8, 8)
    theirs = v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)(v2.ToDtype(torch.float32, scale=True)(pixels))
    ours = Preprocess(8, IMAGENET_MEAN, IMAGENET_STD).normalise(pixels)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_batches_in_memory_are_resized_as_files_are() -> None:
    image = draw("red", 1, (40, 30))
    preprocess = Preprocess(24, IMAGENET_MEAN, IMAGENET_STD, resize=28)
    one = preprocess.pixels(image).int()
    many = preprocess.batch(to_tensor(image).unsqueeze(0))[0].int()
    assert (one - many).abs().max() <= 1
    assert torch.equal(one, many)


SEEN = [(8, None), (28, None), (32, None), (96, None), (224, 256), (24, 16)]
"""Sizes of the named sets and of the recipes (`image_size`, `resize`), and a crop that is larger than the picture."""


@pytest.mark.parametrize(("size", "resize"), SEEN)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_every_small_picture_is_the_same_from_a_file_and_in_memory(
    size: int, resize: int | None, interpolation: str
) -> None:
    """All sides from 1 to 64; the larger sizes by squares and by pictures of 45, for time."""
    ours = Preprocess(size, (0.5,) * 3, (0.5,) * 3, resize, interpolation)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    theirs = v2.Resize(resize or size, interpolation=v2.InterpolationMode(interpolation))
    sides = range(1, 65)
    for width in sides:
        for height in sides if size < 96 and interpolation == "bilinear" else {width, 45}:
            image = Image.fromarray(noise[:height, :width].copy())
            file = ours.pixels(image)
            memory = ours.batch(to_tensor(image).unsqueeze(0))[0]
            assert file.shape == (3, size, size)
            assert torch.equal(file, memory), (width, height)
            assert ours.resized(image).size == theirs(image).size, (width, height)


def test_a_set_of_the_right_size_is_handed_through() -> None:
    pixels = torch.randint(0, 256, (4, 3, 28, 28), dtype=torch.uint8)
    assert Preprocess(28, (0.5,) * 3, (0.5,) * 3).batch(pixels) is pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff"])
def test_exif_orientation_is_applied(orientation: int, kind: str, tmp_path: Path) -> None:
    upright = Image.new("RGB", (64, 32), "red")
    upright.paste("blue", (0, 0, 32, 16))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that undoes each orientation
    turned = upright if orientation == 1 else upright.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"o.{kind}"
    turned.save(path, exif=exif)
    seen = np.asarray(read_image(path)).astype(int)
    assert seen.shape == (32, 64, 3)
    assert np.abs(seen - np.asarray(upright).astype(int)).mean() < 6


def test_cmyk_keeps_its_colours(tmp_path: Path) -> None:
    image = draw("green", 3, (64, 64)).resize((8, 8)).resize((64, 64))
    image.convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    seen = np.asarray(read_image(tmp_path / "c.jpg")).astype(int)
    assert np.abs(seen - np.asarray(image).astype(int)).mean() < 12


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 256, dtype=np.uint16), (16, 1))
    Image.fromarray(ramp).save(tmp_path / "g.png")
    Image.fromarray(ramp).save(tmp_path / "g.tiff")
    for name in ("g.png", "g.tiff"):
        assert np.array_equal(np.asarray(read_image(tmp_path / name, 1)), (ramp >> 8).astype(np.uint8))


@pytest.mark.parametrize(
    ("low", "high", "kind"), [(-1, 9, "float32"), (0, 256, "float32"), (-1, 9, "int32"), (0, 65536, "int32")]
)
def test_numbers_without_a_range_are_refused(low: int, high: int, kind: str, tmp_path: Path) -> None:
    Image.fromarray(np.linspace(low, high, 64).astype(kind).reshape(8, 8)).save(tmp_path / "f.tiff")
    with pytest.raises(DataError, match=r"f.tiff: its numbers have no declared range"):
        read_image(tmp_path / "f.tiff")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    if mode == "P":
        image.convert("P").save(tmp_path / "t.png", transparency=image.convert("P").getpixel((7, 0)))
    else:
        image.convert(mode).save(tmp_path / "t.png")
    seen = read_image(tmp_path / "t.png")
    assert seen.getpixel((0, 0)) == (0, 0, 0)
    assert seen.getpixel((7, 7)) == (255, 255, 255)


def test_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)  # not the blue of the second


def test_content_counts_not_the_name(tmp_path: Path) -> None:
    draw("red", 0).save(tmp_path / "really.png")
    (tmp_path / "named.JPEG").write_bytes((tmp_path / "really.png").read_bytes())
    assert np.array_equal(np.asarray(read_image(tmp_path / "named.JPEG")), np.asarray(draw("red", 0)))


def _png_header(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (1, 1)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    import zlib

    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def _saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    draw("red", 0).save(buffer, kind)
    return buffer.getvalue()


BROKEN = {
    "empty.jpg": (b"", "the file is empty"),
    "page.jpg": (b"<!DOCTYPE html><html></html>", "it looks like HTML"),
    "text.png": (b"hello", "it is none of JPEG"),
    "vector.png": (b"%!PS-Adobe-3.0 EPSF-3.0", "it looks like PostScript"),
    "windows.jpg": (b"\xc5\xd0\xd3\xc6" + bytes(60), "it looks like PostScript"),
    "drawing.jpg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it looks like SVG"),
    "paper.jpg": (b"%PDF-1.7", "it looks like PDF"),
    "packed.jpg": (b"PK\x03\x04" + bytes(60), "it looks like a zip archive"),
    "film.jpg": (b"\0\0\0\x18ftypmp42" + bytes(60), "it looks like a film"),
    "avi.jpg": (b"RIFF\0\0\1\0AVI LIST", "it looks like a film"),
    "telephone.heic": (b"\0\0\0\x18ftypheic" + bytes(60), "Pillow cannot decode HEIC here; save it as JPEG"),
    "noise.avif": (b"\0\0\0\x18ftypavif" + bytes(60), "it is damaged"),
    "bomb.png": (_png_header(60_000, 60_000), "60000 x 60000 pixels are more than|more than 89,478,485 pixels"),
    "large.png": (_png_header(10_000, 10_000), "10000 x 10000 pixels are more than 89,478,485"),
}


BROKEN["icon.png"] = (_saved("ICO"), "it is none of JPEG")  # Pillow could read it, but nobody asked for it


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("read", [read_image, check_header])
def test_what_is_no_image_is_refused_by_name(name: str, read, tmp_path: Path) -> None:
    content, why = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=why) as caught:
        read(tmp_path / name)
    assert name in str(caught.value)


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match="it is not a regular file"):
        read_image(tmp_path / "pipe.jpg")


def test_reading_changes_no_file(tmp_path: Path) -> None:
    draw("red", 0).save(tmp_path / "a.jpg")
    before = (tmp_path / "a.jpg").read_bytes()
    ImageOps.exif_transpose(read_image(tmp_path / "a.jpg"))
    assert (tmp_path / "a.jpg").read_bytes() == before


def test_a_strip_that_would_fill_the_memory_is_refused_by_name(tmp_path: Path) -> None:
    Image.new("RGB", (5_000, 20)).save(tmp_path / "strip.png")
    look = Preprocess(640, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(DataError, match=r"5,000 x 20 px would become 160,000 px long in .*strip.png"):
        look.read(tmp_path / "strip.png")
