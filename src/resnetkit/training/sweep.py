"""A sweep: one run for each row of a grid, ranked by validation; the test split is opened once, for the winner.

sweeps/NAME/
├── sweep.json     every row that has ended, and what was opened; all else follows from it
├── rows.csv       the same for people: settings and figures
└── ROW-DIGEST/    the run of a row, as `train` writes it
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from resnetkit.arguments import checked, refusal
from resnetkit.artefact import load_classifier
from resnetkit.data.arrays import TAKES
from resnetkit.data.dataset import Data
from resnetkit.data.load import InPython, load_data, source_of
from resnetkit.data.splits import Split
from resnetkit.errors import (
    DataError,
    DivergedError,
    PeerError,
    ResnetkitError,
    StoppedError,
    StorageError,
    UsageError,
)
from resnetkit.evaluation.answers import answer
from resnetkit.evaluation.intervals import wilson
from resnetkit.evaluation.opened import record
from resnetkit.evaluation.score import score
from resnetkit.machine.console import Reporter, duration
from resnetkit.machine.lock import alone_in
from resnetkit.machine.storage import sha256
from resnetkit.machine.torchrun import place
from resnetkit.recipes.load import load_recipe
from resnetkit.recipes.schema import Recipe
from resnetkit.training.arguments import recipe_changes
from resnetkit.training.book import Book
from resnetkit.training.grid import Row, make_rows, worded
from resnetkit.training.ranking import Standing, rank
from resnetkit.training.train import train

ENDS_ALL = (StorageError, StoppedError, PeerError, DataError)
"""Errors that are no row's own: each other row would meet them too."""


@dataclass(frozen=True)
class Sweep:
    """What a sweep has come to. Accuracies are in percent."""

    folder: Path
    data: str
    count: int
    """Validation images, by which rows are ranked."""
    ranking: tuple[Standing, ...]
    """The best first."""
    varied: tuple[str, ...]
    """Keys in which rows differ."""
    failed: dict[str, str]
    """Rows that did not come to their end, by their settings, and why."""
    test: dict[str, Any] | None
    """Figures of the winner on the test split, `count, loss, top1, top5, low, high`; none where there is none."""
    opened: int
    """How many rows of this sweep have been scored on the test split, which is 1 unless rows were added later."""

    @property
    def best(self) -> Path:
        """The run of the winner: the best seed of the best settings."""
        return self.folder / self.ranking[0].rows[0].folder

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(len(standing.rows) for standing in self.ranking) + len(self.failed)

    def to_dict(self) -> dict[str, Any]:
        """All of it, for `--json`."""
        return {
            "sweep": str(self.folder),
            "data": self.data,
            "rows": self.rows,
            "validation_count": self.count,
            "ranking": [self._row(standing) for standing in self.ranking],
            "failed": [{"row": row, "why": why} for row, why in self.failed.items()],
            "best": {"run": str(self.best), "settings": chosen(self.ranking[0].settings, self.varied)},
            "test": self.test,
            "test_opened": self.opened,
        }

    def _row(self, standing: Standing) -> dict[str, Any]:
        runs = [
            {"run": str(self.folder / row.folder), "seed": row.settings["seed"], "top1": row.top1, "loss": row.loss}
            for row in standing.rows
        ]
        several = len(standing.rows) > 1
        varied = [key for key in self.varied if not (several and key == "seed")]
        figures = {key: getattr(standing, key) for key in ("top1", "low", "high", "loss", "p", "tied")}
        return {"settings": chosen(standing.settings, varied)} | figures | {"runs": runs}


