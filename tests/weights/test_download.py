import errno
import hashlib
import io
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from urllib.error import HTTPError

import pytest

from progress import until, until_asleep
from resnetkit.errors import CheckpointError, StorageError, UsageError
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


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.gate.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _quick_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_file_is_fetched_whole_and_nothing_else_is_left(server: Server, target: Path) -> None:
    fetch(server, target)
    assert names(target) <= {"net.bin", "net.bin.lock"}
    assert server.ranges() == [None]


def test_what_is_there_and_right_needs_no_network(server: Server, target: Path) -> None:
    fetch(server, target)
    for digest in (DIGEST, DIGEST.upper(), DIGEST[:8]):
        fetch(server, target, digest=digest)
    assert len(server.seen) == 1


def test_the_beginning_of_a_digest_is_enough_and_is_heeded(server: Server, target: Path) -> None:
    wrong = f"{int(DIGEST[:8], 16) ^ 1:08x}"
    refuse(server, target, f"expected {wrong}, found {DIGEST}", digest=wrong)
    fetch(server, target, digest=DIGEST[:8])


@pytest.mark.parametrize("digest", ["", DIGEST[:7], DIGEST + "0", "not hexadecimal", DIGEST[:8] + "\n"])
def test_a_digest_that_is_none_is_refused_before_anything_is_asked(digest: str, server: Server, target: Path) -> None:
    with pytest.raises(UsageError, match="is not a SHA-256") as caught:
        download.fetch(server.url, target, digest=digest)
    assert caught.value.exit_code == 2
    assert server.seen == []


def test_progress_counts_up_to_the_whole_file(server: Server, target: Path) -> None:
    calls: list[tuple[int, int | None]] = []
    server.script = [send(stop=HALF)]
    fetch(server, target, progress=lambda *call: calls.append(call))
    assert all(before[0] < after[0] for before, after in pairwise(calls))
    assert {total for _, total in calls} == {len(CONTENT)}
    assert calls[-1][0] == len(CONTENT)


def test_progress_says_so_where_the_size_is_not_known(server: Server, target: Path) -> None:
    def no_length(handler: Handler) -> None:
        say(200)(handler)
        handler.wfile.write(CONTENT)

    calls: list[tuple[int, int | None]] = []
    server.script = [no_length]
    fetch(server, target, progress=lambda *call: calls.append(call))
    assert calls[-1] == (len(CONTENT), None)


