"""Many pictures at once: order, bits, threads and memory."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import resnetkit as rk
from conftest import untrained
from pictures import draw, fill
from resnetkit.data.load import load_data
from resnetkit.evaluation.answers import answer
from resnetkit.images.protocol import ViewProtocol
from resnetkit.prediction.answer import Prediction
from resnetkit.prediction.inputs import Input, iter_inputs
from resnetkit.prediction.predict import predict_inputs


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """As many as PyTorch computes with."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def classifier() -> rk.Classifier:
    return untrained()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """150 pictures, three pieces of work and more; some are none, and one is gone."""
    found = sorted(fill(tmp_path / "many", 50).rglob("*.png"))
    for number in (0, 63, 64, 149):
        found[number].write_bytes(b"no picture")
    found[90].unlink()
    return found


def said(rows: list[Prediction]) -> list[tuple[Prediction, bytes | None]]:
    """All of an answer, bits and all."""
    return [(row, None if row.probabilities is None else row.probabilities.tobytes()) for row in rows]


def running() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("predict")}


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_rows_are_those_of_each_picture_alone(
    classifier: rk.Classifier, files: list[Path], threads: int, batch_size: int
) -> None:
    asked = [0, 1, 62, 63, 64, 65, 89, 90, 91, 148, 149]
    alone = [rk.predict(classifier, files[number])[0] for number in asked]
    rows = rk.predict(classifier, files, batch_size=batch_size)
    assert [row.file for row in rows] == [str(file) for file in files]
    assert said([rows[number] for number in asked]) == said(alone)
    assert sum(row.error is not None for row in rows) == 5
    assert torch.get_num_threads() == threads


def test_answers_hold_every_calibrated_probability(classifier: rk.Classifier, files: list[Path]) -> None:
    row = rk.predict(classifier, files[1], top=3)[0]
    assert row.probabilities is not None
    assert row.probabilities.dtype == np.float32
    best = np.argsort(-row.probabilities)[:3]
    assert row.top == tuple((classifier.classes[each], row.probabilities[each].item()) for each in best)
    assert (row.label, row.probability) == row.top[0]
    assert row.probabilities.sum() == pytest.approx(1)
    classifier = untrained()
    classifier.temperature = 2.0
    cooled = rk.predict(classifier, files[1])[0].probabilities
    assert cooled == pytest.approx(np.sqrt(row.probabilities) / np.sqrt(row.probabilities).sum(), abs=1e-6)


def test_a_file_a_pil_image_an_array_and_a_tensor_have_one_answer(classifier: rk.Classifier, tmp_path: Path) -> None:
    image = draw("green", 3)
    image.save(tmp_path / "a.png")
    array = np.asarray(image)
    with Image.open(tmp_path / "a.png") as opened:
        given = [tmp_path / "a.png", image, opened, array, torch.from_numpy(array.copy()).permute(2, 0, 1)]
        rows = rk.predict(classifier, given)
    batch = rk.predict(classifier, np.stack([array, array]))
    assert (
        len({(row.top, row.probabilities.tobytes()) for row in [*rows, *batch] if row.probabilities is not None}) == 1
    )
    assert [row.file for row in batch] == ["0", "1"]


def test_one_pil_image_many_times_is_decoded_by_one_thread_at_a_time(
    classifier: rk.Classifier, tmp_path: Path, threads: int
) -> None:
    draw("red", 1, (900, 900)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        rows = rk.predict(classifier, [opened] * 200)
    assert [row.error for row in rows] == [None] * 200
    assert len({row.top for row in rows}) == 1


def test_evaluation_says_the_same_of_a_picture_to_the_bit(files: list[Path], tmp_path: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)
    fill(tmp_path / "photos" / "test", 9)
    classifier = untrained(classes=3)
    classifier.classes = ("blue", "green", "red")
    split = load_data(tmp_path / "photos" / "test").test
    answers = answer(classifier, split)
    rows = rk.predict(classifier, [Path(name) for name in answers.files])
    logits = torch.from_numpy(answers.logits)
    expected = classifier.calibrated(logits).numpy()
    assert [row.probabilities.tobytes() for row in rows if row.probabilities is not None] == [
        each.tobytes() for each in expected
    ]


def test_folding_batchnorm_changes_an_answer_by_rounding_alone(classifier: rk.Classifier) -> None:
    images = torch.randn(8, 3, 8, 8)
    plain, folded = classifier.logits(images), classifier.folded().logits(images)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in classifier.folded().network.modules())
    assert (plain - folded).abs().max() <= 1e-5 * plain.abs().max()


