"""Degradation: does a deeper plain network fit its own training images worse, and a residual one not?"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resnetkit.errors import DivergedError
from resnetkit.studies.fit import SHAPES, fit, stacked, warmup
from resnetkit.studies.spread import Spread, at_best_rate, chance, left_out
from resnetkit.studies.study import Grid, Place, Row, Study, Sweep, combinations, select

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NETWORKS = ("plain", "residual")


QUICK = Grid(sweeps=(Sweep(combinations(depth=(8, 20, 44), lr=(0.03, 0.1), network=NETWORKS)),), recipe={"epochs": 10})
FULL = Grid(sweeps=(Sweep(combinations(depth=(20, 32, 44, 56, 110), lr=(0.03, 0.1), network=NETWORKS)),))


def measure(row: Row, place: Place) -> Sequence[Row]:
    """Train the net, then one line for each epoch."""
    depth = int(row["depth"])
    optim = {"lr": row["lr"]} | warmup(place, depth).get("optim", {})
    name = "{network}{depth}-lr{lr}-seed{seed}".format(**row)
    model = stacked(depth) | SHAPES[str(row["network"])]
    try:
        done = fit(place, name, seed=row["seed"], model=model, optim=optim, **STUDY.grid(place).recipe)
    except DivergedError:
        return [{"epoch": 0.0, "train_error": math.nan, "held_out_error": math.nan, "test_error": math.nan}]
    return [
        {
            "epoch": round(line["epoch"], 2),
            "train_error": 100 - line["train_top1"],
            "held_out_error": 100 - line["validation_top1"],
            "test_error": 100 - done.end["top1"],
        }
        for line in done.epochs
    ]


def _curves(results: Sequence[Row], network: str, depth: int) -> list[list[Row]]:
    """The runs of a network at its best learning rate, one list of epochs for each seed. Empty where all diverged.

    The best rate is that of the lowest training error at the end, mean over seeds: the question is how well a network
    can be fitted, so each gets the rate at which it is fitted best.
    """
    runs: dict[tuple[float, int], list[Row]] = {}
    for line in select(results, network=network, depth=depth):
        runs.setdefault((float(line["lr"]), int(line["seed"])), []).append(line)
    best = at_best_rate([run[-1] for run in runs.values()], by="train_error")
    return [runs[float(line["lr"]), int(line["seed"])] for line in best]


def _ends(results: Sequence[Row], network: str, column: str) -> dict[int, Spread]:
    """By depth, the column at the end of the runs at the best learning rate."""
    depths = sorted({int(line["depth"]) for line in results})
    runs = {depth: _curves(results, network, depth) for depth in depths}
    return {depth: Spread.of((run[-1] for run in each), column) for depth, each in runs.items() if each}


def _compare(network: str, ends: dict[int, Spread]) -> tuple[str, str]:
    """The deepest against the shallowest: "worse", "better" or "open", and the sentence that says so."""
    if len(ends) < 2:
        return "open", f"Of the {network} nets too few could be trained to compare depths."
    shallow, deep = min(ends), max(ends)
    pair = f"the {network} net of {deep} layers fits its own training images"
    if ends[deep].above(ends[shallow]):
        why = chance(ends[deep], ends[shallow])
        return "worse", f"With depth it gets worse: {pair} worse than that of {shallow} ({why})."
    if ends[shallow].above(ends[deep]):
        why = chance(ends[shallow], ends[deep])
        return "better", f"With depth it gets better: {pair} better than that of {shallow} ({why})."
    return "open", f"Depth makes no clear difference: {pair} as well as that of {shallow}, as far as the seeds tell."


MEANING = {
    ("worse", True): (
        "That is the degradation of the paper, and shortcuts take it away. It is not overfitting: the error that rises "
        "is that on the images the network learns from. Nor is it a lack of capacity: the deeper net could copy the "
        "shallower one and let its other layers pass everything on. Training does not find such weights in the time "
        "given; with shortcuts, where to pass on is what a block does when it adds nothing, it finds good ones."
    ),
    ("worse", False): (
        "Plain nets degrade with depth, as the paper says; but here residual ones do too, so shortcuts alone are no "
        "cure under these conditions."
    ),
    ("other", True): (
        "Degradation is not seen here: under these conditions plain nets can be made so deep without harm, or the runs "
        "are too few to tell. That neither confirms the paper's claim nor refutes it for deeper nets."
    ),
    ("other", False): "This is not what the paper describes: here it is the residual nets that degrade.",
}
"""By whether plain nets get worse with depth, and whether residual ones do not."""


def answer(results: Sequence[Row]) -> str:
    """Whether plain nets get worse with depth on the images that they learn from, and residual ones not."""
    ends = {network: _ends(results, network, "train_error") for network in NETWORKS}
    tests = {network: _ends(results, network, "test_error") for network in NETWORKS}
    verdicts = {network: _compare(network, ends[network]) for network in NETWORKS}
    seen = [
        f"{network.capitalize()} nets: "
        + ", ".join(f"{depth} layers {error}" for depth, error in ends[network].items())
        + f". {verdicts[network][1]}"
        for network in NETWORKS
    ]
    plain = "worse" if verdicts["plain"][0] == "worse" else "other"
    passes = round(max(float(line["epoch"]) for line in results))
    data = results[0]["data"]
    rates = sorted({float(line["lr"]) for line in results})
    asked = (
        "Asked: a deeper net can do all that a shallower one can, for its extra layers need only pass on what they "
        f"get. Does its error on the images that it learns from ({data}) then still rise with depth, and do shortcuts "
        "change that?"
    )
    on_test = "; ".join(
        f"{network} " + ", ".join(f"{depth} layers {error}" for depth, error in tests[network].items())
        for network in NETWORKS
    )
    limits = (
        f"What it does not show: why. And whether it would stay so with more than {passes} passes, with other learning "
        f"rates than {' and '.join(f'{rate:g}' for rate in rates)} (each net is shown at the one that fits it best), "
        "other images or other widths. Training errors are taken from the batches as they are learnt from, shifted "
        "and mirrored where the recipe does so."
    )
    parts = [
        asked,
        f"Seen: the error on training images after {passes} passes over them. " + " ".join(seen),
        f"What it means: {MEANING[plain, verdicts['residual'][0] != 'worse']}",
        f"On test images, which played no part in training: {on_test}.",
        limits,
    ]
    return "\n\n".join(parts + left_out(results, "{network} {depth} at {lr}"))


def draw(figure: "Figure", results: Sequence[Row]) -> None:
    """The course of training of plain and of residual nets, and the error at the end by depth."""
    depths = sorted({int(line["depth"]) for line in results})
    left, middle, right = figure.subplots(1, 3, sharey=True)
    for axes, network in ((left, "plain"), (middle, "residual")):
        for place, depth in enumerate(depths):
            runs = _curves(results, network, depth)
            if runs:
                _draw_curves(axes, runs, f"{depth} layers", place / max(1, len(depths) - 1))
        axes.set(title=f"{network} nets", xlabel="passes over the training images", ylim=(0, 100))
        axes.legend(loc="upper right", frameon=False)
    left.set_ylabel("error in %")
    middle.plot([], [], color="black", label="training images")
    middle.plot([], [], color="black", linestyle=":", label="held-out images")
    middle.legend(loc="upper right", frameon=False)
    for network, style, fill in (("plain", "s--", "white"), ("residual", "o-", "black")):
        ends = _ends(results, network, "train_error")
        right.plot(
            list(ends), [end.mean for end in ends.values()], style, color="black", markerfacecolor=fill, label=network
        )
        for depth, end in ends.items():
            right.plot([depth] * len(end.values), end.values, "_", color="black", markersize=9)
    right.set(title="training error at the end", xlabel="layers", xticks=depths)
    right.legend(loc="upper left", frameon=False)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)


def _draw_curves(axes: "Axes", runs: Sequence[Sequence[Row]], label: str, deep: float) -> None:
    """Mean over the seeds, darker and thicker the deeper: solid for training images, dotted for held-out ones."""
    passes = [line["epoch"] for line in runs[0]]
    for column, style in (("train_error", "-"), ("held_out_error", ":")):
        means = [sum(float(line[column]) for line in lines) / len(lines) for lines in zip(*runs, strict=True)]
        axes.plot(
            passes,
            means,
            style,
            color=str(0.65 * (1 - deep)),
            linewidth=1 + 1.5 * deep,
            label=label if style == "-" else None,
        )


STUDY = Study(
    name="degradation",
    title="Are deeper networks harder to train?",
    question="Stack more layers on a plain network and it should become better, or at least stay as good. Does it? And "
    "does a residual network, which differs in its shortcuts and in nothing else?",
    source="He et al., Deep Residual Learning (2015), Figures 1, 4 and 6: plain nets degrade with depth, on training "
    "images already; residual nets do not.",
    settings=("data", "network", "depth", "lr", "seed"),
    figures=("epoch", "train_error", "held_out_error", "test_error"),
    quick=QUICK,
    full=FULL,
    measure=measure,
    draw=draw,
    answer=answer,
)
