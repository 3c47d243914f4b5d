import gc
import json
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset

import progress
import resnetkit as rk
from conftest import TINY
from pictures import draw, fill, png, samples, write_tar
from resnetkit.data.batches import evaluation_batches, training_batches
from resnetkit.data.load import load_data
from resnetkit.data.order import STRETCH, BlockOrder, Order, order_of
from resnetkit.data.shards.index import TarIndex
from resnetkit.data.shards.read import Shards, expand, names_shards, open_shards
from resnetkit.data.shards.write import shard
from resnetkit.errors import DataError, UsageError
from resnetkit.images.augment import Augment
from resnetkit.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resnetkit.machine.device import choose
from resnetkit.machine.ranks import ALONE, Ranks
from resnetkit.recipes.schema import AugmentRecipe, DataRecipe

CPU = choose("cpu", "fp32")
PREPROCESS = Preprocess(16, IMAGENET_MEAN, IMAGENET_STD)
SETTINGS = {"random_resized_crop": True, "flip": True, "pad_crop": 1, "trivial_augment": True, "mixup": 0.2}


def fake(*counts: int, top: int = 1) -> Shards:
    """Shards of which only the sizes matter."""
    files = [TarIndex(Path(f"{number}.tar"), Path(), 0, 0, count, top, 0) for number, count in enumerate(counts)]
    return Shards(tuple(files))


@pytest.fixture
def shards(photos: Path, tmp_path: Path) -> Path:
    """Train and validation shards of 24 and 9 pictures."""
    shard(photos, tmp_path / "shards", megabytes=0.03)
    return tmp_path / "shards"


@pytest.fixture
def train(shards: Path) -> Shards:
    split = open_shards(str(shards)).splits["train"]
    assert len(split.files) > 3
    return split


# Which shards


def test_a_pattern_names_files_as_bash_does(tmp_path: Path) -> None:
    for name in ("train-008.tar", "train-009.tar", "train-010.tar", "val-0.tar", "test.tar"):
        (tmp_path / name).touch()
    for pattern in ("train-{008..010}.tar", "{train-009,val-0}.tar", "train-0{08..10}.{tar,tar}"):
        words = subprocess.run(["bash", "-c", f"echo {pattern}"], capture_output=True, text=True, check=True).stdout
        assert [path.name for path in expand(f"{tmp_path}/{pattern}")] == sorted(set(words.split()))
    assert [path.name for path in expand(f"{tmp_path}/train-*.tar")] == sorted(
        path.name for path in tmp_path.glob("train-*.tar")
    )
    assert [path.name for path in expand(f"{tmp_path}/{{train,val}}-*9.tar")] == ["train-009.tar"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("train-{000..005}.tar", r"3 of 6 shards are missing.*there is no train-003.tar, train-004.tar, train-005.tar"),
        ("none-*.tar", "no shard has such a name"),
        ("none.tar", "1 of 1 shards is missing"),
        ("train-{0..99999999}.tar", "the pattern names 100,000,000 shards"),
        ("{0..9999}{0..9999}.tar", "the pattern names 100,000,000 shards"),
    ],
)
def test_a_pattern_that_misses_is_one_line(pattern: str, message: str, tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / f"train-{number:03d}.tar", samples(4))
    with pytest.raises(DataError, match=message):
        load_data(f"{tmp_path}/{pattern}")


def test_what_means_shards(tmp_path: Path, photos: Path) -> None:
    write_tar(tmp_path / "set" / "a.tar", samples(2))
    write_tar(photos / "photos.tar", samples(2))
    assert all(map(names_shards, (f"{tmp_path}/set", "s/{0..3}.tar", "s/*.tar", "a.tar.gz", "a.tgz")))
    assert not any(map(names_shards, (str(photos), "digits", "photos.targets", str(tmp_path))))


def test_splits_go_by_name(tmp_path: Path) -> None:
    for name in ("set-train-0.tar", "set-train-1.tar", "set-val-0.tar", "set-test-0.tar"):
        write_tar(tmp_path / name, samples(6))
    data = load_data(str(tmp_path))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [12, 6, 6]
    assert load_data(f"{tmp_path}/set-val-*.tar", whole=True).held_out()[0] == "validation"
    name, split = load_data(f"{tmp_path}/set-train-*.tar", whole=True).held_out()
    assert (name, len(split)) == ("test", 12)
    write_tar(tmp_path / "extra.tar", samples(6))
    with pytest.raises(DataError, match=r"it is not said which split a shard belongs to in .*extra\.tar"):
        load_data(str(tmp_path))


