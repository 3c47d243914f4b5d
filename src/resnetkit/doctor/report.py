"""What the doctor has to say: findings, and the report of them."""

import textwrap
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from resnetkit.machine.console import shown

Severity = Literal["error", "warning", "note"]


ENORMOUS = 25_000_000
TINY = 32
FEW_IMAGES = 5
EXAMPLES = 10

KINDS: dict[str, tuple[Severity, str, str]] = {
    "unreadable": ("error", "cannot be read", "replace or delete them; training leaves them out"),
    "empty-class": ("error", "class folders without an image", "add images, or remove the folder"),
    "one-class": ("error", "one class only", "add a folder for each other class"),
    "missing-class": ("error", "classes missing in a split", "add images, or use --data.allow-missing"),
    "exact-across-classes": ("error", "same file, two classes", "keep the copy in the right class only"),
    "pixels-across-classes": ("error", "same picture, two classes", "keep the copy in the right class only"),
    "exact-across-splits": ("error", "same file in two splits", "delete the copy in train; scores are too good"),
    "pixels-across-splits": ("error", "same picture in two splits", "delete the copy in train; scores are too good"),
    "near-across-classes": ("warning", "nearly the same picture, two classes", "look at them; one label may be wrong"),
    "near-across-splits": ("warning", "nearly the same picture in two splits", "look; keep a series in one split"),
    "outside-classes": ("warning", "images outside class folders", "move them into a class folder; nobody reads them"),
    "class-twins": ("warning", "class names that look alike", "put the images into one folder, if it is one class"),
    "few-images": ("warning", "classes with few images", f"add images: {FEW_IMAGES} at least, better hundreds"),
    "imbalance": ("warning", "unbalanced classes", "add images of the rare; judge by per-class scores"),
    "exact": ("warning", "same file twice", "keep one of each"),
    "pixels": ("warning", "same picture in two files", "keep one of each"),
    "enormous": ("warning", "more than 25 megapixels", "save smaller copies; they slow training down"),
    "tiny": ("warning", f"shorter side under {TINY} pixels", "look at them; they may be thumbnails by mistake"),
    "low-information": ("warning", "almost without content", "look at them; delete what shows nothing"),
    "dark": ("warning", "almost black", "look at them; delete what shows nothing"),
    "bright": ("warning", "almost white", "look at them; delete what shows nothing"),
    "blurry": ("warning", "blurry, even when small", "look at them; delete what cannot be recognised"),
    "constant-channel": ("warning", "a channel that says nothing", "look at how the images were made"),
    "near": ("note", "nearly the same picture", "nothing, or keep one of each"),
    "near-incomplete": ("note", "too many near duplicates to list", "lower near, or judge by eye"),
    "odd-size": ("note", "size unlike the others'", "look at them; they may be thumbnails or whole pages"),
    "odd-aspect-ratio": ("note", "shape unlike the others'", "look at them; cropping loses most of a long picture"),
    "grey": ("note", "grey among colour", "nothing, unless one class is grey: then that gives it away"),
    "wrongly-named": ("note", "name does not fit the content", "rename them; we read them by content"),
    "cmyk": ("note", "CMYK colours, for print", "nothing; they become RGB, colours may shift slightly"),
    "sixteen-bit": ("note", "more than 8 bits per channel", "nothing; they are scaled to 8 bits"),
    "alpha": ("note", "transparent", "nothing; they are laid on white"),
    "animated": ("note", "several frames or pages", "nothing; the first one counts"),
    "exif-rotated": ("note", "turned by EXIF", "nothing; they are turned upright"),
    "left-out": ("note", "pictures that are not learnt from", "nothing, if the reason is right; else move them"),
    "ignored": ("note", "files that are no images", "nothing; they are not read"),
}
"""Every kind of finding in a folder, gravest first: its severity, its headline, and what to do about it."""
OF_TABLES: dict[str, tuple[Severity, str, str]] = {
    "two-labels": ("error", "one file with two labels", "take out the wrong row"),
    "two-splits": ("error", "one file in two splits", "take out one of the rows; scores are too good"),
    "unknown-split": ("error", "rows of an unknown split", "write train, val or test, or --data.split-column none"),
    "no-label": ("warning", "rows without a label", "write one, or nothing: training leaves them out"),
    "no-path": ("warning", "rows that name no file", "write it, or nothing: training leaves them out"),
    "same-row": ("warning", "rows that repeat another", "nothing; training counts each file once"),
}
"""What is found in the rows of a table besides."""
_GRAVITY = ("error", "warning", "note")
EVERY_KIND = dict(sorted((KINDS | OF_TABLES).items(), key=lambda item: _GRAVITY.index(item[1][0])))


