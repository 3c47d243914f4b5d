"""`resnetkit predict`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from resnetkit.cli.options import SELDOM, Device, ForWeights, Model, Plugin, Precision, Strict, importing
from resnetkit.cli.plugin import network_of
from resnetkit.cli.printing import answer_json, aside
from resnetkit.cli.slips import STDIN
from resnetkit.errors import ResnetkitError, StoppedError, UsageError
from resnetkit.machine.console import counted
from resnetkit.machine.torchrun import place
from resnetkit.recipes.ranges import require
from resnetkit.weights.hints import Hints

if TYPE_CHECKING:
    from resnetkit.images.protocol import ViewProtocol
    from resnetkit.prediction.answer import Prediction
    from resnetkit.prediction.into import Tally
    from resnetkit.prediction.sorting import Sorter

FEW = 64
"""Files that are answered before anybody would look at a bar."""
NAMED = 5
"""Classes, and files, that are named at the end."""


@dataclass(frozen=True)
class _Request:
    """What is to be answered, and how."""

    classifier: Any
    images: list[str]
    top: int
    batch_size: int
    json_output: bool
    sorter: "Sorter | None"
    say: Callable[["Prediction"], dict[str, Any]]
    protocol: "ViewProtocol"
    """Which views of a picture are averaged."""

    def inputs(self) -> Iterator[Any]:
        from resnetkit.prediction.inputs import iter_inputs

        return iter_inputs(self.images, self.classifier.preprocess.channels)


def predict_command(
    source: Model,
    images: Annotated[list[str], Parameter(name="IMAGES", consume_multiple=True)],
    /,
    *,
    hints: ForWeights = None,
    plugin: Plugin = None,
    out: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative="", group=SELDOM)] = False,
    resume: Annotated[bool, Parameter(negative="")] = False,
    sort_into: Path | None = None,
    link: Annotated[bool, Parameter(negative="", group=SELDOM)] = False,
    top: int = 3,
    reject: Annotated[bool, Parameter(negative="")] = False,
    crops: Annotated[Literal[1, 10], Parameter(group=SELDOM)] = 1,
    flip: Annotated[bool, Parameter(negative="")] = False,
    batch_size: Annotated[int, Parameter(group=SELDOM)] = 32,
    device: Device = "auto",
    precision: Precision = "auto",
    json_output: Annotated[bool, Parameter(name="--json", negative="", help="One JSON object a file.")] = False,
    strict: Strict = False,
) -> int:
    """Say what is on images.

    resnetkit predict runs/NAME cat.jpg photos/
    resnetkit predict runs/NAME photos/ --out answers.csv
    resnetkit predict runs/NAME photos/ --sort-into sorted --reject
    find photos -name '*.jpg' -print0 | resnetkit predict runs/NAME -
    resnetkit predict resnet50.imagenet1k_v2 cat.jpg

    One answer for every file, also for one that cannot be read or is no image; its name does not matter.

    Parameters
    ----------
    images
        Files, or folders: every file below them but hidden ones. `-` for names on stdin.
    out
        File for the answers: .csv, .jsonl or .parquet.
    overwrite
        Replace the file where it is there; begin again.
    resume
        Go on with what an interrupted command has left.
    sort_into
        Folder in which each file gets a copy in the folder of its class.
    link
        Links instead of copies.
    top
        How many classes to name.
    reject
        Answer "unknown" for what looks like nothing that was learnt; of pictures like the known, it refuses 5 in 100.
    crops
        10 averages over corners, centre and their mirror images.
    flip
        Average over each picture and its mirror image.
    """
    require(top=top, batch_size=batch_size)
    images = ["-" if each == STDIN else each for each in images]
    if _is_finished(out, overwrite=overwrite, resume=resume, link=link, sort_into=sort_into, images=images):
        aside(f"{out} is finished: nothing is left to do. Try: --overwrite to answer again")
        return 0
    with importing():
        from resnetkit.images.protocol import ViewProtocol
        from resnetkit.machine.ranks import current, joined
        from resnetkit.prediction.answer import Prediction
        from resnetkit.prediction.sorting import Sorter
        from resnetkit.weights.load import load

    protocol = ViewProtocol(crops, flip=flip)
    with joined(current()) as ranks:
        own = network_of(plugin)
        classifier = load(source, **vars(hints or Hints()), network=own, device=device, precision=precision)
        if reject:
            classifier.require_unknown()
        sorter = Sorter(sort_into, classifier.classes, link, reject) if sort_into is not None else None
        say = Prediction.rejected if reject else Prediction.to_dict
        request = _Request(classifier, images, top, batch_size, json_output, sorter, say, protocol)
        write = partial(_write, overwrite=overwrite, resume=resume)
        tally = _print_rows(request) if out is None else write(request, out, ranks)
        if not ranks.first:
            return 0
    _tell(request, tally, source, out)
    return 9 if strict and tally.failed else 0


def _is_finished(
    out: Path | None, *, overwrite: bool, resume: bool, link: bool, sort_into: Path | None, images: list[str]
) -> bool:
    """Whether nothing is left to do. Raises `UsageError` (exit code 2) for what cannot be, before anything is read."""
    if link and sort_into is None:
        raise UsageError("--link would change nothing", remedy="--sort-into DIR --link")
    if sort_into is not None:
        from resnetkit.prediction.sorting import require_apart

        require_apart(sort_into, images)
    if out is not None:
        from resnetkit.prediction.part import is_finished
        from resnetkit.prediction.table import kind_of

        kind_of(out)
        return is_finished(out, overwrite=overwrite, resume=resume)
    for flag, given in (("--overwrite", overwrite), ("--resume", resume)):
        if given:
            raise UsageError(f"{flag} would change nothing", why="no file was named", remedy=f"--out FILE {flag}")
    if not place().alone:
        raise UsageError("several ranks answer into a file only", remedy="--out answers.csv")
    return False


def _write(request: _Request, out: Path, ranks: Any, *, overwrite: bool, resume: bool) -> "Tally":
    from resnetkit.prediction.into import predict_into

    with ExitStack() as stack:
        moved = stack.enter_context(_bar(request)) if ranks.first else lambda _: None
        try:
            return predict_into(
                out,
                request.classifier,
                request.images,
                top=request.top,
                batch_size=request.batch_size,
                protocol=request.protocol,
                options={"say": request.say.__name__},
                say=request.say,
                overwrite=overwrite,
                resume=resume,
                sorter=request.sorter,
                ranks=ranks,
                moved=moved,
            )
        except KeyboardInterrupt:
            raise StoppedError("interrupted", remedy="the same command with --resume goes on") from None


def _print_rows(request: _Request) -> "Tally":
    """Answer on stdout, row by row."""
    from resnetkit.cli.rows import Rows
    from resnetkit.prediction.into import Tally, without
    from resnetkit.prediction.predict import predict_inputs

    sorter, tally, reads = request.sorter, Tally(), True
    inputs = request.inputs()
    if sorter is not None:
        inputs = without([sorter.folder], request.images, inputs)
    first = list(islice(inputs, FEW))
    top = min(request.top, len(request.classifier.classes))
    answers: Any = predict_inputs(
        request.classifier, chain(first, inputs), top=top, batch_size=request.batch_size, protocol=request.protocol
    )
    with ExitStack() as stack:
        rows = stack.enter_context(closing(answers))
        moved = stack.enter_context(_bar(request)) if len(first) == FEW else lambda _: None
        table = None if request.json_output else Rows([each.name for each in first], request.classifier.classes, top)
        for row in rows:
            said = request.say(row)
            tally.add(row, request.say)
            if sorter is not None:
                sorter.place(row)
            try:
                if reads and table is None:
                    answer_json(said)
                elif reads and table is not None:
                    table.add(row, said.get("label"))
            except SystemExit:
                reads = False  # the reader has gone, and the files are still to be sorted
                if sorter is None:
                    raise
            moved(tally.count)
    return tally


@contextmanager
def _bar(request: _Request) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; gives what takes how many files are behind us. How many there are is found out meanwhile."""
    from resnetkit.cli.rows import terminal_reads
    from resnetkit.machine.console import Reporter

    found: list[int] = []
    if terminal_reads() and "-" not in request.images:

        def count() -> None:
            with suppress(ResnetkitError, OSError):
                found.append(sum(1 for _ in request.inputs()))

        Thread(target=count, daemon=True).start()
    with Reporter(among_answers=True).progress(None, 0, unit="files", rate="files/s") as move:
        yield lambda done: move(done, found[0] if found else None)


