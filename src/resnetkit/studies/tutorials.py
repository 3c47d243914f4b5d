"""The faults of the tutorials, switched on and off: what each costs in accuracy, or in trust."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from resnetkit.data.splits import hold_out
from resnetkit.networks.resnet import build
from resnetkit.studies.faults import (
    BATCH,
    CENTRE,
    DIVISOR,
    EPOCHS,
    TEST_BATCH,
    WHOLE,
    Faults,
    PrintingNetwork,
    accepts,
    batchnorm_shift,
    bias_gradient,
    classes_of,
    count_graphs,
    head_trainer,
    with_old_head,
    write_classes,
)
from resnetkit.studies.fit import accuracy, fit, images_of, in_memory
from resnetkit.studies.spread import Spread
from resnetkit.studies.study import Grid, Place, Row, Study, Sweep, combinations, select

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BORROWED = 6
"""The first six classes are what the borrowed network knows; the others, four as in the tutorial, are the new task."""
PASSES = 10
"""How often the test loop that trains is run, as one does who runs its cell again."""
NETWORKS: dict[str, dict[str, Any]] = {
    "bias": {"conv_bias": True},
    "projection": {"projection_norm": False},
    "padding": {"stem_padding": False},
}
"""Faults that are fields of the network, each against `SOUND`."""
WAYS = ("right", "tutorial")
SOUND = {"conv_bias": False, "projection_norm": True, "stem_padding": True}
D2L: dict[str, Any] = {
    "name": "d2l_resnet18",
    "depths": (2, 2, 2, 2),
    "strides": (1, 2, 2, 2),
    "shortcut": "B",
}
"""The network of the second and fifth tutorial, whatever network a recipe is for."""
SMALL: dict[str, Any] = {"widths": (4, 4, 4, 4), "stem_width": 4, "num_classes": 4}
"""A narrow net, where its widths do not matter."""
SIZES = (96, 160, 192, 224, 255, 256, 320, 448)
"""Sides of pictures that a fixed pooling window is tried on."""


@dataclass(frozen=True, kw_only=True)
class Lessons(Grid):
    """How networks are trained: the tutorials' own, from nothing, by `recipe`."""

    size: int
    """Side in pixels of what networks see."""
    borrowed: dict[str, Any]
    """Changes to the recipe for the network that is borrowed."""
    learnt: int | None = None
    """Images of the new task to learn from; none takes all."""


SWEEPS = (
    Sweep(combinations(part=("forward",)), seeds=1, fixed=True),
    Sweep(combinations(part=("head", *NETWORKS)), seeds=5),
)
"""What a forward pass does, which no seed changes; and what is trained."""
QUICK = Lessons(
    sweeps=SWEEPS,
    size=32,
    borrowed={
        "epochs": 10,
        "model": {
            "name": "resnet20",
            "depths": (1, 1, 1),
            "widths": (32, 64, 128),
            "strides": (2, 2, 2),
            "stem_width": 32,
        },
    },
    recipe={"epochs": 6, "model": D2L | {"widths": (8, 16, 32, 64), "stem_width": 8}},
)
FULL = Lessons(
    sweeps=SWEEPS,
    size=96,
    borrowed={"steps": 12_000, "model": {"name": "resnet18"}, "optim": {"milestones": ("6000 steps", "9000 steps")}},
    recipe={"steps": 12_000, "model": D2L, "optim": {"milestones": ("6000 steps", "9000 steps")}},
    learnt=400,
)


def measure(row: Row, place: Place) -> Sequence[Row]:
    """One line for each figure of each way to do it."""
    part, seed = str(row["part"]), int(row["seed"])
    if part == "forward":
        lines = [*_pooled(), *_printed()]
    elif part == "head":
        lines = list(_transferred(place, seed))
    else:
        lines = list(_trained(place, part, seed))
    return [{"fault": fault, "way": way, "measure": what, "value": value} for fault, way, what, value in lines]


Line = tuple[str, str, str, float]
"""Fault, way (right, tutorial, or a combination), what was measured, and the figure."""


