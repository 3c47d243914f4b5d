"""A server of one file, and where that file is to be."""

import threading
from pathlib import Path

import pytest

from resnetkit.weights import download
from weights.server import Server


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.gate.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def quick_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # Far from what a busy machine needs; tests of silence make it shorter.
    monkeypatch.setattr(download, "TIMEOUT_S", 60)
    monkeypatch.setattr(download, "PAUSES_S", (0.0, 0.01, 0.02))
    for name in ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("HF_HUB_OFFLINE", "RESNETKIT_OFFLINE", "RESNETKIT_MIRROR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "net.bin"
