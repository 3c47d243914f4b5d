import gzip
import pickle
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision import datasets

import resnetkit as rk
from conftest import TINY
from pictures import draw
from resnetkit.classifier import Classifier
from resnetkit.data.load import load_data
from resnetkit.data.named import default_data_root
from resnetkit.data.splits import measure, stratified_split
from resnetkit.errors import DataError
from resnetkit.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resnetkit.machine.device import choose
from resnetkit.machine.storage import sha256
from resnetkit.recipes.load import load_recipe
from resnetkit.recipes.schema import DataRecipe


def test_digits_are_scikit_learns_split_without_overlap() -> None:
    data = load_data("digits")
    splits = [data.train, data.validation, data.test]
    assert [len(split) for split in splits] == [1295, 143, 359]
    together = torch.cat([split.pixels.flatten(1) for split in splits]).double() * 16 / 255
    theirs, _ = load_digits(return_X_y=True)
    assert sorted(map(tuple, together.round().int().tolist())) == sorted(map(tuple, theirs.astype(int).tolist()))
    for split in splits:
        shares = split.labels.bincount() / len(split)
        assert (shares - 0.1).abs().max() < 0.01


def test_digits_test_split_never_changes() -> None:
    test = load_data("digits").test
    assert sha256(test.pixels.numpy().tobytes() + test.labels.numpy().tobytes())[:16] == "102ca11a88a03cdd"


def test_stratified_split_keeps_and_gives_at_least_one() -> None:
    labels = torch.tensor([0] * 10 + [1] * 2 + [2])
    keep, out = stratified_split(labels, 0.2)
    assert sorted([*keep, *out]) == list(range(13))
    assert labels[torch.from_numpy(out)].bincount(minlength=3).tolist() == [2, 1, 0]


def test_measure_matches_numpy() -> None:
    train = load_data("digits").train
    values = train.pixels.double().numpy() / 255
    mean, std = measure(train.pixels)
    assert mean == (round(values.mean(), 4),)
    assert std == (round(values.std(), 4),)


def test_limit_trains_on_a_stratified_part() -> None:
    data = load_data("digits", DataRecipe(limit=100))
    assert abs(len(data.train) - 100) <= 5
    assert data.train.labels.bincount().min() >= 8
    assert len(data.test) == 359


