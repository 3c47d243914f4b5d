import json
from pathlib import Path

import numpy as np
import pytest
import torch

import resnetkit as rk
from conftest import TINY
from pictures import fill
from resnetkit.transfer.features import Features
from resnetkit.transfer.head import solve_head
from resnetkit.transfer.logistic import Problem
from resnetkit.transfer.prior import PLAIN
from resnetkit.transfer.published import Published, match, recognise
from resnetkit.weights.sources import Source, imagenet_classes, read_source

NAMES = tuple("abcdefgh")


def features(values: np.ndarray, labels: np.ndarray) -> Features:
    names = tuple(f"{place}.jpg" for place in range(len(labels)))
    return Features(values[:, None].astype(np.float32), labels, names, len(labels))


def world(count: int, width: int = 30, seed: int = 0, spread: float = 5.0) -> tuple[np.ndarray, np.ndarray, Published]:
    """Features of images of eight classes, their labels, and a head that was learnt from very many others."""
    rng = np.random.default_rng(seed)
    centres = 2 * np.random.default_rng(99).standard_normal((8, width))
    labels = np.tile(np.arange(8), count // 8)
    values = centres[labels] + spread * rng.standard_normal((len(labels), width))
    # For equal spheres the best head is known: it is linear in the distances to the centres.
    weight, bias = centres / spread**2, -0.5 * (centres**2).sum(1) / spread**2
    return values, labels, Published(weight - weight.mean(0), bias - bias.mean(), NAMES, "eight")


def test_a_head_on_features_and_logits_is_one_on_features_alone() -> None:
    """What it must equal: the same problem, solved on features and logits side by side."""
    values, labels, published = world(80)
    prior = next(each for each in published.priors(values, list("xyzuvwst")) if "and published" in each.name)
    (folded,) = Problem(prior.rows(values), labels, np.ones(80)).solve([0.3])
    weight, bias = prior.folded(folded.weight, folded.bias, folded.classes)
    scale = np.sqrt(values.var(0).sum() / (values @ published.weight.T).var(0).sum())
    both = np.concatenate([values, scale * (values @ published.weight.T)], 1)
    (beside,) = Problem(both, labels, np.ones(80)).solve([0.3])
    np.testing.assert_allclose(values @ weight.T + bias, both @ beside.weight.T + beside.bias, atol=1e-5)
    (plain,) = Problem(values, labels, np.ones(80)).solve([0.3])
    assert np.abs(values @ weight.T - values @ plain.weight.T).max() > 0.01


@pytest.mark.parametrize("classes", [2, 4])
def test_an_offset_is_added_to_the_logits_before_they_are_judged(classes: int) -> None:
    """The oracle: the same convex problem, written out and solved by L-BFGS in float64."""
    rng = np.random.default_rng(1)
    rows, labels, offset = rng.standard_normal((60, 7)), rng.integers(0, classes, 60), rng.normal(0, 2, (60, classes))
    (found,) = Problem(rows, labels, np.ones(60)).solve([0.5], offset=offset)
    free = 1 if classes == 2 else classes
    weight = torch.zeros(free, 7, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(free, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=3000, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        logits = torch.from_numpy(rows) @ weight.T + bias
        logits = torch.cat([torch.zeros(60, classes - free, dtype=torch.float64), logits], 1) + torch.from_numpy(offset)
        total = 0.5 * torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="sum")
        total = total + 0.5 * weight.square().sum()
        total.backward()
        return total

    solver.step(loss)
    ours = torch.from_numpy(rows @ found.weight.T + found.bias + offset).softmax(1)
    logits = torch.from_numpy(rows) @ weight.detach().T + bias.detach()
    logits = torch.cat([torch.zeros(60, classes - free, dtype=torch.float64), logits], 1) + torch.from_numpy(offset)
    torch.testing.assert_close(ours, logits.softmax(1), atol=1e-4, rtol=1e-3)


def test_at_strength_zero_nothing_is_learnt() -> None:
    values, labels, _ = world(80)
    (found,) = Problem(values, labels, np.ones(80)).solve([0.0], offset=np.ones((80, 8)))
    assert not found.weight.any()
    assert not found.bias.any()


def accuracy(head, values: np.ndarray, labels: np.ndarray) -> float:
    return 100 * float(((values @ head.weight.T + head.bias).argmax(1) == labels).mean())


def test_few_images_of_known_classes_are_told_apart_as_the_published_head_does() -> None:
    values, labels, published = world(24)
    fresh, truth, _ = world(4000, seed=1)
    names = ["A", "B", "C", "D", "E", "F", "G", "H"]
    plain = solve_head(features(values, labels), 8)
    head = solve_head(features(values, labels), 8, priors=published.priors(values, names))
    assert head.prior == "published classes of the same names"
    assert accuracy(head, fresh, truth) > accuracy(plain, fresh, truth) + 10
    known = 100 * float(((fresh @ published.weight.T + published.bias).argmax(1) == truth).mean())
    assert accuracy(head, fresh, truth) > known - 3
    assert {name for name, _, _ in head.compared} >= {PLAIN.name, "published logits alone"}


def test_names_that_lie_are_given_up() -> None:
    values, labels, published = world(800)
    names = list("bcdefgha")  # every one that of another class
    plain = solve_head(features(values, labels), 8)
    head = solve_head(features(values, labels), 8, priors=published.priors(values, names))
    fresh, truth, _ = world(4000, seed=1)
    assert head.prior != "published classes of the same names"
    assert accuracy(head, fresh, truth) > accuracy(plain, fresh, truth) - 1


def test_logits_that_say_nothing_are_left_alone() -> None:
    values, labels, _ = world(160)
    rng = np.random.default_rng(5)
    noise = Published(rng.standard_normal((8, 30)), rng.standard_normal(8), (), "noise")
    head = solve_head(features(values, labels), 8, priors=noise.priors(values, NAMES))
    plain = solve_head(features(values, labels), 8)
    assert head.prior == PLAIN.name
    np.testing.assert_array_equal(head.weight, plain.weight)
    assert len(head.compared) == 3


def test_what_is_learnt_beside_the_published_head_is_chosen_without_the_images_held_out() -> None:
    """Labels that have nothing to do with the images: whatever is tried, half of the answers are right."""
    found = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        values, labels = rng.standard_normal((200, 20)), rng.integers(0, 2, 200)
        published = Published(rng.standard_normal((40, 20)), np.zeros(40), ("x", "y"), "noise")
        found.append(solve_head(features(values, labels), 2, priors=published.priors(values, ["x", "y"])).accuracy)
    assert 44 < np.mean(found) < 56  # a standard error is 1.4


@pytest.mark.parametrize(
    ("classes", "published", "found"),
    [
        (["ants", "bees"], ["bee", "ant"], {0: 1, 1: 0}),
        (["Ant", "honey-bee"], ["ant, emmet, pismire", "bee", "honey_bee"], {0: 0, 1: 2}),
        (["n02206856", "goldfish", "n02219486"], imagenet_classes(), {0: 309, 1: 1, 2: 310}),
        (["n02206856"], tuple(map(str, range(1000))), {}),
        (["ant", "ants"], ["ant", "bee"], {}),
        (["crane"], ["crane", "crane"], {}),
        (["glass", "butterflies", "foxes"], ["glas", "butterfly", "fox"], {1: 1, 2: 2}),
        (["cat"], ["tabby cat"], {}),
        (["", "_"], ["", "-"], {}),
    ],
)
def test_classes_are_known_by_name_where_there_is_no_doubt(classes: list, published: list, found: dict) -> None:
    assert match(classes, published) == found


def test_what_the_published_head_knows_is_measured_among_the_classes_that_both_have() -> None:
    values, labels, published = world(400)
    chosen = labels < 4
    known = recognise(published, features(values[chosen], labels[chosen]), ["a", "b", "c", "elsewhere"])
    logits = (values @ published.weight.T + published.bias)[labels < 3][:, :3]
    assert (known.classes, known.count) == (("a", "b", "c"), 150)
    assert known.right == (logits.argmax(1) == labels[labels < 3]).sum()
    assert recognise(published, features(values[chosen], labels[chosen]), ["a", "x", "y", "z"]) is None


def test_a_head_that_tells_nothing_apart_is_none(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = rk.create_model("resnet20", **TINY["model"]).state_dict()
    arch = rk.create_model("resnet20", **TINY["model"]).arch
    assert Published.of(None) is None
    assert Published.of(Source(tensors, arch, "resnet20", "x")) is not None
    same = {name: torch.ones_like(value) for name, value in tensors.items()}
    assert Published.of(Source(same, arch, "resnet20", "x")) is None
    backbone = {name: value for name, value in tensors.items() if not name.startswith("fc.")}
    assert Published.of(Source(backbone, arch, "resnet20", "x")) is None


@pytest.fixture(scope="module")
def colours_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that knows three colours."""
    folder = tmp_path_factory.mktemp("colours")
    fill(folder / "photos" / "train", 24)
    fill(folder / "photos" / "val", 6, first=100)
    model = {"name": "resnet20", **TINY["model"]}
    sizes = {"image_size": 24, "resize": 24, "batch_size": 8}
    rk.train(folder / "photos", "scratch", out=folder / "run", quiet=True, epochs=6, data=sizes, model=model)
    return folder / "run"


def on_two(colours_run: Path, tmp_path: Path, cli, rename: dict[str, str], swap: bool = False):
    """A head for two colours from that network; `swap` exchanges the classes of what is held out."""
    train, val = tmp_path / "two" / "train", tmp_path / "two" / "val"
    fill(train, 6, ("blue", "red"), first=200)
    fill(val, 4, ("blue", "red"), first=300)
    if swap:
        for one, other in (("blue", "x"), ("red", "blue"), ("x", "red")):
            (val / one).rename(val / other)
    for old, new in rename.items():
        (train / old).rename(train / new)
        (val / old).rename(val / new)
    words = ("train", tmp_path / "two", "--out", tmp_path / "run", "--recipe", "head", "--weights", colours_run)
    model = ("--model", "resnet20", "--model.depths", 1, 1, "--model.widths", 8, 16, "--model.strides", 1, 2)
    sizes = ("--model.stem-width", 8, "--data.image-size", 24, "--data.resize", 24)
    done = cli(*words, *model, *sizes, "--json")
    assert done.code == 0, done.err
    return done, json.loads(done.out)


@pytest.mark.parametrize("swap", [False, True])
def test_a_run_says_what_was_known_already_and_its_model_loads_as_any(
    colours_run: Path, tmp_path: Path, cli, swap: bool
) -> None:
    done, report = on_two(colours_run, tmp_path, cli, {"red": "Reds"}, swap)
    two = rk.evaluate(rk.load(tmp_path / "run"), tmp_path / "two" / "val")  # the same files, whatever is learnt
    assert report["published"]["classes"] == ["Reds", "blue"]
    assert report["published"]["count"] == two["count"] == 8
    assert report["published"]["top1"] == (0 if swap else 100)
    assert "published 2 of your classes are those of" in done.err
    assert f"without learning {report['published']['top1']:.1f} % of the 8 held out" in done.err
    tensors = read_source(tmp_path / "run").tensors
    assert tensors.keys() == rk.load(colours_run).network.state_dict().keys()
    assert report["top1"] == two["top1"]
    assert tensors["fc.weight"].shape == (2, 16)
    assert report["cross_validation"]["prior"] == "published classes of the same names"


def test_nothing_is_said_of_classes_that_nobody_has_published(colours_run: Path, tmp_path: Path, cli) -> None:
    done, report = on_two(colours_run, tmp_path, cli, {"red": "warm", "blue": "cold"})
    assert "published" not in report
    assert "without learning" not in done.err
    assert len(report["cross_validation"]["compared"]) == 3
