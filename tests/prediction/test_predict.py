from pathlib import Path

import pytest
import torch
from PIL import Image

import resnetkit as rk
from resnetkit.data.load import load_data
from resnetkit.errors import DataError


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """The first digits of the test split as PNG files, and two files that are no images among them."""
    test = load_data("digits").test
    files = []
    for number in range(6):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(test.pixels[number, 0].numpy()).save(files[-1])
    files[2].write_bytes(b"")
    files[4].unlink()
    return files


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_file_gets_its_own_row(pictures: list[Path], batch_size: int, digits_run: Path) -> None:
    classifier = rk.load(digits_run)
    rows = rk.predict(classifier, pictures, batch_size=batch_size, top=4)
    assert [row.file for row in rows] == [str(file) for file in pictures]
    assert [row.error for row in rows] == [None, None, "the file is empty", None, "no such file", None]
    expected = classifier.probabilities(load_data("digits").test.pixels[:6])
    for number in (0, 1, 3, 5):
        label, share = rows[number].top[0]
        assert int(label) == expected[number].argmax()
        assert share == pytest.approx(expected[number].max().item(), abs=1e-5)
        assert len(rows[number].top) == 4
        shares = [share for _, share in rows[number].top]
        assert shares == sorted(shares, reverse=True)


def test_rows_become_json(pictures: list[Path], digits_run: Path) -> None:
    rows = [row.to_dict() for row in rk.predict(rk.load(digits_run), pictures, top=1)]
    assert set(rows[0]) == {"file", "status", "label", "probability", "top", "unknown", "unknown_score"}
    assert rows[2] == {"file": str(pictures[2]), "status": "error", "error": "the file is empty"}


def test_a_folder_stands_for_its_images(pictures: list[Path], digits_run: Path) -> None:
    rows = rk.predict(rk.load(digits_run), pictures[0].parent)
    assert [Path(row.file).name for row in rows] == ["0.png", "1.png", "2.png", "3.png", "5.png"]


def test_every_file_below_a_folder_gets_its_row_whatever_it_is_called(tmp_path: Path, digits_run: Path) -> None:
    """The oracle is the list of what was put there; the rules of training (masks, thumbnails) are not ours."""
    picture = load_data("digits").test.pixels[0, 0].numpy()
    pictures = ["a.png", "a_mask.png", "b/x.jpg?w=200", "b/x.jpg.download", "noname", "thumbnails/a.png", "masks/a.png"]
    others = {"b/scan.dcm": b"\0" * 128 + b"DICM", "c.jxl": b"\xff\x0a", "labels.csv": b"a,b", "empty.jpg": b""}
    aside = ["Thumbs.db", ".DS_Store", ".hidden/a.png", "__MACOSX/a.png", "@eaDir/a.png"]
    for name in (*pictures, *others, *aside):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / name, "PNG")
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "b" / "back").symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    rows = rk.predict(rk.load(digits_run), tmp_path)
    expected = sorted(tmp_path / name for name in (*pictures, *others, "gone.png"))
    assert [Path(row.file) for row in rows] == expected
    answered = {Path(row.file).relative_to(tmp_path).as_posix() for row in rows if row.error is None}
    assert answered == set(pictures)
    assert len({row.top[0] for row in rows if row.top}) == 1


def test_a_folder_without_images_is_refused(tmp_path: Path, digits_run: Path) -> None:
    with pytest.raises(DataError, match="there is no image in"):
        rk.predict(rk.load(digits_run), tmp_path)


def test_top_is_at_most_the_number_of_classes(pictures: list[Path], digits_run: Path) -> None:
    (row,) = rk.predict(rk.load(digits_run), pictures[0], top=99)
    assert len(row.top) == 10
    assert sum(share for _, share in row.top) == pytest.approx(1)


def test_large_pictures_are_brought_to_size(tmp_path: Path, digits_run: Path) -> None:
    test = load_data("digits").test
    large = torch.nn.functional.interpolate(test.pixels[:1].float(), scale_factor=40, mode="nearest")[0, 0]
    Image.fromarray(large.byte().numpy()).convert("RGB").save(tmp_path / "large.png")
    classifier = rk.load(digits_run)
    (row,) = rk.predict(classifier, tmp_path / "large.png")
    assert int(row.label or -1) == classifier.probabilities(test.pixels[:1]).argmax()
