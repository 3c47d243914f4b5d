"""`resnetkit demo`."""

from pathlib import Path
from shlex import join
from textwrap import fill
from typing import Annotated

from cyclopts import Parameter

from resnetkit.cli.printing import answer

COUNT = 24
"""Pictures of each thing."""


def demo_command(
    *, out: Annotated[Path, Parameter(help="A new folder for pictures and run.")] = Path("resnetkit-demo")
) -> None:
    """See all of it at work, in a minute and without a network.

    resnetkit demo
    resnetkit demo --out somewhere/

    Ninety-six pictures are drawn: balloons, boats, houses and trees. Then four commands are shown and run: check looks
    for what is wrong with the pictures, train learns them, evaluate says how good the model is, and predict says what
    is on pictures that it has never seen. Each works on your own pictures in the same way.
    """
    from resnetkit.cli.app import app
    from resnetkit.errors import UsageError
    from resnetkit.images import drawn

    if out.exists():
        raise UsageError("the folder exists", file=out, remedy="--out with another name")
    photos, new, run = out / "photos", out / "new", out / "run"
    drawn.write(photos, COUNT)
    _spoil(photos)
    drawn.write(new, 1, first=COUNT)
    answer(
        f"Drawn: {COUNT * len(drawn.THINGS)} pictures of {', '.join(drawn.THINGS)}, in {photos}; look at them.",
        "Two things were spoilt on purpose: a file that breaks off, and a boat among the trees.",
    )
    commands = {
        "What is wrong with the pictures?": ["check", photos],
        "Learn them, on top of a network that knows other pictures:": [
            *("train", photos, "--recipe", "head", "--weights", "resnet20.cifar10", "--out", run)
        ],
        "How good is it, on pictures that it has not learnt from?": ["evaluate", run, photos],
        "What is on new pictures?": ["predict", run, new],
    }
    for question, command in commands.items():
        words = [str(word) for word in command]
        answer("", question, *_wrap(f"$ resnetkit {join(words)}"))
        app(words, exit_on_error=False, print_error=False)
    answer("", "Now your own: a folder for each class, and the same four commands.")


def _wrap(command: str) -> list[str]:
    """A command in lines that fit a terminal and can still be pasted."""
    *lines, last = fill(command, 76, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False).split(
        "\n"
    )
    return [*(f"{line} \\" for line in lines), last]


def _spoil(photos: Path) -> None:
    """What folders of pictures suffer from: a download that broke off, and a copy in the wrong class."""
    broken, boat = photos / "house" / "house-00.jpg", photos / "boat" / "boat-00.jpg"
    broken.write_bytes(broken.read_bytes()[:3000])
    (photos / "tree" / "copy of boat-00.jpg").write_bytes(boat.read_bytes())
