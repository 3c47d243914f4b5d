import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict

import resnetkit as rk
from pictures import draw, fill
from resnetkit.errors import UsageError
from resnetkit.evaluation.intervals import wilson
from resnetkit.recipes.schema import OptimRecipe
from resnetkit.runs import checkpoint
from resnetkit.runs.folder import open_run
from resnetkit.training import train as training
from resnetkit.training.optim import parameter_groups
from resnetkit.transfer import head as transfer
from resnetkit.transfer.features import Features
from resnetkit.transfer.head import Head, solve_head, stratified_folds


def blobs(counts: list[int], width: int = 6, views: int = 2, spread: float = 1.0, seed: int = 0) -> Features:
    """Points around one centre a class; the views of an image lie close together."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = 2 * rng.standard_normal((len(counts), width))
    images = centres[labels] + spread * rng.standard_normal((len(labels), width))
    values = images[:, None] + 0.05 * rng.standard_normal((len(labels), views, width))
    return Features(values.astype(np.float32), labels, tuple(f"{i}.jpg" for i in range(len(labels))), len(labels))


def optimum(features: Features, classes: int, strength: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The same convex problem, solved in the plainest way: full-batch L-BFGS of PyTorch in float64."""
    x = torch.from_numpy(features.values.reshape(-1, features.values.shape[2])).double()
    y = torch.from_numpy(np.repeat(features.labels, features.values.shape[1]))
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=3000, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        fit = torch.nn.functional.cross_entropy(x @ weight.T + bias, y, reduction="sum") / features.values.shape[1]
        total = strength * fit + 0.5 * weight.square().sum()
        total.backward()
        return total

    solver.step(loss)
    return weight.detach(), bias.detach()


def test_the_head_is_the_optimum_of_the_convex_problem() -> None:
    features = blobs([30, 20, 25], spread=3.0)
    head = solve_head(features, 3)
    weight, bias = optimum(features, 3, head.strength)
    x = torch.from_numpy(features.values[:, 0]).double()
    ours = (x @ torch.from_numpy(head.weight).double().T + torch.from_numpy(head.bias).double()).softmax(1)
    torch.testing.assert_close(ours, (x @ weight.T + bias).softmax(1), rtol=1e-4, atol=1e-5)


def test_cross_validation_is_honest() -> None:
    # Labels that have nothing to do with the features: whatever the decay, half of the answers are right.
    features = blobs([200], spread=3.0)
    labels = np.random.default_rng(1).integers(0, 2, 200)
    head = solve_head(Features(features.values, labels, features.files, 200), 2)
    low, high = head.interval
    assert low < 50 < high
    assert 38 < head.accuracy < 62


def test_cross_validation_predicts_what_fresh_images_bring() -> None:
    everything = blobs([400, 400, 400], spread=2.5, views=1)
    order = np.random.default_rng(0).permutation(1200)
    some, rest = order[:200], order[200:]

    def part(chosen: np.ndarray) -> Features:
        return Features(everything.values[chosen], everything.labels[chosen], tuple("x" * len(chosen)), 0)

    head = solve_head(part(some), 3)
    answers = (everything.values[rest, 0] @ head.weight.T + head.bias).argmax(1)
    fresh = 100 * (answers == everything.labels[rest]).mean()
    assert head.interval[0] - 3 < fresh < head.interval[1] + 3


def test_folds_are_stratified_and_hold_every_image_once() -> None:
    labels = np.array([0] * 20 + [1] * 10)
    parts = stratified_folds(labels, 5)
    assert sorted(np.concatenate(parts)) == list(range(30))
    assert all(np.bincount(labels[part]).tolist() == [4, 2] for part in parts)


@pytest.mark.parametrize(("counts", "folds", "seed"), [([20, 10], 5, 0), ([7, 23, 5, 9], 5, 3), ([3, 100, 2], 2, 1)])
def test_folds_are_scikit_learns(counts: list[int], folds: int, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    theirs = StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels)
    for ours, (_, held) in zip(stratified_folds(labels, folds, seed), theirs, strict=True):
        assert ours.tolist() == held.tolist()


