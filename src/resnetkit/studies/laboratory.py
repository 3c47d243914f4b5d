"""Running a study: its grid row by row, its book, its page."""

import csv
import io
import json
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetkit.errors import StorageError, UsageError
from resnetkit.machine.console import Reporter
from resnetkit.machine.device import describe_machine, one_thread
from resnetkit.machine.storage import append_file, replace_file

if TYPE_CHECKING:
    pass
from resnetkit.studies.study import Outcome, Place, Row, Study

STUDIES = ("degradation", "depth", "gradients", "lesion", "responses", "shortcuts", "tutorials")
"""Names of the studies; each is a module of this package."""


def load_study(name: str) -> Study:
    """A study by name. Raises `UsageError` (exit code 2) for an unknown one, with the nearest that is known."""
    if name not in STUDIES:
        raise UsageError.unknown("study", name, STUDIES)
    return import_module(f"resnetkit.studies.{name}").STUDY


def run_study(
    name: str,
    *,
    quick: bool = False,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    seeds: int | None = None,
) -> Outcome:
    """Measure all rows of a study that are still missing, draw the figure, write the page.

    `out` is `studies/NAME` by default, or `studies/NAME-quick`. It gets `results.csv`, `figure.png` and `index.html`.
    Raises the errors of `resnetkit.errors`; `UsageError` (exit code 2) where matplotlib is missing or the folder holds
    the results of other settings.
    """
    study = load_study(name)
    folder = Path(out) if out is not None else Path("studies") / (f"{name}-quick" if quick else name)
    reporter = Reporter()
    place = Place(quick, folder / "work", Path(data_root) if data_root else None, seeds)
    _check_page()
    grid = list(study.rows(place))
    _begin(folder, study, place)
    book = folder / "results.csv"
    results = _read(book, study)
    done = {_name(study, line) for line in results}
    reporter.line(f"{study.title}: {len(grid)} rows, {sum(_name(study, row) in done for row in grid)} of them measured")
    # One thread for a quick look: small images leave two too little to share, and figures are the same on any machine
    # with such a processor.
    with one_thread() if quick else nullcontext(), reporter.progress(len(grid), len(done), 1, "rows") as progress:
        for number, row in enumerate(grid, 1):
            if _name(study, row) not in done:
                lines = [{**row, **line} for line in study.measure(row, place)]
                _append(book, study, lines)
                results += _parse(_text(study, lines), study)
                reporter.line(", ".join(f"{key} {row[key]}" for key in study.settings))
            progress(number)
    wanted = {_name(study, row) for row in grid}
    results = [line for line in results if _name(study, line) in wanted]
    from resnetkit.studies.page import write_page

    answer = study.answer(results)
    write_page(folder, study, results, answer, quick=quick)
    return Outcome(folder, tuple(results), answer)


def _check_page() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "studies draw with matplotlib, which is not installed", remedy='pip install "resnetkit[report]"'
        ) from error


def _begin(folder: Path, study: Study, place: Place) -> None:
    """Note on what machine and with what versions; refuse a folder of other settings."""
    note = folder / "study.json"
    about: dict[str, Any] = {"study": study.name, "quick": place.quick}
    if note.exists():
        before = json.loads(note.read_bytes())
        if any(before.get(name) != value for name, value in about.items()):
            raise UsageError("the folder holds another study", file=folder, remedy="another --out")
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError("the output folder holds other files", file=folder, remedy="another --out")
    replace_file(note, json.dumps(about | {"machine": describe_machine()}, indent=1).encode())


def _name(study: Study, row: Row) -> tuple[str, ...]:
    return tuple(str(row[column]) for column in study.settings)


def _append(book: Path, study: Study, lines: Sequence[Row]) -> None:
    """All lines of a row at once: a row is there as a whole or not at all."""
    header = "" if book.exists() else ",".join((*study.settings, *study.figures)) + "\n"
    try:
        append_file(book, (header + _text(study, lines)).encode())
    except OSError as error:
        raise StorageError.from_os(error, "cannot write the results", book) from error


def _text(study: Study, lines: Sequence[Row]) -> str:
    stream = io.StringIO()
    csv.DictWriter(stream, (*study.settings, *study.figures), lineterminator="\n").writerows(lines)
    return stream.getvalue()


def _read(book: Path, study: Study) -> list[Row]:
    if not book.exists():
        return []
    header, _, rest = book.read_text(encoding="utf-8").partition("\n")
    if header.split(",") != [*study.settings, *study.figures]:
        raise UsageError("the results are of another version of the study", file=book, remedy="another --out")
    return _parse(rest, study)


def _parse(text: str, study: Study) -> list[Row]:
    return [
        {name: _value(cell) for name, cell in line.items()}
        for line in csv.DictReader(io.StringIO(text), (*study.settings, *study.figures))
    ]


def _value(cell: str) -> str | int | float | bool:
    if cell in ("True", "False"):
        return cell == "True"
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell
