"""A study: a question, a grid of settings, what is measured for each, a figure, and an answer in plain words.

Every row of the grid is measured once: `results.csv` grows row by row, and a study that was stopped goes on with the
rows that are missing.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetkit.device import describe_machine, one_thread
from resnetkit.errors import StorageError, UsageError
from resnetkit.log import Reporter
from resnetkit.storage import append_file, replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, str | int | float | bool]
"""The settings of one row of a grid, or one line of results: settings and figures together."""

STUDIES = ("degradation", "depth", "gradients", "lesion", "responses", "shortcuts", "tutorials")
"""Names of the studies; each is a module of this package."""


@dataclass(frozen=True)
class Place:
    """Where a study measures: what is asked of it, and where it may write."""

    quick: bool
    """Answer in minutes on two cores, on the embedded digits or on a few images."""
    folder: Path
    """A folder of the study's own, for runs and the like."""
    data_root: Path | None = None
    """Where named sets lie."""
    seeds: int | None = None
    """How many seeds; none leaves it to the study."""

    @property
    def images(self) -> tuple[str, Path | None]:
        """The set or folder to learn from, and where named sets lie.

        That is digits in a quick look, else CIFAR-10: a `data_root` with a folder train/ is it as a folder of pictures.
        """
        if self.quick:
            return "digits", None
        if self.data_root is not None and (self.data_root / "train").is_dir():
            return str(self.data_root), None
        return "cifar10", self.data_root


@dataclass(frozen=True)
class Study:
    """One question and the way to its answer."""

    name: str
    title: str
    question: str
    source: str
    """Section, table or figure of the paper, or the tutorial, that makes the claim."""
    settings: tuple[str, ...]
    """Columns that name a row of the grid."""
    figures: tuple[str, ...]
    """Columns that are measured."""
    rows: Callable[[Place], Sequence[Row]]
    """The grid: the settings of every row, in the order in which they are measured."""
    measure: Callable[[Row, Place], Sequence[Row]]
    """One row's figures: one line or several, such as one for each epoch or layer, named in a column of `figures`."""
    draw: Callable[["Figure", Sequence[Row]], None]
    """Draw all results into an empty figure."""
    answer: Callable[[Sequence[Row]], str]
    """The verdict, in paragraphs of plain words, computed from the results."""


@dataclass(frozen=True)
class Outcome:
    """What a study gave."""

    folder: Path
    results: tuple[Row, ...]
    answer: str


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


def select(results: Sequence[Row], **wanted: object) -> Iterator[Row]:
    """The lines of results whose columns have these values."""
    return (line for line in results if all(line[name] == value for name, value in wanted.items()))