# Classes


def test_class_names_come_from_the_description_else_from_a_list_else_are_numbers(shards: Path) -> None:
    assert load_data(str(shards)).classes == ("blue", "green", "red")
    (shards / "dataset.json").rename(shards / "other.json")
    (shards / ".shard.jsonl").unlink()
    assert load_data(str(shards)).classes == ("0", "1", "2")
    (shards / "classes.txt").write_text("blau\ngrün\n\nrot\n", encoding="utf-8")
    assert load_data(str(shards)).classes == ("blau", "grün", "rot")
    (shards / "classes.txt").write_text("blau\ngrün\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"the shard has the label 2 in .*\.tar: .*classes.txt names 2 classes, 0 to 1"):
        load_data(str(shards))


def test_folders_with_other_classes_are_not_mixed(tmp_path: Path) -> None:
    for part, names in (("a", "cat\ndog\nowl"), ("b", "dog\ncat\nowl")):
        write_tar(tmp_path / part / "train-0.tar", samples(4))
        (tmp_path / part / "classes.txt").write_text(names)
    with pytest.raises(DataError, match="the shards have different classes"):
        load_data(f"{tmp_path}/{{a,b}}/train-0.tar")


def test_a_class_that_a_split_lacks_is_refused_as_for_folders(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", samples(6))
    write_tar(tmp_path / "val-0.tar", samples(6, classes=2))
    with pytest.raises(DataError, match=r"the validation split has no image of 2.*--data.allow-missing"):
        load_data(str(tmp_path))
    assert len(load_data(str(tmp_path), DataRecipe(allow_missing=True)).validation) == 6
    write_tar(tmp_path / "one" / "train-0.tar", samples(6, classes=1))
    with pytest.raises(DataError, match="there is one class only"):
        load_data(str(tmp_path / "one"))


@pytest.mark.parametrize("change", ["gone", "other", "unknown"])
def test_shards_that_are_not_those_of_the_description_are_refused(change: str, shards: Path) -> None:
    first = shards / "train-000000.tar"
    if change == "gone":
        first.unlink()
    elif change == "other":
        write_tar(first, samples(3))
    else:
        write_tar(shards / "train-999999.tar", samples(3))
    message = "1 of .* shards is missing" if change == "gone" else "not one of those in dataset.json in .*train-"
    with pytest.raises(DataError, match=message):
        load_data(str(shards))


@pytest.mark.parametrize("text", ["{", '{"format": "resnetkit shards 1", "classes": ["a"]}'])
def test_a_broken_description_is_one_line(text: str, shards: Path) -> None:
    (shards / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=r"description.*dataset\.json"):
        load_data(str(shards))


# What is held out


def test_what_is_held_out_and_what_is_kept_are_the_whole(tmp_path: Path) -> None:
    split = fake(103, 7, 250, 10)
    kept, held = split.hold_out(0.1, seed=0)
    files, rows = zip(*(part._locate(np.arange(len(part))) for part in (kept, held)), strict=True)
    places = [sorted(zip(f.tolist(), r.tolist(), strict=True)) for f, r in zip(files, rows, strict=True)]
    everything = [(file, row) for file, index in enumerate(split.files) for row in range(index.count)]
    assert sorted(places[0] + places[1]) == everything
    assert len(held) == 10 + 0 + 25 + 1
    # Random within its group of ten, not every tenth: a set that repeats its classes would lose one of them.
    assert len({row % 10 for _, row in places[1]}) > 5


@pytest.mark.parametrize("classes", ["sorted", "repeating"])
def test_every_class_is_held_out_in_its_share_however_shards_are_ordered(classes: str, tmp_path: Path) -> None:
    count = 1000
    labels = np.arange(count) * 10 // count if classes == "sorted" else np.arange(count) % 10
    pairs = [((f"{i}.png", b"x"), (f"{i}.cls", b"%d" % label)) for i, label in enumerate(labels)]
    write_tar(tmp_path / "train-0.tar", [member for pair in pairs for member in pair])
    data = load_data(str(tmp_path), DataRecipe(validation=0.1))
    assert (len(data.train), len(data.validation)) == (900, 100)
    held = data.validation.labels_at(np.arange(100)).bincount(minlength=10)
    assert held.min() >= 3
    assert torch.equal(held + data.train.labels_at(np.arange(900)).bincount(minlength=10), torch.full((10,), 100))
    if classes == "sorted":
        assert held.tolist() == [10] * 10


def test_too_few_to_hold_out_is_one_line(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", samples(6))
    with pytest.raises(DataError, match=r"nothing can be held out.*no shard has 10 images.*val-\*\.tar"):
        load_data(str(tmp_path))


def test_limit_draws_so_many_from_everywhere() -> None:
    split = fake(103, 7, 250, 10).limited(37)
    files, rows = split._locate(np.arange(len(split)))
    assert len(split) == 37 == len(set(zip(files.tolist(), rows.tolist(), strict=True)))
    assert np.abs(np.bincount(files, minlength=4) - np.array([103, 7, 250, 10]) / 10).max() <= 1
    assert split.bounds[-1] == 37


def test_limit_of_a_recipe_trains_on_so_many(shards: Path) -> None:
    data = load_data(str(shards), DataRecipe(limit=10))
    assert (len(data.train), len(data.validation)) == (10, 9)
    assert "trains on 10 images only, as data.limit says" in data.notes
    assert len(order_of(data.train, 4, seed=0).step(2)[1]) == 4


# Order


@pytest.mark.parametrize("counts", [(7,), (5, 3, 9), (3 * STRETCH + 5, 2, STRETCH, 30_000)])
def test_every_epoch_sees_every_sample_once(counts: tuple[int, ...]) -> None:
    split = fake(*counts)
    order = order_of(split, 1000, seed=0)
    assert isinstance(order, BlockOrder)
    steps = [order.step(step) for step in range(-(-2 * len(split) // order.batch_size))]
    epochs, indices = (np.concatenate(part) for part in zip(*steps, strict=True))
    for epoch in range(2):
        assert np.array_equal(np.sort(indices[epochs == epoch]), np.arange(len(split)))
    if len(split) > 10:
        assert not np.array_equal(indices[epochs == 0], indices[epochs == 1][: len(split)])


def test_a_step_of_shards_does_not_depend_on_the_steps_before() -> None:
    split = fake(*[20_000] * 12)
    one, other = (order_of(split, 4096, seed=3) for _ in range(2))
    for step in range(70):
        one.step(step)
    for step in (0, 69, 17, 33):
        assert np.array_equal(one.step(step)[1], other.step(step)[1])


def test_a_batch_is_drawn_from_few_shards_and_an_epoch_from_all() -> None:
    split = fake(*[STRETCH] * 100)
    order = order_of(split, 256, seed=0)
    files = [split._locate(order.step(step)[1])[0] for step in range(200)]
    assert max(len(np.unique(each)) for each in files) <= 16
    assert min(len(np.unique(each)) for each in files) >= 7
    assert len(np.unique(np.concatenate(files))) == 8  # 200 steps of 256 are less than one block of 8 x 8192


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_the_parts_of_the_ranks_join_to_the_whole(ranks: int) -> None:
    for made in (partial(Order, 50, 16, 0), partial(order_of, fake(30, 20), 16, 0)):
        order = made()
        for step in (0, 2, 3):
            parts = [made(Ranks(rank, ranks)).mine(step) for rank in range(ranks)]
            for whole, joined in zip(order.step(step), map(np.concatenate, zip(*parts, strict=True)), strict=True):
                assert np.array_equal(whole, joined)
            sizes = [len(epochs) for epochs, _ in parts]
            assert max(sizes) - min(sizes) <= 1


def test_the_order_of_a_hundred_million_needs_little_memory() -> None:
    split = fake(*[100_000] * 1000)
    order = order_of(split, 256, seed=0)
    order.step(150_000)
    kept = order._begins.nbytes + order._lengths.nbytes + sum(part.nbytes for part in order._stretches(0))
    assert len(split) == 100_000_000
    assert kept + order._block(0, 0).nbytes < 2_000_000
    assert len(pickle.dumps(fake(10))) + 200 > len(pickle.dumps(fake(10_000_000)))


# Batches


def _collect(
    split: Shards,
    start: int = 0,
    stop: int = 14,
    workers: int = 0,
    settings: dict = SETTINGS,
    ranks: Ranks = ALONE,
) -> list[torch.Tensor]:
    batches = training_batches(
        split,
        order_of(split, 4, 0, ranks),
        Augment(AugmentRecipe(**settings), PREPROCESS, num_classes=3, seed=0),
        CPU,
        start=start,
        stop=stop,
        workers=workers,
    )
    found = [(batch.images, batch.targets, batch.lost) for batch in batches]
    assert not any(unreadable for _, _, unreadable in found)
    return [tensor for images, targets, _ in found for tensor in (images, targets)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_shards_give_the_same_batches_for_any_number_of_workers_and_any_start(train: Shards, workers: int) -> None:
    whole = _collect(train)
    resumed = _collect(train, start=5, workers=workers)
    assert len(resumed) == 18
    assert all(torch.equal(a, b) for a, b in zip(whole[10:], resumed, strict=True))


def test_the_batches_of_two_ranks_join_to_those_of_one(train: Shards) -> None:
    alone = SETTINGS | {"mixup": 0.0}  # mixing joins images of one batch, whichever it is
    whole, first, second = (_collect(train, settings=alone, ranks=Ranks(r, n)) for r, n in ((0, 1), (0, 2), (1, 2)))
    for together, one, other in zip(whole, first, second, strict=True):
        assert torch.equal(together, torch.cat([one, other]))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_evaluation_sees_every_image_once_in_order(train: Shards, batch_size: int, workers: int) -> None:
    batches = list(evaluation_batches(train, PREPROCESS, CPU, batch_size=batch_size, workers=workers))
    assert torch.equal(torch.cat([batch.labels for batch in batches]), train.labels_at(np.arange(24)))
    expected = PREPROCESS.normalise(torch.stack([PREPROCESS.pixels(train.image(i, 3)) for i in range(24)]))
    assert torch.equal(torch.cat([batch.images for batch in batches]), expected)


def test_damaged_members_are_named_and_left_out(tmp_path: Path) -> None:
    members = samples(8, classes=2)
    members[6] = ("0003.png", png(3)[:100])
    members[10] = ("0005.png", b"<html>")
    members.append(("0009.cls", b"1"))
    path = write_tar(tmp_path / "val-0.tar", members)
    split = load_data(str(tmp_path), whole=True).validation
    batches = list(evaluation_batches(split, PREPROCESS, CPU, batch_size=3, workers=0))
    unreadable = {file: why for batch in batches for file, why in batch.lost.items()}
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0, 1, 0, 0, 0, 1]
    reasons = {name.removeprefix(f"{path}:"): why for name, why in unreadable.items()}
    assert reasons.pop("0003.png").startswith("it is damaged")
    assert reasons == {"0005.png": "it is not an image (it looks like HTML)", "0009.cls": "its sample has no picture"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_shards_that_webdataset_wrote_are_read(tmp_path: Path) -> None:
    with webdataset.ShardWriter(str(tmp_path / "train-%03d.tar"), maxcount=5, verbose=0) as writer:
        for i in range(13):
            label = {"cls": i % 3} if i % 2 else {"json": {"label": i % 3, "name": "x"}}
            writer.write({"__key__": f"some/where/{i:03d}", "png": png(i), **label})
    found = open_shards(f"{tmp_path}/train-{{000..002}}.tar")
    split = found.splits["train"]
    assert split.labels_at(np.arange(13)).tolist() == [i % 3 for i in range(13)]
    assert found.counts["train"].tolist() == [5, 4, 4]
    urls = sorted(str(path) for path in tmp_path.glob("*.tar"))
    theirs = [sample["png"] for sample in webdataset.WebDataset(urls, shardshuffle=False)]
    assert [split.files[f].read(r) for f, r in zip(*split._locate(np.arange(13)), strict=True)] == theirs
    gc.collect()


# The whole way


def test_training_on_shards_is_resumed_to_the_bit(shards: Path, tmp_path: Path) -> None:
    settings = {**TINY, "recipe": "scratch", "quiet": True, "data": {"batch_size": 8, "image_size": 16, "resize": 18}}
    settings["optim"] = {"schedule": "constant", "warmup": "0%"}
    settings["model"] = {**TINY["model"], "name": "resnet20"}
    rk.train(str(shards), out=tmp_path / "whole", epochs=4, **settings)
    rk.train(str(shards), out=tmp_path / "parts", epochs=2, **settings)
    resumed = rk.train(out=tmp_path / "parts", resume=True, allow_change=["epochs"], epochs=4, quiet=True)
    whole = rk.load(tmp_path / "whole")
    other = resumed.network.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in whole.network.state_dict().items())
    assert whole.classes == ("blue", "green", "red")
    report = rk.evaluate(whole, f"{shards}/val-*.tar")
    assert (report["count"], report["split"]) == (9, "validation")
    folder = rk.evaluate(whole, shards.parent / "photos" / "val")
    assert report["top1"] == folder["top1"]
    assert report["loss"] == pytest.approx(folder["loss"], rel=1e-3)
    # Shards that know two of the three classes number them otherwise.
    fill(tmp_path / "two" / "val", 4, ("green", "red"))
    shard(tmp_path / "two", tmp_path / "two shards")
    folder, report = (rk.evaluate(whole, tmp_path / name) for name in ("two", "two shards"))
    assert report["loss"] == pytest.approx(folder["loss"], rel=1e-3)


def test_other_shards_are_noticed_when_a_run_goes_on(shards: Path, photos: Path, tmp_path: Path) -> None:
    settings = {**TINY, "recipe": "scratch", "quiet": True, "data": {"image_size": 16, "resize": 18}}
    settings["model"] = {**TINY["model"], "name": "resnet20"}
    rk.train(str(shards), out=tmp_path / "run", epochs=1, **settings)
    for path in [*shards.iterdir()]:
        path.unlink()
    shard(photos, shards, megabytes=0.03, seed=5)
    with pytest.raises(UsageError, match=r"the images have changed since the run began .*changed"):
        rk.train(out=tmp_path / "run", resume=True, allow_change=["epochs"], epochs=2, quiet=True)


def test_classes_are_matched_by_name_when_a_model_is_scored(shards: Path, digits_run: Path, tmp_path: Path) -> None:
    split = open_shards(str(shards)).splits["validation"]
    rows = np.arange(9)
    expected = torch.tensor([5, 1, 0])[split.labels_at(rows)]
    assert torch.equal(split.relabelled([5, 1, 0]).labels_at(rows), expected)
    with pytest.raises(DataError, match="the classifier does not know blue, green, red"):
        rk.evaluate(rk.load(digits_run), f"{shards}/val-*.tar")


def test_a_head_on_shards_is_refused_with_a_way_out(shards: Path, tmp_path: Path) -> None:
    settings = {"recipe": "head", "quiet": True, "model": {"weights": "none"}, "data": {"image_size": 32}}
    with pytest.raises(UsageError, match=r"a head is not solved on shards.*--transfer.mode none"):
        rk.train(str(shards), out=tmp_path / "run", **settings)


def test_the_commands_take_a_pattern(shards: Path, tmp_path: Path, cli) -> None:
    flags = ["--epochs", 1, "--data.image-size", 16, "--data.resize", 18, "--model", "resnet20"]
    done = cli("train", f"{shards}/{{train,val}}-*.tar", *flags, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "24 images in" in done.err
    scored = cli("evaluate", tmp_path / "run", f"{shards}/val-*.tar", "--json")
    assert json.loads(scored.out)["count"] == 9
    missing = cli("train", f"{shards}/train-{{000000..000099}}.tar", "--out", tmp_path / "other")
    assert missing.code == 3
    assert missing.err.count("\n") == 1


FEW = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import torch
from resnetkit.images.augment import Augment
from resnetkit.machine.device import choose
from resnetkit.data.order import order_of
from resnetkit.data.batches import training_batches
from resnetkit.images.preprocess import Preprocess
from resnetkit.recipes.schema import AugmentRecipe
from resnetkit.data.shards.read import open_shards
split = open_shards(sys.argv[1]).splits["train"]
augment = Augment(AugmentRecipe(), Preprocess(16, (0.5,) * 3, (0.5,) * 3), num_classes=3, seed=0)
batches = training_batches(split, order_of(split, 64, 0), augment, choose("cpu", "fp32"), start=0, stop=12, workers=2)
found = [(len(batch.labels), len(batch.lost)) for batch in batches]
print(len(split.files), *map(sum, zip(*found)))
"""


def test_loaders_work_where_few_files_may_be_open(tmp_path: Path) -> None:
    contents = samples(4)
    for number in range(100):
        write_tar(tmp_path / f"train-{number}.tar", contents)
    done = progress.run([sys.executable, "-c", FEW, tmp_path])
    assert done.stdout.split() == ["100", "768", "0"], done.stderr


def test_a_folder_of_pictures_beside_its_archive_stays_a_folder(tmp_path: Path) -> None:
    fill(tmp_path / "photos", 4)
    write_tar(tmp_path / "photos" / "photos.tar", samples(2))
    draw("red", 7, (70, 66)).save(tmp_path / "photos" / "red" / "odd.png")
    assert load_data(str(tmp_path / "photos"), whole=True).classes == ("blue", "green", "red")