@pytest.mark.parametrize("threads", [1, 3])
def test_cross_validation_is_what_scikit_learn_finds_fold_by_fold(threads: int, monkeypatch) -> None:
    monkeypatch.setattr(transfer, "WORTH_THREADS", 0 if threads > 1 else 10**9)
    features = blobs([40, 30, 35], width=50, views=1, spread=3.0)
    torch.set_num_threads(threads)
    try:
        head = solve_head(features, 3)
    finally:
        torch.set_num_threads(1)
    rows, labels = features.values[:, 0].astype(np.float64), features.labels
    losses, right = {}, {}
    for strength in transfer.DECAYS:
        model = LogisticRegression(C=strength, tol=1e-8, max_iter=20_000)
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        shares = cross_val_predict(model, rows, labels, cv=folds, method="predict_proba")
        losses[strength], right[strength] = log_loss(labels, shares), (shares.argmax(1) == labels).mean()
    assert head.strength == min(losses, key=lambda each: losses[each])
    assert head.accuracy == pytest.approx(100 * right[head.strength])
    assert head.curve[-1] == (84, head.accuracy)


@pytest.mark.parametrize(("successes", "count"), [(0, 5), (5, 5), (37, 40), (500, 1000)])
def test_the_interval_is_wilsons(successes: int, count: int) -> None:
    theirs = stats.binomtest(successes, count).proportion_ci(method="wilson")
    assert wilson(successes, count) == pytest.approx((100 * theirs.low, 100 * theirs.high))


def test_mislabelled_images_are_suspected() -> None:
    features = blobs([40, 40, 40], spread=0.5)
    wrong = [3, 55, 100]
    labels = features.labels.copy()
    labels[wrong] = (labels[wrong] + 1) % 3
    head = solve_head(Features(features.values, labels, features.files, 120), 3)
    assert {int(file.split(".")[0]) for file, *_ in head.suspects} == set(wrong)
    file, label, answer, share = head.suspects[0]
    assert label != answer == features.labels[int(file.split(".")[0])]
    assert share > 0.9


def test_the_curve_rises_with_images_where_they_help() -> None:
    head = solve_head(blobs([60, 60, 60, 60], width=40, spread=6.0), 4)
    counts, accuracies = zip(*head.curve, strict=True)
    assert counts == (24, 48, 96, 192)
    assert accuracies[-1] > accuracies[0] + 5


@pytest.mark.parametrize(
    ("curve", "advice"),
    [
        (((50, 70.0), (100, 80.0)), "more pictures would help: the last doubling brought +10.0 points"),
        (((50, 79.5), (100, 80.0)), "would help little: the last doubling brought +0.5 points"),
        (((100, 80.0),), "too few pictures to say"),
    ],
)
def test_the_advice_follows_the_last_doubling(curve: tuple, advice: str) -> None:
    nothing = np.zeros((2, 1))
    assert advice in Head(nothing, nothing[:, 0], 1.0, 5, 80.0, (75.0, 85.0), curve).advice()


def test_balanced_weights_answer_for_rare_classes() -> None:
    features = blobs([300, 12], spread=3.0, width=3, seed=3)
    rare = features.labels == 1

    def recall(balanced: bool) -> float:
        head = solve_head(features, 2, balanced=balanced)
        return float((features.values[rare, 0] @ head.weight.T + head.bias).argmax(1).mean())

    assert recall(True) > recall(False)


@pytest.mark.parametrize("counts", [[1, 1], [5, 1, 9], [2, 2]])
def test_few_images_work_and_claim_nothing_more_than_they_can(counts: list[int]) -> None:
    head = solve_head(blobs(counts), len(counts))
    assert head.weight.shape == (len(counts), 6)
    assert (head.accuracy is None) == (min(counts) < 2)
    assert head.advice()


def test_a_class_of_which_nothing_was_seen_is_never_answered() -> None:
    head = solve_head(blobs([10, 10]), 3)
    assert (blobs([10, 10], seed=5).values[:, 0] @ head.weight.T + head.bias).argmax(1).max() < 2


