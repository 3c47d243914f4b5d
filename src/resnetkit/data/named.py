"""The named sets: digits, Fashion-MNIST, CIFAR, ImageNet. To know their names takes no torch."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

from resnetkit.errors import DataError
from resnetkit.machine.storage import user_cache

if TYPE_CHECKING:
    import numpy as np

    from resnetkit.data.dataset import Data
    from resnetkit.data.splits import Files
    from resnetkit.recipes.schema import DataRecipe


def default_data_root() -> Path:
    """Where named sets live: RESNETKIT_DATA, else a folder in the user's cache."""
    root = os.environ.get("RESNETKIT_DATA")
    return Path(root) if root else user_cache() / "data"


def _digits(_root: Path | None, settings: "DataRecipe") -> "Data":
    """1,797 handwritten digits, 8x8 grey, from scikit-learn: 20 % test, `validation` of the rest to choose by."""
    import numpy as np
    import torch

    from resnetkit.data.dataset import Data
    from resnetkit.data.splits import Images, hold_out

    values, labels = _digits_as_published()
    grey = np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    everything = Images(torch.from_numpy(grey), torch.from_numpy(labels.astype(np.int64)), origin="digits")
    rest, test = hold_out(everything, 0.2)
    train, validation = hold_out(rest, settings.validation)
    return Data("digits", tuple(str(digit) for digit in range(10)), train, validation, test, channels=1)


def _digits_as_published() -> "tuple[np.ndarray, np.ndarray]":
    """Values 0-16, (1797, 64), and labels (1797,), out of scikit-learn's own file where it lies in its usual place.

    `load_digits` gives the same, but scikit-learn imports all of SciPy first, longer than a short run learns.
    """
    import numpy as np

    found = find_spec("sklearn")
    file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz" if found and found.origin else None
    if file is None or not file.is_file():
        from sklearn.datasets import load_digits

        values, labels = load_digits(return_X_y=True)
        return np.asarray(values), np.asarray(labels)
    rows = np.loadtxt(file, delimiter=",")
    return rows[:, :-1], rows[:, -1]


def _from_torchvision(name: str, kind: str, expected: str) -> Callable[[Path | None, "DataRecipe"], "Data"]:
    def load(root: Path | None, settings: "DataRecipe") -> "Data":
        import torch
        from torchvision import datasets

        from resnetkit.data.dataset import Data
        from resnetkit.data.splits import Images, hold_out

        make = getattr(datasets, kind)
        where = root or default_data_root()
        try:
            train, test = (make(where, train=part, download=root is None) for part in (True, False))
        except (RuntimeError, OSError, EOFError, HTTPException) as error:
            remedy = f"put {expected} into {where}"
            if root is not None:
                remedy += ", or leave out --data-root to download"
            raise DataError(f"{name} is not complete", file=where, why=_short(error), remedy=remedy) from error
        splits = []
        for part, which in ((train, "train"), (test, "test")):
            pixels = torch.as_tensor(part.data)
            pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
            splits.append(Images(pixels.contiguous(), torch.as_tensor(part.targets), origin=f"{name} {which}"))
        fit, validation = hold_out(splits[0], settings.validation)
        return Data(name, tuple(train.classes), fit, validation, splits[1], channels=splits[0].pixels.shape[1])

    return load


def _short(error: Exception) -> str:
    """Why, in one line. Of torchvision's several, the first names the file and the last the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = f"{lines[0]} {lines[-1]}" if lines[0].endswith(":") else lines[0]
    return re.sub(r"<urlopen error (.*)>", r"\1", line).rstrip(".")[:200]


def _imagenet(root: Path | None, settings: "DataRecipe") -> "Data":
    """ILSVRC 2012, folders train/ and val/ with one for each synset. Its validation images are the test split here."""
    from resnetkit.data.folder import load_folder
    from resnetkit.data.splits import hold_out

    folder = (root or default_data_root()) / "imagenet"
    if not folder.is_dir():
        raise DataError(
            "imagenet is not there",
            file=folder,
            why="it cannot be downloaded without an account",
            remedy="unpack ILSVRC 2012 into its train/ and val/, a folder such as n01440764/ for each class",
        )
    data = load_folder(folder, settings, whole=False)
    data = replace(data, name="imagenet", test=data.test or data.validation, validation=None)
    if data.train is None:
        return data  # enough to be scored on
    fit, held = hold_out(cast("Files", data.train), settings.validation)
    return replace(data, train=fit, validation=held)


NAMED_SETS: dict[str, Callable[[Path | None, "DataRecipe"], "Data"]] = {
    "digits": _digits,
    "fashion-mnist": _from_torchvision(
        "fashion-mnist", "FashionMNIST", "the four files train-images-idx3-ubyte … under FashionMNIST/raw/"
    ),
    "cifar10": _from_torchvision("cifar10", "CIFAR10", "cifar-10-python.tar.gz, unpacked as cifar-10-batches-py/"),
    "cifar100": _from_torchvision("cifar100", "CIFAR100", "cifar-100-python.tar.gz, unpacked as cifar-100-python/"),
    "imagenet": _imagenet,
}
