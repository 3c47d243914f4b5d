from pathlib import Path

import numpy as np
import pytest
import torch

from pictures import draw, fill
from resnetkit.data.batches import evaluation_batches, training_batches
from resnetkit.data.load import load_data
from resnetkit.data.order import BalancedOrder, Order
from resnetkit.data.splits import Files, Images
from resnetkit.errors import DataError
from resnetkit.images.augment import Augment
from resnetkit.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from resnetkit.images.protocol import ViewProtocol
from resnetkit.machine.device import choose
from resnetkit.randomness import permutation
from resnetkit.recipes.schema import AugmentRecipe

CPU = choose("cpu", "fp32")
PREPROCESS = Preprocess(16, IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize(("count", "batch"), [(10, 3), (7, 7), (5, 8), (100, 33), (1, 4)])
def test_every_epoch_sees_every_sample_once(count: int, batch: int) -> None:
    order = Order(count, batch, seed=0)
    seen = [order.step(step) for step in range(3 * count)]
    epochs = np.concatenate([epochs for epochs, _ in seen])
    indices = np.concatenate([indices for _, indices in seen])
    for epoch in range(3):
        assert sorted(indices[epochs == epoch]) == list(range(count))
    ends = [step for step in range(1, 3 * count) if order.ends_epoch(step)]
    assert ends[:2] == [-(-count // order.batch_size), -(-2 * count // order.batch_size)]


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    one, other = Order(50, 7, seed=3), Order(50, 7, seed=3)
    for step in range(20):
        one.step(step)
    assert np.array_equal(one.step(13)[1], other.step(13)[1])


def _augment(**settings: object) -> Augment:
    return Augment(AugmentRecipe(**settings), PREPROCESS, num_classes=3, seed=0)


def _collect(split, start: int = 0, stop: int = 9, workers: int = 0, **settings: object) -> list[torch.Tensor]:
    order = Order(len(split), 4, seed=0)
    batches = training_batches(split, order, _augment(**settings), CPU, start=start, stop=stop, workers=workers)
    return [batch.images for batch in batches]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    fill(tmp_path, 4)
    draw("red", 9, (70, 66)).save(tmp_path / "red" / "odd.png")
    data = load_data(str(tmp_path), whole=True)
    assert isinstance(data.test, Files)
    return data.test


SETTINGS = {"random_resized_crop": True, "flip": True, "pad_crop": 1, "trivial_augment": True, "mixup": 0.2}


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_files_give_the_same_batches_for_any_number_of_workers_and_any_start(files: Files, workers: int) -> None:
    whole = _collect(files, **SETTINGS)
    resumed = _collect(files, start=5, workers=workers, **SETTINGS)
    assert len(resumed) == 4
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], resumed, strict=True))


def test_memory_gives_the_same_batches_from_any_start() -> None:
    generator = torch.Generator().manual_seed(0)
    split = Images(torch.randint(0, 256, (13, 3, 20, 18), dtype=torch.uint8, generator=generator), torch.arange(13) % 3)
    whole = _collect(split, **SETTINGS)
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], _collect(split, start=5, **SETTINGS), strict=True))


def test_a_file_that_vanishes_is_named_and_left_out(files: Files) -> None:
    files.paths[3].unlink()
    order = Order(len(files), 4, seed=0)
    batches = list(training_batches(files, order, _augment(), CPU, start=0, stop=4, workers=0))
    lengths = [(len(batch.images), len(batch.labels), len(batch.targets)) for batch in batches]
    assert sum(length for length, _, _ in lengths) == 15
    assert all(a == b == c for a, b, c in lengths)
    unreadable = {file: why for batch in batches for file, why in batch.lost.items()}
    assert unreadable == {str(files.paths[3]): "no such file"}


@pytest.mark.parametrize("workers", [0, 1])
def test_training_ends_where_nothing_of_a_batch_is_left(workers: int, files: Files) -> None:
    order = Order(len(files), 4, seed=0)
    for number in order.step(1)[1]:
        files.paths[number].unlink()
    batches = training_batches(files, order, _augment(), CPU, start=0, stop=2, workers=workers)
    assert len(next(batches).images) == 4
    with pytest.raises(DataError, match="no image of a whole batch can be read") as caught:
        next(batches)
    assert caught.value.file == str(files.paths[order.step(1)[1][0]])


