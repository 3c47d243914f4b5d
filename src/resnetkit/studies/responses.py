"""Do residual functions have small responses? The standard deviation of every layer's output (paper, Figure 7)."""

import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from resnetkit.classifier import Classifier
from resnetkit.networks.resnet import ResNet
from resnetkit.studies.fit import PAPER, SHAPES, fit, images_of, in_memory, stacked, warmup
from resnetkit.studies.spread import Spread
from resnetkit.studies.study import Grid, Place, Row, Study, Sweep, combinations, select

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUICK = Grid(
    sweeps=(Sweep(combinations(shape=("plain", "residual"), depth=(8, 20, 32))),),
    recipe={
        "steps": 200,
        "data": {"batch_size": 64},
        "augment": {"flip": False, "pad_crop": 1},
        "optim": {"milestones": ("100 steps", "150 steps")},
    },
)
"""The paper's training, shortened, with its drops of the learning rate at a half and three quarters."""
FULL = Grid(
    sweeps=(
        Sweep(
            [
                *combinations(shape=("plain",), depth=(20, 56)),
                *combinations(shape=("residual",), depth=(20, 56, 110)),
            ]
        ),
    )
)
"""The nets of the paper's Figure 7."""
BATCH = 200


def responses(network: ResNet, batches: Sequence[Tensor]) -> list[float]:
    """The standard deviation of what each 3x3 layer puts out behind BatchNorm, before ReLU or addition.

    `batches` are (N, C, H, W), normalised. The network predicts, so that BatchNorm uses its running statistics; the
    deviation is over all images, channels and positions of a layer, from the stem to the last block.
    """
    norms = [m for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d) and "downsample" not in name]
    sums = torch.zeros(len(norms), 3, dtype=torch.float64)

    def add(number: int, out: Tensor) -> None:
        values = out.detach().double()
        sums[number] += torch.tensor([values.numel(), float(values.sum()), float(values.square().sum())])

    hooks = [
        norm.register_forward_hook(lambda _norm, _given, out, number=number: add(number, out))
        for number, norm in enumerate(norms)
    ]
    try:
        network.eval()
        with torch.inference_mode():
            for batch in batches:
                network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    count, total, square = sums.unbind(1)
    return (square / count - (total / count).square()).clamp(min=0).sqrt().tolist()


def measure(row: Row, place: Place) -> Sequence[Row]:
    """Train the net, then one line for each of its layers."""
    name, depth = "{shape}{depth}-seed{seed}".format(**row), int(row["depth"])
    changes = warmup(place, depth) | STUDY.grid(place).recipe
    model = stacked(depth) | SHAPES[str(row["shape"])]
    # The claim is about the paper's own training, which the recipe of other quick looks is not like.
    classifier = fit(place, name, base=PAPER, seed=row["seed"], model=model, **changes).classifier
    top1 = classifier.metrics["top1"]
    deviations = responses(classifier.network, list(held_out_images(classifier, place)))
    return [{"top1": top1, "layer": layer, "std": value} for layer, value in enumerate(deviations, 1)]


def held_out_images(classifier: Classifier, place: Place) -> Iterator[Tensor]:
    """The images that a study scores on, as a net sees them: batches (N, C, H, W). `DataError` if sizes differ."""
    data = images_of(place)
    for pixels in in_memory(data, data.held_out()[1]).pixels.split(BATCH):
        compute = classifier.compute
        yield classifier.preprocess.normalise(classifier.preprocess.batch(compute.tensor(pixels)))


def means(results: Sequence[Row]) -> dict[tuple[str, int], dict[int, float]]:
    """The mean deviation over a net's layers, for every net and seed."""
    layers: dict[tuple[str, int], dict[int, list[float]]] = {}
    for line in results:
        net = layers.setdefault((str(line["shape"]), int(line["depth"])), {})
        net.setdefault(int(line["seed"]), []).append(float(line["std"]))
    return {net: {seed: statistics.mean(values) for seed, values in seeds.items()} for net, seeds in layers.items()}


