"""Lesions: what is left of a trained network when blocks are deleted or shuffled, residual against plain?"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import nn

from resnetkit.networks.blocks import PadShortcut
from resnetkit.networks.resnet import ResNet
from resnetkit.randomness import key
from resnetkit.studies.fit import SHAPES, accuracy, fit, images_of, stacked
from resnetkit.studies.spread import Spread, chance
from resnetkit.studies.study import Grid, Place, Row, Study, Sweep, select

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = {"residual": ("o-", "black"), "plain": ("s--", "white")}
"""Marker with line, and the marker's filling."""


@dataclass(frozen=True, kw_only=True)
class Lesions(Grid):
    """What is trained, and how it is damaged."""

    counts: tuple[int, ...]
    """How many blocks are deleted, or pairs swapped, at random."""
    draws: int
    """How often, for each count and seed."""


RESIDUAL, PLAIN = {"network": "residual", "depth": 20}, {"network": "plain", "depth": 20}
"""Residual and plain nets are compared at the depths that both have."""
QUICK = Lesions(sweeps=(Sweep((RESIDUAL, PLAIN)),), counts=(1, 2, 3, 4, 6), draws=5, recipe={"epochs": 20})
FULL = Lesions(sweeps=(Sweep((RESIDUAL, PLAIN, RESIDUAL | {"depth": 110})),), counts=(1, 2, 4, 6, 8, 16), draws=10)


def blocks_of(network: ResNet) -> list[tuple[str, nn.Module]]:
    """All blocks by name, such as `layer1.0`, from the stem to the head."""
    return [(f"{stage}.{name}", each) for stage in network.stage_names for name, each in _stage(network, stage)]


def _stage(network: ResNet, stage: str) -> Iterator[tuple[str, nn.Module]]:
    return network.get_submodule(stage).named_children()


def deleted(network: ResNet, names: Sequence[str]) -> ResNet:
    """A copy in which the blocks of these names are gone: their shortcut alone stands in their place.

    That of a residual block is its own; a plain block gets shortcut A, which has no parameters: what comes in goes on,
    subsampled and padded with zeros where the shape changes.
    """
    damaged = copy.deepcopy(network)
    for name, block in blocks_of(damaged):
        if name in names:
            damaged.set_submodule(name, nn.Sequential(_bypass(block), nn.ReLU()))
    return damaged


def _bypass(block: nn.Module) -> nn.Module:
    if hasattr(block, "downsample"):
        return block.get_submodule("downsample")
    first = cast("nn.Conv2d", block.get_submodule("conv1"))
    if (first.in_channels, first.stride) == (first.out_channels, (1, 1)):
        return nn.Identity()
    return PadShortcut(first.in_channels, first.out_channels, first.stride[0])


def shuffled(network: ResNet, pairs: int, draw: np.random.Generator) -> ResNet:
    """A copy in which so many random pairs of blocks of equal shape have changed places, one pair after the other."""
    damaged = copy.deepcopy(network)
    groups = [[name for name, _ in group] for _, group in groupby(blocks_of(damaged), key=lambda each: _shape(each[1]))]
    swaps = [(one, other) for group in groups for one in group for other in group if one < other]
    for number in draw.integers(len(swaps), size=pairs):
        one, other = swaps[number]
        first, second = damaged.get_submodule(one), damaged.get_submodule(other)
        damaged.set_submodule(one, second)
        damaged.set_submodule(other, first)
    return damaged


def _shape(block: nn.Module) -> tuple[Any, ...]:
    first = cast("nn.Conv2d", block.get_submodule("conv1"))
    return first.in_channels, first.out_channels, first.stride


def measure(row: Row, place: Place) -> Sequence[Row]:
    """Train the net, then one line for each lesion."""
    grid = STUDY.grid(place)
    model = stacked(int(row["depth"])) | SHAPES[str(row["network"])]
    done = fit(place, "{network}{depth}-seed{seed}".format(**row), seed=row["seed"], model=model, **grid.recipe)
    (_, images), network = images_of(place).held_out(), done.classifier.network

    def line(damaged: ResNet, lesion: str, count: int, block: str = "", draw: int = 0) -> Row:
        error = 100 - accuracy(replace(done.classifier, network=damaged), images)
        return {"lesion": lesion, "count": count, "block": block, "draw": draw, "error": error}

    names = [name for name, _ in blocks_of(network)]
    lines = [line(network, "none", 0)]
    lines += [line(deleted(network, [name]), "one deleted", 1, name) for name in names]
    for count in grid.counts:
        for number in range(grid.draws):
            seed = key(int(row["seed"]), "lesion", count, number)
            chosen = np.random.default_rng(seed).choice(names, min(count, len(names)), replace=False)
            lines.append(line(deleted(network, list(chosen)), "deleted", count, draw=number))
            swapped = shuffled(network, count, np.random.default_rng(seed))
            lines.append(line(swapped, "shuffled", count, draw=number))
    return lines


def _per_seed(lines: Sequence[Row]) -> Spread:
    """The mean error of each seed."""
    seeds = sorted({int(line["seed"]) for line in lines})
    return Spread(tuple(Spread.of(select(lines, seed=seed), "error").mean for seed in seeds))


def _by_count(lines: Sequence[Row], lesion: str) -> dict[int, Spread]:
    mine = list(select(lines, lesion=lesion))
    counts = sorted({int(line["count"]) for line in mine})
    return {count: _per_seed(list(select(mine, count=count))) for count in counts}


