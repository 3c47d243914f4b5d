"""Depth: what do 20 to 1202 layers gain on CIFAR-10, and at what cost in parameters?"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resnetkit.errors import DivergedError
from resnetkit.studies.fit import LOST, fit, stacked, warmup
from resnetkit.studies.spread import Spread, chance, left_out, overlap
from resnetkit.studies.study import Grid, Place, Row, Study, Sweep, combinations, select

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.61, 1202: 7.93}
"""Test error in percent of Table 6: one figure each, for 110 layers the mean of five runs (deviation 0.16)."""


def by_depth(seeds: dict[int, int]) -> tuple[Sweep, ...]:
    """One depth after the other, each with so many seeds."""
    return tuple(Sweep(combinations(depth=(depth,)), count) for depth, count in seeds.items())


QUICK = Grid(sweeps=by_depth({8: 3, 20: 3, 44: 3, 110: 3}), recipe={"epochs": 10})
FULL = Grid(sweeps=by_depth({20: 3, 32: 3, 44: 3, 56: 3, 110: 5, 1202: 3}))
RECOMPUTED = 1202
"""From this depth on activations are computed twice: then 128 images fit into 6 GiB (docs/networks.md)."""


def measure(row: Row, place: Place) -> Sequence[Row]:
    """Train the net; one line."""
    depth, name = int(row["depth"]), "resnet{depth}-seed{seed}".format(**row)
    changes = warmup(place, depth) | STUDY.grid(place).recipe
    try:
        done = fit(place, name, seed=row["seed"], model=stacked(depth), recompute=depth >= RECOMPUTED, **changes)
        figures, seconds = done.figures(), done.end["seconds"]
    except DivergedError:
        figures, seconds = LOST, math.nan
    paper = PAPER.get(depth, "") if row["data"] == "cifar10" else ""
    return [{**figures, "seconds": seconds, "paper_error": paper}]


def _by_depth(results: Sequence[Row], column: str) -> dict[int, Spread]:
    """By depth, in order; depths of which every run was lost are not there."""
    depths = sorted({int(line["depth"]) for line in results})
    spreads = {depth: Spread.of(select(results, depth=depth), column) for depth in depths}
    return {depth: spread for depth, spread in spreads.items() if spread.values}


def _parameters(results: Sequence[Row], depth: int) -> int:
    return max(int(line["parameters"]) for line in select(results, depth=depth))


def _compare(errors: dict[int, Spread], shallow: int, deep: int) -> str:
    if errors[shallow].above(errors[deep]):
        return f"{deep} layers are better than {shallow} ({chance(errors[shallow], errors[deep])})"
    if errors[deep].above(errors[shallow]):
        return f"{deep} layers are worse than {shallow} ({chance(errors[deep], errors[shallow])})"
    return f"{shallow} and {deep} layers cannot be told apart: {overlap(errors[shallow], errors[deep])}"


def _why(test: dict[int, Spread], train: dict[int, Spread], shallow: int, deep: int) -> str:
    """Where the deep net is worse on test images: whether it fits its training images worse too."""
    if not test[deep].above(test[shallow]):
        return ""
    if train[deep].above(train[shallow]):
        return (
            " It fits its training images worse too, so this is no overfitting: in the time given it has not been "
            "trained as far, and more passes or another learning rate may turn it round."
        )
    return " It fits its training images no worse, so what it has learnt from them does not carry over: overfitting."


def answer(results: Sequence[Row]) -> str:
    """What depth brings on test images, and whether the extremely deep net overfits."""
    test, train = _by_depth(results, "test_error"), _by_depth(results, "train_error")
    data = results[0]["data"]
    usual = [depth for depth in test if depth < RECOMPUTED]
    seen = "; ".join(
        f"{depth} layers {error}, {_parameters(results, depth):,} parameters" for depth, error in test.items()
    )
    asked = (
        f"Asked: how much better do residual nets become, on images of {data} that they have not seen, when layers are "
        "added and nothing else is changed?"
    )
    parts = [
        asked,
        f"Seen, error on test images: {seen}. On training images: "
        + "; ".join(f"{depth} layers {error}" for depth, error in train.items())
        + ".",
    ]
    if len(usual) > 1:
        parts.append(f"What it means: {_compare(test, usual[0], usual[-1])}.{_why(test, train, usual[0], usual[-1])}")
    if len(usual) > 1 and usual[-1] != max(test):
        both = f"{_compare(test, usual[-1], max(test))}; on training images, {_compare(train, usual[-1], max(test))}"
        parts.append(
            f"As to the extremely deep: {both}. The paper finds 1202 layers worse on test images while both fit their "
            "training images, and takes it for overfitting."
        )
    if references := {depth: PAPER[depth] for depth in test if depth in PAPER and data == "cifar10"}:
        parts.append(
            "The paper's Table 6, beside ours: "
            + "; ".join(
                f"{depth} layers {error} % there, {test[depth].mean:.2f} % here" for depth, error in references.items()
            )
            + ". Where our protocol differs from the paper's stands in docs/reproduction.md."
        )
    else:
        parts.append(
            "The paper's Table 6 (CIFAR-10, so not to be compared with these figures): "
            + ", ".join(f"{depth} layers {error} %" for depth, error in PAPER.items())
            + "."
        )
    parts.append(
        "What it does not show: what depth would gain on other images, or with another length of training or learning "
        "rate for each depth; nor, where seeds overlap, that there is no difference."
    )
    return "\n\n".join(parts + left_out(results, "{depth} layers, seed {seed}"))


def draw(figure: "Figure", results: Sequence[Row]) -> None:
    """Errors on training and test images by depth, with parameters below, and the paper's beside them."""
    axes = figure.subplots()
    for column, style, fill, aside, label in (
        ("train_error", "s--", "white", 0.975, "training images"),
        ("test_error", "o-", "black", 1.025, "test images"),
    ):
        errors = _by_depth(results, column)
        means, places = [each.mean for each in errors.values()], [depth * aside for depth in errors]
        axes.plot(places, means, style, color="black", markerfacecolor=fill, label=label)
        for place, each in zip(places, errors.values(), strict=True):
            axes.vlines(place, each.low, each.high, color="0.6", zorder=1)
            axes.plot([place] * len(each.values), each.values, "_", color="black", markersize=9)
    paper = {int(line["depth"]): float(line["paper_error"]) for line in results if line["paper_error"] != ""}
    if paper:
        axes.plot(list(paper), list(paper.values()), "x", color="0.45", markersize=9, label="test images, the paper's")
    depths = list(_by_depth(results, "test_error"))
    counts = [_parameters(results, depth) for depth in depths]
    axes.set_xscale("log")
    axes.set_xticks(depths, [f"{depth}\n{count:,}" for depth, count in zip(depths, counts, strict=True)])
    axes.minorticks_off()
    axes.set(xlabel="layers, and parameters below", ylabel="error in %, mean and every seed", ylim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


STUDY = Study(
    name="depth",
    title="How deep is worth it?",
    question="Residual nets of the same widths, from shallow to very deep: what does each step of depth bring?",
    source="He et al., Deep Residual Learning (2015), Table 6: on CIFAR-10 the error falls from 20 to 110 layers, and "
    "is higher again with 1202.",
    settings=("data", "depth", "seed"),
    figures=("parameters", "train_error", "held_out_error", "test_error", "seconds", "paper_error"),
    quick=QUICK,
    full=FULL,
    measure=measure,
    draw=draw,
    answer=answer,
)
