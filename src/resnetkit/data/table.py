"""A table of pictures: in each row the path of a file, its class, and its split where the table says that.

Columns are found by their usual names, or given. Paths count from the table's folder, or from another that is given,
and never lead out of it. A suffix may be missing where one picture only has the name. Whatever is wrong is named with
the number of its row; what is no doubt a slip is left out and counted, and what may be either is refused.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resnetkit.data import filenames
from resnetkit.data.labelling import Labelling
from resnetkit.data.layout import UNLABELLED, Layout, Trouble
from resnetkit.data.rows import Table, open_table
from resnetkit.errors import DataError, UsageError, clipped
from resnetkit.images.formats import SUFFIXES
from resnetkit.machine.console import shown

PATHS = (
    *("path", "file", "filename", "filepath", "imagepath", "imagefile", "imagefilename", "imagename", "image", "img"),
    *("imgpath", "imgfile", "imgname", "fname", "photo", "picture", "images", "imageid", "id", "name"),
)
LABELS = (
    *("label", "labelname", "class", "classname", "category", "categoryname", "target", "species", "breed"),
    *("diagnosis", "labels", "classes", "y", "labelid", "classid", "categoryid"),
)
SPLITS = ("split", "subset", "partition", "set", "phase", "usage")
"""Usual names of columns, in lower-case letters; the first that a table has counts."""
NONE = "none"
"""In place of a column: there is none, whatever the columns are called."""
MOST_LABEL = 256
"""Characters of a class's name."""
MANY = 20
"""Rows from which on labels that are all different are no classes."""
LOOK = 1000
"""Rows that are looked at to tell one-hot columns."""
_FORMULA = re.compile(r"=[\w(\"'+@-]")


def survey_table(file: Path, how: Labelling, *, root: Path | None = None, split: str | None = None) -> Layout:
    """The splits and classes of a table, and what is wrong with it.

    `root` is the folder that paths count from: the table's own where nothing is said. `split`: all rows are of it.
    Raises `DataError` (exit code 3) for a table that cannot be read or names no pictures, `UsageError` (exit code 2)
    for a column that it has not.
    """
    if how.image_root is not None and not Path(how.image_root).is_dir():
        raise UsageError(f"--data.image-root {how.image_root} cannot be", why="there is no such folder")
    table = open_table(file)
    root = root or (Path(how.image_root) if how.image_root is not None else file.parent)
    return _Reader(file, table, _Columns.of(file, table, how), _Files(file, root), split).layout()


@dataclass(frozen=True)
class _Columns:
    """Where a table has what."""

    path: int
    label: int
    split: int | None
    note: str

    @classmethod
    def of(cls, file: Path, table: Table, how: Labelling) -> "_Columns":
        names = table.columns
        path = _column(file, names, how.path_column, PATHS, "path")
        if path is None:
            raise _no_paths(file, names)
        split = None
        if how.split_column != NONE:
            split = _column(file, names, how.split_column, SPLITS, "split", but=(path,))
        label = _column(file, names, how.label_column, LABELS, "label", but=(path, split))
        if label is None:
            raise _no_labels(file, table, [place for place in range(len(names)) if place not in (path, split)])
        said = [f"pictures by {shown(names[path])}", f"classes by {shown(names[label])}"]
        said += [f"splits by {shown(names[split])}"] if split is not None else []
        return cls(path, label, split, f"{file.name}: {', '.join(said)}")


def _column(
    file: Path, names: Sequence[str], given: str | None, usual: Sequence[str], what: str, but: Sequence[int | None] = ()
) -> int | None:
    """The place of a column: the one that is given, else the first of the usual names."""
    if given is not None:
        found = [place for place, name in enumerate(names) if name == given]
        if not found:
            remedy = f"--data.{what}-column with one of them"
            raise UsageError.unknown(f"{what} column", given, map(shown, map(clipped, names)), file=file, remedy=remedy)
    else:
        plain = [re.sub(r"[\s_-]", "", name).lower() for name in names]
        known = next((name for name in usual if any(name == of and p not in but for p, of in enumerate(plain))), None)
        found = [place for place, name in enumerate(plain) if name == known and place not in but]
    if len(found) > 1:
        why, remedy = f"{len(found)} columns are called {shown(names[found[0]])}", "a name of its own for each column"
        raise DataError(f"the {what} column may be either", file=file, why=why, remedy=remedy)
    return found[0] if found else None


def _list(names: Sequence[str]) -> str:
    """Column names for people, as many as fit."""
    known = [shown(name[:40]) for name in names[:8]]
    return ", ".join(known) + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")


