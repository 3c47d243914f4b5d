"""`resnetkit evaluate`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from resnetkit.cli.figures import print_classes, print_figures
from resnetkit.cli.options import (
    SELDOM,
    DataRoot,
    Device,
    ForWeights,
    HowLabelled,
    Json,
    Model,
    Plugin,
    Precision,
    Strict,
    Workers,
    importing,
)
from resnetkit.cli.plugin import network_of
from resnetkit.cli.printing import answer, answer_json, aside
from resnetkit.machine.console import counted
from resnetkit.recipes.ranges import require
from resnetkit.weights.hints import Hints


def evaluate_command(
    source: Model,
    data: Annotated[str, Parameter(name="DATA")],
    /,
    *,
    hints: ForWeights = None,
    plugin: Plugin = None,
    labelling: HowLabelled = None,
    data_root: DataRoot = None,
    crops: Literal[1, 10] = 1,
    scales: Annotated[list[int] | None, Parameter(negative="", consume_multiple=True, group=SELDOM)] = None,
    flip: Annotated[bool, Parameter(negative="")] = False,
    ensemble: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True, group=SELDOM)] = None,
    batch_size: Annotated[int, Parameter(group=SELDOM)] = 256,
    include_seen: Annotated[bool, Parameter(negative="", group=SELDOM)] = False,
    reject: Annotated[bool, Parameter(negative="")] = False,
    out: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative="", group=SELDOM)] = False,
    workers: Annotated[Workers, Parameter(group=SELDOM)] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    json_output: Json = False,
    strict: Strict = False,
) -> int:
    """Measure a trained model on labelled images: top-1, top-5, loss.

    resnetkit evaluate runs/NAME fashion-mnist
    resnetkit evaluate runs/NAME 'shards/val-*.tar'
    resnetkit evaluate runs/NAME labels.csv --out figures/
    resnetkit evaluate net.th cifar10/test --model resnet20 --mean 0.485,0.456,0.406
      --std 0.229,0.224,0.225 --size 32

    Of a set it scores the test split; of a folder test/, or else val/; of a folder of class folders, all images.
    Pictures that the run has learnt from are left out, also in a copy of its folder.

    Parameters
    ----------
    data
        A named set, or a folder, table, archive or shards of images whose classes the model knows.
    crops
        10 averages over corners, centre and their mirror images, as the paper's tables do.
    scales
        Average over whole pictures with these shorter sides, as 224,256,384,480,640: the paper's best figures.
    flip
        Average over each view and its mirror image.
    ensemble
        Further models of the same classes, whose probabilities are averaged with this one's.
    batch_size
        Images at a time; for speed only.
    include_seen
        Score pictures that the run has learnt from, or was chosen by, too; they are left out otherwise.
    reject
        Say too what comes of refusing pictures that look like nothing that was learnt.
    out
        Folder for predictions.csv, a line for each image, and evaluation.json, all figures.
    overwrite
        With --out: in place of those that are there.
    """
    require(batch_size=batch_size, workers=workers)
    with importing():
        from resnetkit.evaluation import calibration, rejection
        from resnetkit.evaluation.evaluate import evaluate
        from resnetkit.machine import torchrun
        from resnetkit.machine.console import Reporter
        from resnetkit.weights.load import is_ours, load

    # Of weights that say how images are prepared, it is another size; for others it has to be said which.
    said: Hints = hints or Hints()
    another_size = said.size if is_ours(source) else None
    if another_size is not None:
        said = replace(said, size=None)
    classifier = load(source, **vars(said), network=network_of(plugin), device=device, precision=precision)
    report = evaluate(
        classifier,
        data,
        data_root=data_root,
        batch_size=batch_size,
        workers=workers,
        crops=crops,
        scales=scales or (),
        size=another_size,
        flip=flip,
        ensemble=[load(each, device=device, precision=precision) for each in ensemble or ()],
        include_seen=include_seen,
        reject=reject,
        labelling=labelling,
        out=out,
        overwrite=overwrite,
        reporter=Reporter(),
    )
    if not torchrun.place().first:
        return 0
    unreadable: dict[str, str] = report["unreadable"]
    for file, why in unreadable.items():
        aside(f"left out: {file}: {why}")
    if json_output:
        answer_json({"model": source, "compute": classifier.compute.describe()} | report)
    else:
        print_figures(report, classifier.compute.describe())
        print_classes(report)
        if report["calibration"] is not None:
            answer(calibration.describe(report["calibration"]))
        if reject:
            answer(*rejection.describe(report["reject"]))
        if report["seen"]:
            answer(f"{report['seen']:,} more were seen in training and are not counted.")
        if unreadable:
            answer(f"{counted(len(unreadable), 'image')} could not be read: not counted.")
        if out is not None:
            answer(f"written: predictions.csv and evaluation.json in {out}")
    return 9 if strict and unreadable else 0
