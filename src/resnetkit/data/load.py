"""The images: named sets, folders and shards, each as a `Data` of train, validation and test splits.

Splits that have to be made are stratified and depend on `SPLIT_SEED` alone, so that runs with other seeds are scored
on the same images.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from resnetkit.data.archive import holds_folders
from resnetkit.data.arrays import NAME as ARRAYS
from resnetkit.data.arrays import Arrays, read_arrays
from resnetkit.data.dataset import Data, refuse_missing, refuse_single
from resnetkit.data.folder import load_folder
from resnetkit.data.items import NAME as ITEMS
from resnetkit.data.items import DataSets, read_datasets, saved_datasets
from resnetkit.data.members import is_archive_name
from resnetkit.data.named import NAMED_SETS
from resnetkit.data.rows import is_table
from resnetkit.data.shards.read import names_shards, open_shards
from resnetkit.data.splits import SPLIT_SEED
from resnetkit.data.torchset import load_datasets
from resnetkit.errors import DataError, UsageError
from resnetkit.machine.console import Reporter
from resnetkit.recipes.schema import DataRecipe

InPython = Arrays | DataSets
"""Images that Python holds."""


def source_of(data: Any, **how: Any) -> str | Path | InPython | None:
    """What was given as data: a name or a path as it is, else what Python holds; arrays as `read_arrays` has them.

    `how` is for that. Raises `UsageError` (exit code 2) for anything else.
    """
    if data is None or isinstance(data, str | Path | InPython):
        return data
    found = read_datasets(data)
    return read_arrays(data, **how) if found is None else found


def load_data(
    name: str | InPython,
    settings: DataRecipe | None = None,
    *,
    data_root: str | Path | None = None,
    whole: bool = False,
    channels: int | None = None,
    reporter: Reporter | None = None,
) -> Data:
    """Load a named set, a folder of images, a table or archive of them, shards (a folder or a pattern), or images held.

    Data sets of Python are read through once.
    A named set that is missing is downloaded to the default root, never to a `data_root` that is given, which is
    refused for other data. `whole` takes a folder of class folders as one test split instead of splitting it.
    `channels` are those that are wanted, 1 or 3; None takes what data sets of Python have, and of files three.
    `reporter` shows how far the indexing of shards is; without one nothing is shown.
    Raises `DataError` (exit code 3) or `UsageError` (exit code 2), naming the folder and the layout that is expected.
    """
    settings = settings or DataRecipe(name=str(name))
    if data_root is not None and (str(name) not in NAMED_SETS or str(name) == "digits"):
        why = "digits come with scikit-learn" if str(name) == "digits" else "it is for named sets"
        raise UsageError("--data-root would change nothing", file=str(name), why=why, remedy="leave it out")
    if isinstance(name, Arrays):
        data = name.load(settings, whole=whole)
    elif isinstance(name, DataSets):
        data = load_datasets(name, settings, whole=whole, channels=channels, reporter=reporter)
    elif name in NAMED_SETS:
        data = NAMED_SETS[name](Path(data_root) if data_root else None, settings)
        data.notes.extend(beside_named(name))
    elif (saved := saved_datasets(Path(name))) is not None:
        data = load_datasets(saved, settings, whole=whole, channels=channels, reporter=reporter)
        data = replace(data, name=name)
    elif names_shards(name) and not holds_folders(Path(name)):
        data = _load_shards(name, settings, whole=whole, reporter=reporter)
    elif name in (ARRAYS, ITEMS) and not Path(name).exists():
        why, remedy = "they were held by Python", "resnetkit.train(…) in Python, with the same ones"
        raise UsageError("the images of the run are not there", why=why, remedy=remedy)
    elif not Path(name).exists() and Path(name).name == name and not _is_file_name(Path(name)):
        raise UsageError.unknown("data set", name, NAMED_SETS, remedy="a name, or the path of a folder")
    else:
        data = load_folder(Path(name), settings, whole=whole, channels=channels or 3)
    if settings.limit is not None and data.train is not None and settings.limit < len(data.train):
        train = data.train.limited(settings.limit)
        data = replace(data, train=train)
        data.notes.append(f"trains on {len(train)} images only, as data.limit says")
    return data


def _is_file_name(path: Path) -> bool:
    return is_table(path) or is_archive_name(path)


def beside_named(name: str) -> list[str]:
    """What to say of a named set where there is a folder of that name too."""
    if name not in NAMED_SETS or not Path(name).is_dir():
        return []
    kind = "embedded" if name == "digits" else "public"
    return [f"{name} is the {kind} set, not the folder here of that name; for the folder: ./{name}"]


def _load_shards(source: str, settings: DataRecipe, *, whole: bool, reporter: Reporter | None) -> Data:
    found = open_shards(source, reporter=reporter)
    splits, notes = dict(found.splits), list(found.notes)
    if not whole:
        refuse_single(source, found.classes)
    if not settings.allow_missing and not whole:
        refuse_missing(source, found.classes, found.counts)
    if whole and set(splits) == {"train"}:
        splits["test"] = splits.pop("train")
    elif "train" in splits and "validation" not in splits:
        splits["train"], splits["validation"] = splits["train"].hold_out(settings.validation, SPLIT_SEED)
        if not len(splits["validation"]):
            raise DataError(
                "nothing can be held out to choose the best weights by",
                file=source,
                why=f"no shard has {round(1 / settings.validation)} images",
                remedy="val-*.tar shards, or a larger --data.validation",
            )
        notes.append(f"no val shards in {source}: held out {len(splits['validation']):,} of the training images")
    parts = (splits.get("train"), splits.get("validation"), splits.get("test"))
    return Data(source, found.classes, *parts, notes=notes, left_out=found.left_out)
