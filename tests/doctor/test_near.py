"""Pictures that are nearly the same: the hash, the search, and what is said of them."""

from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from PIL import Image

from doctor.looking import files_of, look, scene
from pictures import draw, fill
from resnetkit.doctor import check as doctor
from resnetkit.doctor.near import near_pairs
from resnetkit.doctor.thumbnail import phash
from resnetkit.errors import UsageError


def test_flat_images_are_never_near_duplicates(tmp_path: Path) -> None:
    fill(tmp_path, 6)
    for grey in range(100, 106):
        noise = np.random.default_rng(grey).integers(-1, 2, (64, 64, 3))
        Image.fromarray((grey + noise).astype(np.uint8)).save(tmp_path / "red" / f"flat{grey}.png")
    assert look(tmp_path).counts == {"low-information": 6}
    assert phash(Image.new("RGB", (64, 64), "white")) is None


def test_near_pairs_equal_those_of_the_plain_double_loop() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 300, dtype=np.uint64)
    for number in range(200):  # neighbours at 0 to 12 bits, some from one another
        flips = rng.choice(64, number % 13, replace=False)
        hashes[100 + number] = hashes[number] ^ np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64), initial=0)
    for near in (0, 1, 3, 7, 10):
        plain = [
            [i, j]
            for i in range(300)
            for j in range(i + 1, 300)
            if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= near
        ]
        pairs, complete = near_pairs(hashes, near)
        assert complete
        assert pairs.tolist() == plain
        assert len(plain) > 10


def test_few_hashes_are_compared_as_many_are(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    hashes = [int(value) for value in rng.integers(0, 2**63, 200, dtype=np.uint64)]
    flips = [0b10101, 0b1111]  # three bits are near, four are not
    hashes += [each ^ flips[number % 2] << number % 59 for number, each in enumerate(hashes[:50])]
    few, all_of_few = doctor._near_pairs(hashes, 3)
    monkeypatch.setattr(doctor, "FEW_HASHES", 0)
    assert doctor._near_pairs(hashes, 3) == (few, all_of_few)
    assert len(few) == 25


def test_a_phash_is_what_scipy_and_numpy_make_of_the_thumbnail() -> None:
    """The oracle is SciPy's DCT; bits whose frequency is the median but for rounding may be either."""
    for number in range(20):
        picture = draw("red", number) if number % 2 else scene(number)
        cells = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BILINEAR), dtype=float)
        frequencies = scipy.fft.dctn(cells, type=2)[:8, :8].ravel()[1:]
        middle = np.median(frequencies)
        bits = np.array([int(bit) for bit in f"{phash(picture):063b}"], dtype=bool)
        clear = np.abs(frequencies - middle) > 2e-4 * np.abs(frequencies).max()
        assert clear.sum() >= 50
        assert (bits == (frequencies > middle))[clear].all()


def test_near_pairs_of_10_000_hashes_at_ten_bits_are_all_found() -> None:
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**63, 10_000, dtype=np.uint64)
    for number in range(50):
        flips = rng.choice(63, 10, replace=False).astype(np.uint64)
        hashes[9_000 + number] = hashes[number] ^ np.bitwise_or.reduce(np.uint64(1) << flips)
    pairs, complete = near_pairs(hashes, 10)
    assert complete
    assert {(number, 9_000 + number) for number in range(50)} <= set(map(tuple, pairs.tolist()))


def test_near_pairs_of_100_000_hashes_take_seconds_not_hours() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, 100_000, dtype=np.uint64)
    hashes[-1] = hashes[0] ^ np.uint64(0b10101)
    pairs, complete = near_pairs(hashes, 3)
    assert pairs.tolist() == [[0, 99_999]]
    assert complete


def test_hashes_that_tell_nothing_apart_are_given_up_and_said_so(tmp_path: Path, monkeypatch) -> None:
    pairs, complete = near_pairs(np.full(5000, 7, dtype=np.uint64), 3)
    assert (len(pairs), complete) == (1_000_000, False)
    monkeypatch.setattr(doctor, "MOST_FINDINGS", 3)
    fill(tmp_path, 6)
    for quality in range(30, 70, 10):
        scene(0).save(tmp_path / "red" / f"q{quality}.jpg", quality=quality)
    report = look(tmp_path)
    assert report.counts == {"near": 3, "near-incomplete": 1}
    assert "\n    there are more than 3 pairs" in report.to_text()


def test_near_must_be_a_small_number_of_bits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Try: 0 to 10"):
        look(tmp_path, near=11)
    for near in (-1, 2.0, float("nan"), "7", 10**30):
        with pytest.raises(UsageError, match=r"^near .* cannot be: it is a whole number from 0 to 10\. Try: 0 to 10"):
            look(tmp_path, near=near)


@pytest.mark.parametrize(("size", "bits"), [((64, 64), 10), ((63, 64), 6)])
def test_small_pictures_must_be_nearer_to_one_another(size: tuple[int, int], bits: int, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(8):
            picture = scene(number + 100 * (name == "dog"), size)
            picture.save(tmp_path / name / f"{number}.png")
            for angle in (2, 5):
                picture.rotate(angle).save(tmp_path / name / f"{number}-{angle}.png")
    by_default = files_of(look(tmp_path), "near")
    assert by_default == files_of(look(tmp_path, near=bits), "near")
    assert len(by_default) > 0
    assert len(files_of(look(tmp_path, near=6), "near")) < len(files_of(look(tmp_path, near=10), "near"))
