"""What is said to people while something works: lines and bars, on stderr."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import ProgressColumn


class _Console(Console):
    """Rich leaves the program where the reader of its lines has gone; a run of hours is worth more than its lines."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Reporter:
    """Lines and a progress bar on stderr; on something other than a terminal, lines only."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = _Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)

    def line(self, text: str) -> None:
        """Say one line."""
        try:
            self.console.print(text, markup=False)
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
        with _bar(self.console, columns, "", total=total, completed=done, speed=0.0) as move:
            yield lambda step, of=None: move(
                completed=step,
                total=of or total,
                speed=(step - done) * images_per_step / max(1e-9, time.monotonic() - began),
            )


@contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar in bytes on a terminal; gives the function that takes the bytes so far and the bytes in all."""

    def columns() -> "Sequence[ProgressColumn]":
        from rich.progress import BarColumn, DownloadColumn, TextColumn

        return TextColumn("{task.description}"), BarColumn(), DownloadColumn()

    with _bar(Reporter().console, columns, name, total=None) as move:
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
