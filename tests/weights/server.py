"""A server that stumbles as it is told to, and one file that it serves."""

import hashlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from resnetkit.errors import CheckpointError
from resnetkit.weights import download

CONTENT = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(3200))  # 102400 bytes


DIGEST = hashlib.sha256(CONTENT).hexdigest()


OTHER = bytes(byte ^ 1 for byte in CONTENT)


HALF = len(CONTENT) // 2


class Handler(BaseHTTPRequestHandler):
    """Answers each GET as the next line of the server's script says, and properly when there is none."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers))
        answer = self.server.script.pop(0) if self.server.script else Handler.send
        # The client may be gone already: it was killed, or has read what it wanted.
        with suppress(ConnectionError):
            answer(self)

    def send(
        self,
        *,
        stop: int | None = None,
        promise: int = 0,
        heed_range: bool = True,
        heed_version: bool = True,
        shift: int = 0,
    ) -> None:
        """Send the content from where the client wants it up to `stop`, promising a few bytes more or fewer."""
        content, versions = self.server.content, self.server.versions
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = not heed_version or self.headers["If-Range"] in versions.values()
        first = int(wanted[1]) + shift if wanted and heed_range and same else 0
        if first and first >= len(content):
            return self.send_error(416)
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first + promise))
        for name, value in versions.items():
            self.send_header(name, value)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[first : None if stop is None else first + stop])
        return None

    def log_message(self, *words: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.versions = CONTENT, {"ETag": '"one"'}
        self.script: list[Callable[[Handler], None]] = []
        self.seen = []
        self.gate = threading.Event()
        self.tired = False
        """Whether it was silent for so long that it has hung up by itself: the client is to do that first."""
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.url = f"{self.address}/models/net.bin"

    def ranges(self) -> list[str | None]:
        """What part of the file each request wanted."""
        return [headers["Range"] for _, headers in self.seen]


def fetch(server: Server, target: Path, **options) -> None:
    """Fetch, and see that what there is then is right and lies alone, but for the lock."""
    assert download.fetch(server.url, target, **{"digest": DIGEST, **options}) == target
    assert target.read_bytes() == CONTENT
    assert names(target) <= {"net.bin", "net.bin.lock", "net.bin.bad"}


def refuse(server: Server, target: Path, match: str, **options) -> CheckpointError:
    """Fail to fetch, and see that nothing is there under the final name."""
    with pytest.raises(CheckpointError, match=match) as caught:
        download.fetch(server.url, target, **{"digest": DIGEST, **options})
    assert caught.value.exit_code == 4
    assert not target.exists()
    return caught.value


def names(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()}


def send(**options) -> Callable[[Handler], None]:
    return lambda handler: handler.send(**options)


def stall(handler: Handler) -> None:
    handler.send(stop=HALF)
    keep_silent(handler)


def keep_silent(handler: Handler) -> None:
    if not handler.server.gate.wait(60):
        handler.server.tired = True


def reset(handler: Handler) -> None:
    handler.send(stop=HALF)
    time.sleep(0.1)  # a reset may overtake what the client has not read yet
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def hang_up(handler: Handler) -> None:
    """Close without a word."""


def say(status: int, **headers: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()

    return answer
