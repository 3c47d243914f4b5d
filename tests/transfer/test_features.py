from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import resnetkit as rk
from conftest import trained_like
from pictures import draw, fill
from resnetkit.classifier import Classifier
from resnetkit.data.load import load_data
from resnetkit.data.splits import Files, Images
from resnetkit.errors import DataError
from resnetkit.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resnetkit.machine.device import choose
from resnetkit.transfer.features import Features, Views, extract, join
from resnetkit.transfer.probe import score_probe

CPU = choose("cpu", "fp32")
PREPROCESS = Preprocess(24, IMAGENET_MEAN, IMAGENET_STD, resize=28)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    fill(tmp_path / "p", 4)
    draw("red", 9, (90, 70)).save(tmp_path / "p" / "red" / "odd.png")
    split = load_data(str(tmp_path / "p"), whole=True).test
    assert isinstance(split, Files)
    return split


def get(net: nn.Module, split, store: Path, **options: object) -> Features:
    return extract(net, PREPROCESS, split, CPU, store=store, **options)


def test_features_are_those_of_the_network_and_the_network_is_left_as_it_is(files: Files, tmp_path: Path) -> None:
    net = trained_like().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = get(net, files, tmp_path / "store", views=Views(mirror=True))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    pixels = torch.stack([PREPROCESS.read(path) for path in files.paths])
    net.eval()
    with torch.inference_mode():
        for view, shown in enumerate((pixels, pixels.flip(3))):
            expected = net.avgpool(net.forward_features(PREPROCESS.normalise(shown))).flatten(1)
            torch.testing.assert_close(torch.from_numpy(found.values[:, view]), expected, rtol=1e-3, atol=1e-3)
    assert found.labels.tolist() == files.labels.tolist()
    assert found.computed == len(files)


def test_the_second_time_nothing_is_computed_and_all_is_equal(files: Files, tmp_path: Path) -> None:
    net = trained_like()
    views = Views(mirror=True, crops=2)
    first = get(net, files, tmp_path / "store", views=views)
    second = get(net, files, tmp_path / "store", views=views)
    assert (first.computed, second.computed) == (len(files), 0)
    assert np.array_equal(first.values, second.values)
    assert first.values.shape == (len(files), 4, 64)


def test_crops_depend_on_the_image_alone_whatever_runs_beside_it(files: Files, tmp_path: Path) -> None:
    net, views = trained_like(), Views(crops=3)
    alone = [get(net, files.take(np.array([i])), tmp_path / f"{i}", views=views).values[0] for i in range(len(files))]
    torch.set_num_threads(4)
    try:
        together = get(net, files, tmp_path / "store", views=views)
    finally:
        torch.set_num_threads(1)
    np.testing.assert_allclose(together.values, np.stack(alone), rtol=1e-3, atol=1e-3)
    assert not np.allclose(together.values[:, 1], together.values[:, 2], atol=1e-3)


@pytest.mark.parametrize("size", [(90, 70), (30, 300), (1, 1)])
def test_a_crop_is_a_part_of_the_image(size: tuple[int, int]) -> None:
    image = draw("red", 3, size)
    shown = Views(crops=5).of(image, PREPROCESS, "a" * 64)
    assert shown.shape == (6, 3, 24, 24)
    low, high = np.array(image).min((0, 1)), np.array(image).max((0, 1))
    for crop in shown[1:].numpy():
        assert (crop.min((1, 2)) >= low).all()
        assert (crop.max((1, 2)) <= high).all()


def test_what_computed_the_features_is_said_and_its_threads_are_given_back(files: Files, tmp_path: Path) -> None:
    net = trained_like()
    torch.set_num_threads(3)
    try:
        assert get(net, files, tmp_path / "store").by == "PyTorch in fp32"
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    assert get(net, files, tmp_path / "store").by == ""


def test_one_new_image_costs_one_image(files: Files, tmp_path: Path) -> None:
    net = trained_like()
    fewer = files.take(np.arange(len(files) - 1))
    get(net, fewer, tmp_path / "store")
    assert get(net, files, tmp_path / "store").computed == 1


def test_a_renamed_or_copied_image_is_known_by_its_content(files: Files, tmp_path: Path) -> None:
    net = trained_like()
    first = get(net, files, tmp_path / "store")
    files.paths[0].rename(tmp_path / "elsewhere.png")
    moved = Files((tmp_path / "elsewhere.png", *files.paths[1:]), files.labels, files.marks)
    second = get(net, moved, tmp_path / "store")
    assert second.computed == 0
    assert np.array_equal(first.values, second.values)


