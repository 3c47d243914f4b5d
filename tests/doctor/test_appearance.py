import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pictures import draw, fill
from resnetkit.data.scan import Entry, values_of
from resnetkit.doctor.check import check
from resnetkit.doctor.examine import examine
from resnetkit.doctor.report import Report


def look(folder: Path) -> Report:
    return check(folder, cache=None, workers=1)


def dark(lightest: int) -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 40, (64, 64), dtype=np.uint8)
    levels[::4] = lightest
    return Image.fromarray(levels)


def bright(darkest: int) -> Image.Image:
    """Of 64 rows, two are black and two are as dark as said."""
    levels = np.full((64, 64), 255, dtype=np.uint8)
    levels[:2], levels[2:4] = 0, darkest
    return Image.fromarray(levels)


def surface(deviation: int) -> Image.Image:
    signs = np.random.default_rng(0).choice([-1, 1], (64, 64))
    return Image.fromarray((128 + deviation * signs).astype(np.uint8))


def waves(width: int) -> Image.Image:
    """Ramps up and down, `width` pixels each: the wider they are, the softer is the sharpest edge."""
    phase = np.arange(120) % (2 * width)
    return Image.fromarray(np.tile((np.minimum(phase, 2 * width - phase) * 200 // width).astype(np.uint8), (120, 1)))


def tinted(amount: int) -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 240, (32, 32, 1), dtype=np.uint8).repeat(3, axis=2)
    levels[5, 5] = 100, 100, 100 + amount
    return Image.fromarray(levels)


def drawn(*size: int) -> Image.Image:
    return draw("red", 99, size)


@pytest.mark.parametrize(
    ("kind", "planted", "just_not"),
    [
        ("dark", dark(50), dark(51)),
        ("bright", bright(240), bright(239)),
        ("low-information", surface(3), surface(4)),
        ("blurry", waves(10), waves(7)),
        ("odd-size", drawn(193, 161), drawn(192, 159)),  # the others have 48 x 40
        ("odd-size", drawn(32, 32), None),
        ("odd-aspect-ratio", drawn(145, 40), drawn(143, 40)),
        ("odd-aspect-ratio", drawn(40, 101), drawn(40, 99)),
        ("grey", tinted(9), tinted(10)),
    ],
)
def test_a_picture_is_named_at_its_threshold_and_not_before(
    kind: str, planted: Image.Image, just_not: Image.Image | None, tmp_path: Path
) -> None:
    width = 48 * 5 if just_not is None else 48
    for colour in ("red", "blue"):
        (tmp_path / colour).mkdir()
        for number in range(6):
            draw(colour, number, (width, width * 5 // 6)).save(tmp_path / colour / f"{number}.png")
    planted.save(tmp_path / "red" / "planted.png")
    if just_not is not None:
        just_not.save(tmp_path / "red" / "just-not.png")
    named = [finding.files for finding in look(tmp_path).findings if finding.kind == kind]
    assert named == [("red/planted.png",)]


def test_a_surface_is_neither_dark_nor_blurry_nor_grey_too(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    for level in (0, 255):
        Image.new("RGB", (48, 40), (level,) * 3).save(tmp_path / "red" / f"{level}.png")
    assert look(tmp_path).counts == {"low-information": 2}


def test_a_set_of_grey_pictures_is_not_grey_among_colour(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(6):
            draw("red", number + 10 * (name == "cat")).convert("L").save(tmp_path / name / f"{number}.png")
    draw("red", 50).save(tmp_path / "cat" / "colour.png")
    assert look(tmp_path).findings == ()


def test_of_nine_pictures_none_is_unlike_the_others_and_of_ten_it_is(tmp_path: Path) -> None:
    fill(tmp_path, 4, ("red", "blue"))
    drawn(480, 100).convert("L").save(tmp_path / "red" / "odd.png")
    assert look(tmp_path).counts == {"few-images": 1}
    draw("red", 50).save(tmp_path / "blue" / "tenth.png")
    assert look(tmp_path).counts == {"odd-size": 1, "odd-aspect-ratio": 1, "grey": 1}


def soft(number: int) -> Image.Image:
    cells = np.random.default_rng(number).integers(0, 255, (14, 15, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((48, 40), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize(("channel", "level"), [("red", 255), ("green", 90), ("blue", 0)])
def test_a_channel_that_is_the_same_in_all_images_is_one_finding(
    channel: str, level: int, suffix: str, tmp_path: Path
) -> None:
    for number in range(12):
        bands = dict(zip(("red", "green", "blue"), soft(number).split(), strict=True))
        bands[channel] = Image.new("L", (48, 40), level)
        path = tmp_path / ("cat", "dog")[number % 2] / f"{number}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        Image.merge("RGB", tuple(bands.values())).save(path, quality=95, subsampling=0)
    (finding,) = look(tmp_path).findings
    assert (finding.kind, finding.files) == ("constant-channel", ())
    assert finding.text.startswith(f"the {channel} channel is the same in all images")
    assert ("within" in finding.text) == (suffix == "jpg")
    soft(77).save(tmp_path / "cat" / "one-more.png")
    assert look(tmp_path).findings == ()


def test_channels_that_are_all_faint_are_not_constant(tmp_path: Path) -> None:
    for number in range(12):
        path = tmp_path / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        soft(number).point(lambda level: 100 + level // 8).save(path)
    assert look(tmp_path).findings == ()


def test_pictures_of_any_shape_are_measured_and_the_measures_survive_json(tmp_path: Path) -> None:
    for number, size in enumerate([(1, 1), (2, 40), (3, 3), (640, 70)]):
        draw("green", number, size).save(tmp_path / f"{number}.png")
        entry = examine(tmp_path / f"{number}.png")
        assert entry.why == ""
        assert Entry(*json.loads(json.dumps(values_of(entry)))) == entry
