"""Images in memory. The oracle is the same images as files: the same pixels, the same answers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import resnetkit as rk
from conftest import TINY
from pictures import draw
from resnetkit.data.arrays import read_arrays
from resnetkit.data.load import load_data
from resnetkit.errors import DataError, UsageError
from resnetkit.images.memory import picture
from resnetkit.images.reading import read_image
from resnetkit.recipes.schema import DataRecipe

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 9, 7), dtype=np.uint8)
RGB = RNG.integers(0, 256, (12, 9, 7, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3
ONE_STEP = {"quiet": True, "steps": 1, "data": {"batch_size": 4}, **TINY}


@pytest.mark.parametrize(
    "images",
    [
        RGB,
        RGB.transpose(0, 3, 1, 2),
        torch.from_numpy(RGB),
        torch.from_numpy(RGB).permute(0, 3, 1, 2),
        RGB.astype(np.int64),
        RGB.astype(np.float64),
        RGB / 255,
        (torch.from_numpy(RGB).float() / 255).permute(0, 3, 1, 2),
        RGB.astype(np.uint16) * 257,
        [Image.fromarray(each) for each in RGB],
        list(RGB),
        np.concatenate([RGB, np.full((12, 9, 7, 1), 255, np.uint8)], axis=-1),
    ],
    ids=lambda images: f"{type(images).__name__} {getattr(images, 'dtype', '')} {getattr(images, 'shape', '')}",
)
def test_every_form_of_the_same_images_is_the_same(images) -> None:
    found = read_arrays((images, LABELS)).splits["train"].pixels
    assert torch.equal(found, torch.from_numpy(RGB.transpose(0, 3, 1, 2)))


def _saved(array: np.ndarray, file: Path) -> Path:
    Image.fromarray(array).save(file)
    return file


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "array",
    [
        GREY[0],
        RGB[0],
        GREY[0] > 128,
        np.dstack([RGB[0], GREY[0]]),
        RNG.integers(0, 256, (9, 7), dtype=np.uint16),
        RNG.integers(0, 4096, (9, 7), dtype=np.uint16),
        RNG.integers(0, 65536, (9, 7), dtype=np.uint16),
    ],
    ids=lambda array: f"{array.dtype} {array.shape} {array.max()}",
)
def test_a_picture_in_memory_is_read_as_the_file_with_its_numbers(
    array: np.ndarray, channels: int, tmp_path: Path
) -> None:
    expected = read_image(_saved(array, tmp_path / "a.png"), channels)
    for each in (array, Image.open(tmp_path / "a.png")):
        found = picture(each, channels)
        assert (found.mode, found.tobytes()) == (expected.mode, expected.tobytes())


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_that_pillow_has_opened_is_turned_upright(turn: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(RGB[0]).save(tmp_path / "a.png", exif=exif)
    found = picture(Image.open(tmp_path / "a.png"), 3)
    assert found.tobytes() == read_image(tmp_path / "a.png").tobytes()


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> rk.Classifier:
    """Trained for a step on pictures in colour."""
    settings = ONE_STEP | {"model": {"name": "resnet20", **TINY["model"]}}
    return rk.train((RGB, LABELS), out=tmp_path_factory.mktemp("arrays") / "run", **settings)


def test_answers_are_those_of_png_files_to_the_bit(colours: rk.Classifier, tmp_path: Path) -> None:
    pictures = [np.array(draw("red", place, (31, 23)).convert("RGB")) for place in range(4)]
    files = [_saved(each, tmp_path / f"{place}.png") for place, each in enumerate(pictures)]
    expected = [row.top for row in rk.predict(colours, files)]
    batch = np.stack(pictures)
    for given in (pictures, [Image.fromarray(each) for each in pictures], batch, torch.from_numpy(batch), iter(files)):
        assert [row.top for row in colours.predict(given)] == expected
    assert [row.top for row in colours.predict(torch.from_numpy(batch).permute(0, 3, 1, 2))] == expected
    for single in (pictures[0], Image.fromarray(pictures[0]), torch.from_numpy(pictures[0]), files[0], str(files[0])):
        assert [row.top for row in colours.predict(single)] == expected[:1]
    assert [row.file for row in colours.predict([pictures[0], files[1]])] == ["0", str(files[1])]


def test_a_picture_that_cannot_be_read_gets_its_row(colours: rk.Classifier, tmp_path: Path) -> None:
    good = _saved(RGB[0], tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:150])
    with Image.open(tmp_path / "cut.png") as cut:
        rows = colours.predict([cut, RGB[0] - 300.0, good])
    assert [bool(row.error) for row in rows] == [True, True, False]
    assert "damaged" in str(rows[0].error)


def test_numbers_and_names_are_classes(tmp_path: Path) -> None:
    names = ["ant", "bee", "cat"]
    for labels in (LABELS, torch.from_numpy(LABELS), LABELS.tolist()):
        assert read_arrays((GREY, labels)).classes == ("0", "1", "2")
    assert read_arrays((GREY, LABELS * 10)).classes == ("0", "10", "20")
    named = read_arrays((GREY, [names[place] for place in LABELS]))
    assert named.classes == tuple(names)
    assert named.splits["train"].labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("form", ["two pairs", "dict", "pair"])
def test_splits_that_are_given_are_kept_and_others_are_held_out(form: str) -> None:
    pixels = RNG.integers(0, 256, (90, 6, 6), dtype=np.uint8)
    pixels[30:60] = pixels[:30]  # copies lie on one side
    labels = np.arange(90) % 3
    given = {
        "two pairs": ((pixels[:60], labels[:60]), (pixels[60:], labels[60:])),
        "dict": {"train": (pixels[:60], labels[:60]), "test": (pixels[60:], labels[60:])},
        "pair": (pixels, labels),
    }[form]
    data = read_arrays(given).load(DataRecipe(name="arrays", validation=0.2), whole=False)
    sizes = {name: len(split) for name in ("train", "validation", "test") if (split := getattr(data, name)) is not None}
    if form == "two pairs":
        assert sizes == {"train": 60, "validation": 30}
    elif form == "dict":
        assert sizes["test"] == 30
        assert 0 < sizes["validation"] < 30
    assert sum(sizes.values()) == 90
    seen = set(data.train.contents().tolist())
    for split in (data.validation, data.test):
        assert split is None or not seen & set(split.contents().tolist())


def test_what_was_learnt_from_is_not_scored_and_a_run_goes_on_with_the_same_images(
    colours: rk.Classifier, tmp_path: Path
) -> None:
    found = colours.evaluate((RGB, LABELS))
    assert found["count"] + found["seen"] == 12
    assert found["seen"] >= 6
    assert colours.evaluate((RGB, LABELS), include_seen=True)["count"] == 12
    settings = ONE_STEP | {"model": {"name": "resnet20", **TINY["model"]}, "steps": 2, "allow_change": ["steps"]}
    folder = colours.folder.parent
    with pytest.raises(UsageError, match="the images have changed"):
        rk.train((RGB[:, ::-1], LABELS), out=folder, resume=True, **settings)
    with pytest.raises(UsageError, match="the images of the run are not there: they were held by Python"):
        rk.train(out=folder, resume=True, quiet=True)


def test_scores_are_those_of_a_folder_with_the_same_pictures(digits_run: Path) -> None:
    one, test = rk.load(digits_run), load_data("digits").test
    expected = rk.evaluate(one, "digits")
    for labels in (test.labels, [str(each) for each in test.labels.tolist()]):
        found = rk.evaluate(one, (test.pixels, labels))
        assert {key: found[key] for key in ("count", "top1", "top5", "loss")} == {
            key: expected[key] for key in ("count", "top1", "top5", "loss")
        }


def test_numbers_are_places_where_classes_have_names(colours: rk.Classifier) -> None:
    arrays = read_arrays((RGB, LABELS), known=("ant", "bee", "cat"))
    assert arrays.classes == ("ant", "bee", "cat")
    with pytest.raises(UsageError, match="labels are up to 2: the classifier knows 2 classes"):
        read_arrays((RGB, LABELS), known=("ant", "bee"))


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (RGB, UsageError, r"the data cannot be images without labels: .* Try: \(images, labels\)"),
        ((RGB, LABELS[:4]), UsageError, "images are 12 and labels 4. Try: a label for each"),
        ((RGB.reshape(12, -1)[:, :144], LABELS), UsageError, r"shape \(12, 144\): .*Try: images.reshape\(-1, 12, 12\)"),
        ((RGB[..., :2], LABELS), UsageError, r"images has the shape \(12, 9, 7, 2\): a picture is"),
        ((RGB[:0], LABELS[:0]), UsageError, "are none"),
        ((GREY.astype(str), LABELS), UsageError, "the pictures are of type <U3: they are numbers"),
        ((GREY - 300.0, LABELS), DataError, "no declared range. Try: numbers of 0-255 or 0-1, as they were before"),
        ((np.full((12, 4, 4), np.nan), LABELS), DataError, "numbers that are none"),
        (([Image.new("L", (4, 4)), Image.new("L", (5, 4))], [0, 1]), UsageError, "of several shapes: such as"),
        ((["a.png", "b.png"], [0, 1]), UsageError, "images cannot be .* or a list of pictures"),
        ((GREY, LABELS / 2), UsageError, r"labels cannot be of type float64: .* Try: y.astype\(int\)"),
        ((GREY, np.eye(3)[LABELS]), UsageError, r"labels of the shape \(12, 3\) .* Try: y.argmax\(1\)"),
        ((GREY, [None] * 12), UsageError, "labels cannot be of type object"),
        ((GREY, 3), UsageError, "labels cannot be 3"),
        ({"val": (GREY, LABELS), "valid": (GREY, LABELS)}, UsageError, "valid is the validation split once more"),
        ({"train": None}, UsageError, "there are no images: the dict has no split"),
        ((GREY, np.zeros((12, 2, 2), int)), UsageError, "labels cannot be .* whole numbers or names"),
        ({"trian": (GREY, LABELS)}, UsageError, "unknown split 'trian'. Try: train"),
        ({"train": GREY}, UsageError, "cannot be images without labels"),
        ((GREY, LABELS * 0), DataError, "there is one class only"),
        (((GREY, LABELS), (GREY[:2], LABELS[:2])), DataError, "the validation split has no image of 2"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_cannot_be_is_one_line(given: object, error: type, says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says) as caught:
        rk.train(given, out=tmp_path / "run", **ONE_STEP)
    assert "\n" not in str(caught.value)