@pytest.mark.parametrize("change", ["weights", "preprocess", "views", "precision"])
def test_whatever_features_depend_on_has_a_store_of_its_own(change: str, files: Files, tmp_path: Path) -> None:
    net, preprocess, views, compute = trained_like(), PREPROCESS, Views(), CPU
    extract(net, preprocess, files, compute, views=views, store=tmp_path / "s")
    if change == "weights":
        with torch.no_grad():
            net.layer2[1].bn1.running_mean[3] += 1
    elif change == "preprocess":
        preprocess = Preprocess(24, IMAGENET_MEAN, IMAGENET_STD, resize=30)
    elif change == "views":
        views = Views(mirror=True)
    else:
        compute = choose("cpu", "bf16")
    found = extract(net, preprocess, files, compute, views=views, store=tmp_path / "s")
    assert found.computed == len(files)


def test_another_head_uses_the_same_store(files: Files, tmp_path: Path) -> None:
    net = trained_like()
    get(net, files, tmp_path / "store")
    net.fc.weight.data.zero_()
    assert get(net, files, tmp_path / "store").computed == 0


@pytest.mark.parametrize("harm", ["flip", "cut", "garbage"])
def test_a_damaged_store_is_computed_again_and_never_used(harm: str, files: Files, tmp_path: Path) -> None:
    net = trained_like()
    right = get(net, files, tmp_path / "store")
    (path,) = (tmp_path / "store").glob("*.bin")
    content = bytearray(path.read_bytes())
    if harm == "flip":
        for place in range(100, len(content), 600):
            content[place] ^= 16
    elif harm == "cut":
        del content[-50:]
    else:
        content = bytearray(b"rubbish" * 7)
    path.write_bytes(content)
    again, later = get(net, files, tmp_path / "store"), get(net, files, tmp_path / "store")
    assert (again.computed > 0, later.computed) == (True, 0)
    for found in (again, later):
        np.testing.assert_allclose(found.values, right.values, rtol=1e-4, atol=1e-4)


def test_a_store_that_cannot_be_written_costs_nothing_but_time(files: Files, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    assert get(trained_like(), files, tmp_path / "store").computed == len(files)


def test_images_in_memory_have_features_too(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=generator)
    split = Images(pixels, torch.arange(5))
    found = get(trained_like(), split, tmp_path / "store")
    assert found.values.shape == (5, 1, 64)
    assert get(trained_like(), split, tmp_path / "store").computed == 0


def test_a_file_that_vanishes_is_lost_and_the_others_are_not(files: Files, tmp_path: Path) -> None:
    whole = get(trained_like(), files, tmp_path / "store")
    files.paths[5].unlink()
    found = get(trained_like(), files, tmp_path / "store")
    assert found.lost == {str(files.paths[5]): "No such file or directory"}
    assert np.array_equal(found.values, np.delete(whole.values, 5, axis=0))
    assert found.labels.tolist() == np.delete(whole.labels, 5).tolist()


def test_unreadable_files_are_named_and_have_no_features(files: Files, tmp_path: Path) -> None:
    files.paths[2].write_bytes(b"")
    found = extract(trained_like(), PREPROCESS, files, CPU, store=tmp_path / "s")
    assert found.lost == {str(files.paths[2]): "the file is empty"}
    assert str(files.paths[2]) not in found.files
    assert len(found.labels) == len(found.files) == len(found.values) == len(files) - 1
    both = join([found, get(trained_like(), files.take(np.arange(2)), tmp_path / "s")])
    assert both.lost == found.lost
    both = join([found, found])
    assert both.values.shape[0] == 2 * len(found.labels)


def test_a_split_of_which_no_picture_can_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    split = Files((tmp_path / "x.png",), torch.zeros(1, dtype=torch.int64), np.zeros(1, dtype=np.int64))
    look, compute = Preprocess(16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), choose("cpu", "fp32")
    classifier = Classifier(rk.create_model("resnet20", num_classes=2), look, ("a", "b"), "resnet20", compute)
    with pytest.raises(DataError, match=r"no image of a whole batch can be read in .*x\.png"):
        score_probe(classifier, split)