PROTOCOLS = [ViewProtocol(), ViewProtocol(crops=10), ViewProtocol(scales=(12, 24), flip=True)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_what_is_lost_in_evaluation_is_named_by_its_batch(
    batch_size: int, protocol: ViewProtocol, files: Files
) -> None:
    """Also where nothing of the batch is left; the others come in their order."""
    for number in (2, 3, 9):
        files.paths[number].unlink()
    preprocess = Preprocess(16, IMAGENET_MEAN, IMAGENET_STD, resize=20)
    batches = list(evaluation_batches(files, preprocess, CPU, batch_size=batch_size, protocol=protocol))
    assert len(batches) == -(-len(files) // batch_size)
    for number, batch in enumerate(batches):
        mine = range(number * batch_size, min((number + 1) * batch_size, len(files)))
        assert batch.lost == {str(files.paths[i]): "no such file" for i in mine if i in (2, 3, 9)}
        assert batch.labels.tolist() == [int(files.labels[i]) for i in mine if i not in (2, 3, 9)]
        assert batch.images.shape == (len(batch.labels) if protocol.plain else 0, 3, 16, 16)
        assert len(batch.views) == (0 if protocol.plain else len(batch.labels))
        for label, views in zip(batch.labels, batch.views, strict=not protocol.plain):
            index = next(i for i in mine if i not in (2, 3, 9) and int(files.labels[i]) == int(label))
            assert [view.shape[0] for view in views] == [10] if protocol.crops == 10 else [2, 2]
            mine = range(index + 1, mine.stop)
            for one, other in zip(views, protocol.views(files.image(index, 3), preprocess), strict=True):
                assert torch.equal(one, other)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_sees_every_image_once_in_order(files: Files, batch_size: int) -> None:
    batches = list(evaluation_batches(files, PREPROCESS, CPU, batch_size=batch_size))
    assert torch.cat([batch.labels for batch in batches]).tolist() == files.labels.tolist()
    seen = torch.cat([batch.images for batch in batches])
    expected = PREPROCESS.normalise(torch.stack([PREPROCESS.read(path) for path in files.paths]))
    assert torch.equal(seen, expected)


def test_balanced_sampling_brings_every_class_equally_often_and_every_image_in_turn() -> None:
    labels = np.repeat([0, 1, 2], [60, 24, 6])
    order = BalancedOrder(labels, 15, seed=0)
    seen = [order.step(step) for step in range(12)]  # two epochs of 90
    counts = np.bincount(labels[np.concatenate([indices for _, indices in seen])])
    assert counts.tolist() == [60, 60, 60]
    rare = [
        (r, i) for rounds, indices in seen for r, i in zip(rounds.tolist(), indices.tolist(), strict=True) if i >= 84
    ]
    assert sorted(rare) == [(turn, image) for turn in range(10) for image in range(84, 90)]
    again = BalancedOrder(labels, 15, seed=0).step(7)
    assert all(np.array_equal(one, other) for one, other in zip(again, seen[7], strict=True))
    assert not np.array_equal(BalancedOrder(labels, 15, seed=1).step(7)[1], seen[7][1])


def test_a_balanced_order_is_every_classs_endless_row_written_out() -> None:
    """Element for element, over borders of epochs and rounds, for classes of unlike sizes and labels with gaps."""
    labels = np.array([5, 0, 0, 9, 5, 0, 0, 5, 0, 0, 0])
    for seed in range(3):
        expected = []
        for epoch in range(6):
            drawn = []
            for number, (label, each) in enumerate({0: 4, 5: 4, 9: 3}.items()):
                members = np.flatnonzero(labels == label)
                orders = (permutation(seed, turn, len(members), "balanced", number) for turn in range(24))
                row = [(turn, members[place]) for turn, order in enumerate(orders) for place in order]
                drawn += row[epoch * each : (epoch + 1) * each]
            expected += [drawn[place] for place in permutation(seed, epoch, len(labels))]
        order = BalancedOrder(labels, 4, seed)
        steps = [pair for step in range(16) for pair in zip(*order.step(step), strict=True)]
        assert steps == expected[:64]