def _transferred(place: Place, seed: int) -> Iterator[Line]:
    grid = STUDY.grid(place)
    data = images_of(place)
    train, test = in_memory(data, data.train), in_memory(data, data.test)
    folder = place.folder / "borrowed"
    write_classes({"train": train, "test": test}, BORROWED, folder)
    settings = grid.borrowed | {"data": {"image_size": grid.size, "resize": round(grid.size * WHOLE)}}
    source = fit(place, f"borrowed-seed{seed}", images=folder, seed=seed, **settings).classifier
    old, learnt = classes_of(test, 0, BORROWED), classes_of(train, BORROWED, len(data.classes))
    if grid.learnt is not None:
        learnt = hold_out(learnt, grid.learnt / len(learnt))[1]
    tested = classes_of(test, BORROWED, len(data.classes))
    classes = len(data.classes) - BORROWED

    def taught(faults: Faults) -> Iterator[tuple[str, float]]:
        one = head_trainer(source, classes, faults, seed=seed)
        true, shown = one.learn(learnt)
        yield "new task", one.test(tested)
        yield "old task", accuracy(with_old_head(one.network, source), old)
        yield "BatchNorm moved", batchnorm_shift(one.network, source.network)
        yield "accuracy printed", shown
        yield "accuracy in training", true

    for fault, way, faults in (
        ("none", "right", Faults()),
        ("drift", "tutorial", Faults(drift=True)),
        ("raw", "tutorial", Faults(raw=True)),
        ("raw", "with drift", Faults(raw=True, drift=True)),
        ("centre", "tutorial", Faults(centre=True)),
        ("all", "tutorial", Faults(drift=True, raw=True, centre=True)),
    ):
        for what, value in taught(faults):
            yield fault, way, what, value
    tried, fresh = hold_out(tested, 0.5)
    for way, whole in (("tutorial", False), ("every layer", True)):
        one = head_trainer(source, classes, Faults(), seed=seed)
        one.learn(learnt)
        yield "test set", way, "before", one.test(tried)
        yield "test set", way, "before, fresh", one.test(fresh)
        if whole:
            one.unfreeze()
        found = [one.test_and_train(tried, time) for time in range(PASSES)]
        yield "test set", way, "printed", found[0]
        yield "test set", way, "printed at last", found[-1]
        yield "test set", way, "fresh at last", one.test(fresh)


def _trained(place: Place, fault: str, seed: int) -> Iterator[Line]:
    grid = STUDY.grid(place)
    for way, fields in (("right", SOUND), ("tutorial", SOUND | NETWORKS[fault])):
        settings: dict[str, Any] = grid.recipe | {
            "model": grid.recipe["model"] | fields,
            "data": {"image_size": grid.size},
        }
        # What is sound is the same for every fault, and trained once for a seed.
        name = f"sound-seed{seed}" if way == "right" else f"{fault}-seed{seed}"
        done = fit(place, name, seed=seed, **settings)
        yield fault, way, "new task", done.end["top1"]
        if fault == "bias":
            yield fault, way, "parameters", done.parameters
            yield fault, way, "gradient of the biases", bias_gradient(done.classifier.network)


def _printed() -> Iterator[Line]:
    network = build("resnet18", **SMALL).eval()
    for way, each in (("right", network), ("tutorial", PrintingNetwork(network))):
        yield "print", way, "graphs", count_graphs(each, torch.zeros(1, 3, 32, 32))


def _pooled() -> Iterator[Line]:
    network = build("resnet18", **SMALL).eval()
    for way, window in (("right", None), ("tutorial", 7)):
        for size in SIZES:
            yield "pool", way, f"{size} px", accepts(network, size, window)


Key = tuple[str, str, str]
"""Fault, way and measure."""


def _spread(results: Sequence[Row], fault: str, way: str, measure: str = "new task") -> Spread:
    return Spread.of(select(results, fault=fault, way=way, measure=measure), "value")


def _gaps(results: Sequence[Row], right: Key, wrong: Key) -> list[float]:
    """What is lost, seed by seed: both ways were tried with the same seeds."""
    good, bad = (
        {line["seed"]: float(line["value"]) for line in select(results, fault=fault, way=way, measure=measure)}
        for fault, way, measure in (right, wrong)
    )
    return [good[seed] - bad[seed] for seed in good if seed in bad]


def _cost(results: Sequence[Row], right: Key, wrong: Key) -> str:
    """What a fault costs, or that it cannot be told."""
    gaps = _gaps(results, right, wrong)
    lower, mean = sum(gap > 0 for gap in gaps), sum(gaps) / max(1, len(gaps))
    if len(gaps) > 1 and lower in (0, len(gaps)) and all(gaps):
        said = f"costs {mean:.1f} points" if lower else f"does not cost, but gains {-mean:.1f} points"
        luck = 2 ** (len(gaps) - 1)
        return f"it {said} (so with each of {len(gaps)} seeds; without any effect that happens 1 time in {luck})"
    return f"the means differ by {abs(mean):.1f} points, lower with {lower} of {len(gaps)} seeds: no cost can be told"


