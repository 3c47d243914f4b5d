"""Backbones that are tried on pictures. The oracle is what each of them brings on pictures that were held out."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import resnetkit as rk
from pictures import fill, samples, write_tar
from progress import finish
from resnetkit.classifier import Classifier
from resnetkit.errors import UsageError
from resnetkit.images.preprocess import Preprocess
from resnetkit.machine.device import choose
from resnetkit.recipes.load import load_recipe
from resnetkit.training.backbones import Trial, named
from resnetkit.weights.table import OWN, WEIGHTS
from training.test_ranks import free_port


def backbone(folder: Path, *, size: int = 24, widths: tuple[int, ...] = (8, 16), blind: bool = False) -> Path:
    """A small network as a model's folder; a blind one sees every picture alike."""
    torch.manual_seed(0)
    settings = {"depths": (1, 1), "widths": widths, "strides": (1, 2), "stem_width": 8, "num_classes": 2}
    net = rk.create_model("resnet20", **settings)
    if blind:
        torch.nn.init.zeros_(net.conv1.weight)
    look = Preprocess(size, (0.5,) * 3, (0.25,) * 3)
    return Classifier(net, look, ("0", "1"), "resnet20", choose("cpu", "fp32")).save(folder)


def tried(done) -> dict[str, dict]:
    assert done.code == 0, done.err
    return {Path(row["backbone"]).name: row for row in json.loads(done.out)["backbones"]}


def words(photos: Path, out: Path, *backbones: object, recipe: str = "head") -> tuple:
    return ("train", photos, "--recipe", recipe, "--out", out, "--json", "--model", ",".join(map(str, backbones)))


def test_the_one_that_sees_is_taken_and_written_down(photos: Path, tmp_path: Path, cli) -> None:
    blind, seeing = backbone(tmp_path / "blind", size=16, blind=True), backbone(tmp_path / "seeing")
    done = cli(*words(photos, tmp_path / "run", blind, seeing))
    rows = tried(done)
    assert (rows["seeing"]["top1"], rows["seeing"]["chosen"], rows["blind"]["chosen"]) == (100, True, False)
    assert rows["blind"]["top1"] < 50
    assert rows["blind"]["low"] < rows["blind"]["top1"] < rows["blind"]["high"]
    assert (rows["blind"]["image_size"], rows["seeing"]["image_size"]) == (16, 24)
    assert min(row["ms_per_image"] for row in rows.values()) > 0
    assert json.loads(done.out)["top1"] == 100
    recipe = load_recipe(tmp_path / "run" / "recipe.toml")
    assert (recipe.model.name, recipe.model.weights, recipe.data.image_size) == ("resnet20", str(seeing), 24)
    assert recipe.model.widths == (8, 16)
    assert rk.load(tmp_path / "run").preprocess.size == 24
    table = [line for line in done.err.splitlines() if line.startswith(("backbones", "  "))]
    assert max(map(len, table)) <= 80
    assert "new head" not in done.err.partition("kept:")[0]  # said of the one that is kept


def test_going_on_does_not_choose_again(photos: Path, tmp_path: Path, cli) -> None:
    blind, seeing = backbone(tmp_path / "blind", blind=True), backbone(tmp_path / "seeing")
    again = words(photos, tmp_path / "run", blind, seeing)
    assert cli(*again).code == 0
    shutil.rmtree(tmp_path / "run" / "model")
    shutil.rmtree(blind)
    done = cli(*again, "--resume")
    assert done.code == 0, done.err
    assert "are tried" not in done.err
    assert json.loads(done.out)["top1"] == 100


