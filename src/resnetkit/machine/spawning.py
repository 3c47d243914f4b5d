"""Processes that begin by importing the script that starts them, as they do on macOS and Windows."""

import multiprocessing
import sys
from collections.abc import Iterable
from multiprocessing.process import BaseProcess

from resnetkit.errors import UsageError

UNGUARDED = 64
"""Exit code of a process that was to help and found itself running the whole script again."""


def leave_if_imported() -> None:
    """End this process where it is one of those and has come as far as our work: whoever started it says why."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(UNGUARDED)


def refuse_unguarded(helpers: Iterable[BaseProcess]) -> None:
    """Raise `UsageError` (exit code 2) where one of the processes that we started has run the script again."""
    if any(helper.exitcode == UNGUARDED for helper in helpers):
        raise UsageError(
            "every process that decodes runs the whole script again",
            file=getattr(sys.modules["__main__"], "__file__", None),
            why="what it does stands outside of a main guard",
            remedy='if __name__ == "__main__": in front of it, or data={"workers": 0}',
        )