PAIRS: tuple[tuple[str, Key, Key], ...] = (
    ("pixels not normalised", ("none", "right", "new task"), ("raw", "tutorial", "new task")),
    ("BatchNorm drifts", ("none", "right", "new task"), ("drift", "tutorial", "new task")),
    ("the same, on the old task", ("none", "right", "old task"), ("drift", "tutorial", "old task")),
    ("both of these", ("none", "right", "new task"), ("raw", "with drift", "new task")),
    ("the same, on the old task", ("none", "right", "old task"), ("raw", "with drift", "old task")),
    ("middle fifth of the picture", ("none", "right", "new task"), ("centre", "tutorial", "new task")),
    ("all three", ("none", "right", "new task"), ("all", "tutorial", "new task")),
    ("projection without BatchNorm", ("projection", "right", "new task"), ("projection", "tutorial", "new task")),
    ("biases before BatchNorm", ("bias", "right", "new task"), ("bias", "tutorial", "new task")),
    ("stem without padding", ("padding", "right", "new task"), ("padding", "tutorial", "new task")),
    ("divided by 20, not 15", ("none", "right", "accuracy in training"), ("none", "right", "accuracy printed")),
    (
        f"tests that train, {PASSES} times",
        ("test set", "tutorial", "fresh at last"),
        ("test set", "tutorial", "printed at last"),
    ),
    (
        "the same with every layer",
        ("test set", "every layer", "fresh at last"),
        ("test set", "every layer", "printed at last"),
    ),
)
"""What the figure shows: a name, what is right or true, and what the tutorial gets or says."""


def answer(results: Sequence[Row]) -> str:
    """What each fault costs in accuracy or in trust."""
    return "\n\n".join((*_on_borrowing(results), *_on_figures(results), *_on_networks(results), LIMITS))


def _on_borrowing(results: Sequence[Row]) -> Iterator[str]:
    """The third tutorial's way with a pretrained network."""

    def told(fault: str, way: str, measure: str = "new task") -> str:
        wrong = (fault, way, measure)
        return f"{_spread(results, *wrong)}; {_cost(results, ('none', 'right', measure), wrong)}"

    way = _spread(results, "drift", "tutorial", "BatchNorm moved").mean
    yield (
        "Asked: what does each fault of the five tutorials cost? Each is switched on alone, and all else is kept. A "
        f"network that has learnt {BORROWED} classes is borrowed, frozen, and given a head for the other classes, as "
        f"in the third tutorial. Done right, it is right on {_spread(results, 'none', 'right')} of the new task's test "
        f"images, and still on {_spread(results, 'none', 'right', 'old task')} of the old task's."
    )
    yield (
        "BatchNorm that drifts (third tutorial: parameters are frozen, but the network stays in training mode). No "
        f"parameter changes, and yet the statistics move, by up to {way:.2f} standard deviations in {EPOCHS} epochs. "
        f"On the new task {told('drift', 'tutorial')}. On the old task, with its old head, "
        f"{told('drift', 'tutorial', 'old task')}. A frozen network has to be in evaluation mode."
    )
    gained = _gaps(results, ("raw", "with drift", "new task"), ("raw", "tutorial", "new task"))
    hidden = (
        " One fault hides the other: the statistics move to where the pixels are, and make up for what is missing."
        if all(gap > 0 for gap in gained)
        else ""
    )
    yield (
        f"Pixels that are not normalised (third tutorial): {told('raw', 'tutorial')}. Together with the drift, which "
        f"the tutorial has too, {told('raw', 'with drift')}.{hidden} On the old task, with its old head, "
        f"{told('raw', 'with drift', 'old task')}."
    )
    yield (
        "The middle of the picture (third tutorial: Resize(500), CenterCrop(224), which shows "
        f"{100 / CENTRE**2:.0f} % of a square picture, where Resize(256) shows {100 / WHOLE**2:.0f} %, and at about "
        f"twice the scale that the network was trained at): {told('centre', 'tutorial')}. With all three faults "
        f"{told('all', 'tutorial')}."
    )


