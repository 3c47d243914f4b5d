"""What lies between us and a file: no network, no such file, redirects, mirrors, proxies."""

import hashlib
import io
import socket
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest

from resnetkit.errors import CheckpointError
from resnetkit.weights import download
from weights.server import CONTENT, DIGEST, HALF, Server, fetch, keep_silent, refuse, say, send

pytestmark = pytest.mark.usefixtures("quick_and_alone")


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