def answer(results: Sequence[Row]) -> str:
    """The paper's two sentences, each judged by all seeds."""
    found = means(results)
    accuracy = {
        net: statistics.mean(float(line["top1"]) for line in select(results, shape=net[0], depth=net[1], layer=1))
        for net in found
    }
    parts = [
        "The mean over a net's layers of the standard deviation of their responses (after BatchNorm, before ReLU or "
        "addition, on test images): "
        + "; ".join(
            f"{shape}-{depth} {Spread(tuple(seeds.values())):.3f}, top-1 {accuracy[shape, depth]:.1f} %"
            for (shape, depth), seeds in sorted(found.items())
        )
        + "."
    ]
    parts += [*_against_plain(found), *_with_depth(found)]
    parts.append(
        "The paper reads this as support for its motivation: what a block has to add is closer to zero than what it "
        "would have to compute from nothing. The figure does not show that small responses are why residual nets learn "
        "better. BatchNorm sets every response to one at the start, whatever the net, so that all that is seen is what "
        "training has made of its scales; where training was short, they have not gone far."
    )
    return "\n\n".join(parts)


def _judge(differences: Sequence[float], claim: str, opposite: str) -> str:
    """What the signs of some differences say; below 0 is as claimed."""
    as_claimed = sum(difference < 0 for difference in differences)
    said = f"{claim} in {as_claimed} of {len(differences)} comparisons of equal seed"
    if len(differences) < 3:
        return f"{said}: too few to conclude from"
    if as_claimed == len(differences):
        return f"{said}: as the paper says"
    return f"{opposite} in all {len(differences)}: against the paper" if not as_claimed else f"{said}: not conclusive"


def _against_plain(found: dict[tuple[str, int], dict[int, float]]) -> Iterator[str]:
    for depth in sorted({depth for shape, depth in found if shape == "plain"}):
        plain, residual = found["plain", depth], found.get(("residual", depth), {})
        differences = [residual[seed] - plain[seed] for seed in plain if seed in residual]
        if differences:
            judged = _judge(
                differences, "the residual net has the smaller responses", "the residual net has the larger responses"
            )
            yield f"At {depth} layers {judged}."


def _with_depth(found: dict[tuple[str, int], dict[int, float]]) -> Iterator[str]:
    depths = sorted(depth for shape, depth in found if shape == "residual")
    if len(depths) > 1:
        low, high = found["residual", depths[0]], found["residual", depths[-1]]
        judged = _judge(
            [high[seed] - low[seed] for seed in low if seed in high],
            "the deeper one has the smaller responses",
            "the deeper one has the larger responses",
        )
        yield f"Of the residual nets with {depths[0]} and with {depths[-1]} layers, {judged}."


def draw(figure: "Figure", results: Sequence[Row]) -> None:
    """As in the paper: layers in order above, sorted below; every net the mean over its seeds."""
    figure.set_size_inches(9, 6.6)
    above, below = figure.subplots(2, 1)
    nets = sorted(means(results))
    depths = sorted({depth for _, depth in nets})
    for shape, depth in nets:
        by_layer: dict[int, list[float]] = {}
        for line in select(results, shape=shape, depth=depth):
            by_layer.setdefault(int(line["layer"]), []).append(float(line["std"]))
        curve = [statistics.mean(by_layer[layer]) for layer in sorted(by_layer)]
        shade = 0.35 + 0.65 * (depths.index(depth) + 1) / len(depths)
        style = {
            "color": ("#b03a2e" if shape == "plain" else "#1f4e79", shade),
            "ls": "--" if shape == "plain" else "-",
            "lw": 0.8 + depths.index(depth),
            "label": f"{shape}-{depth}",
        }
        above.plot(range(1, len(curve) + 1), curve, **style)
        below.plot(range(1, len(curve) + 1), sorted(curve, reverse=True), **style)
    for axes, text in ((above, "layer, from the image to the end"), (below, "layers sorted by their response")):
        axes.set(xlabel=text, ylabel="standard deviation")
        axes.spines[["top", "right"]].set_visible(False)
    above.legend(frameon=False, fontsize=9, ncols=2)


STUDY = Study(
    name="responses",
    title="Do residual functions have small responses?",
    question=(
        "If a block only has to add a little to what it is given, its layers' outputs should be small. Are they "
        "smaller in residual nets than in plain ones, and smaller still in deeper ones?"
    ),
    source="section 4.2 and Figure 7 of the paper.",
    settings=("shape", "depth", "seed"),
    figures=("top1", "layer", "std"),
    quick=QUICK,
    full=FULL,
    measure=measure,
    draw=draw,
    answer=answer,
)
