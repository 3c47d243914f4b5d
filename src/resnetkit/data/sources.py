"""What a path to pictures is: a folder, a table, an archive; each gives a `Layout`, to be read in one way."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from resnetkit.data import filenames
from resnetkit.data.archive import unpack
from resnetkit.data.labelling import Labelling
from resnetkit.data.layout import Layout
from resnetkit.data.members import is_archive_name
from resnetkit.data.namepattern import survey_names
from resnetkit.data.rows import is_table
from resnetkit.data.survey import survey
from resnetkit.data.table import survey_table
from resnetkit.data.walk import subfolders
from resnetkit.errors import DataError, UsageError

METADATA = "metadata.csv"
"""The table in a folder of images, or in each of its splits, as Hugging Face's `imagefolder` has it."""
_SAVED = ("dataset_dict.json", "state.json")
"""Files by which a folder of the library datasets is known."""


def holds_saved(folder: Path) -> bool:
    """Whether the library datasets has saved a folder: its pictures are in Arrow files, see `items.saved_datasets`."""
    return any((folder / name).is_file() for name in _SAVED)


def find_layout(source: Path, how: Labelling | None = None, named: Mapping[str, str] | None = None) -> Layout:
    """The splits and classes of a folder, a table, or an archive, which is unpacked once.

    `named` says which subfolder is which split. Raises `DataError` (exit code 3) for what cannot be read or understood,
    `UsageError` (exit code 2) for what is asked for and is not there, `StorageError` (exit code 7) where there is no
    room to unpack.
    """
    how, notes = how or Labelling(), []
    if is_table(source) and not source.is_dir():
        if how.label_from is not None:
            why = "a table says the classes itself"
            raise UsageError("--data.label-from is for folders", file=source, why=why, remedy="--data.label-column")
        return survey_table(source, how)
    folder = source
    if is_archive_name(source) and not source.is_dir():
        folder, notes = unpack(source)
    layout = _of_folder(folder, how, dict(named or {}))
    return replace(layout, notes=(*notes, *layout.notes))


def _of_folder(folder: Path, how: Labelling, named: dict[str, str]) -> Layout:
    if how.label_from is not None:
        if not folder.is_dir():
            raise DataError("cannot read the images", file=folder, why="no such folder")
        return survey_names(folder, how.label_from, named)
    if (folder / METADATA).is_file():
        return survey_table(folder / METADATA, how)
    tables = _tables_of_splits(folder) if folder.is_dir() and not named else {}
    return _joined(folder, how, tables) if tables else survey(folder, named)


def _tables_of_splits(folder: Path) -> dict[str, Path]:
    try:
        children = subfolders(folder)
    except OSError:
        return {}
    tables = {}
    for child in children:
        spoken = filenames.split_of(child.name)
        if spoken is not None and not spoken[1] and (child / METADATA).is_file():
            tables[spoken[0]] = child / METADATA
    return tables


def _joined(folder: Path, how: Labelling, tables: Mapping[str, Path]) -> Layout:
    """One layout of the tables that the splits have."""
    parts = {split: survey_table(file, how, root=file.parent, split=split) for split, file in tables.items()}
    whole = Layout(folder, {}, {})
    for split, part in parts.items():
        left_out = {reason: whole.left_out.get(reason, []) + paths for reason, paths in part.left_out.items()}
        rows = {path: f"{row} of {split}" for path, row in part.rows.items()}
        whole = replace(
            whole,
            members={**whole.members, **part.members},
            left_out={**whole.left_out, **left_out},
            notes=(*whole.notes, *part.notes),
            rows={**whole.rows, **rows},
            troubles=(*whole.troubles, *part.troubles),
        )
    return whole
