"""`resnetkit check`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from resnetkit.cli.options import HowLabelled, Json, Workers
from resnetkit.cli.printing import answer, answer_json, console


def check_command(
    data: Annotated[Path, Parameter(name="DATA")],
    /,
    *,
    labelling: HowLabelled = None,
    workers: Workers = None,
    json_output: Json = False,
    strict: Annotated[bool, Parameter(negative="", help="Exit with 3 where an error was found.")] = False,
) -> int:
    """Look through a set of images for what spoils training or its scores.

    resnetkit check photos/
    resnetkit check labels.csv
    resnetkit check photos/ --strict --json

    Unreadable and odd images, duplicates within and across splits, missing classes. It changes no file.

    Parameters
    ----------
    data
        A folder of class folders, or of train/, val/ and test/ with class folders in them; a table with a path and a
        label in each row (CSV, TSV, Parquet); a zip or tar of such.
    """
    from resnetkit.doctor.check import check
    from resnetkit.machine.console import Reporter

    with Reporter().progress(None, 0, unit="images") as progress:
        report = check(data, workers=workers, progress=progress, labelling=labelling)
    if json_output:
        answer_json(report.to_dict())
    else:
        answer(*report.to_text(min(console().width, 100)).split("\n"))
    return 3 if strict and report.serious else 0
