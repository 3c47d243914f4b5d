"""What the head that a backbone came with is worth for few images of other tasks.

    python benchmarks/published.py CIFAR/test

CIFAR/test has a folder for each class of CIFAR-10's test images, which `resnet20.cifar10` has not learnt from. Of each
task some images a class are drawn and learnt from, the others are held out. Columns: top-1 in percent, the mean over
the draws, of a head on the features alone, with the published logits beside them, with the published log-probabilities
in their place (which is no head on features, and cannot be kept), and of what `--recipe head` keeps; what that gains
over the features alone, with its 95 % interval (Student's t); and what it began from.
"""

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import log_softmax
from scipy.stats import t as student

import resnetkit as rk
from resnetkit.data.load import load_data
from resnetkit.recipes.schema import DataRecipe
from resnetkit.transfer.features import Features, extract
from resnetkit.transfer.head import Head, solve_head
from resnetkit.transfer.published import Published
from resnetkit.weights.sources import read_source

WEIGHTS = "resnet20.cifar10"
TASKS = {
    "cat, dog": ["cat", "dog"],
    "bird, cat, deer, dog": ["bird", "cat", "deer", "dog"],
    "airplane, automobile, ship, truck": ["airplane", "automobile", "ship", "truck"],
    "what moves and what lives": ["airplane automobile ship truck", "bird cat deer dog frog horse"],
    "four kinds": ["cat dog", "deer horse", "bird frog", "automobile truck"],
}


def main() -> None:
    """Print a row for each task and number of images a class."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[5, 20, 100, 200])
    parser.add_argument("--draws", type=int, default=10)
    chosen = parser.parse_args()
    classifier, published = rk.load(WEIGHTS, precision="fp32"), Published.of(read_source(WEIGHTS))
    assert published is not None
    name = str(chosen.folder)
    data = load_data(name, DataRecipe(name=name), whole=True)
    _, split = data.held_out()
    everything = extract(classifier.network, classifier.preprocess, split, classifier.compute)
    for task, groups in TASKS.items():
        of = {data.classes.index(name): label for label, group in enumerate(groups) for name in group.split()}
        rows = np.flatnonzero(np.isin(everything.labels, list(of)))
        labels = np.array([of[label] for label in everything.labels[rows].tolist()])
        whole = replace(everything, values=everything.values[rows], labels=labels, files=tuple(map(str, rows)))
        for count in chosen.counts:
            print(f"{task:34} {count:4}", row(whole, groups, count, chosen.draws, published), flush=True)


def row(whole: Features, classes: list[str], count: int, draws: int, published: Published) -> str:
    """The figures of one task and one number of images."""
    found, kept = [], Counter()
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        members = [rng.permutation(np.flatnonzero(whole.labels == label)) for label in range(len(classes))]
        some = np.sort(np.concatenate([own[:count] for own in members]))
        rest = np.setdiff1d(np.arange(len(whole.labels)), some)
        learnt, held = part(whole, some), part(whole, rest)
        priors = published.priors(learnt.values[:, 0], classes)
        by_name = {prior.name: prior for prior in priors}
        plain = solve_head(learnt, len(classes))
        beside = solve_head(learnt, len(classes), priors=(by_name["features and published logits"],))
        shown, asked = (with_log_probabilities(each, learnt, published) for each in (learnt, held))
        logs, best = solve_head(shown, len(classes)), solve_head(learnt, len(classes), priors=priors)
        found.append([accuracy(plain, held), accuracy(beside, held), accuracy(logs, asked), accuracy(best, held)])
        kept[best.prior] += 1
    mean, gains = np.mean(found, 0), np.array(found)[:, 3] - np.array(found)[:, 0]
    spread = student.ppf(0.975, draws - 1) * gains.std(ddof=1) / draws**0.5
    figures = " ".join(f"{each:6.2f}" for each in mean)
    return f"{figures}  {gains.mean():+.2f} ± {spread:.2f}  {dict(kept)}"


def part(whole: Features, chosen: np.ndarray) -> Features:
    """Some of the images."""
    files = tuple(whole.files[place] for place in chosen)
    return replace(whole, values=whole.values[chosen], labels=whole.labels[chosen], files=files)


def with_log_probabilities(features: Features, learnt: Features, published: Published) -> Features:
    """Features with the published log-probabilities beside them, which vary as much as they do."""

    def logs(values: np.ndarray) -> np.ndarray:
        return log_softmax(values @ published.weight.T + published.bias, axis=-1)

    scale = np.sqrt(learnt.values[:, 0].var(0).sum() / logs(learnt.values[:, 0]).var(0).sum())
    beside = np.concatenate([features.values, scale * logs(features.values)], 2).astype(np.float32)
    return replace(features, values=beside)


def accuracy(head: Head, held: Features) -> float:
    """Percent of the images that were held out."""
    return 100 * float(((held.values[:, 0] @ head.weight.T + head.bias).argmax(1) == held.labels).mean())


if __name__ == "__main__":
    main()
