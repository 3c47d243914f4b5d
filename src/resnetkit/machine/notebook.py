"""What notebooks show: tables in which every name is escaped, and one display that is kept up to date.

IPython is the notebook's own and is looked for only inside of one; nothing else needs it.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

LEAST_SECONDS = 0.2
"""Between two updates of a bar: each is a message to the browser."""


def table(rows: Iterable[tuple[str, str]], caption: str = "") -> str:
    """Pairs of a heading and what it says, as HTML."""
    lines = [f"<tr><th style='text-align:left'>{escape(head)}</th><td style='text-align:left'>{escape(text)}</td></tr>"
             for head, text in rows]  # fmt: skip
    named = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{named}{''.join(lines)}</table>"


class Panel:
    """One output of a cell: lines, a bar, and a line that the next one of its kind replaces.

    `display` is IPython's own where none is given.
    """

    def __init__(self, display: Callable[..., Any] | None = None) -> None:
        self._display = display or _ipython_display()
        self._handle: Any = None
        self._lines: list[str] = []
        self._passing = ""
        self._bar: tuple[int, int | None, str] | None = None
        self._drawn = 0.0

    def line(self, text: str) -> None:
        """Add a line that stays."""
        self._lines.append(text)
        self._draw()

    def passing(self, text: str) -> None:
        """Say a line in place of the one before."""
        self._passing = text
        self._draw()

    def bar(self, done: int, total: int | None, text: str, *, now: bool = False) -> None:
        """Move the bar; `now` draws it, however short a time ago it was drawn."""
        self._bar = (done, total, text)
        if now or time.monotonic() - self._drawn >= LEAST_SECONDS:
            self._draw()

    def end_bar(self) -> None:
        """Take the bar away."""
        self._bar = None
        self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if self._handle is None:
            self._handle = self._display(self._bundle(), raw=True, display_id=True)
        else:
            self._handle.update(self._bundle(), raw=True)

    def _bundle(self) -> Mapping[str, str]:
        """As text and as HTML."""
        said = [*self._lines, *([self._passing] if self._passing else [])]
        html, text = f"<pre>{escape(chr(10).join(said))}</pre>", said
        if self._bar is not None:
            done, total, beside = self._bar
            most = f" max='{total}' value='{done}'" if total else ""
            html += f"<progress{most} style='width:60%'></progress> {escape(beside)}"
            text = [*said, beside]
        return {"text/plain": "\n".join(text), "text/html": html}


def _ipython_display() -> Callable[..., Any]:
    from IPython.display import display  # pyrefly: ignore

    return display
