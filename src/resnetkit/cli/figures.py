"""The figures of an evaluation for people: how good, how sure, which classes are the worst, which are confused."""

from statistics import median
from typing import Any

from resnetkit.cli.printing import answer, answer_table

CLASSES, CONFUSIONS = 10, 5
"""Rows of the table, and confusions that are named, at most."""
UNSURE = 10
"""Points that a recall may lie away from what was measured before that is said."""


def print_figures(report: dict[str, Any], compute: str) -> None:
    """A report of `evaluate`, on stdout, in lines of 80 columns."""
    from resnetkit.evaluation.report import accuracy, loss

    within = report["interval"]
    answer(
        f"{report['data']}, {report['split']}: top-1 {accuracy(report['top1'], within['top1'])}, "
        f"top-5 {report['top5']:.2f} %, loss {loss(report['loss'])}, on {report['count']:,} images ({compute})",
        f"balanced accuracy {accuracy(report['balanced_accuracy'], within['balanced_accuracy'])}; "
        "in brackets: 95 % intervals",
    )
    if (chosen := report["validation"]) is not None and report["split"] != "validation":
        top1 = accuracy(chosen["top1"], chosen["interval"]["top1"])
        answer(f"validation top-1 {top1} of {chosen['count']:,} images (chose the weights)")


def print_classes(report: dict[str, Any]) -> None:
    """The worst classes as a table, what to think of its figures, and the most frequent confusions."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from resnetkit.evaluation.report import confusion

    row_of = {row["class"]: row for row in report["classes"]}
    there = [row for row in report["classes"] if row["support"]]
    worst = [row_of[name] for name in report["worst"][:CLASSES]]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("class" if len(worst) == len(there) else f"worst of {len(there):,} classes", overflow="fold")
    for heading in ("images", "recall %", "95 %", "precision %", "F1 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in worst:
        low, high = row["interval"]["recall"]
        figures = (f"{row['recall']:.1f}", f"{low:.0f} to {high:.0f}", _or_none(row["precision"]), f"{row['f1']:.1f}")
        table.add_row(row["class"], f"{row['support']:,}", *figures)
    answer_table(table)
    half = median((row["interval"]["recall"][1] - row["interval"]["recall"][0]) / 2 for row in there)
    if half > UNSURE:
        images = median(row["support"] for row in there)
        answer(f"A class has {images:,.0f} images (median): its recall is sure to about {half:.0f} points only.")
    if report["confusions"]:
        answer("Most often confused:", *(f"  {confusion(each)}" for each in report["confusions"][:CONFUSIONS]))


def _or_none(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.1f}"
