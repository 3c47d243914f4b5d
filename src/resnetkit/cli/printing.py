"""What reaches people: answers on stdout, what is said beside them on stderr. No other module of the commands prints.

Whatever a stranger has named, a file, a class or a folder, is harmless here: see `shown`. JSON keeps the true names.
"""

import codecs
import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from resnetkit.errors import StorageError
from resnetkit.machine.console import PlainConsole, fitted, json_line, shown


def open_streams() -> None:
    """Make sure that stdout and stderr are there and can be written to, whatever the text and their encoding."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # it was closed, and the next file to be opened would take its place
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w", closefd=False))  # noqa: SIM115
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # another file was put in its place since it was opened
                stream.reconfigure(errors="backslashreplace")


def answer(*lines: str) -> None:
    """Lines on stdout, as wide as that is. Raises `StorageError` (exit code 7) where they cannot be written."""
    room = console().room
    with _to_reader():
        print(*(part for line in lines for part in fitted(shown(line), room)), sep="\n")


def answer_json(report: dict[str, Any]) -> None:
    """One JSON object on stdout, as `answer`. What cannot be printed is escaped, and parses back to the same."""
    line = json_line(report, ascii_only=codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8")
    with _to_reader():
        print(line)


def answer_table(table: Any) -> None:
    """A table of `rich` on stdout, as wide as that is. Its cells are plain strings."""
    with _to_reader():
        console().print(table)


def answer_cells(line: str, console: PlainConsole, style: str = "") -> None:
    """One line of a table on stdout, which was made harmless and as wide as the `console` that it goes to."""
    with _to_reader():
        if style and console.is_terminal:
            console.print(line, style=style, soft_wrap=True)
        else:
            print(line)


def console() -> PlainConsole:
    """Stdout, for those who need its width."""
    return PlainConsole()


def aside(line: str, *, whole: bool = False) -> None:
    """One line on stderr, on a terminal in as many as it takes unless it is to stay `whole`.

    Where nobody reads it, or it cannot be written, the answer is worth more than the line.
    """
    room = None if whole else PlainConsole(stderr=True).room
    try:
        print(*fitted(shown(line), room), sep="\n", file=sys.stderr, flush=True)
    except OSError:
        _silence(2)


def say_notes() -> None:
    """Let what the library notes on its way reach people, once, on stderr."""
    notes = logging.getLogger("resnetkit")
    notes.setLevel(logging.INFO)
    notes.propagate = False
    notes.handlers = [_Aside()]


def finish_answer() -> None:
    """Write what is still to be written while an error can be told. Raises `StorageError` (exit code 7)."""
    with _to_reader():
        pass


class _Aside(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        aside(self.format(record))


@contextmanager
def _to_reader() -> Iterator[None]:
    """What is written in here is for whoever reads stdout. Where that one has gone, the command has done its work."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(1)
        raise SystemExit(0) from None
    except OSError as error:
        _silence(1)
        raise StorageError.from_os(error, "cannot write the answer", "stdout") from error


def _silence(descriptor: int) -> None:
    """Nothing more goes there, nor does Python try once more on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
