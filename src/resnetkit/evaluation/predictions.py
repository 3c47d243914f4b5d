"""What an evaluation leaves in a folder: every answer as a line of a table, and all figures."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from resnetkit.errors import StorageError, UsageError
from resnetkit.evaluation.answers import Answers
from resnetkit.machine.csvfile import csv_line
from resnetkit.machine.storage import replace_files

PREDICTIONS, EVALUATION = "predictions.csv", "evaluation.json"
TOP = 5
"""Classes that are named for each image, the most probable ones."""
AT_A_TIME = 4096
"""Images whose probabilities are in memory at a time."""


def require_free(folder: Path, *, overwrite: bool) -> None:
    """Raise `UsageError` (exit code 2) where the folder cannot be one, or holds what would be written."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if not there.is_dir():
        raise UsageError("the output folder cannot be made", file=there, why="it is a file", remedy="another --out")
    for name in (PREDICTIONS, EVALUATION):
        if (folder / name).is_dir():
            raise UsageError("the output file cannot be made", file=folder / name, why="it is a folder")
        if (folder / name).exists() and not overwrite:
            raise UsageError("the output file exists", file=folder / name, remedy="--overwrite, or another --out")


def write_evaluation(folder: Path, answers: Answers, report: Mapping[str, Any]) -> None:
    """Write `predictions.csv` and `evaluation.json`: both or none. Raises `StorageError` (exit code 7)."""
    # One key a line: a person reads the figures, and finds the matrix in one place.
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in report.items())
    figures = "{\n" + ",\n".join(lines) + "\n}\n"
    table = b"".join(map(csv_line, records(answers)))
    try:
        replace_files({folder / PREDICTIONS: table, folder / EVALUATION: figures.encode()})
    except StorageError as error:
        remedy = "free some space, or another --out"
        raise StorageError(error.what, file=error.file, why=error.why, remedy=remedy) from error


def records(answers: Answers) -> Iterator[list[object]]:
    """The lines of `predictions.csv`, with their heading; probabilities are calibrated, the loss is not.

    `file, label, prediction, correct, loss, class_1, probability_1, …` down to the fifth class.
    """
    names, top = answers.classes, min(TOP, len(answers.classes))
    heads = [f"{what}_{place}" for place in range(1, top + 1) for what in ("class", "probability")]
    yield ["file", "label", "prediction", "correct", "loss", *heads]
    for start in range(0, len(answers), AT_A_TIME):
        part = answers.take(slice(start, start + AT_A_TIME))
        best = np.argsort(-part.logits, 1, kind="stable")[:, :top]
        shares = np.take_along_axis(part.probabilities, best, 1).tolist()
        rows = zip(part.files, part.labels.tolist(), part.losses.tolist(), best.tolist(), shares, strict=True)
        for file, label, loss, places, probabilities in rows:
            pairs = zip(places, probabilities, strict=True)
            cells = [cell for place, share in pairs for cell in (names[place], _short(share))]
            yield [file, names[label], names[places[0]], label == places[0], _short(loss), *cells]


def _short(value: float) -> float:
    """Six digits: more than a network is sure of."""
    return float(f"{value:.6g}")
