"""`resnetkit predict`."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from resnetkit.cli.options import (
    Device,
    ForWeights,
    Model,
    Plugin,
    Precision,
    Strict,
    importing,
)
from resnetkit.cli.plugin import network_of
from resnetkit.cli.printing import answer_json, answer_table, aside
from resnetkit.recipes.ranges import require
from resnetkit.weights.hints import Hints


def predict_command(
    source: Model,
    images: Annotated[list[Path], Parameter(name="IMAGES", consume_multiple=True)],
    /,
    *,
    hints: ForWeights = None,
    plugin: Plugin = None,
    top: int = 3,
    reject: Annotated[bool, Parameter(negative="")] = False,
    batch_size: int = 32,
    device: Device = "auto",
    precision: Precision = "auto",
    json_output: Annotated[bool, Parameter(name="--json", negative="", help="One JSON object a file.")] = False,
    strict: Strict = False,
) -> int:
    """Say what is on images.

    resnetkit predict runs/NAME cat.jpg photos/
    resnetkit predict runs/NAME photos/ --json > answers.jsonl
    resnetkit predict resnet50.imagenet1k_v2 cat.jpg

    One answer for every file, also for one that cannot be read or is no image; its name does not matter.

    Parameters
    ----------
    images
        Files, or folders: every file below them but hidden ones.
    top
        How many classes to name.
    reject
        Answer "unknown" for what looks like nothing that was learnt; of pictures like the known, it refuses 5 in 100.
    """
    require(top=top, batch_size=batch_size)
    with importing():
        from resnetkit.prediction.answer import Prediction
        from resnetkit.prediction.predict import iter_predict
        from resnetkit.weights.load import load

    classifier = load(source, **vars(hints or Hints()), network=network_of(plugin), device=device, precision=precision)
    if reject:
        classifier.require_unknown()
    failed = 0
    rows: list[Prediction] = []
    for row in iter_predict(classifier, images, top=top, batch_size=batch_size):
        failed += row.error is not None
        if json_output:
            answer_json(row.rejected() if reject else row.to_dict())
        else:
            rows.append(row)
    if not json_output:
        _print_predictions(rows, reject=reject)
    if failed:
        aside(f"{failed} of the images could not be read.")
    return 9 if strict and failed else 0


def _print_predictions(rows: list[Any], *, reject: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("file", "most probable", "then"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        if row.error is not None:
            table.add_row(row.file, row.error, "", style="red")
            continue
        (label, share), *others = row.top
        if reject and row.unknown:
            table.add_row(row.file, "unknown", f"most like {label}", style="yellow")
            continue
        then = ", ".join(f"{name} {part:.1%}" for name, part in others)
        table.add_row(row.file, f"{label} {share:.1%}", then)
    answer_table(table)