def _no_paths(file: Path, names: Sequence[str]) -> DataError:
    if any(Path(name).suffix.lower() in SUFFIXES for name in names):
        why, remedy = f"its first row is {_list(names)}", "a first row such as path,label"
        return DataError("the table does not say what its columns are", file=file, why=why, remedy=remedy)
    why = f"its columns are {_list(names)}" if any(names) else "it is empty"
    return DataError("no column of paths is known", file=file, why=why, remedy="--data.path-column NAME")


def _no_labels(file: Path, table: Table, others: Sequence[int]) -> DataError:
    names = [table.columns[place] for place in others]
    if one_hot := _one_hot(table, others):
        listed = ", ".join(shown(name) for name in one_hot[:3]) + (", …" if len(one_hot) > 3 else "")
        remedy = f"a column label with the name of the column that is 1 (in pandas: t['label'] = t[{one_hot[:3]!r}"
        remedy = remedy[:-1] + (", …" if len(one_hot) > 3 else "") + "]].idxmax(axis=1))"
        return DataError("the classes are spread over columns of 0 and 1", file=file, why=listed, remedy=remedy)
    why = f"its other columns are {_list(names)}" if names else "it has no other column"
    return DataError("no column of labels is known", file=file, why=why, remedy="--data.label-column NAME")


def _one_hot(table: Table, others: Sequence[int]) -> list[str]:
    """Columns of which each row has a 1 in exactly one; nothing where there are no such."""
    binary, rows = set(others), []
    for _, cells in table.rows():
        binary = {place for place in binary if cells[place].strip() in ("0", "1", "0.0", "1.0")}
        rows.append(cells)
        if len(rows) == LOOK:
            break
    fits = len(binary) > 1 and rows and all(sum(float(row[place]) for place in binary) == 1 for row in rows)
    return [table.columns[place] for place in sorted(binary)] if fits else []


class _Files:
    """The files below a folder, which is listed piece by piece as they are asked for."""

    def __init__(self, table: Path, root: Path) -> None:
        self.table, self.root = table, root
        self._names: dict[Path, tuple[set[str], dict[str, list[str]]]] = {}

    def find(self, name: str, row: str) -> tuple[Path, bool]:
        """The file that a row names, and whether it is there.

        Raises `DataError` (exit code 3) for a path that leads out of the folder, or may be one of two files.
        """
        path = self._below(name, row)
        for spelled in dict.fromkeys((name, name.replace("\\", "/"))):
            path = self._below(spelled, row)
            names, stems = self._listed(path.parent)
            if path.name in names or os.path.lexists(path):
                return path, True
            alike = stems.get(path.name, [])
            if len(alike) > 1:
                why = f"{row} names {shown(name)}, and there are {' and '.join(map(shown, sorted(alike)[:3]))}"
                raise DataError("a path may be one of two files", file=self.table, why=why, remedy="the whole name")
            if alike:
                return path.with_name(alike[0]), True
        return path, False

    def home(self, name: str) -> Path | None:
        """The one folder below from which a path that is not there would lead to a file."""
        places = [place for place in sorted(self.root.iterdir()) if place.is_dir() and not place.name.startswith(".")]
        there = [place for place in places[:LOOK] if _Files(self.table, place).find(name, "")[1]]
        return there[0] if len(there) == 1 else None

    def _below(self, name: str, row: str) -> Path:
        path = os.path.normpath(name)
        if Path(path).is_absolute():
            path = os.path.relpath(path, os.path.abspath(self.root))  # noqa: PTH100 - links are left as they are
        if path == os.pardir or path.startswith(os.pardir + os.sep):
            raise DataError(
                "a path leads out of the folder of the images",
                file=self.table,
                why=f"{row} names {shown(clipped(name))}, which is not below {self.root.absolute()}",
                remedy="--data.image-root with a folder above all images",
            )
        return self.root / path

    def _listed(self, folder: Path) -> tuple[set[str], dict[str, list[str]]]:
        if folder not in self._names:
            stems: dict[str, list[str]] = defaultdict(list)
            try:
                names = set(os.listdir(folder))  # noqa: PTH208
            except (OSError, ValueError):
                names = set()
            for name in names:
                stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a million of them
                if suffix.lower() in SUFFIXES:
                    stems[stem].append(name)
            self._names[folder] = names, stems
        return self._names[folder]


