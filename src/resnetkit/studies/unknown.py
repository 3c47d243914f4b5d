"""Unknown: what share of strangers does each score of novelty catch, where so many known pictures are refused?"""

import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from resnetkit.classifier import Classifier
from resnetkit.data.dataset import Data
from resnetkit.data.load import load_data
from resnetkit.data.splits import Images, Split
from resnetkit.errors import DataError
from resnetkit.evaluation.answers import Answers, answer
from resnetkit.images.drawn import THINGS
from resnetkit.images.drawn import draw as drawn_picture
from resnetkit.images.memory import picture
from resnetkit.novelty.methods import DEFAULT, METHODS
from resnetkit.novelty.unknown import SHARE, learn_unknown
from resnetkit.recipes.schema import DataRecipe
from resnetkit.studies.fit import fit, images_of, in_memory
from resnetkit.studies.spread import Spread, chance
from resnetkit.studies.study import Grid, Place, Row, Study, Sweep, combinations, select
from resnetkit.training.strangers import MOST_HELD_OUT, MOST_LEARNT
from resnetkit.weights.load import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WHOLE = "none"
"""In the place of a class that is left out: the net has learnt all of them, and meets pictures of other things."""
CLASSES = tuple(map(str, range(10)))
FAR = 200
"""Pictures of other things, of each kind."""
LEFT_OUT = combinations(left_out=(*CLASSES, WHOLE))
QUICK = Grid(sweeps=(Sweep(LEFT_OUT),), recipe={"epochs": 10, "model": {"depths": (1, 1, 1)}})
FULL = Grid(sweeps=(Sweep(LEFT_OUT),))
MARKS = {"energy": "^", "neighbour": "s", "mahalanobis": "D", "virtual-logit": "o"}


def measure(row: Row, place: Place) -> Sequence[Row]:
    """Train without one class, then one line for each score, with that class's test pictures as strangers.

    Of the net that has learnt all classes, one for each score and each other kind of pictures that are at hand.
    """
    data = images_of(place)
    parts = {name: in_memory(data, getattr(data, name)) for name in ("train", "validation", "test")}
    left, seed = str(row["left_out"]), row["seed"]
    strangers: dict[str, Split] = {}
    if left == WHOLE:
        strangers = _others(data, place)
    else:
        strangers = {left: _only(parts["test"], int(left))}
        parts = {name: _without(part, int(left)) for name, part in parts.items()}
    arrays = {name: (part.pixels, part.labels) for name, part in parts.items()}
    done = fit(place, f"without-{left}-seed{seed}", seed=seed, images=arrays, **STUDY.grid(place).recipe)
    lines = list(_lines(done.classifier, parts, strangers, data.name))
    if left == WHOLE and seed == 0 and (clothes := _fashion(place)) is not None:
        parts = {name: getattr(clothes, name) for name in parts}
        lines += _lines(load("resnet8.fashion-mnist"), parts, {data.name: _some(parts_of(data), FAR)}, clothes.name)
    return lines


def parts_of(data: Data) -> Images:
    """The test images of a set that is small."""
    return in_memory(data, data.test)


def _only(images: Images, label: int) -> Images:
    return images.take(np.flatnonzero(images.labels.numpy() == label))


def _without(images: Images, label: int) -> Images:
    """Without one class, and those behind it moved up."""
    kept = images.take(np.flatnonzero(images.labels.numpy() != label))
    return Images(kept.pixels, kept.labels - (kept.labels > label).long())


def _some(images: Images, count: int) -> Images:
    return images.take(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(np.int64))


def _fashion(place: Place) -> Data | None:
    """Fashion-MNIST, where it is at hand and a net of the same number of channels is asked about."""
    if not place.quick or place.data_root is None:
        return None
    try:
        return load_data("fashion-mnist", DataRecipe(name="fashion-mnist", validation=0.05), data_root=place.data_root)
    except DataError:
        return None