@pytest.mark.parametrize("fault", [send(stop=HALF), stall, reset], ids=["closed", "stalled", "reset"])
def test_a_connection_that_breaks_goes_on_where_it_was(
    fault, server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault is stall:
        monkeypatch.setattr(download, "TIMEOUT_S", 1)
    server.script = [fault]
    fetch(server, target)
    assert not server.tired
    assert server.ranges() == [None, f"bytes={HALF}-"]
    assert server.seen[1][1]["If-Range"] == '"one"'
    assert names(target) <= {"net.bin", "net.bin.lock"}


@pytest.mark.parametrize("fault", [hang_up, say(500), say(503)], ids=["no answer", "500", "503"])
def test_a_server_that_stumbles_is_asked_again(fault, server: Server, target: Path) -> None:
    server.script = [fault, fault]
    fetch(server, target)
    assert len(server.seen) == 3


def test_three_attempts_and_the_next_run_goes_on(server: Server, target: Path) -> None:
    server.script = [send(stop=1000)] * 3
    refuse(server, target, f"the connection ended after 3000 of {len(CONTENT)} bytes")
    assert server.ranges() == [None, "bytes=1000-", "bytes=2000-"]
    fetch(server, target)
    assert server.ranges()[3:] == ["bytes=3000-"]


def test_every_place_to_break_off_is_survived(server: Server, target: Path) -> None:
    for stop in (0, 1, 8191, 8192, HALF, len(CONTENT) - 1):
        server.script = [send(stop=stop)]
        fetch(server, target)
        target.unlink()


def test_an_answer_from_the_start_is_taken_from_the_start(server: Server, target: Path) -> None:
    server.script = [send(stop=HALF), send(heed_range=False)]
    fetch(server, target)
    assert server.ranges() == [None, f"bytes={HALF}-"]


def test_a_file_that_changes_between_attempts_is_the_new_one_whole(server: Server, target: Path) -> None:
    def change(handler: Handler) -> None:
        handler.send(stop=HALF)
        server.content, server.versions = CONTENT, {"ETag": '"two"'}

    server.content = OTHER
    server.script = [change]
    fetch(server, target)
    assert len(server.seen) == 2
    assert not target.with_name("net.bin.bad").exists()


def test_a_range_of_another_version_is_not_joined_on(server: Server, target: Path) -> None:
    def change(handler: Handler) -> None:
        handler.send(stop=HALF)
        server.content, server.versions = CONTENT, {"ETag": '"two"'}

    server.content = OTHER
    server.script = [change, send(heed_version=False)]
    fetch(server, target)
    assert server.ranges() == [None, f"bytes={HALF}-", None]
    assert not target.with_name("net.bin.bad").exists()


def test_a_change_that_the_server_hides_is_found_by_the_digest(server: Server, target: Path) -> None:
    def change(handler: Handler) -> None:
        handler.send(stop=HALF)
        server.content = CONTENT

    server.content = OTHER
    server.script = [change]
    fetch(server, target)
    assert server.ranges() == [None, f"bytes={HALF}-", None]
    assert target.with_name("net.bin.bad").read_bytes() == OTHER[:HALF] + CONTENT[HALF:]


def test_a_range_from_another_place_is_not_joined_on(server: Server, target: Path) -> None:
    server.script = [send(stop=HALF), send(shift=7)]
    fetch(server, target)
    assert server.ranges() == [None, f"bytes={HALF}-", None]
    assert not target.with_name("net.bin.bad").exists()


def test_nothing_in_the_range_starts_from_zero(server: Server, target: Path) -> None:
    def shrink(handler: Handler) -> None:
        handler.send(stop=HALF)
        server.content = CONTENT

    server.content = OTHER + OTHER
    server.script = [shrink, say(416)]
    fetch(server, target)
    assert server.ranges() == [None, f"bytes={HALF}-", None]


def test_a_date_tells_versions_apart_where_there_is_no_strong_etag(server: Server, target: Path) -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.versions = {"ETag": 'W/"weak"', "Last-Modified": date}
    server.script = [send(stop=HALF)]
    fetch(server, target)
    assert server.seen[1][1]["If-Range"] == date


def test_without_a_version_it_starts_from_zero_and_keeps_no_part(server: Server, target: Path) -> None:
    server.versions = {}
    server.script = [send(stop=HALF)] * 3
    refuse(server, target, "the connection ended after")
    assert server.ranges() == [None] * 3
    assert names(target) == {"net.bin.lock"}
    fetch(server, target)


def test_a_part_of_another_address_is_not_gone_on_with(server: Server, target: Path) -> None:
    server.script = [send(stop=1000)] * 3
    refuse(server, target, "the connection ended")
    server.url += "?v=2"
    fetch(server, target)
    assert server.ranges()[-1] is None


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"url": 1}', "\ufeff{"])
def test_a_damaged_note_starts_from_zero(note: str, server: Server, target: Path) -> None:
    server.script = [send(stop=1000)] * 3
    refuse(server, target, "the connection ended")
    target.with_name("net.bin.part.json").write_text(note, encoding="utf-8")
    fetch(server, target)
    assert server.ranges()[-1] is None


def test_a_damaged_part_is_replaced(server: Server, target: Path) -> None:
    server.script = [send(stop=1000)] * 3
    refuse(server, target, "the connection ended")
    # As a power cut leaves it: the length is there, the bytes are not.
    target.with_name("net.bin.part").write_bytes(bytes(3000))
    fetch(server, target)
    assert server.ranges()[3:] == ["bytes=3000-", None]


