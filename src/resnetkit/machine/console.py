"""How something is said on a terminal: text that a stranger named is made harmless, lines and bars go to stderr."""

import json
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

from resnetkit.machine.notebook import Panel

if TYPE_CHECKING:
    from rich.progress import ProgressColumn
    from rich.text import Text


def shown(text: str) -> str:
    """A text that stays on its line and does nothing to a terminal: what cannot be printed is escaped.

    That is what tells a terminal to do something, ends a line, or turns the direction of what is written.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in text
    )


def json_line(report: Any, *, ascii_only: bool = False) -> str:
    """JSON that stays on its line and does nothing to a terminal: what cannot be printed is escaped."""
    line = json.dumps(report, ensure_ascii=ascii_only)
    if line.isprintable():
        return line
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in line)


def counted(number: int, noun: str) -> str:
    """How many there are of what a noun names, which takes an s where they are several: `1 image`, `2,000 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def fitted(line: str, width: int | None) -> list[str]:
    """A line in as many as it takes at `width` characters, later ones set in to where its text begins.

    Words stay whole, for one may be a path; without a width the line stays whole.
    """
    if width is None or len(line) <= width:
        return [line]
    label = re.match(r"\S+( \S+)? {2,}| +|", line)
    indent = " " * (label.end() if label is not None and label.end() else 2)
    return textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )


def duration(seconds: float) -> str:
    """About how long that is, for people: one unit, or hours with their minutes."""
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02} min" if hours < 10 else f"{round(minutes / 60)} h"


class PlainConsole(Console):
    """A console on which a text is no more than a text: without markup, emoji names, or what a terminal would obey.

    What the stream cannot encode is escaped too, before widths are counted.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> "Text":
        """Every text on its way to the stream, also from the cells of a table."""
        can = shown(text).encode(self.encoding, "backslashreplace").decode(self.encoding)
        return super().render_str(can, **settings)

    @property
    def room(self) -> int | None:
        """Characters of a line: of a terminal, or what COLUMNS says; a file has no end of the line."""
        return self.width if self.is_terminal or os.environ.get("COLUMNS", "").isdigit() else None

    def on_broken_pipe(self) -> None:
        """Rich would leave the program where the reader has gone; a run of hours is worth more than its lines."""
        self.quiet = True


class Reporter:
    """Lines and a progress bar on stderr; on something other than a terminal, lines only; in a notebook, one output."""

    def __init__(self, *, quiet: bool = False, tells_result: bool = True, among_answers: bool = False) -> None:
        self.console = PlainConsole(stderr=True, quiet=quiet, soft_wrap=True)
        if among_answers and not quiet and self.console.is_terminal and _is_terminal(sys.stdout):
            self.console = PlainConsole(soft_wrap=True)  # one screen: who draws the bar has to know of the answers
        self.panel = Panel() if self.console.is_jupyter and not quiet else None
        self.tells_result = tells_result
        """False where whoever asked for the work tells its result, so that it is not told twice."""

    def passing(self, text: str) -> None:
        """Say a line of which there are many: in a notebook each takes the place of the one before."""
        if self.panel is None:
            self.line(text)
        else:
            self.panel.passing(shown(text))

    def line(self, text: str) -> None:
        """Say one line; on a terminal that is too narrow for it, several."""
        if self.panel is not None:
            self.panel.line(shown(text))
            return
        try:
            for part in fitted(shown(text), self.console.room):
                self.console.print(part)
        except OSError:
            self.console.quiet = True  # nobody reads, or the disk of the log is full: training goes on

    @contextmanager
    def progress(
        self,
        total: int | None,
        done: int,
        images_per_step: int = 1,
        unit: str = "steps",
        *,
        rate: str | None = "images/s",
        what: str | None = None,
        beside: float = 0.0,
    ) -> Iterator[Callable[..., None]]:
        """A bar over `total` of what `unit` names, `done` of which are behind us; gives the function that moves it.

        The function takes how many are behind us, and the total where that was not known before. The bar says how fast
        it goes in `rate`, of which `images_per_step` make one of the unit; none says nothing, for what takes minutes
        each. Where what is left takes long, a line says once how long about, as measured behind the first units:
        for `what`, and with `beside` as the share of time that other work takes.
        """

        def columns() -> "Sequence[ProgressColumn]":
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

            speed = TextColumn(f"{{task.fields[speed]:,.0f}} {rate} ") if rate else TextColumn("")
            return BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn(f"{unit} "), speed

        began = time.monotonic()
        if self.panel is not None:
            yield _notebook_bar(self.panel, total, done, images_per_step, f"{unit}, {{speed:,.0f}} {rate}")
            self.panel.end_bar()
            return
        forecast = _Forecast(done) if rate else None

        def moved(step: int, of: int | None = None) -> None:
            most = of or total
            move(
                completed=step, total=most, speed=(step - done) * images_per_step / max(1e-9, time.monotonic() - began)
            )
            if forecast is not None and most and (seconds := forecast.seconds(step, most)) is not None:
                left = seconds * (1 + beside)
                if left >= LONG:
                    self.line(f"time      about {duration(left)} for {what or f'{most - done:,} {unit}'}")

        with _bar(self.console, columns, "", total=total, completed=done, speed=0.0) as move:
            yield moved


LONG = 30.0
"""Seconds of work that are worth a line before."""


class _Forecast:
    """How long a whole piece of work takes, said once, when some of it has been seen."""

    WARM, MOVES, SECONDS = 2, 5, 2.0
    """Moves that do not count, for things are made ready in them; moves, and seconds, that are enough to go by."""

    def __init__(self, done: int) -> None:
        self.done, self.moves, self.given = done, 0, False
        self.step, self.began = done, 0.0

    def seconds(self, step: int, total: int) -> float | None:
        """For all that was left in the beginning; None while that is not known, and once it was said."""
        self.moves += 1
        if self.moves <= self.WARM:
            self.step, self.began = step, time.monotonic()
            return None
        passed = time.monotonic() - self.began
        if self.given or self.moves < self.WARM + self.MOVES or passed < self.SECONDS or step <= self.step:
            return None
        self.given = True
        return passed / (step - self.step) * (total - self.done)


def _notebook_bar(panel: Panel, total: int | None, done: int, images_per_step: int, beside: str) -> Callable[..., None]:
    """The function that moves the bar of a panel; `beside` says the unit and the rate."""
    began = time.monotonic()
    if beside.endswith("None"):
        beside = beside.partition(",")[0]

    def move(step: int, of: int | None = None) -> None:
        whole, seconds = of or total, max(1e-9, time.monotonic() - began)
        left = f", {seconds * (whole - step) / (step - done):.0f} s left" if whole and step > done else ""
        text = f"{step:,} of {whole or '?'} " + beside.format(speed=(step - done) * images_per_step / seconds) + left
        panel.bar(step, whole, text)

    panel.bar(done, total, f"{done:,} of {total or '?'} {beside.partition(',')[0]}", now=True)
    return move


@contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar in bytes on a terminal; gives the function that takes the bytes so far and the bytes in all."""
    reporter = Reporter()
    if reporter.panel is not None:
        panel = reporter.panel
        yield lambda done, total: panel.bar(done, total, f"{name}: {done / 2**20:,.1f} MiB")
        panel.line(f"{name}: fetched")
        panel.end_bar()
        return

    def columns() -> "Sequence[ProgressColumn]":
        from rich.progress import BarColumn, DownloadColumn, TextColumn

        return TextColumn("{task.description}"), BarColumn(), DownloadColumn()

    with _bar(reporter.console, columns, name, total=None) as move:
        yield lambda done, total: move(completed=done, total=total)


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()


@contextmanager
def _bar(
    console: Console, columns: "Callable[[], Sequence[ProgressColumn]]", name: str, **fields: Any
) -> Iterator[Callable[..., None]]:
    """A bar with these columns and the time that is left, where there is a terminal; gives what takes new fields.

    The parts of bars are imported only where one is drawn.
    """
    if not console.is_terminal or console.quiet:
        yield lambda **_: None
        return
    from rich.progress import Progress, TextColumn, TimeRemainingColumn

    with Progress(
        *columns(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
        redirect_stdout=_is_terminal(sys.stdout),  # what goes into a pipe or a file goes there all the same
    ) as bar:
        yield partial(bar.update, bar.add_task(name, **fields))
