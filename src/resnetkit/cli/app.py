"""The command line: which commands there are, and how an error becomes one line and an exit code.

Nothing heavy is imported here: a command's module, and torch with it, is loaded when the command runs.
"""

import logging
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from resnetkit import __version__
from resnetkit.errors import ResnetkitError, StorageError, UsageError
from resnetkit.machine.torchrun import place

app = App(
    name="resnetkit",
    help="""Residual networks: train, measure, predict.

    Start with `resnetkit train`: it needs nothing but this command, and a minute.
    Then `resnetkit train photos/` with a folder of pictures for each class.
    """,
    help_epilogue="Results go to stdout, progress to stderr. `resnetkit COMMAND --help` explains a command.",
    version=__version__,
    # Plain text: rendering Markdown would import pygments and cost a third of the time that --help takes.
    help_format="plaintext",
    result_action="return_value",
)

COMMANDS = {
    "train": """Train a network on a named set or on a folder of images.

    resnetkit train                       the embedded digits: a minute, no download
    resnetkit train fashion-mnist         a named set, with the recipe of its name
    resnetkit train photos/               one folder a class, or train/ and val/ of them
    resnetkit train photos/ --weights resnet18.imagenet1k_v1
    resnetkit train 'shards/train-{000..099}.tar'    sets too large for a folder
    resnetkit train --resume --out DIR    go on with a run

    The best weights are chosen on a validation split; the test split is scored once, at the end.
    """,
    "evaluate": """Measure a trained model on labelled images: top-1, top-5, loss.

    resnetkit evaluate runs/NAME fashion-mnist
    resnetkit evaluate runs/NAME photos/test
    resnetkit evaluate runs/NAME 'shards/val-*.tar'
    resnetkit evaluate net.th cifar10/test --model resnet20 --mean 0.485,0.456,0.406
      --std 0.229,0.224,0.225 --size 32

    Of a set it scores the test split; of a folder test/, or else val/; of a folder of class folders, all images.
    """,
    "predict": """Say what is on images.

    resnetkit predict runs/NAME cat.jpg photos/
    resnetkit predict runs/NAME photos/ --json > answers.jsonl
    resnetkit predict resnet50.imagenet1k_v2 cat.jpg

    One answer for every file, also for a file that cannot be read.
    """,
    "check": """Look through a folder of images for what spoils training or its scores.

    resnetkit check photos/
    resnetkit check photos/ --strict --json

    Unreadable and odd images, duplicates within and across splits, missing classes. It changes no file.
    """,
    "verify-resume": """Prove on this machine that a killed run goes on exactly.

    resnetkit verify-resume
    resnetkit verify-resume finetune --data photos/

    Trains a dozen steps in a process, again in one that it kills with SIGKILL on the way, lets that one go on, and
    compares network, optimizer, average and journal bit by bit. Takes about half a minute.
    """,
    "shard": """Write a folder of images as WebDataset shards: few large files instead of many small ones.

    resnetkit shard photos/ --out shards/
    resnetkit train shards/

    The pictures keep their bytes, are mixed across classes, and go into train-000000.tar, val-….tar and test-….tar,
    split as training on the folder would split them. Those that cannot be read are left out and named. dataset.json
    says the classes, and the SHA-256 of each shard. After an interruption the same command goes on. No file of yours is
    changed.
    """,
    "study": """Put a claim about residual networks to the test.

    resnetkit study degradation --quick     are deeper plain nets worse, and residual ones not?
    resnetkit study gradients --quick       do their gradients vanish?
    resnetkit study lesion --quick          what if a block is taken out?

    Each writes results.csv, a figure and a page in plain words. A study that was stopped goes on with the rows that are
    missing. Without --quick it is the experiment of the paper: hours, on an accelerator.
    """,
    "summary": """Show a network stage by stage: shapes, parameters, multiply-adds.

    resnetkit summary resnet50
    resnetkit summary resnet18 --image-size 96
    resnetkit summary resnet34 --model.shortcut A
    resnetkit summary runs/NAME
    """,
    "list": """List models, recipes, weights or data sets.

    resnetkit list models     networks: size, work, where they are from, which weights there are
    resnetkit list weights    published weights, and which of them are on this machine
    """,
}
"""What stands in the list of commands (the first line) and in each command's own help."""

for _name, _help in COMMANDS.items():
    _module = _name.replace("-", "_")
    app.command(f"resnetkit.cli.{_module}:{_module}_command", name=_name, help=_help)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    _say_notes()
    try:
        code = app(words, exit_on_error=False, print_error=False)
        _flush()
    except BaseException as error:
        if debug and not isinstance(error, SystemExit):
            raise
        code = _report(error)
    code = code if isinstance(code, int) else 0
    if not place().alone:
        # Where another of several processes has gone, PyTorch's threads may abort an orderly way out.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _say_notes() -> None:
    """Let what the library notes on its way reach people, once, on stderr."""
    notes = logging.getLogger("resnetkit")
    notes.setLevel(logging.INFO)
    notes.propagate = False
    notes.handlers = [logging.StreamHandler(sys.stderr)]


def _report(error: BaseException) -> int:
    """Say what happened in one line on stderr; give the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0
    if isinstance(error, BrokenPipeError):
        _close(1)  # the reader of our output has gone; there is nobody to tell
        return 0
    if isinstance(error, KeyboardInterrupt):
        return _say("interrupted.", 130)
    known = _known(error)
    if known is not None:
        return known.exit_code if known.said else _say(str(known), known.exit_code)
    return _say(f"a fault in resnetkit: {type(error).__name__}: {error}. Try: the same with --debug, and report it", 1)


def _say(what: str, code: int) -> int:
    """Tell people why the command ends with `code`; where nobody reads it, the code still says it."""
    try:
        print(f"error: {what}", file=sys.stderr)
    except OSError:
        _close(2)
    return code


def _flush() -> None:
    """Write what is still to be written while an error can be told."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _close(1)
        raise StorageError.from_os(error, "cannot write the answer", "stdout") from error


def _close(descriptor: int) -> None:
    """Nothing more goes there, nor does Python try once more on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _known(error: BaseException) -> ResnetkitError | None:
    if isinstance(error, ResnetkitError):
        return error
    if isinstance(error, CycloptsError):
        return UsageError(_usage(error), remedy="--help")
    if isinstance(error, OSError) and error.filename is not None:
        return StorageError.from_os(error, "cannot use the file", error.filename)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        from resnetkit.errors import MemoryLimitError

        return MemoryLimitError("out of memory", remedy="--data.batch-size with half the number")
    return None


def _usage(error: CycloptsError) -> str:
    """What cyclopts, or pydantic through it, complains about, in one line."""
    from pydantic import ValidationError

    cause = error.__cause__
    if isinstance(cause, ValidationError):
        first = cause.errors()[0]
        flag = "--" + ".".join(str(part) for part in first["loc"]).replace("_", "-")
        return f"{flag} {first['input']} cannot be: {first['msg'][0].lower()}{first['msg'][1:]}"
    return " ".join(str(error).split()).rstrip(".")
