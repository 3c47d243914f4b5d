"""What a run says while it works: to people on stderr, and to programs as one JSON object a line."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console


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
        self, total: int | None, done: int, images_per_step: int, unit: str = "steps"
    ) -> Iterator[Callable[..., None]]:
        """A bar over `total` steps, `done` of which are behind us; gives the function that moves it.

        The function takes the steps behind us, and the total where that was not known before.
        """
        if not self.console.is_terminal or self.console.quiet:
            yield lambda *_: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        began = time.monotonic()
        columns = (
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn(f"{unit}  {{task.fields[speed]:,.0f}} images/s "),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task("training", total=total, completed=done, speed=0.0)

            def move(step: int, of: int | None = None) -> None:
                speed = (step - done) * images_per_step / max(1e-9, time.monotonic() - began)
                bar.update(task, completed=step, total=of or total, speed=speed)

            yield move


@contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar in bytes on a terminal; gives the function that takes the bytes so far and the bytes in all."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _done, _total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
