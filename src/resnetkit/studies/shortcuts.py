"""Shortcuts: padded identity (A), projection where the shape changes (B), projection everywhere (C), or none."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resnetkit.errors import DivergedError
from resnetkit.studies.fit import LOST, fit, stacked
from resnetkit.studies.spread import Spread, at_best_rate, chance, left_out, overlap
from resnetkit.studies.study import Grid, Place, Row, Study, Sweep, combinations, select

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("no shortcut: the plain net", {"residual": False}),
    "A": ("identity, padded with zeros", {"residual": True, "shortcut": "A"}),
    "B": ("projection where the shape changes", {"residual": True, "shortcut": "B"}),
    "C": ("projections everywhere", {"residual": True, "shortcut": "C"}),
}
"""What each option is, and the fields of the network that make it."""
PAPER = {"none": 28.54, "A": 25.03, "B": 24.52, "C": 24.19}
"""Top-1 error in percent of plain-34 and ResNet-34 on ImageNet's validation images, 10 crops (paper, Table 3)."""

QUICK = Grid(sweeps=(Sweep(combinations(depth=(20,), lr=(0.03, 0.1), shortcut=tuple(OPTIONS))),), recipe={"epochs": 10})
FULL = Grid(sweeps=(Sweep(combinations(depth=(20, 56), lr=(0.03, 0.1), shortcut=tuple(OPTIONS))),))


def measure(row: Row, place: Place) -> Sequence[Row]:
    """Train the net; one line."""
    grid, optim = STUDY.grid(place), {"lr": row["lr"]}
    model = stacked(int(row["depth"])) | OPTIONS[str(row["shortcut"])][1]
    name = "{shortcut}{depth}-lr{lr}-seed{seed}".format(**row)
    try:
        return [fit(place, name, seed=row["seed"], model=model, optim=optim, **grid.recipe).figures()]
    except DivergedError:
        return [LOST]


def _errors(results: Sequence[Row], depth: int, column: str) -> dict[str, Spread]:
    """By option, at the rate that is best on the held-out images."""
    return {
        option: Spread.of(
            at_best_rate(list(select(results, depth=depth, shortcut=option)), by="held_out_error"), column
        )
        for option in OPTIONS
    }


def _parameters(results: Sequence[Row], depth: int, option: str) -> int:
    return max(int(line["parameters"]) for line in select(results, depth=depth, shortcut=option))


def _pair(errors: dict[str, Spread], one: str, other: str) -> str:
    """Which of two options is better, or that it cannot be told."""
    for better, worse in ((one, other), (other, one)):
        if errors[worse].above(errors[better]):
            return f"{better} is better than {worse} ({chance(errors[worse], errors[better])})"
    for option in (one, other):
        if not errors[option].values:
            return f"{option} could not be trained at any rate"
    return f"{one} and {other} cannot be told apart: {overlap(errors[one], errors[other])}"


def answer(results: Sequence[Row]) -> str:
    """Which options can be told apart, and what each costs in parameters."""
    depths = sorted({int(line["depth"]) for line in results})
    asked = (
        "Asked: where a block changes the shape of its images, its shortcut cannot be the bare identity. Is it better "
        "to learn a projection there (B), or in every block (C), than to pad with zeros (A)? And is what is gained "
        "worth its parameters?"
    )
    parts = [asked]
    for depth in depths:
        errors = _errors(results, depth, "test_error")
        each = "; ".join(
            f"{option} ({OPTIONS[option][0]}) {error}, {_parameters(results, depth, option):,} parameters"
            for option, error in errors.items()
        )
        parts.append(f"Seen, error on test images with {depth} layers: {each}.")
        pairs = [_pair(errors, *pair) for pair in (("A", "B"), ("B", "C"), ("A", "C"))]
        plain = _pair(errors, "A", "none")
        parts.append(
            f"What it means, with {depth} layers: {'; '.join(pairs)}. As to any shortcut at all, at the same number of "
            f"parameters: {plain}."
        )
    parts.append(
        "The paper, for comparison (another network on other images: 34 layers, ImageNet, one figure each): "
        + ", ".join(f"{option} {error} %" for option, error in PAPER.items())
        + ". It calls the differences between A, B and C small, and projections not essential against degradation."
    )
    parts.append(
        f"What it does not show: that small differences are none; {len({line['seed'] for line in results})} seeds "
        "see large ones only. Each option is shown at the learning rate that is best for it on held-out images."
    )
    return "\n\n".join(parts + left_out(results, "{shortcut} {depth} at {lr}"))


def draw(figure: "Figure", results: Sequence[Row]) -> None:
    """Errors on training and test images by option, with parameters below: one panel for each depth."""
    depths = sorted({int(line["depth"]) for line in results})
    for axes, depth in zip(figure.subplots(1, len(depths), sharey=True, squeeze=False)[0], depths, strict=True):
        for column, marker, fill, shift, label in (
            ("train_error", "s", "white", -0.12, "training images"),
            ("test_error", "o", "black", 0.12, "test images"),
        ):
            for place, (option, error) in enumerate(_errors(results, depth, column).items()):
                x = place + shift
                axes.plot([x] * len(error.values), error.values, "_", color="black", markersize=9)
                axes.vlines(x, error.low, error.high, color="0.6", zorder=1)
                axes.plot(
                    [x],
                    [error.mean],
                    marker,
                    color="black",
                    markerfacecolor=fill,
                    linestyle="",
                    label=label if option == "none" else None,
                )
        names = [f"{option}\n{_parameters(results, depth, option):,}\nparameters" for option in OPTIONS]
        axes.set_xticks(range(len(OPTIONS)), names)
        axes.set(title=f"{depth} layers", ylabel="error in %, mean and every seed", ylim=(0, None))
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.label_outer()


STUDY = Study(
    name="shortcuts",
    title="Which shortcut, and what does it cost?",
    question="A residual block adds what comes in to what its layers make of it. Where the two differ in shape, is it "
    "worth learning how to fit one to the other?",
    source="He et al., Deep Residual Learning (2015), Table 3: A, B and C are all far better than no shortcut; B is a "
    "little better than A, and C than B, which the paper puts down to its extra parameters.",
    settings=("data", "depth", "shortcut", "lr", "seed"),
    figures=("parameters", "train_error", "held_out_error", "test_error"),
    quick=QUICK,
    full=FULL,
    measure=measure,
    draw=draw,
    answer=answer,
)
