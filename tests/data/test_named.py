"""Named sets: what their pictures are called, and sets that cannot be fetched.

torchvision itself asks a server, or an address where nobody answers.
"""

import gc
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from torchvision import datasets

from resnetkit.data import named
from resnetkit.data.load import load_data
from resnetkit.errors import DataError


class Nothing(BaseHTTPRequestHandler):
    """A server that has nothing."""

    def do_GET(self) -> None:
        self.send_error(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def nothing():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


# What urllib raises for a 404 holds its connection until it is collected, and torchvision keeps it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
def test_a_download_that_fails_says_why_and_how_to_do_without(
    name: str, there: bool, nothing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = nothing if there else "http://127.0.0.1:9/"
    monkeypatch.setenv("RESNETKIT_DATA", str(tmp_path))
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [address])
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{address}cifar-10-python.tar.gz")
    with pytest.raises(DataError) as failed:
        load_data(name)
    said = str(failed.value)
    assert ("HTTP Error 404: Not Found" if there else "Connection refused") in said
    assert ("train-images-idx3-ubyte" if name == "fashion-mnist" else "cifar-10-python.tar.gz") in said
    assert f"into {tmp_path}" in said
    assert len(said.replace(str(tmp_path), "")) < 200
    del failed
    gc.collect()


def test_a_picture_of_a_named_set_is_called_by_its_place_there(tmp_path: Path) -> None:
    """One can look it up: in scikit-learn's own table, and with torchvision's own class."""
    rows, labels = load_digits(return_X_y=True)
    digits = load_data("digits")
    for split in (digits.train, digits.validation, digits.test.relabelled(range(10)), digits.train.limited(100)):
        for index in (0, 7, len(split) - 1):
            number = int(re.fullmatch(r"digits #(\d+)", split.name(index))[1])
            assert np.array_equal(split.pixels[index].flatten().numpy(), np.rint(rows[number] * 255 / 16))
            assert split.labels[index] == labels[number]

    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for kind, count in (("train", 60), ("t10k", 20)):
        for what, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            values = rng.integers(0, 256, shape) if len(shape) == 3 else np.arange(count) % 10
            head = bytes((0, 0, 8, len(shape))) + b"".join(size.to_bytes(4, "big") for size in shape)
            (raw / f"{kind}-{what}-ubyte").write_bytes(head + values.astype(np.uint8).tobytes())
    data = load_data("fashion-mnist", data_root=tmp_path)
    for split, part in ((data.train, "train"), (data.validation, "train"), (data.test, "test")):
        theirs = datasets.FashionMNIST(tmp_path, train=part == "train")
        for index in range(len(split)):
            number = int(re.fullmatch(rf"fashion-mnist {part} #(\d+)", split.name(index))[1])
            assert np.array_equal(split.pixels[index, 0].numpy(), theirs.data[number].numpy())


def test_digits_are_scikit_learns_with_and_without_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    values, labels = load_digits(return_X_y=True)
    for found in (find_spec("sklearn"), None):
        monkeypatch.setattr("resnetkit.data.named.find_spec", lambda _, found=found: found)
        ours = named._digits_as_published()
        np.testing.assert_array_equal(ours[0], values)
        np.testing.assert_array_equal(ours[1], labels)
