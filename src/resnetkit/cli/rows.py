"""Answers on a terminal, row by row: a table whose columns are as wide as what is known before its first row."""

import sys
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from resnetkit.cli.printing import answer_cells, console

if TYPE_CHECKING:
    from resnetkit.prediction.answer import Prediction

GAP = "   "
HEADINGS = ("file", "most probable", "then")
SHARE = len(" 100.0%")
WIDEST_LABEL = 30


class Rows:
    """A table on stdout of files, `names` among them, and of `top` of the classes; its headings come with a row."""

    def __init__(self, names: Iterable[str], classes: Sequence[str], top: int) -> None:
        self.console = console()
        longest = min(WIDEST_LABEL, max(map(self._width, classes), default=0)) + SHARE
        label = max(longest, len(HEADINGS[1]))
        rest = self.console.width - label - 2 * len(GAP) - 1
        name = max([len(HEADINGS[0]), *map(self._width, names)])
        others = max((top - 1) * (longest + len(", ")) - len(", "), len(HEADINGS[2]))
        then = min(others, max(rest - name, rest * 2 // 5))
        self.widths = (min(name, rest - then), label, then)
        self.begun = False

    def add(self, row: "Prediction", label: str | None) -> None:
        """One more row, which is answered with `label`."""
        if not self.begun:
            self.begun = True
            self._print(HEADINGS)
            answer_cells(" " + "─" * (sum(self.widths) + 2 * len(GAP)), self.console)
        if row.error is not None:
            self._print((row.file, row.error), style="red")
            return
        best, *others = row.top
        first = f"{best[0]} {best[1]:.1%}" if label == best[0] else f"{label}"
        shown = others if label == best[0] else row.top
        self._print((row.file, first, ", ".join(f"{name} {share:.1%}" for name, share in shown)))

    def _width(self, text: str) -> int:
        return cell_len(self.console.render_str(text).plain)

    def _print(self, cells: Sequence[str], style: str = "") -> None:
        widths = self.widths
        if len(cells) < len(widths):  # the last one takes all that is left
            widths = (widths[0], sum(widths[1:]) + len(GAP))
        folded = [self._folded(cell, width) for cell, width in zip(cells, widths, strict=True)]
        for parts in zip_longest(*folded, fillvalue=""):
            line = GAP.join(set_cell_size(part, width) for part, width in zip(parts, widths, strict=True))
            answer_cells(f" {line}".rstrip(), self.console, style)

    def _folded(self, cell: str, width: int) -> list[str]:
        text = self.console.render_str(cell)
        if cell_len(text.plain) <= width:
            return [text.plain]
        return [part.plain.rstrip() for part in text.wrap(self.console, width, overflow="fold")]


def terminal_reads() -> bool:
    """Whether somebody looks at stderr, and so at a bar."""
    return sys.stderr is not None and sys.stderr.isatty()
