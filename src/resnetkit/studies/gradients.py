"""Do shortcuts cure vanishing gradients? Norm and signal-to-noise ratio of the gradient, layer by layer.

The tutorials say so; the paper (section 4.1) says that plain nets with BatchNorm have no such illness. Both are put to
the test at initialisation and in the first steps of training.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from resnetkit.recipes.load import load_recipe
from resnetkit.studies.derivative import check_identity, layer_gradients
from resnetkit.studies.fit import SHAPES, build_network, images_of, train_with_stops
from resnetkit.studies.health import EXPLODED, RATE, STEPS, VANISHED, health, in_words, verdict
from resnetkit.studies.study import Grid, Place, Row, Study, Sweep, combinations, select

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEEPEST = 1001
PARTS, PART = 4, 16
"""Mini-batches whose gradients are compared with one another, and the images in each."""


def _sweep(depth: int, seeds: int = 3, *, fixed: bool = False) -> Sweep:
    settings = combinations(depth=(depth,), batchnorm=(False, True), init=("he", "torch"), shape=tuple(SHAPES))
    return Sweep(settings, seeds, fixed)


USUAL = tuple(map(_sweep, (20, 56, 110)))
"""Every net at initialisation; those of He's initialisation also in the first steps of training."""
QUICK = Grid(
    sweeps=(*USUAL, _sweep(DEEPEST, 1, fixed=True)),
    recipe={"data": {"batch_size": 32}, "augment": {"flip": False, "pad_crop": 1}},
)
FULL = Grid(sweeps=(*USUAL, _sweep(DEEPEST)))


def stops(row: Row, place: Place) -> tuple[int, ...]:
    """Steps of training before which a row looks at its gradients."""
    if not place.quick:
        return (0,) if row["depth"] == DEEPEST else (0, 100, 400, 1000, 2000)
    return (0, 3, 10) if row["init"] == "he" and row["depth"] == 56 else (0,)


def measure(row: Row, place: Place) -> Sequence[Row]:
    """One line for each layer and moment."""
    shape, seed = str(row["shape"]), int(row["seed"])
    at = stops(row, place)
    recipe = load_recipe("cifar10-paper", {**STUDY.grid(place).recipe, "seed": seed, "steps": max(1, at[-1])})
    data = images_of(place)
    network = build_network(
        shape, int(row["depth"]), data, seed=seed, init=str(row["init"]), batchnorm=bool(row["batchnorm"])
    )
    identity = check_identity(shape, seed)
    about = {"mismatch": identity.mismatch, "open": identity.open}
    lines: list[Row] = []
    for step, applied, images, labels in train_with_stops(network, data, recipe, at, PARTS * PART):
        loss, found = layer_gradients(network, images, labels, PARTS)
        lines += [
            {"step": step, "applied": applied, "loss": loss, "layer": number, **figures, **about}
            for number, figures in enumerate(found, 1)
        ]
    return lines


def answer(results: Sequence[Row]) -> str:
    """The verdict for each condition, then what training changes, then the formula."""
    first = health(results)
    parts = [_bounds()]
    depth = max((key[3] for key, value in first.items() if value.seeds > 1), default=max(key[3] for key in first))
    conditions = [
        (norm, init) for norm in (False, True) for init in ("he", "torch") if ("plain", norm, init, depth) in first
    ]
    for norm, init in conditions:
        states = {shape: first[shape, norm, init, depth] for shape in SHAPES}
        said = "; ".join(
            f"{shape} {in_words(each.state)} ({each.weakest:.0e} to {each.strongest:.0e})"
            for shape, each in states.items()
        )
        parts.append(
            f"{_condition(norm, init)}, {depth} layers at initialisation, {_runs(states['plain'].seeds)}: {said}. "
            f"Here the tutorials' sentence is {verdict(states['plain'].state, states['residual'].state)}."
        )
    parts.append("In short: " + " ".join(_overall(results, depth)))
    parts += [*_training(results), *_noise(results, depth), *_formula(results)]
    deepest = max(key[3] for key in first)
    if deepest > depth and all((shape, *key, deepest) in first for shape in SHAPES for key in conditions):
        said = "; ".join(
            f"{_condition(norm, init)}: plain {in_words(first['plain', norm, init, deepest].state)}, residual "
            f"{in_words(first['residual', norm, init, deepest].state)}, pre-activation "
            f"{in_words(first['preactivation', norm, init, deepest].state)}"
            for norm, init in conditions
        )
        parts.append(f"At {deepest:,} layers (a single run each): {said}.")
    parts.append(
        "What this does not show: how well the nets would learn in the end (that is the study degradation). On very "
        "small feature maps the zeros around an image are a large part of what a 3x3 filter sees, so signals without "
        "BatchNorm shrink somewhat faster on 8-pixel digits than on larger images. Nets without BatchNorm are made by "
        "taking the module out; no remedy for its absence, such as scaled initialisations, is tried."
    )
    return "\n\n".join(parts)