def _by_block(lines: Sequence[Row]) -> dict[str, Spread]:
    mine = list(select(lines, lesion="one deleted"))
    return {block: _per_seed(list(select(mine, block=block))) for block in dict.fromkeys(str(e["block"]) for e in mine)}


def _nets(results: Sequence[Row]) -> dict[tuple[int, str], list[Row]]:
    found: dict[tuple[int, str], list[Row]] = {}
    for line in results:
        found.setdefault((int(line["depth"]), str(line["network"])), []).append(line)
    return found


def answer(results: Sequence[Row]) -> str:
    """Which of the two nets bears the loss of a block better."""
    nets = _nets(results)
    asked = (
        "Asked: does a trained net need every one of its blocks? One block after the other is deleted, so that what "
        "comes in goes on unchanged, and the net is tested as it is, without training it again; then several at "
        "random; and then blocks of equal shape change places."
    )
    parts = [asked]
    ones: dict[tuple[int, str], Spread] = {}
    for (depth, network), lines in nets.items():
        whole = _per_seed(list(select(lines, lesion="none")))
        ones[depth, network] = one = _per_seed(list(select(lines, lesion="one deleted")))
        blocks = _by_block(lines)
        worst, best = max(blocks, key=lambda each: blocks[each].mean), min(blocks, key=lambda each: blocks[each].mean)
        several = ", ".join(f"{count}: {error.mean:.1f} %" for count, error in _by_count(lines, "deleted").items())
        moved = ", ".join(f"{count}: {error.mean:.1f} %" for count, error in _by_count(lines, "shuffled").items())
        parts.append(
            f"Seen, the {network} net of {depth} layers ({len(blocks)} blocks): whole, it is wrong on {whole} of the "
            f"test images; with one block gone, on {one} in the mean over the blocks, from {blocks[best].mean:.1f} % "
            f"without {best} to {blocks[worst].mean:.1f} % without {worst}. With several gone at random: {several}. "
            f"With so many random pairs swapped, one after the other: {moved}; the same pair may be swapped back."
        )
    parts += [
        f"What it means: {_verdict(depth, one, ones[depth, 'plain'])}"
        for (depth, network), one in ones.items()
        if network == "residual" and (depth, "plain") in ones
    ]
    parts.append(
        "What it does not show: that blocks of residual nets do nothing, for errors may rise with each that is gone; "
        "nor that nets which are trained without these blocks would be as bad. And the lesion is not the same for "
        "both: a residual block that goes takes a summand away, a plain one all that the next one is used to."
    )
    return "\n\n".join(parts)


def _verdict(depth: int, residual: Spread, plain: Spread) -> str:
    if plain.above(residual):
        return (
            f"with {depth} layers, the residual net bears the loss of a block better than the plain one "
            f"({chance(plain, residual)}). Its blocks each add something to what passes by them, and what passes by is "
            "still there when one is gone; a plain net is a single chain. That is how Veit and others explain residual "
            "nets: as many paths of different lengths that hang little on one another."
        )
    if residual.above(plain):
        return (
            f"with {depth} layers, the plain net bears the loss of a block better than the residual one "
            f"({chance(residual, plain)}), which is not what Veit and others describe."
        )
    return f"with {depth} layers it cannot be told which of the two bears the loss of a block better: seeds overlap."


def draw(figure: "Figure", results: Sequence[Row]) -> None:
    """Test error by the block that is gone, by how many are gone, and by how many have changed places."""
    nets = _nets(results)
    depths = sorted({depth for depth, _ in nets})
    grid = figure.subplots(len(depths), 3, sharey=True, squeeze=False)
    for (one, several, moved), depth in zip(grid, depths, strict=True):
        for network in STYLES:
            if (depth, network) in nets:
                lines = nets[depth, network]
                whole = _per_seed(list(select(lines, lesion="none")))
                blocks = _by_block(lines)
                _points(one, network, dict(enumerate(blocks.values(), 1)))
                _points(several, network, {0: whole} | _by_count(lines, "deleted"))
                _points(moved, network, {0: whole} | _by_count(lines, "shuffled"))
                one.axhline(whole.mean, color="0.6", linewidth=1, linestyle=STYLES[network][0][1:])
        one.set(title=f"{depth} layers: one block deleted", xlabel="which block", ylabel="test error in %")
        several.set(title="blocks deleted at random", xlabel="how many")
        moved.set(title="pairs of blocks swapped", xlabel="how many")
        one.legend(frameon=False)
        for axes in (one, several, moved):
            axes.set_ylim(0, 100)
            axes.spines[["top", "right"]].set_visible(False)


def _points(axes: "Axes", network: str, errors: dict[int, Spread]) -> None:
    style, filling = STYLES[network]
    means = [each.mean for each in errors.values()]
    axes.plot(list(errors), means, style, color="black", markerfacecolor=filling, label=network)
    for x, each in errors.items():
        axes.vlines(x, each.low, each.high, color="0.6", linewidth=1, zorder=1)


STUDY = Study(
    name="lesion",
    title="What if a block is taken out?",
    question="A network is trained as a whole. How much of it can be deleted, or put in another order, afterwards?",
    source="Veit, Wilber, Belongie: Residual Networks Behave Like Ensembles of Relatively Shallow Networks (2016), "
    "Figures 3 and 5: a residual net hardly notices that a block is gone, a plain one is lost without any.",
    settings=("data", "network", "depth", "seed"),
    figures=("lesion", "count", "block", "draw", "error"),
    quick=QUICK,
    full=FULL,
    measure=measure,
    draw=draw,
    answer=answer,
)
