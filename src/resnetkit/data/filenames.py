"""What the names of folders and files say: splits, masks, thumbnails, and which files belong together."""

import re
from collections.abc import Container, Mapping
from functools import cache
from pathlib import PurePath
from typing import Any

from resnetkit.errors import UsageError

_SPLIT_WORDS = {
    "train": ("train", "training", "trn", "训练", "训练集"),
    "validation": ("val", "valid", "validation", "validate", "dev", "eval", "evaluation", "验证", "验证集"),
    "test": ("test", "testing", "tst", "holdout", "测试", "测试集"),
}
SPLIT_OF_WORD = {word: split for split, words in _SPLIT_WORDS.items() for word in words}
_FILLERS = frozenset(
    (
        *("set", "data", "dataset", "image", "images", "img", "imgs", "picture", "pictures", "pic", "pics"),
        *("photo", "photos", "folder", "dir", "split", "seg", "files", "samples"),
    )
)
"""Words that a split's folder may have besides: training_set, seg_train, test-images."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_a-zA-Z]+")
_GLUED = re.compile(
    f"({'|'.join(sorted(SPLIT_OF_WORD, key=len, reverse=True))})({'|'.join(sorted(_FILLERS, key=len, reverse=True))})?"
)

MASK_FOLDERS = frozenset(
    (
        *("mask", "masks", "annotation", "annotations", "annots", "label", "labels", "segmentation", "segmentations"),
        *("seg", "gt", "groundtruth", "ground_truth", "ground-truth", "depth", "labelcolor"),
    )
)
PICTURE_FOLDERS = frozenset(("image", "images", "img", "imgs", "jpegimages", "pictures", "photos", "rgb", "original"))
THUMBNAIL_FOLDERS = frozenset(
    ("@eadir", ".@__thumb", ".thumbnails", ".thumbs", "thumbnails", ".picasaoriginals", ".comments")
)
SYSTEM_FOLDERS = frozenset(
    ("__macosx", "__pycache__", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found")
)
SYSTEM_FILES = frozenset(("thumbs.db", "desktop.ini", "ehthumbs.db", "picasa.ini"))
"""Neither pictures nor worth a word."""

_MASK_FILE = re.compile(r"(.+?)[ _.-](?:masks?|seg|segmentation|labels?|gt|ground_?truth|annotations?|anno)$", re.I)
_THUMBNAIL_FILE = re.compile(r"(.+?)[ _.-](?:thumb|thumbnail|\d{2,4}x\d{2,4})$", re.I)
_PART_OF = (
    re.compile(r"(.+?)[ _.-](?:jpe?g|png)\.rf\.[0-9a-f]{16,}$", re.I),  # Roboflow's augmented copies
    re.compile(r"(.+?)[ _.-]aug(?:mented)?[ _.-]?\d*$", re.I),
    re.compile(r"(.+?)[ _.-]?frames?[ _.-]?\d+$", re.I),
)
_COPY_OF = (
    re.compile(
        r"(.+?)[ _.-](?:[hv]?flip(?:ped)?|mirror(?:ed)?|rot(?:ated?)?|crop(?:ped)?|blur(?:red)?|noisy?|noise|bright"
        r"(?:ness)?|contrast|gr[ae]y|scaled?|zoom(?:ed)?|sheare?d?)[ _.-]?\d*$",
        re.I,
    ),
    re.compile(r"(.+?)(?: ?\(\d+\)|[ _-]+(?:copy|kopie|copie|副本)(?: ?\(?\d+\)?)?)$", re.I),
)
"""Only where the file that the copy is of is there: `cat (1).jpg` to `cat (90).jpg` are ninety cats."""


def by_split(given: Mapping[Any, Any]) -> dict[str, Any]:
    """What a dict has for splits, by "train", "validation" and "test". Raises `UsageError` (exit code 2)."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        split = SPLIT_OF_WORD.get(str(name).lower())
        if split is None:
            raise UsageError.unknown("split", str(name), SPLIT_OF_WORD, remedy="train, val, test")
        if split in found:
            raise UsageError(f"{name} is the {split} split once more", remedy="one of them")
        found[split] = value
    return found


@cache
def words(name: str) -> tuple[str, ...]:
    """A name in lower-case words: `TrainData_2` is train, data, 2."""
    return tuple(word.lower() for word in _WORD.findall(name))


def split_of(name: str) -> tuple[str, tuple[str, ...]] | None:
    """The split that a folder's name speaks of, and the words that are left; nothing where it speaks of none, or two.

    `training_set` gives ("train", ()), `asl_alphabet_test` gives ("test", ("asl", "alphabet")).
    """
    found, rest = set(), []
    for word in words(name):
        glued = _GLUED.fullmatch(word)
        if glued is not None:
            found.add(SPLIT_OF_WORD[glued[1]])
        elif word not in _FILLERS:
            rest.append(word)
    return (found.pop(), tuple(rest)) if len(found) == 1 else None


def derived(stem: str, stems: Container[str]) -> str | None:
    """Either "mask" or "thumbnail" where a file is one of another of `stems` beside it, by its name; else nothing."""
    for what, pattern in (("mask", _MASK_FILE), ("thumbnail", _THUMBNAIL_FILE)):
        match = pattern.fullmatch(stem)
        if match is not None and match[1] in stems:
            return what
    return None


def group_of(path: PurePath, stems: Container[str]) -> str:
    """What files that are one picture, or cut from one, have in common; `stems` are those of the files beside it.

    `IMG_1.jpg` and `IMG_1.png`; `x_flip.jpg`, `x (1).jpg` and `x.jpg`; `x_aug_3.jpg` and `x_aug_4.jpg`;
    `clip_frame_0001.jpg` and the frames behind it.
    """
    stem, before = path.stem, ""
    while stem != before:
        before = stem
        for pattern in (*_PART_OF, *_COPY_OF):
            match = pattern.fullmatch(stem)
            if match is not None and (pattern in _PART_OF or match[1] in stems):
                stem = match[1]
    return f"{path.parent}/{stem}"
