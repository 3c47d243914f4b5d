"""Named sets that cannot be fetched; torchvision itself asks a server, or an address where nobody answers."""

import gc
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from torchvision import datasets

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
