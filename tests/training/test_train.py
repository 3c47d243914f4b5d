import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

import progress
import resnetkit as rk
from conftest import TINY
from pictures import draw, fill
from resnetkit.data.load import load_data
from resnetkit.data.order import Order
from resnetkit.data.splits import Images, class_weights
from resnetkit.errors import CheckpointError, DivergedError, UsageError
from resnetkit.evaluation.score import score
from resnetkit.images.preprocess import Preprocess
from resnetkit.randomness import torch_seed


def journal(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_times(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if "second" not in key} for row in rows]


def test_the_loop_matches_a_plain_pytorch_loop(tmp_path: Path) -> None:
    """The oracle: nn.Module, SGD and a for loop in the words of PyTorch's own documentation."""
    settings = {"lr": 0.05, "weight_decay": 1e-3, "schedule": "constant", "warmup": "0%", "label_smoothing": 0.1}
    classifier = rk.train(
        "digits",
        out=tmp_path / "run",
        quiet=True,
        steps=12,
        precision="fp32",
        device="cpu",
        data={"batch_size": 32},
        augment={"pad_crop": 0},
        optim={**settings, "ema": 0.0, "decay_all": True},
        **TINY,
    )
    train = load_data("digits").train
    with torch_seed(0, "parameters"):
        net = rk.create_model("resnet20", **TINY["model"], in_channels=1, num_classes=10)
    net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True)
    preprocess = Preprocess(8, classifier.preprocess.mean, classifier.preprocess.std)
    order = Order(len(train), 32, seed=0)
    for step in range(12):
        chosen = torch.from_numpy(order.step(step)[1])
        loss = F.cross_entropy(
            net(preprocess.normalise(train.pixels[chosen])), train.labels[chosen], label_smoothing=0.1
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for (key, theirs), ours in zip(net.state_dict().items(), classifier.network.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=key)


def test_digits_are_learnt_and_the_run_is_written(digits_run: Path) -> None:
    assert {path.name for path in digits_run.iterdir()} == {
        "recipe.toml",
        "metrics.jsonl",
        "images.safetensors",
        "checkpoints",
        "model",
    }
    rows = journal(digits_run)
    assert [row["event"] for row in rows] == ["epoch"] * 4 + ["end"]
    assert rows[0]["train_loss"] > rows[3]["train_loss"]
    assert rows[-1]["split"] == "test"
    assert rows[-1]["count"] == 359
    assert rows[-1]["top1"] > 60
    assert rk.load_recipe(digits_run / "recipe.toml").epochs == 4


@pytest.mark.parametrize("flip", [True, False])
def test_classes_that_mirror_each_other_are_named_where_pictures_are_flipped(
    flip: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "photos", 6, ("blue", "red"))
    for colour, name in (("blue", "turn_left"), ("red", "turn_right")):
        (tmp_path / "photos" / colour).rename(tmp_path / "photos" / name)
    recipe = {"steps": 1, "data": {"batch_size": 4}, "augment": {"flip": flip}, "model": {"name": "resnet20"}}
    recipe["model"] |= TINY["model"]
    rk.train(tmp_path / "photos", "scratch", out=tmp_path / "run", **recipe)
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note      classes")]
    said = "note      classes turn_left and turn_right are mirror images of each other, and flip mirrors pictures: "
    assert notes == ([f"{said}--augment.flip false"] if flip else [])


def test_averaged_weights_do_not_lag_behind_a_short_run(tmp_path: Path) -> None:
    """Two epochs of 20 steps and a memory of 50: the oracle is what the network itself has learnt."""
    settings = {"quiet": True, "epochs": 2, "device": "cpu", "precision": "fp32"}
    averaged = rk.train("digits", out=tmp_path / "averaged", **settings).metrics["top1"]
    itself = rk.train("digits", out=tmp_path / "itself", optim={"ema": 0.0}, **settings).metrics["top1"]
    assert averaged > itself - 10  # 68 points below it, with the random start in the average
    assert averaged > 80


def test_the_weights_that_are_best_on_validation_are_kept(tmp_path: Path) -> None:
    wild = {"lr": 2.0, "schedule": "constant", "warmup": "0%", "ema": 0.0}
    for seed in range(6):  # at such a rate the last epoch is seldom the best; take a run in which it is not
        folder = tmp_path / str(seed)
        rk.train("digits", out=folder, quiet=True, epochs=5, seed=seed, optim=wild, data={"limit": 300}, **TINY)
        rows = journal(folder)
        best = max(rows[:-1], key=lambda row: (row["validation_top1"], -row["validation_loss"]))
        if best["step"] != rows[-2]["step"]:
            break
    assert rows[-1]["best_step"] == best["step"] != rows[-2]["step"]
    again = score(rk.load(folder), load_data("digits").validation)
    assert again.top1 == best["validation_top1"] != rows[-2]["validation_top1"]
    assert again.loss == pytest.approx(best["validation_loss"], rel=1e-5)
    kept = rk.load(folder).metrics
    assert kept["validation"] == rows[-1]["validation"]
    assert kept["best_epoch"] == best["epoch"]
    assert kept["validation"] == again.to_dict() | {"loss": best["validation_loss"]}


FANCY = {
    "augment": {"flip": True, "pad_crop": 1, "random_erasing": 0.3, "mixup": 0.2, "cutmix": 1.0},
    "optim": {"ema": 0.9, "clip": 1.0},
    "checkpoint": {"keep": 10},
}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(optimizer: str, tmp_path: Path) -> None:
    settings = {**FANCY, "optim": {**FANCY["optim"], "name": optimizer, "lr": 0.01}, "epochs": 3, **TINY}
    whole = rk.train("digits", out=tmp_path / "whole", quiet=True, **settings)
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    # What a run looks like that was killed in its second epoch: one checkpoint, and a journal that is further on.
    shutil.rmtree(tmp_path / "stopped" / "model")
    for later in sorted((tmp_path / "stopped" / "checkpoints").iterdir())[1:]:
        shutil.rmtree(later)
    resumed = rk.train("digits", out=tmp_path / "stopped", resume=True, quiet=True, **settings)
    for (key, mine), theirs in zip(
        resumed.network.state_dict().items(), whole.network.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), key
    assert without_times(journal(tmp_path / "stopped")) == without_times(journal(tmp_path / "whole"))


def test_resuming_a_finished_run_changes_nothing(digits_run: Path) -> None:
    before = {path: path.read_bytes() for path in digits_run.rglob("*") if path.is_file()}
    again = rk.train(out=digits_run, resume=True, quiet=True)
    assert again.metrics["top1"] == journal(digits_run)[-1]["top1"]
    assert {path: path.read_bytes() for path in digits_run.rglob("*") if path.is_file()} == before


def test_a_finished_run_can_be_made_longer(digits_run: Path, tmp_path: Path) -> None:
    shutil.copytree(digits_run, tmp_path / "run")
    longer = rk.train(out=tmp_path / "run", resume=True, quiet=True, epochs=5, allow_change=["epochs"])
    assert longer.metrics["steps"] > journal(digits_run)[-1]["steps"]
    assert [row["event"] for row in journal(tmp_path / "run")][-2:] == ["epoch", "end"]


def test_a_run_is_never_mixed_with_another(digits_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the output folder holds another run .*Try: --resume"):
        rk.train("digits", out=digits_run, quiet=True)
    with pytest.raises(UsageError, match=r"optim.lr has changed since the run began .*it was 0.1 and is now 0.3"):
        rk.train(out=digits_run, resume=True, quiet=True, optim={"lr": 0.3})
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("x")
    with pytest.raises(UsageError, match="the output folder holds other files"):
        rk.train("digits", out=tmp_path / "letters", quiet=True)
    with pytest.raises(UsageError, match="the run to go on with is not named"):
        rk.train("digits", resume=True, quiet=True)


def test_damaged_checkpoints_are_named_and_the_last_good_one_is_used(digits_run: Path, tmp_path: Path, capfd) -> None:
    shutil.copytree(digits_run, tmp_path / "run")
    folders = sorted((tmp_path / "run" / "checkpoints").iterdir())
    (folders[-1] / "model.safetensors").write_bytes(b"rubbish")
    rk.train(out=tmp_path / "run", resume=True)
    said = capfd.readouterr().err
    assert f"left out: the checkpoint is damaged in {folders[-1]}" in said
    assert f"from {folders[-2]}" in said
    for folder in (tmp_path / "run" / "checkpoints").iterdir():
        (folder / "best.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint can be used"):
        rk.train(out=tmp_path / "run", resume=True, quiet=True)


def test_other_images_are_refused_on_resume(photos: Path, tmp_path: Path) -> None:
    settings = {"epochs": 1, "data": {"image_size": 16, "resize": 16}, **TINY}
    settings["model"] = {"name": "resnet20", **TINY["model"]}
    rk.train(photos, "scratch", out=tmp_path / "run", quiet=True, **settings)
    next((photos / "train" / "red").iterdir()).unlink()
    extended = {"resume": True, "quiet": True, "epochs": 2, "allow_change": ["epochs"]}
    with pytest.raises(UsageError, match=r"the images have changed .*photos: 1 removed\..*--accept-data-change"):
        rk.train(out=tmp_path / "run", **extended)
    rk.train(out=tmp_path / "run", accept_data_change=True, **extended)


def test_a_file_of_another_content_and_the_same_size_is_noticed_on_resume(photos: Path, tmp_path: Path) -> None:
    """Both ends count; times do not, so that a set may be copied."""
    draw("red", 0, (90, 80)).save(photos / "train" / "red" / "large.bmp")  # another size: files stay on disk
    settings = {"epochs": 1, "data": {"image_size": 16, "resize": 16}, **TINY}
    settings["model"] = {"name": "resnet20", **TINY["model"]}
    rk.train(photos, "scratch", out=tmp_path / "run", quiet=True, **settings)
    extended = {"resume": True, "quiet": True, "epochs": 2, "allow_change": ["epochs"]}
    file = photos / "train" / "red" / "large.bmp"
    for place in (60, -1):
        before = file.read_bytes()
        changed = bytearray(before)
        changed[place] ^= 1
        file.write_bytes(changed)
        with pytest.raises(UsageError, match=r"the images have changed .*photos: 1 changed\."):
            rk.train(out=tmp_path / "run", **extended)
        file.write_bytes(before)
    assert rk.train(out=tmp_path / "run", **extended).metrics["steps"]


def test_a_folder_is_learnt_and_bad_files_are_counted(photos: Path, tmp_path: Path, capfd) -> None:
    (photos / "train" / "red" / "broken.png").write_bytes(b"no image")
    classifier = rk.train(
        photos,
        "scratch",
        out=tmp_path / "run",
        epochs=12,
        data={"image_size": 16, "resize": 20, "batch_size": 8},
        model={"name": "resnet20", **TINY["model"]},
    )
    assert classifier.classes == ("blue", "green", "red")
    assert classifier.metrics["top1"] == 100
    assert classifier.metrics["split"] == "validation"
    assert classifier.metrics["validation"]["top1"] == 100
    assert classifier.metrics["unreadable"] == 1
    assert "broken.png: it is none of" in capfd.readouterr().err


def test_a_loss_that_explodes_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"no longer finite by step .*Try: --optim.lr"):
        rk.train("digits", out=tmp_path / "run", quiet=True, steps=40, optim={"lr": 1e18, "warmup": "0%"}, **TINY)


def test_the_global_random_state_is_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    rk.train("digits", out=tmp_path / "run", quiet=True, steps=3, **FANCY, **TINY)
    assert torch.equal(before, torch.get_rng_state())


def test_seeds_decide_everything(tmp_path: Path) -> None:
    def train(name: str, seed: int) -> torch.Tensor:
        return rk.train("digits", out=tmp_path / name, quiet=True, steps=3, seed=seed, **TINY).network.fc.weight

    assert torch.equal(train("a", 1), train("b", 1))
    assert not torch.equal(train("c", 2), train("d", 3))


@pytest.mark.slow
def test_digits_recipe_keeps_its_promise(tmp_path: Path) -> None:
    metrics = rk.train("digits", out=tmp_path / "run", quiet=True).metrics
    assert metrics["top1"] >= 98.0


@pytest.mark.slow
@pytest.mark.timeout(7200)  # tests run on one thread
@pytest.mark.skipif("RESNETKIT_TEST_DATA" not in os.environ, reason="needs Fashion-MNIST under RESNETKIT_TEST_DATA")
def test_fashion_mnist_recipe_beats_the_tutorials_figure(tmp_path: Path) -> None:
    root = os.environ["RESNETKIT_TEST_DATA"]
    metrics = rk.train("fashion-mnist", out=tmp_path / "run", quiet=True, data_root=root).metrics
    assert metrics["top1"] >= 92.6
    assert metrics["count"] == 10_000


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_resnet_1202_trains_within_six_gibibytes(tmp_path: Path) -> None:
    """The paper's deepest net, at the paper's batch of 128, in a process of its own."""
    code = (
        "import resource, resnetkit as rk\n"
        f"rk.train('digits', out={str(tmp_path / 'run')!r}, steps=1, recompute=True, data=dict(batch_size=128,"
        " image_size=32), model=dict(name='resnet1202', depths=(200,) * 3, widths=(16, 32, 64), stem_width=16))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = progress.run([sys.executable, "-c", code], work=3000)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 6 * 2**20


def test_class_weights_and_balanced_sampling_rescue_a_rare_class(tmp_path: Path) -> None:
    """One picture of red for twenty of the others, told apart by a faint tint: by default red is seldom answered."""
    weights = class_weights(Images(torch.empty(24, 1, 1, 1), torch.tensor([0] * 20 + [1] * 4)), 3)
    sklearn = compute_class_weight("balanced", classes=np.array([0, 1]), y=[0] * 20 + [1] * 4)
    assert weights.tolist() == pytest.approx([*sklearn, 0.0])

    for colour, count in {"blue": 60, "green": 60, "red": 3}.items():
        fill(tmp_path / "photos" / "train", count, (colour,))
    fill(tmp_path / "photos" / "val", 10, first=500)
    settings = {"recipe": "scratch", "quiet": True, "steps": 30, "data": {"batch_size": 16, "image_size": 16}}
    settings |= {"model": {"name": "resnet20", **TINY["model"]}, "optim": {"lr": 0.02}}

    def red_answered(name: str, **more) -> float:
        data = settings["data"] | more.pop("data", {})
        classifier = rk.train(tmp_path / "photos", out=tmp_path / name, **settings | more | {"data": data})
        split = load_data(str(tmp_path / "photos")).validation
        logits = classifier.logits(classifier.preprocess.normalise(classifier.preprocess.batch(split.pixels)))
        return float(logits.log_softmax(1)[split.labels == 2, 2].mean())

    plain = red_answered("plain")
    assert red_answered("weights", class_weights="balanced") > plain
    assert red_answered("sampling", data={"sampling": "balanced"}) > plain


def test_two_colours_of_fluorescence_are_learnt_and_the_third_is_named(tmp_path: Path, capfd) -> None:
    """Blue is 0 in every picture; red or green is 100 levels lighter."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("actin", "tubulin")):
        (tmp_path / "cells" / name).mkdir(parents=True)
        for k in range(16):
            pixels = rng.integers(0, 120, (20, 20, 3))
            pixels[..., number] += 100
            pixels[..., 2] = 0
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "cells" / name / f"{k:02d}.png")
    settings = {"recipe": "scratch", "epochs": 6, "model": TINY["model"] | {"name": "resnet20"}, "device": "cpu"}
    data = {"image_size": 20, "resize": None, "batch_size": 8}
    classifier = rk.train(tmp_path / "cells", out=tmp_path / "run", data=data, precision="fp32", **settings)
    assert classifier.metrics["top1"] == 100
    assert "the blue channel is 0 in every training image" in capfd.readouterr().err


def test_pictures_are_seen_at_the_size_that_the_weights_were_made_for(tmp_path: Path) -> None:
    """Networks for 32 pixels that are shown 224 answer by chance."""
    fill(tmp_path / "photos", 8)
    shipped = rk.load("resnet20.cifar10").preprocess
    settings = {"quiet": True, "model": {"name": "resnet20", "weights": "resnet20.cifar10"}}
    trained = rk.train(tmp_path / "photos", "head", out=tmp_path / "run", **settings)
    assert (trained.preprocess.size, trained.preprocess.resize) == (shipped.size, shipped.resize)
    assert shipped.size == 32
    larger = rk.train(tmp_path / "photos", "head", out=tmp_path / "larger", data={"image_size": 48}, **settings)
    assert larger.preprocess.size == 48
