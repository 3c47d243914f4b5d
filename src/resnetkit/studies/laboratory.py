"""The laboratory: it runs a study row by row, keeps its book, and has its page written.

Every row of the grid is measured once: `results.csv` grows row by row, and a study that was stopped goes on with the
rows that are missing.
"""

import csv
import io
import json
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from resnetkit.arguments import checked
from resnetkit.errors import StorageError, UsageError
from resnetkit.machine.console import Reporter
from resnetkit.machine.device import describe_machine, one_thread
from resnetkit.machine.extras import with_extra
from resnetkit.machine.storage import append_file, replace_file
from resnetkit.recipes.ranges import require
from resnetkit.studies.page import write_page
from resnetkit.studies.study import Outcome, Place, Row, Study

STUDIES = ("degradation", "depth", "gradients", "lesion", "responses", "shortcuts", "tutorials", "unknown")
"""Names of the studies; each is a module of this package."""


def load_study(name: str) -> Study:
    """A study by name. Raises `UsageError` (exit code 2) for an unknown one, with the nearest that is known."""
    if name not in STUDIES:
        raise UsageError.unknown("study", name, STUDIES)
    return import_module(f"resnetkit.studies.{name}").STUDY


@checked("seeds")
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
    Raises the errors of `resnetkit.errors`; `UsageError` (exit code 2) for `seeds`, where matplotlib is missing, or the
    folder holds the results of other settings.
    """
    require(seeds=seeds)
    if quick and data_root is not None:
        why = "a quick study is of the digits"
        raise UsageError("--data-root would change nothing", why=why, remedy="leave it out")
    study = load_study(name)
    folder = Path(out) if out is not None else Path("studies") / (f"{name}-quick" if quick else name)
    reporter = Reporter()
    place = Place(quick, folder / "work", Path(data_root) if data_root else None, seeds)
    _check_page()
    rows = study.rows(place)
    _begin(folder, study, place)
    book = _Book(folder / "results.csv", study)
    done = sum(map(book.holds, rows))
    reporter.line(f"{study.title}: {len(rows)} rows, {done} of them measured")
    # One thread for a quick look: small images leave two too little to share, and figures are the same on any machine
    # with such a processor.
    with (
        one_thread() if quick else nullcontext(),
        reporter.progress(len(rows), done, unit="rows", rate=None) as progress,
    ):
        for row in rows:
            if not book.holds(row):
                book.append([{**row, **line} for line in study.measure(row, place)])
                reporter.line(", ".join(f"{column} {row[column]}" for column in study.settings))
                done += 1
                progress(done)
    results = book.lines_of(rows)
    answer = study.answer(results)
    write_page(folder, study, results, answer, quick=quick)
    return Outcome(folder, tuple(results), answer)


def _check_page() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError("studies draw with matplotlib, which is not installed", remedy=with_extra("report")) from error


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


class _Book:
    """The results of a study, in a file that grows row by row: a row is there as a whole or not at all."""

    def __init__(self, file: Path, study: Study) -> None:
        self.file, self.columns, self.settings = file, study.columns, study.settings
        self.lines = self._read()
        self.measured = set(map(self._key, self.lines))

    def holds(self, row: Row) -> bool:
        """Whether a row of the grid has been measured."""
        return self._key(row) in self.measured

    def lines_of(self, rows: Sequence[Row]) -> list[Row]:
        """What was measured for some rows of the grid, in the order of the file."""
        wanted = set(map(self._key, rows))
        return [line for line in self.lines if self._key(line) in wanted]

    def append(self, lines: Sequence[Row]) -> None:
        """All lines of one row. Raises `StorageError` (exit code 7)."""
        stream = io.StringIO()
        csv.DictWriter(stream, self.columns, lineterminator="\n").writerows(lines)
        header = "" if self.file.exists() else ",".join(self.columns) + "\n"
        try:
            append_file(self.file, (header + stream.getvalue()).encode())
        except OSError as error:
            raise StorageError.from_os(error, "cannot write the results", self.file) from error
        self.lines += self._parse(stream.getvalue())
        self.measured |= set(map(self._key, lines))

    def _key(self, row: Row) -> tuple[str, ...]:
        return tuple(str(row[column]) for column in self.settings)

    def _read(self) -> list[Row]:
        if not self.file.exists():
            return []
        header, _, rest = self.file.read_text(encoding="utf-8").partition("\n")
        if tuple(header.split(",")) != self.columns:
            raise UsageError("the results are of another version of the study", file=self.file, remedy="another --out")
        return self._parse(rest)

    def _parse(self, text: str) -> list[Row]:
        return [
            {name: _value(cell) for name, cell in line.items()}
            for line in csv.DictReader(io.StringIO(text), self.columns)
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