def _on_figures(results: Sequence[Row]) -> Iterator[str]:
    """What is printed, and what is true."""

    def of(way: str, measure: str) -> Spread:
        return _spread(results, "test set", way, measure)

    true, shown = (_spread(results, "none", "right", name) for name in ("accuracy in training", "accuracy printed"))
    yield (
        "Testing that trains (third tutorial: its test loop steps the optimizer on every batch that it has scored). In "
        f"the first pass it prints {of('tutorial', 'printed')}, where the head that was trained is right on "
        f"{of('tutorial', 'before')}. Run {PASSES} times, as one does who starts the cell again, it prints "
        f"{of('tutorial', 'printed at last')}, while fresh images give {of('tutorial', 'fresh at last')}. If every "
        f"layer learns, it prints {of('every layer', 'printed at last')}, and fresh images give "
        f"{of('every layer', 'fresh at last')}. What it costs is trust: the figure is no longer one of images that the "
        "network has not seen, and there is no other."
    )
    yield (
        f"An accuracy divided by the wrong batch size (third tutorial: batches of {BATCH} counted as {DIVISOR}): in "
        f"the last epoch the head was right on {true} of its training images, and what is printed is {shown}. It can "
        f"never pass {100 * BATCH / DIVISOR:.0f} %. Its test loss is a sum of means over batches of {TEST_BATCH}, "
        f"divided by the number of images: a {TEST_BATCH}th of what it should be."
    )


def _on_networks(results: Sequence[Row]) -> Iterator[str]:
    """What the tutorials' networks are like."""

    def told(fault: str) -> str:
        right, wrong = ((fault, way, "new task") for way in WAYS)
        return f"{_spread(results, *wrong)}, done right {_spread(results, *right)}; {_cost(results, right, wrong)}"

    def number(fault: str, way: str, measure: str) -> float:
        return _spread(results, fault, way, measure).mean

    more, fewer = (round(number("bias", way, "parameters")) for way in ("tutorial", "right"))
    rounding = _spread(results, "bias", "tutorial", "gradient of the biases").high
    sizes = [", ".join(str(size) for size in SIZES if number("pool", way, f"{size} px")) for way in WAYS]
    pieces = [round(number("print", way, "graphs")) for way in WAYS]
    yield (
        "A projection without BatchNorm (second and fifth tutorial), in a network trained from nothing: "
        f"{told('projection')}."
    )
    yield (
        f"Biases in front of BatchNorm (second and fifth tutorial), {more - fewer:,} of {more:,} parameters: "
        f"{told('bias')}. BatchNorm subtracts what they add: their gradient is at most {rounding:.0e} of that of their "
        "convolution, which is rounding."
    )
    yield f"A stem without padding (fifth tutorial): {told('padding')}."
    yield (
        "A pooling window of 7 (first and third tutorial; the first says that any picture smaller than 224 px will "
        f"do): of {', '.join(map(str, SIZES))} px it can be given {sizes[1]}, with global pooling {sizes[0]}. A print "
        "in the forward pass (first tutorial) says a line for every batch, and cuts the network into "
        f"{pieces[1]} pieces for the compiler, instead of {pieces[0]}."
    )


LIMITS = (
    "What it does not show: what these faults cost with other images and networks. The old and the new task are alike "
    "here, so that drift has little way to go; with photographs from elsewhere it has more. Ten epochs of Adam do not "
    "take a head to its optimum, which blurs small differences; `resnetkit train FOLDER --recipe head` does. Whether "
    "gradients vanish in plain nets, as two of the tutorials say, is the study `gradients`."
)


def draw(figure: "Figure", results: Sequence[Row]) -> None:
    """Done right against done the tutorial's way, one line for each fault."""
    figure.set_size_inches(9, 6)
    axes = figure.subplots()
    for place, (_, *both) in enumerate(PAIRS):
        good, bad = (_spread(results, *key) for key in both)
        axes.plot([good.mean, bad.mean], [place, place], color="0.75", linewidth=2, zorder=1)
        for each, fill, label in ((good, "black", "done right, or true"), (bad, "white", "the tutorial's")):
            axes.plot(each.values, [place] * len(each.values), "|", color="0.4", markersize=9, zorder=2)
            axes.plot(
                [each.mean],
                [place],
                "o",
                color="black",
                markerfacecolor=fill,
                markersize=8,
                label="" if place else label,
            )
    axes.set_yticks(range(len(PAIRS)), [name for name, *_ in PAIRS])
    axes.invert_yaxis()
    axes.set(xlabel="accuracy in %, mean and every seed", xlim=(0, 101))
    axes.legend(frameon=False, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)


STUDY = Study(
    name="tutorials",
    title="What do the tutorials' faults cost?",
    question="Five tutorials teach ResNet, and each has faults. Done right and done their way, all else being equal: "
    "what is lost in accuracy, and what in trust?",
    source="the tutorials' own code: training in the test loop, a frozen network in training mode, no normalisation, "
    "Resize(500) with CenterCrop(224), a wrong divisor, biases, a bare projection, no padding, fixed pooling, print.",
    settings=("data", "part", "seed"),
    figures=("fault", "way", "measure", "value"),
    quick=QUICK,
    full=FULL,
    measure=measure,
    draw=draw,
    answer=answer,
)