def _bounds() -> str:
    return (
        "A layer's gradient is held against its weights. We say that it vanishes where the paper's whole training "
        f"(learning rate {RATE}, {STEPS:,} steps) could not move the layer by a tenth of its length, that is below "
        f"{VANISHED:.1e}, and that it explodes where one step is longer than the weights, above {EXPLODED:g}. A net is "
        "judged by its weakest and by its strongest layer (medians over seeds)."
    )


def _condition(norm: bool, init: str) -> str:
    whose = "He's" if init == "he" else "PyTorch's"
    return f"{'With' if norm else 'Without'} BatchNorm, {whose} initialisation"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _runs(seeds: int) -> str:
    return "a single run" if seeds == 1 else f"{seeds} seeds"


def _overall(results: Sequence[Row], depth: int) -> Iterator[str]:
    """The sentences that a learner should take away."""
    first = health(results)
    plain = {key[1:]: each.state for key, each in first.items() if key[0] == "plain" and key[3] == depth}
    ill = [key for key, state in plain.items() if state in ("vanishes", "both")]
    cured = [key for key in ill if first["residual", *key].state == "healthy"]
    without = [key for key in plain if not key[0]]
    if without:
        yield (
            f"Without BatchNorm the plain net's gradient vanished in {sum(key in ill for key in without)} of "
            f"{len(without)} conditions, and shortcuts alone left a healthy one in "
            f"{sum(key in cured for key in without)} of these."
        )
    if len(without) == len(plain):
        return
    if any(key[0] for key in ill):
        yield "With BatchNorm it vanished too in some: the paper's section 4.1 is not confirmed here."
        return
    yield (
        "With BatchNorm it vanished in none at initialisation: in this the paper (section 4.1) is confirmed, and a "
        "vanishing gradient is not what deep plain nets with BatchNorm begin with."
    )
    depths = {
        each: {h.state for k, h in first.items() if k[0] == "plain" and k[1] and k[3] == each}
        for each in sorted({key[3] for key in first})
    }
    blown = [f"{each:,}" for each, states in depths.items() if "explodes" in states]
    well = [f"{each:,}" for each, states in depths.items() if states == {"healthy"}]
    if blown:
        yield (
            f"But it explodes towards the input with {_listed(blown)} layers"
            + (f" (it is healthy with {_listed(well)})" if well else "")
            + ", which the paper does not mention; shortcuts are judged against that above."
        )
    yield from _later(results)


def _later(results: Sequence[Row]) -> Iterator[str]:
    """What became of the deepest plain net with BatchNorm in the first steps of training."""
    if (trained := _trained(results)) is None:
        return
    depth, last = trained
    after = health(results, last).get(("plain", True, "he", depth))
    if after is None:
        return
    growth = statistics.median(
        float(late["gradient"]) * float(early["relative"]) / (float(late["relative"]) * float(early["gradient"]))
        for late in select(results, shape="plain", batchnorm=True, init="he", depth=depth, step=last, layer=2)
        for early in select(results, shape="plain", batchnorm=True, init="he", depth=depth, step=0, layer=2)
        if late["seed"] == early["seed"]
    )
    where = (
        f"After {last:,} steps at learning rate {RATE} the gradient of the plain net with BatchNorm and {depth} layers"
    )
    if after.state in ("vanishes", "both"):
        yield (
            f"{where} has vanished somewhere: the weights of its second layer have grown {growth:.3g}-fold (median "
            "over seeds), and BatchNorm makes the gradient of large weights small. Vanishing comes from explosion "
            "then, and healthy norms, of which the paper speaks, are not what is seen here."
        )
    else:
        yield f"{where} {in_words(after.state)} (the weights of its second layer have grown {growth:.3g}-fold)."