def _tell(request: _Request, tally: "Tally", source: str, out: Path | None) -> None:
    """What there is to say at the end: on stderr, and with --out and --json as an object on stdout."""
    sorter = request.sorter
    if tally.stale:
        aside(f"note: about {counted(tally.stale, 'answer')} of before were of other inputs, and made again")
    if out is not None and request.json_output:
        labels = dict(tally.labels.most_common())
        answer_json({"out": str(out), "count": tally.count, "failed": tally.failed, "labels": labels})
    if out is not None or sorter is not None or tally.count > FEW:
        most = [f"{label} {count:,}" for label, count in tally.labels.most_common(NAMED)]
        more = [f"and {len(tally.labels) - NAMED:,} more of the classes"] if len(tally.labels) > NAMED else []
        names = [*most, *more]
        aside(f"answered: {counted(tally.labels.total(), 'file')}{': ' if names else ''}{', '.join(names)}")
    if tally.failed:
        aside(f"{counted(tally.failed, 'image')} could not be read.")
    if sorter is not None:
        for name, why in islice(sorter.left_out.items(), NAMED):
            aside(f"not sorted: {name}: {why}")
        if len(sorter.left_out) > NAMED:
            aside(f"not sorted: {len(sorter.left_out) - NAMED:,} more")
        aside(f"sorted into: {sorter.folder}")
    if out is not None:
        aside(f"written: {out}")
        if sorter is None and tally.labels:
            aside(f"Next: resnetkit predict {source} … --sort-into DIR puts the files into folders by answer")