def _others(data: Data, place: Place) -> dict[str, Split]:
    """Pictures of other things than those of a set: drawn ones, and Fashion-MNIST where that is at hand."""
    names = list(THINGS)
    drawn = [np.asarray(drawn_picture(names[number % len(names)], number)) for number in range(FAR)]
    side = parts_of(data).pixels.shape[-1]
    found: dict[str, Split] = {"drawn landscapes": _shrunk(drawn, data.channels, side)}
    if (clothes := _fashion(place)) is not None:
        pixels = _some(parts_of(clothes), 5 * FAR).pixels
        found[clothes.name] = _shrunk([each[0].numpy() for each in pixels], data.channels, side)
    return found


def _shrunk(arrays: Sequence[np.ndarray], channels: int, side: int) -> Images:
    """Pictures as a set of small images has them."""
    resized = [np.asarray(picture(each, channels).resize((side, side))) for each in arrays]
    pixels = torch.from_numpy(np.stack(resized)).view(len(resized), side, side, channels).permute(0, 3, 1, 2)
    return Images(pixels.contiguous(), torch.zeros(len(resized), dtype=torch.int64))


def _lines(
    classifier: Classifier, parts: dict[str, Images], strangers: dict[str, Split], known: str
) -> Iterator[dict[str, Any]]:
    from sklearn.metrics import roc_auc_score

    def said(split: Split, most: int) -> Answers:
        return answer(classifier, split.limited(most) if len(split) > most else split, workers=0, features=True)

    def tensors(found: Answers) -> tuple[torch.Tensor, torch.Tensor]:
        assert found.features is not None  # noqa: S101 - for the type alone
        return torch.from_numpy(found.features), torch.from_numpy(found.logits)

    learnt, test = said(parts["train"], MOST_LEARNT), said(parts["test"], MOST_LEARNT)
    held_out = tensors(said(parts["validation"], MOST_HELD_OUT))
    others = {name: tensors(said(split, MOST_LEARNT)) for name, split in strangers.items()}
    features, logits = tensors(learnt)
    top1 = 100 * float((test.logits.argmax(1) == test.labels).mean())
    for method in METHODS:
        unknown = learn_unknown(features, torch.from_numpy(learnt.labels), logits, held_out, method=method)
        if unknown is None:
            continue
        usual = unknown.score(*tensors(test)).numpy()
        for name, other in others.items():
            strange = unknown.score(*other).numpy()
            truth = np.repeat([0, 1], [len(usual), len(strange)])
            yield {
                "known": known,
                "strangers": name,
                "method": method,
                "auroc": 100 * float(roc_auc_score(truth, np.concatenate([usual, strange]))),
                "caught": 100 * float((strange > unknown.threshold).mean()),
                "refused": 100 * float((usual > unknown.threshold).mean()),
                "top1": top1,
            }


def _near(results: Sequence[Row], method: str) -> list[Row]:
    return [line for line in select(results, method=method) if line["left_out"] != WHOLE]


def _far(results: Sequence[Row], method: str) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for line in select(results, method=method, left_out=WHOLE):
        found.setdefault((str(line["known"]), str(line["strangers"])), []).append(line)
    return found


def _per_seed(lines: Sequence[Row], column: str) -> Spread:
    """The mean of each seed."""
    seeds = sorted({int(line["seed"]) for line in lines})
    return Spread(tuple(statistics.mean(float(line[column]) for line in select(lines, seed=seed)) for seed in seeds))


def answer_in_words(results: Sequence[Row]) -> str:
    """Which score catches most strangers, and whether it is the one that classifiers keep."""
    asked = (
        "Asked: of pictures of things that a net has never seen, what share is refused, where the threshold is set on "
        f"the validation split so that {SHARE:.0%} of known pictures are? One class after the other is left out of "
        "training and then shown; and the net that has learnt all of them is shown other things altogether."
    )
    limits = (
        "What it does not show: that strangers of any other kind are caught as often; the closer they are to what is "
        "known, the fewer. Of the known, the share is that of pictures like those of validation, and more are refused "
        "where a camera or a place is another."
    )
    return "\n\n".join([asked, *(_seen(results, method) for method in METHODS), _verdict(results), limits])


