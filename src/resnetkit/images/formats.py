"""Which files are pictures, by name and by their first bytes; which of them can be read, and what the others need.

Content decides what is read; names decide what is listed. Every name of a picture is listed, also of those that cannot
be read, so that nobody's pictures are passed over in silence.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module

from PIL import features

_NAMES = {
    "JPEG": ".jpg .jpeg .jpe .jfif .jfi .jif .pjpeg .pjp .mpo",
    "PNG": ".png .apng",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp .dib",
    "TIFF": ".tif .tiff",
    "PPM": ".ppm .pgm .pbm .pnm .pfm",
    "AVIF": ".avif .avifs",
    "HEIF": ".heic .heif .hif .heics .heifs",
    "JXL": ".jxl",
    "JPEG2000": ".jp2 .j2k .jpf .jpx .j2c .jpc",
    "ICO": ".ico",
}
SUFFIXES = {suffix: format_ for format_, suffixes in _NAMES.items() for suffix in suffixes.split()}
"""Pillow's name of a format, by the suffixes of its files."""

_PLUGINS = {"HEIF": ("pillow_heif", "pillow-heif"), "JXL": ("pillow_jxl", "pillow-jxl-plugin")}
"""Formats that Pillow reads with another package: its module, and what to install."""
_PEOPLE = {"HEIF": "HEIC", "JXL": "JPEG XL", "WEBP": "WebP"}
_UNREAD = {"JPEG2000": "JPEG 2000 is not read", "ICO": "icons are not read"}
_OTHERS = {
    "camera raw files": (".arw .cr2 .cr3 .crw .dng .nef .orf .pef .raf .rw2 .srw", "save {} as PNG"),
    "Photoshop files": (".psd .psb .xcf", "save {} as PNG"),
    "drawings": (".svg .svgz .eps .ai .wmf .emf", "save {} as PNG"),
    "films": (".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .3gp", "save pictures of {} as PNG"),
    "documents": (".pdf .ps .djvu", "save {} as PNG, page by page"),
    "DICOM files": (".dcm .dicom", "save {} as PNG"),
    "volumes": (".nii .nrrd .mha .mhd", "save {} as PNG, slice by slice"),
    "Targa files": (".tga", "save {} as PNG"),
    "pictures of high dynamic range": (".exr .hdr", "save {} as PNG"),
    "arrays": (".npy .npz .mat .h5 .hdf5", "save {} as PNG, picture by picture"),
    "archives": (".zip .tar .gz .tgz .rar .7z", "unpack {}"),
}
_KIND = {suffix: (kind, remedy) for kind, (suffixes, remedy) in _OTHERS.items() for suffix in suffixes.split()}


def _installed() -> Iterator[str]:
    """The formats of the packages that are there, which then know how to open them."""
    for format_, (module, _) in _PLUGINS.items():
        with suppress(ImportError):
            plugin = import_module(module)
            if register := getattr(plugin, "register_heif_opener", None):
                register()
            yield format_


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", *_installed())
"""What is opened, whatever a file is called. JPEG 2000 is not: its decoder takes much and cannot be stopped."""


def is_image_name(name: str) -> bool:
    """Whether a file is called like a picture, one that can be read or not; names without a suffix are none."""
    return _suffix(name) in SUFFIXES


def kind_of(name: str) -> str | None:
    """What a file is by its name, and what it needs: of kinds that hold pictures and are not read; None for others."""
    kind, remedy = _KIND.get(_suffix(name), (None, ""))
    return kind and f"{kind}, which are not read ({remedy.format('them')})"


def why_not(name: str) -> str | None:
    """Why a file cannot be read, by its name: what it needs, or what it is; None for one that is worth opening."""
    suffix = _suffix(name)
    if format_ := SUFFIXES.get(suffix):
        return None if _is_readable(format_) else cannot_decode(format_)
    if suffix in _KIND:
        kind, remedy = _KIND[suffix]
        return f"{kind} are not read; {remedy.format('it')}"
    return "it is not an image" if suffix else None


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a million of them


def cannot_decode(format_: str) -> str:
    """What is said of a picture that cannot be decoded here."""
    if format_ in _UNREAD:
        return f"{_UNREAD[format_]}; save it as PNG"
    what = f"Pillow cannot decode {_PEOPLE.get(format_, format_)} here; save it as JPEG"
    return f"{what}, or pip install {_PLUGINS[format_][1]}" if format_ in _PLUGINS else what


def _is_readable(format_: str) -> bool:
    return format_ in FORMATS and (format_ not in ("AVIF", "WEBP") or bool(features.check(format_.lower())))


def undecoded(start: bytes) -> str | None:
    """Why a picture of these first bytes cannot be opened; None where they are not those of a picture."""
    format_ = _format_of(start)
    if format_ is None:
        return None
    return "it is damaged" if _is_readable(format_) else cannot_decode(format_)


def _format_of(start: bytes) -> str | None:
    if start[4:8] == b"ftyp":
        brands = {b"avif": "AVIF", b"avis": "AVIF"}
        brands |= dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIF")
        return brands.get(start[8:12])
    marks = {b"\xff\x0a": "JXL", b"\0\0\0\x0cJXL \r\n": "JXL", b"\xff\x4f\xff\x51": "JPEG2000"}
    marks |= {b"\0\0\0\x0cjP  \r\n": "JPEG2000"}
    return next((format_ for mark, format_ in marks.items() if start.startswith(mark)), None)
