"""Which files are pictures. The oracle is what Pillow itself opens and writes."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pictures import draw, fill
from resnetkit.data.load import load_data
from resnetkit.doctor.check import check
from resnetkit.errors import DataError
from resnetkit.images.formats import FORMATS, SUFFIXES, is_image_name, why_not
from resnetkit.images.reading import read_image


def test_every_suffix_that_pillow_knows_of_a_format_that_is_read_is_known() -> None:
    Image.init()
    theirs = {suffix for suffix, format_ in Image.registered_extensions().items() if format_ in FORMATS}
    assert theirs <= SUFFIXES.keys()
    for suffix in theirs:
        assert is_image_name(f"a{suffix.upper()}")
        assert why_not(f"a{suffix}") is None


@pytest.mark.parametrize("suffix", [".jfif", ".jfi", ".jif", ".jpe", ".pjpeg", ".pjp", ".tif", ".dib", ".apng", ".pnm"])
def test_no_picture_is_passed_over_for_its_suffix(suffix: str, tmp_path: Path) -> None:
    fill(tmp_path, 4, ("blue", "red"))
    format_ = SUFFIXES[suffix]
    draw("red", 9).save(tmp_path / "red" / f"more{suffix}", "BMP" if suffix == ".dib" else format_)
    data = load_data(str(tmp_path), whole=True)
    assert (len(data.test), data.unreadable) == (9, {})
    assert not {finding.kind for finding in check(tmp_path, cache=None).findings} & {"wrongly-named", "ignored"}


NEEDS = {
    "a.heic": (b"\0\0\0\x18ftypheic", "Pillow cannot decode HEIC here; save it as JPEG, or pip install pillow-heif"),
    "a.HIF": (b"\0\0\0\x18ftypheix", "Pillow cannot decode HEIC here; save it as JPEG, or pip install pillow-heif"),
    "a.jxl": (b"\xff\x0a", "Pillow cannot decode JPEG XL here; save it as JPEG, or pip install pillow-jxl-plugin"),
    "b.jxl": (b"\0\0\0\x0cJXL \r\n\x87\n", "Pillow cannot decode JPEG XL here; save it as JPEG, or pip install"),
    "a.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 is not read; save it as PNG"),
    "a.j2k": (b"\xff\x4f\xff\x51", "JPEG 2000 is not read; save it as PNG"),
}


@pytest.mark.parametrize("name", NEEDS)
def test_what_cannot_be_read_is_listed_and_what_it_needs_is_named(name: str, tmp_path: Path) -> None:
    start, why = NEEDS[name]
    fill(tmp_path, 4, ("blue", "red"))
    (tmp_path / "red" / name).write_bytes(start + bytes(90))
    assert load_data(str(tmp_path), whole=True).unreadable[str(tmp_path / "red" / name)].startswith(why)
    assert (why_not(name) or "").startswith(why)
    (tmp_path / "photo.jpg").write_bytes(start + bytes(90))  # content counts, not the name
    with pytest.raises(DataError) as caught:
        read_image(tmp_path / "photo.jpg")
    assert (caught.value.why or "").startswith(why)


def test_what_is_no_picture_has_a_reason() -> None:
    assert why_not("a.txt") == "it is not an image"
    assert why_not("a.NEF") == "camera raw files are not read; save it as PNG"
    assert why_not("noname") is None
    assert not is_image_name("a.txt")


OTHERS = {
    "scan.dcm": (bytes(128) + b"DICM", "DICOM files", "save {} as PNG"),
    "IMG_1.CR3": (b"\0\0\0\x18ftypcrx ", "camera raw files", "save {} as PNG"),
    "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "drawings", "save {} as PNG"),
    "walk.mp4": (b"\0\0\0\x18ftypmp42", "films", "save pictures of {} as PNG"),
    "paper.pdf": (b"%PDF-1.7", "documents", "save {} as PNG, page by page"),
    "all.zip": (b"PK\x03\x04", "archives", "unpack {}"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_kinds_that_hold_pictures_are_left_out_with_what_they_need(name: str, tmp_path: Path) -> None:
    """The same is said at the start of training, by the doctor, and in a file's own row of `predict`."""
    start, kind, remedy = OTHERS[name]
    fill(tmp_path, 4, ("blue", "red"))
    (tmp_path / "red" / name).write_bytes(start + bytes(90))
    said = f"files that are {kind}, which are not read ({remedy.format('them')})"
    assert f"1 {said}, such as red/{name}" in load_data(str(tmp_path)).notes
    (finding,) = [each for each in check(tmp_path, cache=None).findings if each.kind == "left-out"]
    assert (finding.files, finding.text) == ((f"red/{name}",), f"{said}: 1")
    with pytest.raises(DataError, match=rf"{name}: .*{remedy.format('it')}"):
        read_image(tmp_path / "red" / name)


def test_a_folder_of_nothing_else_says_what_it_holds(tmp_path: Path) -> None:
    fill(tmp_path, 4, ("blue", "red"))
    for file in (tmp_path / "red").iterdir():
        file.rename(file.with_suffix(".dcm"))
    what = r"4 files that are DICOM files, which are not read \(save them as PNG\), such as red/000.dcm"
    with pytest.raises(DataError, match=rf"a class folder holds no image in .*red: it holds {what}\. Try: add some"):
        load_data(str(tmp_path))
    (tmp_path / "red" / "000.dcm").rename(tmp_path / "b.dcm")
    for file in (tmp_path / "blue").iterdir():
        file.unlink()
    for look in (load_data, check):
        with pytest.raises(DataError, match=r"there is nothing to learn in .*: it holds .*files that are DICOM"):
            look(str(tmp_path))


PLUGIN = """
from PIL import Image, ImageFile

def register_heif_opener():
    class Heif(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self):
            self.fp.seek(32)
            self._size, self._mode = (2, 2), "RGB"
            self.tile = [ImageFile._Tile("raw", (0, 0, 2, 2), 32, ("RGB", 0, 1))]

    Image.register_open("HEIF", Heif, lambda prefix: prefix[4:12] == b"ftypheic")
"""


def test_a_package_that_reads_heic_is_used_where_it_is_installed(tmp_path: Path) -> None:
    """A stand-in for pillow-heif that registers itself as that does, and reads pixels that stand bare in the file."""
    (tmp_path / "pillow_heif.py").write_text(PLUGIN)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20) + bytes(range(12)))
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from resnetkit.images.formats import why_not\n"
        "from resnetkit.images.reading import read_image\n"
        "print(list(read_image(sys.argv[2]).tobytes()), why_not('a.heic'))\n"
    )
    command = [sys.executable, "-c", program, tmp_path, tmp_path / "a.heic"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.stdout.strip() == f"{list(range(12))} None", done.stderr
