"""One typed function for each command. Its signature and docstring are its `--help`."""

import gc
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from resnetkit.recipe import ModelRecipe, Recipe

if TYPE_CHECKING:
    from resnetkit.arch import Arch

FOREIGN = Group("For weights that do not say it themselves", sort_key=8)
RECIPE_KEYS = Group("Recipe keys", help="Each overrides the recipe's own value.", sort_key=9)
Changes = Annotated[Recipe | None, Parameter(name="*", group=RECIPE_KEYS, consume_multiple=True)]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[Literal["auto", "fp32", "bf16"], Parameter(help="auto takes bf16 where it is native.")]
DataRoot = Annotated[Path | None, Parameter(help="Where named sets lie; nothing is downloaded there.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="One JSON object on stdout.")]
Strict = Annotated[bool, Parameter(negative="", help="Exit with 9 where an input could not be read.")]
Model = Annotated[str, Parameter(name="MODEL", help="A run's folder, a model's, a file, a hub id, a name.")]
Workers = Annotated[int | None, Parameter(help="Processes that decode files.")]


@dataclass(frozen=True)
class Foreign:
    """What has to be said of weights that do not say it themselves."""

    model: str | None = None
    """The network, a name from `resnetkit list models`, where it cannot be told from the weights."""
    mean: str | None = None
    """Of each channel in 0-1, as R,G,B."""
    std: str | None = None
    """Of each channel in 0-1, as R,G,B."""
    size: int | None = None
    """Side in pixels of what the network sees."""
    classes: Path | None = None
    """A text file of class names, one a line, in the order of the head."""


@contextmanager
def _importing() -> Iterator[None]:
    """Look for no garbage while PyTorch is imported, nor later among what that made: a third of a second in all.

    Its objects live as long as the process, and there are very many of them; without this, Python looks through them on
    its way in and on its way out. Where PyTorch was there already, the process is someone else's and is left alone.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def train_command(
    data: str | None = None,
    *,
    recipe: str | None = None,
    model: str | None = None,
    weights: str | None = None,
    out: Path | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    data_root: DataRoot = None,
    json_output: Json = False,
    strict: Strict = False,
    changes: Changes = None,
) -> int:
    """Train a network on a named set or on a folder of images.

    Parameters
    ----------
    data
        digits, fashion-mnist, cifar10, cifar100, or a folder of images [default: digits].
    recipe
        A name from `resnetkit list recipes`, or a TOML file. Without it: the one that fits the data.
    model
        A name from `resnetkit list models`; short for --model.name.
    weights
        Start from these instead of from nothing: a name from `resnetkit list weights`, a file, a folder, a hub id.
    out
        Folder of the run. Without it: runs/DATA-TIME.
    resume
        Go on with the run in --out from its last checkpoint.
    """
    with _importing():
        from resnetkit.training import train

    settings: dict[str, Any] = changes.model_dump(exclude_unset=True) if changes is not None else {}
    if weights is not None:
        from resnetkit.pretrained import WEIGHTS

        settings["model"] = {**settings.get("model", {}), "weights": weights}
        if model is None and weights in WEIGHTS:
            model = WEIGHTS[weights].model
    if model is not None:
        settings["model"] = {**settings.get("model", {}), "name": model}
    classifier = train(data, recipe, out=out, resume=resume, data_root=data_root, **settings)
    figures, folder = classifier.metrics, classifier.folder
    run = folder.parent if folder is not None else Path()
    if json_output:
        keys = ("split", "count", "top1", "top5", "loss", "steps", "best_step", "seconds", "images_per_second")
        report = {"run": str(run), "model": classifier.model, "data": classifier.recipe["data"]["name"]}
        extra = {key: figures[key] for key in ("cross_validation", "frozen_drift") if key in figures}
        _print_json(report | {key: figures[key] for key in keys} | {"unreadable": figures["unreadable"]} | extra)
    else:
        print(f"{figures['split']} top-1 {figures['top1']:.2f} % of {figures['count']:,} images, model in {folder}")
        hints = {
            f"resnetkit predict {run} PICTURE…": "what is on a picture",
            f"resnetkit summary {run}": "the network, stage by stage",
        }
        if classifier.recipe["data"]["name"] == "digits":
            hints["resnetkit train photos/"] = "your own pictures, one folder for each class"
        print("Next:")
        for hint, what in hints.items():
            print(f"  {hint:{max(map(len, hints))}}  {what}")
    return 9 if strict and figures["unreadable"] else 0


def evaluate_command(
    source: Model,
    data: Annotated[str, Parameter(name="DATA")],
    /,
    *,
    foreign: Annotated[Foreign | None, Parameter(name="*", group=FOREIGN)] = None,
    data_root: DataRoot = None,
    batch_size: int = 256,
    workers: Workers = None,
    device: Device = "auto",
    precision: Precision = "auto",
    json_output: Json = False,
    strict: Strict = False,
) -> int:
    """Measure a trained model on labelled images: top-1, top-5, loss.

    Parameters
    ----------
    data
        A named set, or a folder of images whose classes the model knows.
    batch_size
        Images at a time. It changes the speed only.
    """
    with _importing():
        from resnetkit.evaluation import evaluate
        from resnetkit.weights import load

    classifier = load(source, **_told(foreign), device=device, precision=precision)
    report = evaluate(classifier, data, data_root=data_root, batch_size=batch_size, workers=workers)
    unreadable: dict[str, str] = report["unreadable"]
    for file, why in unreadable.items():
        print(f"left out: {file}: {why}", file=sys.stderr)
    if json_output:
        _print_json({"model": source, "compute": classifier.compute.describe()} | report)
    else:
        print(
            f"{report['data']}, {report['split']}: top-1 {report['top1']:.2f} %, top-5 {report['top5']:.2f} %, "
            f"loss {report['loss']:.4f}, on {report['count']:,} images ({classifier.compute.describe()})"
        )
        if unreadable:
            print(f"{len(unreadable)} images could not be read and are not counted.")
    return 9 if strict and unreadable else 0


def predict_command(
    source: Model,
    images: Annotated[list[Path], Parameter(name="IMAGES", consume_multiple=True)],
    /,
    *,
    foreign: Annotated[Foreign | None, Parameter(name="*", group=FOREIGN)] = None,
    top: int = 3,
    batch_size: int = 32,
    device: Device = "auto",
    precision: Precision = "auto",
    json_output: Annotated[bool, Parameter(name="--json", negative="", help="One JSON object a file.")] = False,
    strict: Strict = False,
) -> int:
    """Say what is on images: the most probable classes of each file, in the order of the files.

    Parameters
    ----------
    images
        Files, or folders of files.
    top
        How many classes to name.
    """
    from resnetkit.errors import UsageError

    with _importing():
        from resnetkit.prediction import Prediction, predict_each
        from resnetkit.weights import load

    if top < 1:
        raise UsageError(f"--top {top} cannot be", why="at least one class is named", remedy="--top 1")
    classifier = load(source, **_told(foreign), device=device, precision=precision)
    failed = 0
    rows: list[Prediction] = []
    for row in predict_each(classifier, images, top=top, batch_size=batch_size):
        failed += row.error is not None
        if json_output:
            _print_json(row.to_dict())
        else:
            rows.append(row)
    if not json_output:
        _print_predictions(rows)
    if failed:
        print(f"{failed} of the images could not be read.", file=sys.stderr)
    return 9 if strict and failed else 0


def check_command(
    data: Annotated[Path, Parameter(name="DATA")],
    /,
    *,
    workers: Workers = None,
    json_output: Json = False,
    strict: Annotated[bool, Parameter(negative="", help="Exit with 3 where an error was found.")] = False,
) -> int:
    """Look through a folder of images for what spoils training or its scores.

    Parameters
    ----------
    data
        A folder of class folders, or of train/, val/ and test/ with class folders in them.
    """
    from resnetkit.doctor import check
    from resnetkit.log import Reporter

    with Reporter().progress(None, 0, 1, "images") as progress:
        report = check(data, workers=workers, progress=progress)
    if json_output:
        _print_json(report.to_dict())
    else:
        print(report.to_text(min(_console().width, 100)))
    return 3 if strict and report.serious else 0


def summary_command(
    name: Annotated[str, Parameter(name="MODEL")],
    /,
    *,
    image_size: int | None = None,
    json_output: Json = False,
    changes: Annotated[ModelRecipe | None, Parameter(name="--model", group=RECIPE_KEYS, consume_multiple=True)] = None,
) -> None:
    """Show a network stage by stage: output shape, parameters, multiply-adds.

    Parameters
    ----------
    name
        A name from `resnetkit list models`, a run's folder, or a model's.
    image_size
        Side of the input in pixels. Without it: what the model was made for.
    """
    from resnetkit.summary import summarise

    arch, size = _arch(name, changes)
    summary = summarise(arch, size if image_size is None else image_size)
    if json_output:
        _print_json({"model": name} | summary.to_dict())
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        "stage",
        "output (C, H, W)",
        box=SIMPLE_HEAD,
        pad_edge=False,
        title=f"{name}, input {arch.in_channels} x {_times(summary.image_size)}",
    )
    for heading in ("parameters", "multiply-adds"):
        table.add_column(heading, justify="right")
    for stage in summary.stages:
        table.add_row(stage.name, _times(stage.output), f"{stage.parameters:,}", f"{stage.multiply_adds:,}")
    table.add_section()
    table.add_row(f"{arch.layers} layers", "", f"{summary.parameters:,}", f"{summary.multiply_adds:,}")
    _console().print(table)


def list_command(kind: Literal["models", "recipes", "weights", "data"], *, json_output: Json = False) -> None:
    """List models, recipes, weights or data sets.

    Parameters
    ----------
    kind
        What to list.
    """
    from resnetkit.listing import ROWS, brief

    rows = ROWS[kind]()
    if json_output:
        _print_json({kind: rows})
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, value in rows[0].items():
        number = isinstance(value, int | float)
        table.add_column(
            heading.replace("_", "-"),
            justify="right" if number else "left",
            no_wrap=heading not in ("weights", "what it is", "from"),
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(brief, row.values()))
    _console().print(table)


def _told(foreign: Foreign | None) -> dict[str, Any]:
    """What the flags say of weights that do not say it themselves, as `load` takes it."""
    from resnetkit.weights import read_classes

    if foreign is None:
        return {}
    return {
        "model": foreign.model,
        "mean": _numbers("--mean", foreign.mean),
        "std": _numbers("--std", foreign.std),
        "size": foreign.size,
        "classes": read_classes(foreign.classes) if foreign.classes is not None else None,
    }


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    from resnetkit.errors import UsageError

    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{flag} {text} cannot be", why="numbers with commas between", remedy=f"{flag} 0.485,0.456,0.406"
        ) from error


def _arch(model: str, changes: ModelRecipe | None) -> "tuple[Arch, int]":
    from resnetkit.arch import VARIANTS, get_arch
    from resnetkit.listing import native_size

    if model not in VARIANTS and (Path(model).exists() or "." in model or "/" in model):
        from resnetkit.weights import Told, read_source

        found = read_source(
            model, Told(model=changes.name if changes is not None and "name" in changes.model_fields_set else None)
        )
        return found.arch, found.preprocess.size if found.preprocess else native_size(found.arch)
    fields = changes.model_dump(exclude_unset=True, exclude={"name", "weights"}) if changes is not None else {}
    arch = get_arch(model, **fields)
    return arch, native_size(arch)


def _times(numbers: tuple[int, ...]) -> str:
    return " x ".join(map(str, numbers))


def _print_json(report: dict[str, Any]) -> None:
    line = json.dumps(report, ensure_ascii=False)
    # A file name that is not UTF-8 reaches us with lone surrogates; escaped, it parses back to the same name.
    if any("\ud800" <= character <= "\udfff" for character in line):
        line = json.dumps(report)
    print(line, flush=True)


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


def _print_predictions(rows: list[Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("file", "most probable", "then"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        file = Text(row.file.encode(errors="backslashreplace").decode())
        if row.error is not None:
            table.add_row(file, Text(row.error, style="red"), "")
            continue
        (label, share), *others = row.top
        then = ", ".join(f"{name} {part:.1%}" for name, part in others)
        table.add_row(file, Text(f"{label} {share:.1%}"), Text(then))
    _console().print(table)