def test_fine_tuning_begins_with_the_one_that_was_chosen_and_resumes(photos: Path, tmp_path: Path, cli) -> None:
    blind, seeing = backbone(tmp_path / "blind", blind=True), backbone(tmp_path / "seeing")
    again = (*words(photos, tmp_path / "run", blind, seeing, recipe="finetune"), "--epochs", 2)
    again += ("--checkpoint.keep", 9, "--data.batch-size", 8)
    rows = tried(cli(*again))
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    shutil.rmtree(tmp_path / "run" / "model")
    shutil.rmtree(max((tmp_path / "run" / "checkpoints").iterdir()))
    done = cli(*again, "--resume")
    assert tried(done) == rows
    assert "resumed   at step" in done.err
    whole, resumed = rk.load(tmp_path / "whole").network.state_dict(), rk.load(tmp_path / "run").network.state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_of_equals_the_one_that_costs_less_is_taken(photos: Path, tmp_path: Path, cli) -> None:
    large, small = backbone(tmp_path / "large", widths=(128, 256)), backbone(tmp_path / "small")
    rows = tried(cli(*words(photos, tmp_path / "run", large, small)))
    assert rows["large"]["top1"] == rows["small"]["top1"] == 100
    assert rows["large"]["ms_per_image"] > rows["small"]["ms_per_image"]
    assert rows["small"]["chosen"]


def test_a_size_that_is_asked_for_is_that_of_all(photos: Path, tmp_path: Path, cli) -> None:
    one, other = backbone(tmp_path / "one", size=16), backbone(tmp_path / "other")
    rows = tried(cli(*words(photos, tmp_path / "run", one, other), "--data.image-size", 20, "--data.resize", 20))
    assert {row["image_size"] for row in rows.values()} == {20}


def test_what_cannot_be_used_is_named_and_left_out(photos: Path, tmp_path: Path, cli) -> None:
    seeing, damaged = backbone(tmp_path / "seeing"), backbone(tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"x" * 100)
    rows = tried(cli(*words(photos, tmp_path / "run", damaged, seeing, tmp_path / "nowhere.pth")))
    assert rows["seeing"]["chosen"]
    assert rows["damaged"]["left_out"] == "its SHA-256 is another"
    assert rows["nowhere.pth"]["left_out"] == "no such file or folder"
    assert rows["damaged"]["top1"] is None
    done = cli(*words(photos, tmp_path / "none", damaged, tmp_path / "nowhere.pth"))
    assert done.code == 4
    assert done.err.splitlines()[-1].startswith("error: none of the backbones can be used: ")
    assert "damaged: its SHA-256 is another; " in done.err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (("--weights", "resnet20.cifar10"), "model.weights does not go with --model auto"),
        (("--model.widths", 8, 16, 32), "model.widths does not go with --model auto"),
        (("--recipe", "scratch"), "no backbone is chosen for this recipe with --model auto"),
    ],
)
def test_what_does_not_go_with_a_choice_is_refused(photos: Path, tmp_path: Path, cli, flags: tuple, what: str) -> None:
    done = cli("train", photos, "--model", "auto", "--out", tmp_path / "run", *flags)
    assert done.code == 2
    assert done.err.startswith(f"error: {what}")
    assert not (tmp_path / "run").exists()


def test_where_a_class_has_one_picture_nothing_is_compared(tmp_path: Path, cli) -> None:
    fill(tmp_path / "photos" / "train", 1)
    fill(tmp_path / "photos" / "val", 2, first=10)
    done = cli(*words(tmp_path / "photos", tmp_path / "run", backbone(tmp_path / "seeing"), "auto"))
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("error: backbones cannot be compared")


def test_shards_are_refused(tmp_path: Path, cli) -> None:
    write_tar(tmp_path / "shards" / "train-000.tar", samples(30))
    write_tar(tmp_path / "shards" / "val-000.tar", samples(9))
    done = cli("train", tmp_path / "shards", "--model", "auto", "--out", tmp_path / "run")
    assert done.code == 2
    assert "no backbone is chosen on shards" in done.err