def _trained(results: Sequence[Row]) -> tuple[int, int] | None:
    """The deepest nets that were trained, and their last step."""
    trained = [(int(line["depth"]), int(line["step"])) for line in results if line["step"]]
    return max(trained, default=None)


def _training(results: Sequence[Row]) -> Iterator[str]:
    """What the first steps of training change in the deepest nets that were trained."""
    if (trained := _trained(results)) is None:
        return
    depth, last = trained
    before, after = health(results), health(results, last)
    for norm in (False, True):
        said = []
        for shape in SHAPES:
            key = (shape, norm, "he", depth)
            if key not in after:
                continue
            lines = list(select(results, shape=shape, batchnorm=norm, init="he", depth=depth, step=last, layer=1))
            lost = sum(int(line["applied"]) < last for line in lines)
            said.append(
                f"{shape} {before[key].weakest:.0e} to {before[key].strongest:.0e} before, {after[key].weakest:.0e} to "
                f"{after[key].strongest:.0e} after ({in_words(after[key].state)}"
                + (f"; in {lost} of {len(lines)} runs some steps were not finite)" if lost else ")")
            )
        if said:
            condition = _condition(norm, "he")
            yield f"{condition}, {depth} layers, after {last:,} steps of training: {'; '.join(said)}."


def _noise(results: Sequence[Row], depth: int) -> Iterator[str]:
    """How much of one mini-batch's gradient is signal, in the half of a net that is nearer to the images."""
    said = []
    for shape in SHAPES:
        lines = list(select(results, shape=shape, batchnorm=True, init="he", depth=depth, step=0))
        early = [float(line["snr"]) for line in lines if int(line["layer"]) <= depth // 2]
        if early := [value for value in early if not math.isnan(value)]:
            said.append(f"{shape} {statistics.median(early):.2f}")
    if said:
        yield (
            f"A long gradient need not be a good one. Signal over noise of a mini-batch of {PART} images in the first "
            f"half of {depth} layers, with BatchNorm, at initialisation (median; 0 is all noise): "
            f"{', '.join(said)}."
        )


def _formula(results: Sequence[Row]) -> Iterator[str]:
    """Whether d(x + F(x))/dx = I + dF/dx."""
    worst = {
        shape: max((float(line["mismatch"]) for line in select(results, shape=shape)), default=0) for shape in SHAPES
    }
    passing = [float(line["open"]) for line in select(results, shape="residual")]
    held = all(worst[shape] < 1e-6 for shape in ("residual", "preactivation"))
    yield (
        f"The formula d(x + F(x))/dx = I + dF/dx {'holds' if held else 'DOES NOT HOLD'} in our blocks: it differs from "
        f"finite differences by at most {worst['preactivation']:.0e} in a pre-activation block, and in the first "
        f"paper's by {worst['residual']:.0e} once the ReLU behind the addition is counted, which let "
        f"{100 * statistics.mean(passing):.0f} % of the gradient's paths through. A plain block misses it by "
        f"{worst['plain']:.1g}. The formula says that one path is left open, not that the sum of all paths stays of "
        "one size: it rules out neither explosion nor that the two terms cancel."
    )


STYLES = {"plain": ("#b03a2e", "--", "v"), "residual": ("#1f4e79", "-", "o"), "preactivation": ("#5a8f3c", ":", "s")}


def draw(figure: "Figure", results: Sequence[Row]) -> None:
    """Four panels of weakest to strongest layer by depth, and two of what happens along a net with BatchNorm."""
    figure.set_size_inches(11, 6.4)
    grid = figure.subplots(2, 3, width_ratios=[1, 1, 1.15])
    first = health(results)
    depths = sorted({key[3] for key in first})
    low, high = 1e-16, 1e8
    for row, norm in enumerate((False, True)):
        for column, init in enumerate(("he", "torch")):
            axes = grid[row][column]
            axes.axhspan(VANISHED, EXPLODED, color="0.91", zorder=0, label="healthy")
            for offset, (shape, (colour, _, marker)) in enumerate(STYLES.items(), -1):
                for place, depth in enumerate(depths):
                    if each := first.get((shape, norm, init, depth)):
                        x = place + 0.22 * offset
                        ends = [min(max(value, low), high) for value in (each.weakest, each.strongest)]
                        axes.plot([x, x], ends, color=colour, lw=3, solid_capstyle="butt")
                        axes.plot([x, x], ends, marker, color=colour, ms=5, label=shape if not place else None)
                        if each.strongest > high or each.strongest < low:
                            said = f"{each.strongest:.0e}" if each.strongest else "0"
                            below = -22 - 9 * offset if each.weakest > high else 5
                            axes.annotate(
                                said,
                                (x, ends[1]),
                                (0, below),
                                textcoords="offset points",
                                ha="center",
                                fontsize=7,
                                color=colour,
                            )
            axes.set(yscale="log", ylim=(low / 10, high * 300), xlim=(-0.5, len(depths) - 0.5))
            axes.set_xticks(range(len(depths)), [f"{depth:,}" for depth in depths])
            axes.set_title(_condition(norm, init).replace(", ", ",\n"), fontsize=10)
            if not column:
                axes.set_ylabel("gradient / weights,\nweakest to strongest layer", fontsize=9)
            if row:
                axes.set_xlabel("layers")
    if grid[1][0].lines:
        grid[1][0].legend(frameon=False, fontsize=8, loc="lower left")
    _draw_along(grid[0][2], grid[1][2], results)


def _draw_along(above: Any, below: Any, results: Sequence[Row]) -> None:
    """Gradient and signal-to-noise ratio from the image to the end, in the deepest trained nets with BatchNorm."""
    depth, last = _trained(results) or (max(int(line["depth"]) for line in results), 0)
    for shape, (colour, style, _) in STYLES.items():
        for step, width in {0: 1.2, last: 2.6}.items():
            by_layer: dict[int, list[Row]] = {}
            for line in select(results, shape=shape, batchnorm=True, init="he", depth=depth, step=step):
                by_layer.setdefault(int(line["layer"]), []).append(line)
            for axes, name in ((above, "relative"), (below, "snr")):
                curve = [statistics.median(float(line[name]) for line in by_layer[layer]) for layer in sorted(by_layer)]
                axes.plot(sorted(by_layer), curve, style, color=colour, lw=width, label=shape if step == last else None)
    above.set(yscale="log", ylabel="gradient / weights")
    above.set_title(
        f"Along {depth} layers with BatchNorm\n(thin: at initialisation, thick: after {last:,} steps)", fontsize=10
    )
    below.set(ylabel="signal / noise", xlabel="layer, from the image to the end")
    if above.lines:
        above.legend(frameon=False, fontsize=8)


STUDY = Study(
    name="gradients",
    title="Do shortcuts cure vanishing gradients?",
    question=(
        "Tutorials explain residual networks by vanishing gradients: with a shortcut, the derivative has an identity "
        "in it, and so cannot vanish. When is that right?"
    ),
    source="two of the tutorials, against section 4.1 of the paper, which says that plain nets with BatchNorm have "
    "healthy gradients and that their trouble is unlikely to be caused by vanishing ones.",
    settings=("shape", "batchnorm", "init", "depth", "seed"),
    figures=("step", "applied", "loss", "layer", "gradient", "relative", "signal", "snr", "mismatch", "open"),
    quick=QUICK,
    full=FULL,
    measure=measure,
    draw=draw,
    answer=answer,
)
