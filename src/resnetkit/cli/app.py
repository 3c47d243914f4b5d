"""The command line: which commands there are, and how an error becomes one line and an exit code.

Nothing heavy is imported here: a command's module, and torch with it, is loaded when the command runs.
"""

import ast
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App, CycloptsError, Parameter

from resnetkit import __version__
from resnetkit.cli.helppage import ALL, Page, print_all
from resnetkit.cli.printing import aside, finish_answer, open_streams, say_notes
from resnetkit.cli.slips import STDIN, in_our_words, with_lists_apart
from resnetkit.errors import MemoryLimitError, ResnetkitError, StorageError, UsageError, clipped
from resnetkit.machine.torchrun import place

app = App(
    name="resnetkit",
    help="""Residual networks: train, measure, predict.

    Start with `resnetkit train`: it needs nothing but this command, and a minute.
    Then `resnetkit train photos/` with a folder of pictures for each class.
    `resnetkit COMMAND --help` explains a command.
    """,
    help_epilogue="Results go to stdout, progress to stderr.",
    version=__version__,
    # Plain text: rendering Markdown would import pygments and cost a third of the time that --help takes.
    help_format="plaintext",
    result_action="return_value",
    help_formatter=Page(),
    default_parameter=Parameter(negative_iterable=()),
)

COMMANDS = (
    *("demo", "train", "sweep", "evaluate", "compare", "predict", "check", "verify-resume", "shard", "push"),
    *("study", "summary", "list"),
)

LONGEST = 4 * 80 - len("error: ")
"""Characters of an error; `--debug` shows all of it."""
NO_MEMORY = ("failed to map segment", "cannot allocate memory")
"""What the system's loader says of a library for which there is no room."""


def _help_of(module: str) -> str:
    """What a command says of itself, read from its source: importing all of them would triple the time of --help."""
    body = ast.parse(Path(__file__).with_name(f"{module}.py").read_bytes()).body
    command = next(each for each in body if isinstance(each, ast.FunctionDef) and each.name == f"{module}_command")
    return ast.get_docstring(command) or ""


for _name in COMMANDS:
    _module = _name.replace("-", "_")
    app.command(f"resnetkit.cli.{_module}:{_module}_command", name=_name, help=_help_of(_module))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    open_streams()
    say_notes()
    try:
        code = _run(words)
        finish_answer()
    except BaseException as error:
        if debug and not isinstance(error, SystemExit):
            for line in "".join(traceback.format_exception(error)).splitlines():
                aside(line, whole=True)
        code = _report(error)
    code = code if isinstance(code, int) else 0
    if not place().alone:
        # Where another of several processes has gone, PyTorch's threads may abort an orderly way out.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run(words: Sequence[str]) -> object:
    """Carry out a command; gives what it returns."""
    if ALL in words:
        return print_all(app, words)
    # A lone hyphen would be taken for an option. No word of a command line can hold what stands for it.
    words = [STDIN if word == "-" else word for word in words]
    if any("," in word for word in words) and any(word.startswith("--") for word in words) and words[0] != "sweep":
        from resnetkit.cli.keys import lists

        words = list(with_lists_apart(words, lists()))
    return app(words, exit_on_error=False, print_error=False)


def _report(error: BaseException) -> int:
    """Say what happened in one line on stderr; give the exit code, which says it where nobody reads the line."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0
    if isinstance(error, KeyboardInterrupt):
        return _say("interrupted.", 130)
    known = _known(error)
    if known is not None:
        return known.exit_code if known.said else _say(known.brief(LONGEST), known.exit_code)
    return _say(f"a fault in resnetkit: {type(error).__name__}: {error}. Try: the same with --debug, and report it", 1)


def _say(what: str, code: int) -> int:
    aside(f"error: {' '.join(what.split())}", whole=True)
    return code


def _known(error: BaseException) -> ResnetkitError | None:
    if isinstance(error, ResnetkitError):
        return error
    if isinstance(error, CycloptsError):
        return in_our_words(error, COMMANDS) or UsageError(_usage(error), remedy="--help")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return UsageError(f"the name {clipped(str(error.filename))} cannot be", why="it is too long for a file")
    if isinstance(error, OSError) and error.filename is not None:
        return StorageError.from_os(error, "cannot use the file", error.filename)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return MemoryLimitError("out of memory", remedy="--data.batch-size with half the number")
    if isinstance(error, ImportError) and any(sign in str(error).lower() for sign in NO_MEMORY):
        return MemoryLimitError(
            "there is not enough memory to load PyTorch", why=str(error), remedy="a higher limit (ulimit -v), or none"
        )
    return None


def _usage(error: CycloptsError) -> str:
    """What cyclopts, or pydantic through it, complains about, in one line."""
    from pydantic import ValidationError

    cause = error.__cause__
    if isinstance(cause, ValidationError):
        first = cause.errors()[0]
        flag = "--" + ".".join(str(part) for part in first["loc"]).replace("_", "-")
        return f"{flag} {clipped(str(first['input']))} cannot be: {first['msg'][0].lower()}{first['msg'][1:]}"
    return clipped(" ".join(str(error).split())).rstrip(".")