def test_all_weights_at_hand_are_those_that_ship_and_those_that_were_fetched(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert named("auto") == list(OWN)
    file = WEIGHTS["resnet50.imagenet1k_v2"].cached()
    file.parent.mkdir(parents=True)
    file.touch()
    assert named("auto") == [*OWN, "resnet50.imagenet1k_v2"]
    assert named("resnet18, auto,resnet18,resnet20.cifar10,") == ["resnet18", *OWN, "resnet50.imagenet1k_v2"]


def test_python_may_leave_the_choice_too(photos: Path, tmp_path: Path) -> None:
    backbone(tmp_path / "blind", blind=True)
    backbone(tmp_path / "seeing")
    model = {"name": f"{tmp_path / 'blind'},{tmp_path / 'seeing'}"}
    done = rk.train(photos, "head", out=tmp_path / "run", quiet=True, model=model)
    assert [row["chosen"] for row in done.metrics["backbones"]] == [False, True]
    with pytest.raises(UsageError, match=r"model\.depths does not go with"):
        rk.train(photos, "head", out=tmp_path / "other", quiet=True, model={"name": "auto", "depths": (1, 1, 1)})


def test_a_row_of_the_table_fits_whatever_the_name() -> None:
    long = "folder/" * 30
    rows = [Trial(long, "resnet50", 224, 100.0, 98.5, 100.0, 0.1, 1234.5), Trial(long, left_out="why " * 40)]
    assert max(len(line) for row in rows for line in row.lines()) <= 80


@pytest.mark.slow
def test_the_first_rank_chooses_for_all(photos: Path, tmp_path: Path) -> None:
    blind, seeing = backbone(tmp_path / "blind", blind=True), backbone(tmp_path / "seeing")
    command = (*words(photos, tmp_path / "run", blind, seeing, recipe="finetune"), "--epochs", 1, "--precision", "fp32")
    env = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shell = [sys.executable, "-m", "resnetkit", *map(str, command)]
    ranks = [
        subprocess.Popen(
            shell,
            env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [finish(rank)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert "are tried" in said[0]
    assert "are tried" not in said[1]
    assert load_recipe(tmp_path / "run" / "recipe.toml").model.weights == str(seeing)


@pytest.fixture(scope="module")
def real() -> Path:
    """Photographs, CIFAR-10's test images and a backbone that was trained on ImageNet."""
    root = Path(os.environ.get("RESNETKIT_TEST_DATA", "nowhere"))
    if not (root / "thin-resnet50").is_dir() or not (root / "cifar10-test.zip").is_file():
        pytest.skip("needs hymenoptera, cifar10-test.zip and thin-resnet50 under RESNETKIT_TEST_DATA")
    return root


def some_of_cifar(archive: Path, folder: Path) -> Path:
    """500 of the test images to learn from and 500 to be held out: no backbone has learnt from either."""
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if not name.endswith("/"))
        for label in sorted({Path(name).parent.name for name in names}):
            own = [name for name in names if Path(name).parent.name == label]
            for number, place in enumerate(np.random.default_rng(0).permutation(len(own))[:100]):
                target = folder / ("train" if number < 50 else "val") / label / Path(own[place]).name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(opened.read(own[place]))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["hymenoptera", "cifar10"])
def test_on_real_pictures_the_best_of_those_at_hand_is_taken(name: str, real: Path, tmp_path: Path, cli) -> None:
    data = real / name if name == "hymenoptera" else some_of_cifar(real / "cifar10-test.zip", tmp_path / "cifar")
    candidates = [*OWN, str(real / "thin-resnet50")]
    done = cli(*words(data, tmp_path / "run", *candidates))
    rows = tried(done)
    held_out = {}
    for number, each in enumerate(candidates):
        alone = cli(*words(data, tmp_path / str(number), each, ""))
        held_out[Path(each).name] = json.loads(alone.out)["top1"]
    assert next(each for each, row in rows.items() if row["chosen"]) == max(held_out, key=lambda each: held_out[each])
    assert json.loads(done.out)["top1"] == max(held_out.values())