def test_a_network_that_was_changed_by_hand_is_asked_itself(files: list[Path]) -> None:
    classifier = untrained()
    seen: list[int] = []
    classifier.network.layer1.register_forward_hook(lambda _module, _given, out: seen.append(len(out)))
    assert classifier.folded() is classifier
    rk.predict(classifier, files[1])
    assert seen == [classifier.chunk]


def test_an_endless_iterator_is_asked_a_bounded_number_ahead(classifier: rk.Classifier, threads: int) -> None:
    asked = 0

    def pictures() -> Iterator[Image.Image]:
        nonlocal asked
        while True:
            asked += 1
            assert threading.current_thread() is threading.main_thread()
            yield draw("red", asked)

    rows = classifier.iter_predict(pictures(), batch_size=1)
    assert asked == 0
    for given in range(1, 3 * classifier.chunk):
        next(rows)
        assert asked <= given + (2 * threads + 1) * classifier.chunk
    rows.close()
    assert not running()


def test_whoever_stops_early_leaves_no_thread(classifier: rk.Classifier, files: list[Path], threads: int) -> None:
    rows = rk.iter_predict(classifier, files)
    assert [row.file for row in islice(rows, 3)] == [str(file) for file in files[:3]]
    assert running()
    del rows
    assert not running()


def test_an_error_of_the_callers_own_iterator_reaches_the_caller(classifier: rk.Classifier) -> None:
    def pictures() -> Iterator[Image.Image]:
        yield from (draw("red", number) for number in range(200))
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(rk.iter_predict(classifier, pictures()))
    assert not running()


def test_a_head_of_another_size_is_one_line_and_leaves_no_thread(files: list[Path]) -> None:
    classifier = untrained()
    classifier.network.reset_head(4)
    with pytest.raises(rk.errors.UsageError, match="the head has 4 outputs"):
        rk.predict(classifier, files)
    assert not running()


def test_a_network_of_ones_own_is_asked_by_one_thread(files: list[Path]) -> None:
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.asking: set[int] = set()
            self.layers = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.asking.add(threading.get_ident())
            return self.layers(x)

    classifier = untrained()
    classifier.network = own = Own().eval()  # pyrefly: ignore
    assert len(rk.predict(classifier, files)) == len(files)
    assert own.asking == {threading.get_ident()}


def test_views_of_a_picture_are_averaged(classifier: rk.Classifier, files: list[Path]) -> None:
    rows = list(predict_inputs(classifier, iter_inputs(files[1:63], 3), protocol=ViewProtocol(flip=True)))
    for file, row in zip(files[1:63], rows, strict=True):
        seen = classifier.preprocess.read(file)[None]
        expected = (classifier.probabilities(seen) + classifier.probabilities(seen.flip(-1)))[0] / 2
        assert row.probabilities == pytest.approx(expected.numpy(), abs=1e-6)
    (alone,) = predict_inputs(classifier, iter_inputs(files[40], 3), protocol=ViewProtocol(flip=True))
    assert said([alone]) == said([rows[39]])


def test_no_input_is_no_row(classifier: rk.Classifier) -> None:
    assert list(predict_inputs(classifier, iter(()))) == []


def test_inputs_can_be_cut_into_parts_that_give_the_same_rows(classifier: rk.Classifier, files: list[Path]) -> None:
    """What goes on after a kill, or shares the files with others, begins anywhere."""
    whole = said(list(predict_inputs(classifier, iter_inputs(files, 3))))
    for begin, end in ((0, 10), (10, 77), (77, 150)):
        part: list[Input] = list(islice(iter_inputs(files, 3), begin, end))
        assert said(list(predict_inputs(classifier, part))) == whole[begin:end]


def test_the_reader_of_a_pipe_may_leave(files: list[Path]) -> None:
    program = (
        "import sys\nimport resnetkit as rk\nfrom conftest import untrained\n"
        "for row in rk.iter_predict(untrained(), sys.argv[1:]):\n    print(row.file, flush=True)"
    )
    asking = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, files)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join([str(Path(__file__).parents[1]), *sys.path])},
    )
    assert asking.stdout is not None
    asking.stdout.readline()
    asking.stdout.close()
    assert asking.wait(timeout=100) != 0  # a traceback of BrokenPipeError, and an end
    asking.stderr.close()