def _seen(results: Sequence[Row], method: str) -> str:
    lines, said = _near(results, method), []
    if lines:
        ranking = statistics.mean(float(line["auroc"]) for line in lines)
        said = [
            f"of a class that was left out {_per_seed(lines, 'caught')} are caught, in the mean over the classes",
            f"{_per_seed(lines, 'refused').mean:.1f} % of the known test images are refused",
            f"the two are told apart with an area under the ROC curve of {ranking:.1f} %",
        ]
    for (known, strangers), each in _far(results, method).items():
        said.append(f"of {strangers} shown to the net of {known} {_per_seed(each, 'caught')} are caught")
    return f"Seen, {method}: {'; '.join(said)}."


def _verdict(results: Sequence[Row]) -> str:
    overall = {method: _overall(results, method) for method in METHODS}
    ours = overall[DEFAULT]
    best = max(overall, key=lambda method: overall[method].mean)
    shown = ", ".join(f"{method} {spread.mean:.1f} %" for method, spread in overall.items())
    if best == DEFAULT:
        said = f"the score that classifiers keep, {DEFAULT}, catches the most here"
    elif overall[best].above(ours):
        said = f"{best} catches more here than {DEFAULT}, which classifiers keep ({chance(overall[best], ours)})"
    else:
        said = f"{best} catches more here than {DEFAULT}, which classifiers keep, but their seeds overlap"
    return f"What it means: {said}. All kinds of strangers count alike: {shown}."


def _overall(results: Sequence[Row], method: str) -> Spread:
    """The mean, for each seed, over the kinds of strangers: classes that were left out are one kind."""
    kinds = [lines for lines in (_near(results, method), *_far(results, method).values()) if lines]
    seeds = sorted({int(line["seed"]) for lines in kinds for line in lines})
    means = []
    for seed in seeds:
        each = [list(select(lines, seed=seed)) for lines in kinds]
        means.append(statistics.mean(_per_seed(lines, "caught").mean for lines in each if lines))
    return Spread(tuple(means))


def draw(figure: "Figure", results: Sequence[Row]) -> None:
    """Share of strangers that each score catches, by the class that was left out, and of other things."""
    left = sorted({str(line["left_out"]) for line in results if line["left_out"] != WHOLE})
    kinds = list(dict.fromkeys(kind for method in METHODS for kind in _far(results, method)))
    near, far = figure.subplots(1, 2, sharey=True, width_ratios=(max(len(left), 1), max(2 * len(kinds), 1)))
    for place, method in enumerate(METHODS):
        shift = 0.15 * (place - (len(METHODS) - 1) / 2)
        lines = _near(results, method)
        classes = [[line for line in lines if str(line["left_out"]) == name] for name in left]
        _marks(near, method, shift, [_per_seed(each, "caught") for each in classes])
        _marks(far, method, shift, [_per_seed(_far(results, method).get(kind, []), "caught") for kind in kinds])
    near.set(title="a class that was left out", xlabel="which class", ylabel="strangers caught in %", ylim=(-3, 103))
    near.set_xticks(range(len(left)), left)
    far.set(title="other things")
    far.set_xticks(range(len(kinds)), [f"{strangers},\nshown to\n{known}" for known, strangers in kinds])
    near.legend(loc="lower right", fontsize="small")


def _marks(axes: "Axes", method: str, shift: float, spreads: Sequence[Spread]) -> None:
    filling = "black" if method == DEFAULT else "white"
    places = [place + shift for place in range(len(spreads))]
    means = [each.mean for each in spreads]
    axes.plot(places, means, MARKS[method], color="black", markerfacecolor=filling, label=method)
    for x, each in zip(places, spreads, strict=True):
        if each.values:
            axes.vlines(x, each.low, each.high, color="0.6", linewidth=1, zorder=1)


STUDY = Study(
    name="unknown",
    title="Does a classifier know what it has never seen?",
    question="Pictures of a class that was left out of training, and of other things altogether, are shown to a net. "
    "By which score, from its features and logits, are they told from what it knows?",
    source="Liu et al. 2020 (energy), Sun et al. 2022 (nearest neighbour), Lee et al. 2018 and Mueller and Hein 2025 "
    "(Mahalanobis), Wang et al. 2022 (virtual logit): each says that its score is the best.",
    settings=("data", "left_out", "seed"),
    figures=("known", "strangers", "method", "auroc", "caught", "refused", "top1"),
    quick=QUICK,
    full=FULL,
    measure=measure,
    draw=draw,
    answer=answer_in_words,
)