@dataclass(frozen=True)
class Finding:
    """One thing that was found. `kind` is a key of `EVERY_KIND`; `files` are relative to the folder."""

    kind: str
    severity: Severity
    files: tuple[str, ...]
    text: str


def found(kind: str, files: Iterable[str], text: str) -> Finding:
    """A finding of a kind, which says how grave it is."""
    return Finding(kind, EVERY_KIND[kind][0], tuple(files), text)


@dataclass(frozen=True)
class Report:
    """What `check` found in a folder."""

    folder: str
    images: int
    """Image files in class folders, unreadable ones too."""
    classes: dict[str, dict[str, int]]
    """For each split ("train", "validation", "test", or "all") the images of each class."""
    findings: tuple[Finding, ...]
    """Gravest kind first."""

    @property
    def splits(self) -> dict[str, int]:
        """Images in each split."""
        return {split: sum(members.values()) for split, members in self.classes.items()}

    @property
    def counts(self) -> dict[str, int]:
        """Findings of each kind, gravest first; kinds that were not found are left out."""
        return dict(Counter(finding.kind for finding in self.findings))

    @property
    def serious(self) -> bool:
        """Whether an error was found: training would refuse, leave images out, or be scored on what it has seen."""
        return any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: `folder`, `images`, `splits`, `classes`, `counts`, `serious`, `findings`.

        Each finding has `kind`, `severity`, `files` and `text`. Names that are not UTF-8 keep Python's surrogates,
        which `os.fsencode` turns back into the bytes.
        """
        return {
            "folder": self.folder,
            "images": self.images,
            "splits": self.splits,
            "classes": self.classes,
            "counts": self.counts,
            "serious": self.serious,
            "findings": [vars(finding) | {"files": list(finding.files)} for finding in self.findings],
        }

    def to_text(self, width: int = 80) -> str:
        """For people: a summary, then each kind with its count, ten examples at most, and what to do. Plain text."""
        of_split = ", ".join(f"{split} {count:,}" for split, count in self.splits.items())
        names = {name for members in self.classes.values() for name in members}
        severities = Counter(finding.severity for finding in self.findings)
        told = ", ".join(f"{count:,} {name}{'s' * (count > 1)}" for name, count in severities.items())
        lines = [_fit(shown(self.folder), width)]
        counted = f"{self.images:,} images in {len(names):,} classes ({of_split})"
        line = f"{counted}: {told or 'all well'}"
        lines += [line] if len(line) <= width else [*_wrap(counted, width), *_wrap(told or "all well", width)]
        by_kind = defaultdict(list)
        for finding in self.findings:
            by_kind[finding.kind].append(finding)
        for kind, found in by_kind.items():
            severity, title, remedy = EVERY_KIND[kind]
            lines += ["", *_wrap(f"{severity.upper()} {title}: {len(found):,}", width)]
            for finding in found[:EXAMPLES]:
                lines += _example(finding, width)
            if len(found) > EXAMPLES:
                lines.append(f"    … and {len(found) - EXAMPLES:,} more")
            lines += _wrap(f"To do: {remedy}.", width, indent="  ")
        return "\n".join(lines) + "\n"


def _cells(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _fit(text: str, width: int) -> str:
    """`text`, or as much of its two ends as fits into `width` columns."""
    if _cells(text) <= width:
        return text
    keep = len(text) // 2
    while keep and _cells(text[:keep]) + _cells(text[-keep:]) + 1 > width:
        keep -= 1
    return f"{text[:keep]}…{text[-keep:]}" if keep else "…"


def _wrap(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent + "  ")


def _example(finding: Finding, width: int) -> list[str]:
    names = [shown(name) if name == name.strip() else f'"{shown(name)}"' for name in finding.files[:EXAMPLES]]
    more = f" and {len(finding.files) - EXAMPLES:,} more" if len(finding.files) > EXAMPLES else ""
    line = "    " + ": ".join(filter(None, (", ".join(names) + more, finding.text)))
    if _cells(line) <= width:
        return [line]
    lines = [_fit(f"    {name}", width) for name in names]
    return [*lines, *_wrap(f"{more.lstrip()}: {finding.text}".lstrip(": "), width, indent="      ")]