def test_the_head_recipe_learns_and_the_backbone_does_not_drift(tmp_path: Path, cli, monkeypatch) -> None:
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path / "cache"))
    fill(tmp_path / "photos" / "train", 10)
    fill(tmp_path / "photos" / "val", 4, first=50)
    (tmp_path / "photos" / "train" / "red" / "broken.png").write_bytes(b"")
    flags = ("--recipe", "head", "--weights", "none", "--model", "resnet20", "--model.stem", "cifar", "--json")
    sizes = ("--data.image-size", 24, "--data.resize", 24)
    first = cli("train", tmp_path / "photos", "--out", tmp_path / "a", *flags, *sizes)
    assert first.code == 0
    report = json.loads(first.out)
    assert (report["top1"], report["count"], report["frozen_drift"], report["unreadable"]) == (100, 12, 0, 1)
    assert report["cross_validation"]["top1"] == 100
    assert report["validation"] == {key: report[key] for key in ("count", "loss", "top1", "top5")}
    assert "frozen drift: 0" in first.err
    assert "broken.png: the file is empty" in first.err
    second = cli("train", tmp_path / "photos", "--out", tmp_path / "b", *flags, *sizes)
    assert "30 from the cache" in second.err
    assert json.loads(second.out)["top1"] == 100
    one, other = rk.load(tmp_path / "a"), rk.load(tmp_path / "b")
    assert torch.equal(one.network.fc.weight, other.network.fc.weight)
    evaluated = json.loads(cli("evaluate", tmp_path / "a", tmp_path / "photos" / "val", "--json").out)
    assert evaluated["top1"] == 100
    assert evaluated["loss"] == pytest.approx(report["loss"], rel=1e-3)


def test_files_that_vanish_before_their_features_are_counted_as_unreadable(
    photos: Path, tmp_path: Path, monkeypatch
) -> None:
    """One to learn from and one to be scored on, both there when the folder was listed."""
    draw("red", 0, (70, 66)).save(photos / "train" / "red" / "000.png")  # of another size: nothing is kept in memory
    real = training.load_data

    def losing(*arguments, **options):
        data = real(*arguments, **options)
        data.train.paths[3].unlink()
        data.validation.paths[4].unlink()
        return data

    monkeypatch.setattr(training, "load_data", losing)
    settings = {"model": {"name": "resnet20", "weights": "none", "stem": "cifar"}, "data": {"image_size": 24}}
    done = rk.train(photos, recipe="head", out=tmp_path / "run", quiet=True, **settings)
    assert (done.metrics["count"], done.metrics["unreadable"]) == (8, 2)


def test_from_the_cache_nothing_is_imported_that_is_not_needed(photos: Path, tmp_path: Path) -> None:
    flags = ["--recipe", "head", "--weights", "none", "--model", "resnet20", "--model.stem", "cifar", "--json"]
    flags += ["--data.image-size", "24", "--data.resize", "24"]
    code = """
import sys
from resnetkit.cli.app import main
try:
    main()
except SystemExit as left:
    heavy = ("openvino", "scipy", "sklearn", "sympy", "torch._dynamo", "torchvision")
    print(left.code, [name for name in heavy if name in sys.modules], file=sys.stderr)
"""
    environment = os.environ | {"RESNETKIT_CACHE": str(tmp_path / "cache")}
    for name in ("first", "second"):
        words = [sys.executable, "-c", code, "train", str(photos), "--out", str(tmp_path / name), *flags]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
        assert done.stderr.splitlines()[-1] == "0 []"
    assert "24 from the cache" in done.stderr