def chosen(settings: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Some of a row's settings."""
    return {key: settings.get(key) for key in keys}


@checked()
def sweep(
    data: Any,
    /,
    grid: Mapping[str, Sequence[Any]] | None = None,
    recipe: str | Path | Recipe | None = None,
    *,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    quiet: bool = False,
    reporter: Reporter | None = None,
    **changes: Any,
) -> Sweep:
    """Train one run for each combination of `grid`, rank them by validation, and score the winner on the test split.

    `grid` has the values of each key, such as `{"optim.lr": [0.03, 0.1], "seed": [0, 1]}`; `model`, `weights` and
    `recipe` may be among them. `data`, `recipe` and `changes` are as for `train`, the same for all rows.
    `out` is `sweeps/DATA` by default. The same call goes on where it was stopped, within a row too; one with another
    grid adds rows to those that are there. Rows that differ in the seed alone are averaged.
    A row that diverges, or cannot be trained, is a row with its reason. What meets all rows ends the sweep: `DataError`
    (exit code 3), `StorageError` (7), `StoppedError` (130). Where no row comes to its end, `DivergedError` (5), or
    `UsageError` where not all have diverged. Raises `UsageError` (exit code 2) for a grid that cannot
    be, and under `torchrun`.
    """
    if not place().alone:
        raise UsageError("a sweep runs in one process", why="torchrun has started several", remedy="without it")
    source, same = source_of(data), recipe_changes(changes)
    if not grid:
        raise UsageError("there is nothing to sweep", remedy='grid={"optim.lr": [0.03, 0.1]}')
    if data is not None and source is None:
        raise refusal("sweep", "data", data, f"a name, a folder, or {TAKES}")
    reporter = reporter or Reporter(quiet=quiet)
    rows = make_rows(source, recipe, grid, same)
    name = source if isinstance(source, InPython) else rows[0].recipe.data.name
    folder = Path(out) if out is not None else Path("sweeps") / Path(str(name)).resolve().name
    Book.open(folder)  # what cannot be is said before the images are read
    images = load_data(name, rows[0].recipe.data, data_root=data_root, reporter=reporter)
    if images.validation is None:
        raise DataError("there is nothing to rank rows by", file=images.name, remedy="a folder val/")
    busy = partial(UsageError, "another sweep is at work", file=folder, remedy="wait until it has ended")
    with alone_in(folder, busy, "cannot use the sweep's folder"):
        book = Book.open(folder)
        book.begin(images.name, sha256(images.validation.entries("validation", images.root).tobytes()))
        _run_rows(rows, source, images.validation, book, data_root, reporter)
        return _concluded(images, book, reporter)


def _run_rows(
    rows: Sequence[Row],
    source: Any,
    split: Split,
    book: Book,
    data_root: str | Path | None,
    reporter: Reporter,
) -> None:
    """Run every row that has not ended yet, and score it on the validation split."""
    left = [row for row in rows if not book.ended(row.key)]
    reporter.line(f"sweep     {len(rows) - len(left)} of {len(rows)} rows are done, in {book.folder}")
    timed = False
    with reporter.progress(len(rows), len(rows) - len(left), unit="rows", rate=None) as progress:
        for number, row in enumerate(left, len(rows) - len(left) + 1):
            folder = book.folder_of(row)
            reporter.line(f"row       {number} of {len(rows)}: {folder.name}")
            began, anew = time.monotonic(), not folder.exists()
            try:
                train(
                    source,
                    row.base,
                    out=folder,
                    resume=True,
                    data_root=data_root,
                    quiet=True,
                    score_test=False,
                    **row.changes,
                )
                _score_row(row, folder, split, book, reporter)
            except ENDS_ALL as error:
                raise _worded(error, book.folder) from error
            except ResnetkitError as error:
                why = str(error).partition(" Try: ")[0].rstrip(".")
                book.fail(row, folder, why, final=isinstance(error, DivergedError))
                reporter.line(f"  failed: {why}")
            progress(number)
            if anew and not timed and number < len(rows):
                timed, more = True, len(rows) - number
                time_left = duration((time.monotonic() - began) * more)
                reporter.line(f"time      about {time_left} for the {more} rows that are left")


def _worded(error: ResnetkitError, folder: Path) -> ResnetkitError:
    """A stop as that of the sweep: what goes on is not a row alone."""
    if not isinstance(error, StoppedError):
        return error
    why = f"all rows, and the state of this one, are in {folder}"
    said = StoppedError("stopped", why=why, remedy="the same command: it goes on")
    said.exit_code = error.exit_code
    return said


def _score_row(row: Row, folder: Path, split: Split, book: Book, reporter: Reporter) -> None:
    """Note what a finished row gives on the validation images."""
    recipe = row.recipe
    classifier = load_classifier(folder, device=recipe.device, precision=recipe.precision)
    found = answer(classifier, split, workers=recipe.data.workers)
    right = found.logits.argmax(1) == found.labels
    book.score(row, folder, right, float(found.losses.mean()), classifier.metrics["seconds"])
    low, high = wilson(int(right.sum()), len(right))
    top1 = 100 * np.mean(right)
    reporter.line(f"  validation top-1 {top1:.2f} % ({low:.1f} to {high:.1f}), loss {found.losses.mean():.3f}")


def _concluded(images: Data, book: Book, reporter: Reporter) -> Sweep:
    """Rank the rows, and open the test split for the winner where that has not been done."""
    ranking, failed = rank(book.scored()), book.failed()
    if not ranking:
        row, why = next(iter(failed.items()))
        kind = DivergedError if book.all_final else UsageError
        raise kind("no row came to its end", file=book.folder, why=f"{row}: {why}")
    winner = ranking[0].rows[0]
    if images.test is not None and book.test_of(winner.key) is None:
        reporter.line(f"test      opened for {winner.folder}")
        book.opening(winner.key)  # before: whoever is killed in between has seen nothing, and is counted
        record(book.folder / winner.folder, "sweep")
        book.tested(winner.key, _test(book.folder / winner.folder, images.test))
    book.write_table(ranking)
    return Sweep(
        book.folder,
        images.name,
        len(winner.right),
        tuple(ranking),
        book.varied(),
        failed,
        book.test_of(winner.key),
        book.times_opened,
    )


def _test(folder: Path, split: Split) -> dict[str, Any]:
    """The figures of the winner on the test split, which its model keeps from now on."""
    recipe = load_recipe(folder / "recipe.toml")
    classifier = load_classifier(folder, device=recipe.device, precision=recipe.precision)
    found = score(classifier, split, workers=recipe.data.workers)
    low, high = wilson(found.top1 / 100 * found.count, found.count)
    classifier.metrics |= {"split": "test", **found.to_dict()}
    classifier.save(folder / "model")
    return found.to_dict() | {"low": low, "high": high}


def summary(found: Sweep) -> list[str]:
    """What a sweep has come to, below its table: lines for people."""
    best, others = found.ranking[0], found.ranking[1:]
    seeds = f", mean of {len(best.rows)} seeds" if len(best.rows) > 1 else ""
    told = ", ".join(f"{key} {worded(value)}" for key, value in chosen(best.settings, found.varied).items())
    lines = [f"best: {told}" if told else "best: the only row"]
    figures = f"validation {best.top1:.2f} % ({best.low:.1f} to {best.high:.1f}) of {found.count:,} images{seeds}"
    lines.append(f"  {figures}; as the best of {found.rows} rows it is a little too high" if others else f"  {figures}")
    if tied := sum(each.tied for each in others):
        lines.append(f"  these images cannot tell {tied} of the other {len(others)} from it: those with =")
    if found.test is None:
        lines.append("  there is no test split, and so nothing that was not chosen by")
    else:
        test = found.test
        times = "once, for this row" if found.opened == 1 else f"for {found.opened} rows by now, so it is no fresh one"
        top1 = f"test {test['top1']:.2f} % ({test['low']:.1f} to {test['high']:.1f}) of {test['count']:,} images"
        lines += [f"  {top1}, loss {test['loss']:.3f}", f"  the test split was opened {times}"]
    return [*lines, f"model: {found.best / 'model'}"]