def test_a_part_that_is_whole_is_not_fetched_again(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("net.bin.part").write_bytes(CONTENT)
    fetch(server, target)
    assert server.seen == []


def test_a_length_too_long_does_not_spoil_a_good_file(server: Server, target: Path) -> None:
    server.script = [send(promise=1000)]
    fetch(server, target)


@pytest.mark.parametrize("promise", [-1000, -len(CONTENT)])
def test_a_length_too_short_is_refused(promise: int, server: Server, target: Path) -> None:
    server.script = [send(promise=promise)]
    refuse(server, target, f"expected {DIGEST}, found")
    assert target.with_name("net.bin.bad").read_bytes() == CONTENT[:promise]
    fetch(server, target)


def test_a_file_that_goes_on_too_long_is_refused(server: Server, target: Path) -> None:
    server.content = CONTENT + b"\0"
    refuse(server, target, "expected")
    assert target.with_name("net.bin.bad").read_bytes() == CONTENT + b"\0"


def test_another_file_is_refused_kept_and_named(server: Server, target: Path) -> None:
    server.content = OTHER
    error = refuse(server, target, f"expected {DIGEST}, found {hashlib.sha256(OTHER).hexdigest()}")
    assert names(target) == {"net.bin.bad", "net.bin.lock"}
    assert target.with_name("net.bin.bad").read_bytes() == OTHER
    assert "HTML" not in str(error)
    assert len(server.seen) == 1, "what one whole answer says will not be better in the next"


@pytest.mark.parametrize("start", [b"<!DOCTYPE html><html>", b"\r\n  <html lang=en>", b"<HTML>"])
def test_a_page_is_called_a_page(start: bytes, server: Server, target: Path) -> None:
    server.content = start + b"<h1>Please log in</h1></html>"
    refuse(server, target, "it is an HTML page; SHA-256 expected")


def test_every_flipped_bit_is_refused(server: Server, target: Path) -> None:
    good = CONTENT[:2048]
    digest = hashlib.sha256(good).hexdigest()
    for flip in range(200):
        place = flip * 8 * len(good) // 200
        damaged = bytearray(good)
        damaged[place // 8] ^= 1 << place % 8
        server.content = bytes(damaged)
        refuse(server, target, "SHA-256 expected", digest=digest if flip % 2 else digest[:8])
    assert len(server.seen) == 200
    assert target.with_name("net.bin.bad").read_bytes() == server.content


@pytest.mark.parametrize("harm", [b"", CONTENT[:HALF], OTHER])
def test_a_wrong_file_in_the_cache_is_set_aside_and_fetched_again(harm: bytes, server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(harm)
    fetch(server, target)
    assert target.with_name("net.bin.bad").read_bytes() == harm


def test_a_wrong_file_in_the_cache_is_not_trusted_offline(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    target.parent.mkdir()
    target.write_bytes(CONTENT[:-1])
    refuse(server, target, "HF_HUB_OFFLINE is set")
    assert target.with_name("net.bin.bad").read_bytes() == CONTENT[:-1]
    assert server.seen == []


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "RESNETKIT_OFFLINE"])
@pytest.mark.parametrize("value", ["1", "true", "YES", "On"])
def test_offline_is_obeyed_and_says_what_to_do(
    name: str, value: str, server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert download.is_offline()
    refuse(server, target, f"in {server.url}: .*{name} .*Try: fetch {server.url} by hand and put it at {target}$")
    assert server.seen == []
    target.write_bytes(CONTENT)
    fetch(server, target)


@pytest.mark.parametrize("value", ["", "0", "false", "no", "off"])
def test_not_offline_is_not_offline(value: str, server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert not download.is_offline()
    fetch(server, target)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_is_not_there_is_asked_for_once(status: int, server: Server, target: Path) -> None:
    server.script = [say(status)]
    refuse(server, target, f"the server says {status} .*Try: fetch {server.url} by hand and put it at {target}$")
    assert len(server.seen) == 1


def test_a_server_that_is_down_says_what_to_do(target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/net.bin"
    with pytest.raises(CheckpointError, match=rf"refused.* Try: fetch {url} by hand and put it at {target}$"):
        download.fetch(url, target, digest=DIGEST)


def test_a_server_that_never_answers_is_given_up(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.5)
    server.script = [keep_silent] * 3
    refuse(server, target, "timed out")
    assert not server.tired
    assert len(server.seen) == 3


def test_an_unknown_name_says_what_to_do(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*words: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    # A real look-up would ask whatever network the test runs in.
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(CheckpointError, match=r"Name or service not known.* Try: fetch http://w.invalid/net.bin by"):
        download.fetch("http://w.invalid/net.bin", target, digest=DIGEST)


@pytest.mark.parametrize("url", ["FILE", "ftp://127.0.0.1/a", "data:,abc", "a/net.bin", "http://[", "http://a b/"])
def test_an_address_outside_the_web_is_refused(url: str, target: Path, tmp_path: Path) -> None:
    # What file: and data: would bring is what is asked for: the digest alone does not refuse it.
    (tmp_path / "secret").write_bytes(b"abc")
    url = (tmp_path / "secret").as_uri() if url == "FILE" else url
    with pytest.raises(CheckpointError, match="cannot download the weights in"):
        download.fetch(url, target, digest=hashlib.sha256(b"abc").hexdigest())
    assert not target.exists()


def test_a_redirect_is_followed_and_the_rest_is_asked_for_behind_it(server: Server, target: Path) -> None:
    server.script = [say(302, Location="/other/net.bin"), send(stop=HALF), say(307, Location="/other/net.bin")]
    fetch(server, target)
    assert [path for path, _ in server.seen] == ["/models/net.bin", "/other/net.bin"] * 2
    assert server.ranges()[-1] == f"bytes={HALF}-"


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/net.bin", "data:,abc", "gopher://a/"])
def test_a_redirect_out_of_the_web_is_refused(
    place: str, server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Through such a proxy, the redirect to ftp would bring the right file.
    monkeypatch.setenv("ftp_proxy", server.address)
    server.script = [say(302, Location=place)]
    refuse(server, target, f"the server says 302 .*edirect.*{place}.* not allowed")
    assert len(server.seen) == 1


def test_a_redirect_does_not_lead_out_of_https() -> None:
    def follow(start: str, end: str) -> urllib.request.Request | None:
        request = urllib.request.Request(start)
        return download._Redirects().redirect_request(request, io.BytesIO(), 302, "Found", {}, end)

    assert follow("http://a/", "https://b/").full_url == "https://b/"
    assert follow("HTTPS://a/", "https://b/").full_url == "https://b/"
    for start in ("https://a/", "HTTPS://a/"):
        with pytest.raises(HTTPError, match="redirect to HTTP://b/, which is not allowed") as caught:
            follow(start, "HTTP://b/")
        caught.value.close()


def test_a_redirect_in_a_circle_ends(server: Server, target: Path) -> None:
    server.script = [say(302, Location="/models/net.bin")] * 50
    refuse(server, target, "the server says 302 .*infinite loop")
    assert len(server.seen) < 15


@pytest.mark.parametrize("how", ["argument", "environment"])
@pytest.mark.parametrize("end", ["", "/"])
def test_a_mirror_takes_the_place_of_the_address(
    how: str, end: str, server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = f"{server.address}/mirror/weights{end}"
    monkeypatch.setenv("RESNETKIT_MIRROR", mirror if how == "environment" else "http://127.0.0.1:1/unused")
    given = {} if how == "environment" else {"mirror": mirror}
    download.fetch("https://weights.invalid/a/b/net-1.bin?download=true", target, digest=DIGEST, **given)
    assert [path for path, _ in server.seen] == ["/mirror/weights/net-1.bin"]


def test_a_proxy_from_the_environment_is_used(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The name cannot be resolved: what comes, comes through the proxy.
    monkeypatch.setenv("http_proxy", server.address)
    server.url = "http://weights.invalid/net.bin"
    fetch(server, target)
    assert [path for path, _ in server.seen] == ["http://weights.invalid/net.bin"]


def test_no_proxy_is_heeded(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fetch(server, target)


def child(url: str, target: Path) -> subprocess.Popen:
    """Another process that says when it begins to fetch."""
    script = (
        "import sys, pathlib; from resnetkit.weights.download import fetch; print('now', flush=True);"
        "fetch(sys.argv[1], pathlib.Path(sys.argv[2]), digest=sys.argv[3])"
    )
    words = [sys.executable, "-W", "error", "-c", script, url, str(target), DIGEST]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def hold(handler: Handler) -> None:
    """Half of the file, and nothing more until the gate opens."""
    handler.send(stop=HALF)
    handler.server.gate.wait()
    handler.wfile.write(CONTENT[HALF:])


def test_of_two_processes_one_downloads_and_both_have_the_file(server: Server, target: Path) -> None:
    server.script = [hold]
    with child(server.url, target) as one, child(server.url, target) as two:
        for process in (one, two):
            assert process.stdout.readline() == "now\n"
        until(lambda: server.seen, one.pid, two.pid)
        until_asleep(one.pid, two.pid, seconds=0.3)  # time enough for the other to ask too, if it would
        server.gate.set()
        until(lambda: {one.poll(), two.poll()} == {0}, one.pid, two.pid)
    assert server.ranges() == [None]
    fetch(server, target)


def test_a_killed_process_leaves_its_part_and_no_lock_that_blocks(server: Server, target: Path) -> None:
    part = target.with_name("net.bin.part")
    server.script = [hold]
    with child(server.url, target) as process:
        until(lambda: part.exists() and part.stat().st_size > HALF // 2, process.pid)
        process.kill()
    size = part.stat().st_size
    assert not target.exists()
    fetch(server, target)
    assert server.ranges() == [None, f"bytes={size}-"]


def test_a_full_disk_keeps_what_came_and_the_next_run_goes_on(server: Server, target: Path) -> None:
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, old[1]))
    try:
        with pytest.raises(StorageError, match=f"in {target}: no space left") as caught:
            download.fetch(server.url, target, digest=DIGEST)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert caught.value.exit_code == 7
    assert not target.exists()
    fetch(server, target)
    assert server.ranges() == [None, "bytes=40000-"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_at_the_end_gives_no_final_name(
    step: str, server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*words: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync", fail) if step == "fsync" else (Path, "replace", fail)))
        with pytest.raises(StorageError, match=f"in {target}: Input/output error"):
            download.fetch(server.url, target, digest=DIGEST)
    assert not target.exists()
    fetch(server, target)


def test_a_folder_that_cannot_be_made_is_a_storage_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError) as caught:
        download.fetch(server.url, tmp_path / "file" / "net.bin", digest=DIGEST)
    assert caught.value.exit_code == 7
    assert server.seen == []
