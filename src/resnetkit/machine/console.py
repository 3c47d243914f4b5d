"""How something is said on a terminal: text that a stranger named is made harmless, lines and bars go to stderr."""

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

    def on_broken_pipe(self) -> None:
        """Rich would leave the program where the reader has gone; a run of hours is worth more than its lines."""
        self.quiet = True


class Reporter:
    """Lines and a progress bar on stderr; on something other than a terminal, lines only; in a notebook, one output."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = PlainConsole(stderr=True, quiet=quiet, soft_wrap=True)
        self.panel = Panel() if self.console.is_jupyter and not quiet else None

    def passing(self, text: str) -> None:
        """Say a line of which there are many: in a notebook each takes the place of the one before."""
        if self.panel is None:
            self.line(text)
        else:
            self.panel.passing(shown(text))

    def line(self, text: str) -> None:
        """Say one line."""
        if self.panel is not None:
            self.panel.line(shown(text))
            return
        try:
            self.console.print(text)
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
    ) -> Iterator[Callable[..., None]]:
        """A bar over `total` of what `unit` names, `done` of which are behind us; gives the function that moves it.

        The function takes how many are behind us, and the total where that was not known before. The bar says how fast
        it goes in `rate`, of which `images_per_step` make one of the unit; none says nothing, for what takes minutes
        each.
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
        with _bar(self.console, columns, "", total=total, completed=done, speed=0.0) as move:
            yield lambda step, of=None: move(
                completed=step,
                total=of or total,
                speed=(step - done) * images_per_step / max(1e-9, time.monotonic() - began),
            )


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

    with Progress(*columns(), TimeRemainingColumn(), TextColumn("left"), console=console, transient=True) as bar:
        yield partial(bar.update, bar.add_task(name, **fields))