def test_without_network_the_head_recipe_says_what_to_do(photos: Path, tmp_path: Path, cli, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = cli("train", photos, "--recipe", "head", "--out", tmp_path / "run")
    assert done.code == 4
    assert "resnet18-f37072fd.pth by hand and put it at" in done.err
    assert not (tmp_path / "run").exists()


FINETUNE = {
    "data": {"image_size": 24, "resize": 24, "batch_size": 8},
    "model": {"name": "resnet20", "weights": "none", "stem": "cifar"},
    "quiet": True,
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_what_is_frozen_stays_to_the_bit_and_the_rest_moves(store: Path, photos: Path) -> None:
    head = rk.train(photos, "head", out=store / "head", **FINETUNE)
    tuned = rk.train(
        photos, "finetune", out=store / "tuned", epochs=2, freeze="layer1..layer2", optim={"lr": 0.1}, **FINETUNE
    )
    last = rk.load(store / "tuned")
    moved = {
        name.split(".")[0]
        for (name, before), after in zip(
            head.network.state_dict().items(), _last_weights(store / "tuned").values(), strict=True
        )
        if not torch.equal(before, after)
    }
    assert moved == {"layer3", "fc"}
    assert last.metrics["frozen_drift"] == 0
    assert tuned.metrics["cross_validation"]["folds"] == 5


def _last_weights(run: Path) -> dict[str, torch.Tensor]:
    found, _ = checkpoint.newest(run / "checkpoints")
    names = list(rk.load(run).network.state_dict())
    return {name: found.tensors["model"][name] for name in names}


def test_the_head_alone_is_kept_where_fine_tuning_does_not_beat_it(store: Path, photos: Path, capfd) -> None:
    head = rk.train(photos, "head", out=store / "head", **FINETUNE)
    capfd.readouterr()
    ruined = {**FINETUNE, "quiet": False}
    tuned = rk.train(photos, "finetune", out=store / "tuned", epochs=2, optim={"lr": 5.0, "warmup": "0%"}, **ruined)
    assert tuned.metrics["best_step"] == 0
    assert torch.equal(tuned.network.fc.weight, head.network.fc.weight)
    assert torch.equal(tuned.network.conv1.weight, head.network.conv1.weight)
    assert "fine-tuning did not beat the head alone on validation: the head alone is kept" in capfd.readouterr().err


def test_fine_tuning_resumes_to_the_bit(store: Path, photos: Path) -> None:
    settings = {**FINETUNE, "epochs": 3, "checkpoint": {"keep": 9}}
    rk.train(photos, "finetune", out=store / "whole", **settings)
    shutil.copytree(store / "whole", store / "stopped")
    shutil.rmtree(store / "stopped" / "model")
    for later in sorted((store / "stopped" / "checkpoints").iterdir())[1:]:
        shutil.rmtree(later)
    resumed = rk.train(photos, "finetune", out=store / "stopped", resume=True, **settings)
    whole, stopped = _last_weights(store / "whole"), _last_weights(store / "stopped")
    assert all(torch.equal(value, stopped[name]) for name, value in whole.items())
    assert resumed.metrics["cross_validation"]["folds"] == 5


def test_stages_far_from_the_head_learn_slower() -> None:
    net = rk.create_model("resnet18", num_classes=2)
    groups = parameter_groups(net, OptimRecipe(layer_decay=0.5))
    scales = {id(p): group["scale"] for group in groups for p in group["params"]}
    named = {name: scales[id(p)] for name, p in net.named_parameters()}
    assert named["fc.weight"] == 1
    assert named["layer4.1.conv2.weight"] == 0.5
    assert named["layer1.0.bn1.bias"] == 0.5**4
    assert named["conv1.weight"] == named["bn1.weight"] == 0.5**5


def test_an_unknown_stage_cannot_be_frozen(store: Path, photos: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown stage to freeze 'layer9'. Try: layer"):
        rk.train(photos, "finetune", out=store / "x", freeze="layer9", **FINETUNE)


def test_a_folder_is_finetuned_by_default_and_without_a_network_it_says_how(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli
) -> None:
    monkeypatch.setenv("RESNETKIT_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    done = cli("train", photos, "--out", tmp_path / "run")
    assert done.code == 4
    assert "resnet18-f37072fd.pth" in done.err
    assert "--weights FILE with weights that you have, or --weights none to start from nothing" in done.err
    assert not (tmp_path / "run").exists()
    run = open_run(photos, None, out=None, resume=False, changes={"model": {"name": "resnet50"}})
    assert (run.recipe.transfer.mode, run.recipe.model.weights) == ("finetune", "resnet50.imagenet1k_v1")
    for changes in ({"weights": "none"}, {"name": "tutorial_resnet34"}):
        assert open_run(photos, None, out=None, resume=False, changes={"model": changes}).recipe.transfer.mode == "none"
