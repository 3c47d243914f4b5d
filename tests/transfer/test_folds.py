from pathlib import Path

import numpy as np
import torch

from pictures import draw
from resnetkit.data.holdout import group_by_name
from resnetkit.data.splits import Files, Images
from resnetkit.recipes.load import load_recipe
from resnetkit.transfer.features import Features
from resnetkit.transfer.head import grouped_folds, stratified_folds
from resnetkit.transfer.probe import solve


def test_images_that_belong_together_are_in_one_fold() -> None:
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(np.arange(40), 3))
    labels = groups % 2
    parts = grouped_folds(labels, groups, 5, 2)
    assert sorted(np.concatenate(parts)) == list(range(120))
    for part in parts:
        assert not set(groups[part]) & set(np.delete(groups, part))
        assert np.bincount(labels[part]).tolist() == [12, 12]


def test_images_of_their_own_are_dealt_as_ever() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 90)
    for ours, before in zip(
        grouped_folds(labels, np.random.default_rng(1).permutation(90), 5, 4), stratified_folds(labels, 5), strict=True
    ):
        assert ours.tolist() == before.tolist()


def test_a_class_of_one_group_cannot_be_judged() -> None:
    assert grouped_folds(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 2, 3]), 5, 2) == []


def frames(count: int, seed: int) -> tuple[Files, Features]:
    """Three pictures of each of `count` scenes, by their names; to which class a scene belongs is chance."""
    rng = np.random.default_rng(seed)
    paths = tuple(Path("set") / f"scene{scene:03d}_frame{number}.png" for scene in range(count) for number in range(3))
    labels = rng.integers(0, 2, count).repeat(3)
    values = rng.standard_normal((count, 60)).repeat(3, 0) + 0.01 * rng.standard_normal((3 * count, 60))
    files = Files(paths, torch.from_numpy(labels), np.arange(3 * count, dtype=np.int64))
    return files, Features(values[:, None].astype(np.float32), labels, tuple(map(str, paths)), 0)


def test_frames_of_one_scene_do_not_judge_each_other() -> None:
    by_scene = load_recipe("head", {"data": {"name": "set", "group_by": "^[^_]+"}})
    apart = load_recipe("head", {"data": {"name": "set", "group_by": "^.*$"}})
    found: dict[str, list[float]] = {"by scene": [], "apart": []}
    for seed in range(6):
        files, features = frames(100, seed)
        found["by scene"].append(solve(features, ["x", "y"], [files], by_scene, None).accuracy)
        found["apart"].append(solve(features, ["x", "y"], [files], apart, None).accuracy)
    assert 40 < np.mean(found["by scene"]) < 60  # a standard error is 2
    assert np.mean(found["apart"]) > 90  # or the line above would say nothing


def test_copies_in_several_splits_are_of_one_group(tmp_path: Path) -> None:
    def files(*names: str, marks: tuple[int, ...]) -> Files:
        paths = tuple(tmp_path / name for name in names)
        return Files(paths, torch.zeros(len(names), dtype=torch.int64), np.array(marks, dtype=np.int64))

    draw("red", 0).save(tmp_path / "one.png")
    train, validation = files("train/one.png", "train/other.png", marks=(5, 6)), files("val/same.png", marks=(5,))
    pixels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    group_of = group_by_name([train, Images(pixels, validation.labels, validation)], tmp_path)
    assert group_of[str(tmp_path / "train/one.png")] == group_of[str(tmp_path / "val/same.png")]
    assert group_of[str(tmp_path / "train/one.png")] != group_of[str(tmp_path / "train/other.png")]
    assert group_by_name([train, Images(pixels, validation.labels)], tmp_path) == {}