class _Reader:
    """Goes through the rows once."""

    def __init__(self, file: Path, table: Table, columns: _Columns, files: _Files, split: str | None) -> None:
        self.file, self.table, self.columns, self.files, self.split = file, table, columns, files, split
        self.placed: dict[Path, tuple[str, str]] = {}
        """The split and the class of each file."""
        self.rows: dict[Path, str] = {}
        self.unlabelled: dict[Path, str] = {}
        self.troubles: list[Trouble] = []
        self.missing: list[str] = []

    def layout(self) -> Layout:
        for number, cells in self.table.rows():
            self._take(f"row {number:,} of {self.file.name}", cells)
        self._refuse()
        members: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
        for path in sorted(self.placed):
            split, label = self.placed[path]
            members[split][label].append(path)
        self.unlabelled = {path: row for path, row in self.unlabelled.items() if path not in self.placed}
        left_out = {UNLABELLED: sorted(self.unlabelled)} if self.unlabelled else {}
        splits = {split: dict(of) for split, of in members.items()}
        rows = self.unlabelled | self.rows
        return Layout(self.files.root, splits, {}, left_out, (self.columns.note,), rows, tuple(self.troubles))

    def _take(self, row: str, cells: Sequence[str]) -> None:
        name, label = cells[self.columns.path].strip(), cells[self.columns.label].strip()
        if not name:
            self._note("no-path", row, f"{row} names no file", "rows that name no file are left out", grave=False)
            return
        if "://" in name or _FORMULA.match(name):
            why = f"{row} has {shown(clipped(name))}"
            raise DataError("a path is no path of a file", file=self.file, why=why, remedy="files on this machine")
        path, there = self.files.find(name, row)
        if not there:
            self.missing.append(name)
        if not label:
            self.unlabelled.setdefault(path, row)
            return
        self._refuse_label(row, label)
        split = self._split(row, path, cells)
        if split is None:
            return
        if path not in self.placed:
            self.placed[path], self.rows[path] = (split, label), row
            return
        self._again(row, path, split, label)

    def _again(self, row: str, path: Path, split: str, label: str) -> None:
        """A file that an earlier row has named."""
        (old_split, old_label), first, name = self.placed[path], self.rows[path], shown(path.name)
        if label != old_label:
            why = f"{first} says that {name} is {shown(old_label)}, and {row} that it is {shown(label)}"
            self._note("two-labels", str(path), why, "one file has two labels", "the right one of the rows")
        elif split != old_split:
            why = f"{first} has {name} in {old_split}, and {row} in {split}"
            self._note("two-splits", str(path), why, "one file is in two splits", "one of the rows")
        else:
            why = f"{row} says what {first} says"
            self._note("same-row", str(path), why, "rows that repeat another are left out", grave=False)

    def _note(self, kind: str, file: str, why: str, what: str, remedy: str = "", *, grave: bool = True) -> None:
        name = os.path.relpath(file, self.files.root) if grave or kind == "same-row" else file
        self.troubles.append(Trouble(kind, (name,), why, what, remedy, grave))

    def _split(self, row: str, path: Path, cells: Sequence[str]) -> str | None:
        """The split of a row; none where it is not known which."""
        if self.columns.split is None:
            return self.split or "all"
        said = cells[self.columns.split].strip()
        found = filenames.split_of(said)
        if found is None or found[1]:
            why = f"{row} says {shown(clipped(said))}" if said else f"{row} says none"
            remedy = "train, val or test, or --data.split-column none"
            self._note("unknown-split", str(path), why, "a split is not known", remedy)
            return None
        return found[0]

    def _refuse_label(self, row: str, label: str) -> None:
        if len(label) > MOST_LABEL:
            why = f"{row} has one of {len(label):,} characters"
        elif any(unicodedata.category(letter) == "Cc" for letter in label):
            why = f"{row} has {shown(clipped(label))}, which holds what no name of a class does"
        elif _FORMULA.match(label):
            why = f"{row} has the formula {shown(clipped(label))}"
        else:
            return
        remedy = "the name of a class, or another --data.label-column"
        raise DataError("a label cannot be", file=self.file, why=why, remedy=remedy)

    def _refuse(self) -> None:
        """Raise `DataError` where no file is there, or no two files are of one class."""
        count = len(self.placed) + len(self.unlabelled)
        if self.missing and len(set(self.missing)) >= count:
            name = self.missing[0]
            home = self.files.home(name)
            remedy = f"--data.image-root {home}" if home else "--data.image-root with the folder that they are in"
            why = f"{shown(clipped(name))} is not in {self.files.root}"
            raise DataError("no file of the table is there", file=self.file, why=why, remedy=remedy)
        labels = {label for _, label in self.placed.values()}
        if len(labels) == len(self.placed) >= MANY:
            column = shown(self.table.columns[self.columns.label])
            why = f"{column} is another in each of {len(labels):,} rows"
            raise DataError("the labels are no classes", file=self.file, why=why, remedy="another --data.label-column")
