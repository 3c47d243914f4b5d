"""`resnetkit evaluate`."""

from typing import Annotated, Literal

from cyclopts import Parameter

from resnetkit.cli.options import (
    DataRoot,
    Device,
    ForWeights,
    HowLabelled,
    Json,
    Model,
    Precision,
    Strict,
    Workers,
    importing,
)
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
    labelling: HowLabelled = None,
    data_root: DataRoot = None,
    crops: Literal[1, 10] = 1,
    batch_size: int = 256,
    include_seen: Annotated[bool, Parameter(negative="")] = False,
    workers: Workers = None,
    device: Device = "auto",
    precision: Precision = "auto",
    json_output: Json = False,
    strict: Strict = False,
) -> int:
    """Measure a trained model on labelled images: top-1, top-5, loss.

    resnetkit evaluate runs/NAME fashion-mnist
    resnetkit evaluate runs/NAME photos/test
    resnetkit evaluate runs/NAME 'shards/val-*.tar'
    resnetkit evaluate runs/NAME labels.csv
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
    batch_size
        Images at a time; for speed only.
    include_seen
        Score pictures that the run has learnt from, or was chosen by, too; they are left out otherwise.
    """
    require(batch_size=batch_size, workers=workers)
    with importing():
        from resnetkit.evaluation.evaluate import evaluate
        from resnetkit.machine.console import Reporter
        from resnetkit.weights.load import load

    classifier = load(source, **vars(hints or Hints()), device=device, precision=precision)
    report = evaluate(
        classifier,
        data,
        data_root=data_root,
        batch_size=batch_size,
        workers=workers,
        crops=crops,
        include_seen=include_seen,
        labelling=labelling,
        reporter=Reporter(),
    )
    unreadable: dict[str, str] = report["unreadable"]
    for file, why in unreadable.items():
        aside(f"left out: {file}: {why}")
    if json_output:
        answer_json({"model": source, "compute": classifier.compute.describe()} | report)
    else:
        answer(
            f"{report['data']}, {report['split']}: top-1 {report['top1']:.2f} %, top-5 {report['top5']:.2f} %, "
            f"loss {report['loss']:.4f}, on {report['count']:,} images ({classifier.compute.describe()})"
        )
        if report["seen"]:
            answer(f"{report['seen']:,} more were seen in training and are not counted.")
        if unreadable:
            answer(f"{counted(len(unreadable), 'image')} could not be read: not counted.")
    return 9 if strict and unreadable else 0