def _idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def test_fashion_mnist_is_found_and_never_downloaded(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        pixels = rng.integers(0, 255, (count, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(_idx(pixels))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(_idx(np.arange(count) % 10))
    data = load_data("fashion-mnist", data_root=tmp_path)
    assert data.train.pixels.shape == (50, 1, 28, 28)
    assert (len(data.validation), len(data.test)) == (10, 20)
    assert data.test.pixels[-1, 0].tolist() == pixels[-1].tolist()
    assert data.classes[0] == "T-shirt/top"
    assert gzip  # torchvision would look for archives only when it downloads


OUTSIDE = {"digits": "digits come with scikit-learn", "photos": "it is for named sets"}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_data_root_for_what_does_not_lie_there_is_refused(name: str, photos: Path, tmp_path: Path, cli) -> None:
    data = photos if name == "photos" else name
    for command in (("train", data, "--out", tmp_path / "run"), ("evaluate", "resnet8.digits", data)):
        done = cli(*command, "--data-root", tmp_path)
        assert (done.code, f"--data-root would change nothing in {data}: {OUTSIDE[name]}" in done.err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_a_quick_study_takes_no_data_root(tmp_path: Path, cli) -> None:
    done = cli("study", "degradation", "--quick", "--data-root", tmp_path, "--out", tmp_path / "study")
    assert (done.code, "a quick study is of the digits" in done.err) == (2, True), done.err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(("name", "kind", "folder"), [("cifar10", "CIFAR10", 10), ("cifar100", "CIFAR100", 100)])
def test_cifar_is_read_from_torchvisions_layout(
    name: str, kind: str, folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real archives are 160 MB; the layout is theirs, with checksums of the small files put in.
    made = getattr(datasets, kind)
    root = tmp_path / made.base_folder
    root.mkdir()
    rng = np.random.default_rng(0)

    def write(file: str, content: dict) -> list[str]:
        import hashlib

        packed = pickle.dumps(content)
        (root / file).write_bytes(packed)
        return [file, hashlib.md5(packed).hexdigest()]

    label_key = "labels" if folder == 10 else "fine_labels"
    pixels = rng.integers(0, 255, (2 * folder, 3072), dtype=np.uint8)
    batch = {"data": pixels, label_key: [i % folder for i in range(2 * folder)]}
    monkeypatch.setattr(made, "train_list", [write(file, batch) for file, _ in made.train_list])
    monkeypatch.setattr(made, "test_list", [write(file, batch) for file, _ in made.test_list])
    names = [f"class {i}" for i in range(folder)]
    file, md5 = write(made.meta["filename"], {made.meta["key"]: names})
    monkeypatch.setattr(made, "meta", {**made.meta, "filename": file, "md5": md5})
    data = load_data(name, data_root=tmp_path)
    assert data.test.pixels.shape == (2 * folder, 3, 32, 32)
    assert data.test.pixels[3].flatten().tolist() == pixels[3].tolist()
    assert data.classes == tuple(names)


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "cifar100"])
def test_a_set_that_is_missing_says_where_to_put_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=rf"{name} is not complete in {tmp_path}.*Try: put .* into {tmp_path}, or leave"
    ):
        load_data(name, data_root=tmp_path)


@pytest.mark.parametrize(
    ("variables", "where"),
    [
        ({"RESNETKIT_DATA": "/d", "RESNETKIT_CACHE": "/c", "XDG_CACHE_HOME": "/x"}, "/d"),
        ({"RESNETKIT_CACHE": "/c", "XDG_CACHE_HOME": "/x"}, "/c/data"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/resnetkit/data"),
        ({"HOME": "/h"}, "/h/.cache/resnetkit/data"),
    ],
)
def test_named_sets_lie_where_the_environment_says(
    variables: dict[str, str], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RESNETKIT_DATA", "RESNETKIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_data_root() == Path(where)


def test_a_download_that_fails_says_how_to_supply_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNETKIT_DATA", str(tmp_path))
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DataError, match=r"fashion-mnist is not complete.*Try: put the four files"):
        load_data("fashion-mnist")


def test_imagenets_layout_is_trained_on_and_scored_by_synset(tmp_path: Path) -> None:
    """Three of its thousand folders; a head that always answers the second synset must be right on a third."""
    synsets = {"n01440764": "red", "n01443537": "green", "n01484850": "blue"}
    for split, count in (("train", 40), ("val", 4)):
        for synset, colour in synsets.items():
            folder = tmp_path / "imagenet" / split / synset
            folder.mkdir(parents=True)
            for number in range(count):
                draw(colour, number + (500 if split == "val" else 0)).save(folder / f"{synset}_{number}.JPEG")
    settings = {"data": {"image_size": 16, "resize": 18}, "quiet": True, "data_root": tmp_path, **TINY}
    settings["model"] = {"name": "resnet20", **TINY["model"]}
    trained = rk.train("imagenet", "imagenet-paper", out=tmp_path / "run", steps=2, **settings)
    assert trained.classes == tuple(synsets)
    assert (trained.metrics["split"], trained.metrics["count"]) == ("test", 12)
    modern = load_recipe("imagenet-modern")
    assert (modern.model.name, modern.data.name, modern.augment.cutmix) == ("resnet50", "imagenet", 1.0)

    network = rk.create_model("resnet20", num_classes=1000, **TINY["model"])
    torch.nn.init.zeros_(network.fc.weight)
    with torch.no_grad():
        network.fc.bias[1] += 100
    words = tuple(f"word {number}" for number in range(1000))
    classifier = Classifier(network, Preprocess(16, IMAGENET_MEAN, IMAGENET_STD), words, "resnet20", choose("cpu"))
    shutil.rmtree(tmp_path / "imagenet" / "train")  # many people have the validation images only
    figures = rk.evaluate(classifier, "imagenet", data_root=tmp_path)
    assert (figures["count"], figures["top1"]) == (12, pytest.approx(100 / 3, abs=1e-3))
    with pytest.raises(DataError, match=r"imagenet is not there .*unpack ILSVRC 2012"):
        load_data("imagenet", data_root=tmp_path / "nowhere")


def test_synsets_are_those_of_timm() -> None:
    theirs = resources.files("timm").joinpath("data", "_info", "imagenet_synsets.txt").read_text().split()
    assert (
        resources.files("resnetkit").joinpath("data", "imagenet_synsets.txt").read_text().split()
        == theirs
        == sorted(theirs)
    )


def test_a_channel_that_is_constant_gets_a_deviation_that_can_be_divided_by() -> None:
    """Blue of zeros, or of any other value; and one pixel of a million that is another is no reason for thousands."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (10, 3, 20, 20), dtype=torch.uint8, generator=generator)
    for value in (0, 7, 255):
        pixels[:, 2] = value
        mean, std = measure(pixels)
        assert std[2] == 1.0
        assert min(std) > 0.2
        seen = Preprocess(20, mean, std).normalise(pixels)
        assert seen[:, 2].abs().max() < 1e-3
        assert seen[:, :2].std() == pytest.approx(1, abs=0.01)
    pixels = torch.zeros(10, 3, 320, 320, dtype=torch.uint8)
    pixels[0, 2, 0, 0] = 254
    mean, std = measure(pixels)
    assert std[2] == 0.0039
    assert Preprocess(20, mean, std).normalise(pixels).abs().max() < 256
