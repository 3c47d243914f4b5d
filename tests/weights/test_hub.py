"""The hub, played by a small server that speaks the parts of its protocol that the client uses."""

import base64
import hashlib
import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

import resnetkit as rk
from resnetkit.errors import CheckpointError, StorageError, UsageError
from resnetkit.weights.hub import model_card

COMMIT = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """Repositories in memory: create, upload in one commit, look up, download."""

    protocol_version = "HTTP/1.1"
    files: dict[str, dict[str, bytes]]
    requests: list[str]
    made: list[dict]

    def log_message(self, *args: object) -> None:
        pass

    def _json(self, content: object, status: int = 200) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json"})

    def _send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.requests.append(f"POST {self.path}")
        if self.path == "/api/repos/create":
            self.made.append(json.loads(body))
            self.files.setdefault(f"user/{json.loads(body)['name']}", {})
            self._json({"url": f"http://{self.headers['Host']}/user/{json.loads(body)['name']}"})
        elif self.path == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---")[1])
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._json({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]})
        elif "/commit/" in self.path:
            repository = "/".join(self.path.split("/")[3:5])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[repository][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._json(
                {"commitOid": COMMIT, "commitUrl": f"http://{self.headers['Host']}/{repository}/commit/{COMMIT}"}
            )
        else:
            self._json({}, 404)

    def do_GET(self) -> None:
        self.requests.append(f"{self.command} {self.path}")
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[0] == "api":
            self._json({"id": "/".join(parts[2:4]), "sha": COMMIT, "siblings": []})
            return
        repository, name = "/".join(parts[:2]), parts[-1]
        content = self.files.get(repository, {}).get(name)
        headers = {"X-Repo-Commit": COMMIT}
        if content is None:
            code = "EntryNotFound" if repository in self.files else "RepoNotFound"
            self._send(b"", 404, headers | {"X-Error-Code": code})
            return
        digest = hashlib.sha256(self.files.get("truth", {}).get(name, content)).hexdigest()
        large = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        self._send(content, 200, headers | {"ETag": f'"{digest}"'} | large)

    def do_HEAD(self) -> None:
        self.do_GET()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A running hub; its address is in the environment of the programs that are started."""
    handler = type("RunningHub", (Hub,), {"files": {}, "requests": [], "made": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def program(code: str, **environment: str) -> subprocess.CompletedProcess:
    """The hub's client reads its address and its folders once, when it is imported: so a process of its own."""
    import os

    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment)


def test_what_is_pushed_comes_back_with_equal_answers(hub, digits_run: Path) -> None:
    code = f"""
import torch, resnetkit as rk
one = rk.load({str(digits_run)!r})
print(rk.push(one, "user/digits"))
other = rk.load("user/digits")
images = torch.randn(3, 1, 8, 8)
assert torch.equal(one.logits(images), other.logits(images))
assert (one.classes, one.preprocess, one.folder) == (other.classes, other.preprocess, one.folder)
import os
os.environ["HF_HUB_OFFLINE"] = "1"
"""
    done = program(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("/user/digits")
    assert set(hub.files["user/digits"]) >= {"README.md", "config.json", "model.safetensors"}
    before = len(hub.requests)
    offline = program("import resnetkit as rk; print(rk.load('user/digits').classes)", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert len(hub.requests) == before


def test_a_hub_that_cannot_be_reached_is_said_in_one_line(digits_run: Path) -> None:
    """Nobody listens at that address."""
    with pytest.raises(
        StorageError, match=r"as user/digits: .*refused\. Try: once more, when http://127.0.0.1:9 can be"
    ):
        rk.push(rk.load(digits_run), "user/digits", endpoint="http://127.0.0.1:9", token="none")


def test_a_name_that_no_repository_can_have_is_said_in_one_line(digits_run: Path) -> None:
    """The client refuses it before it asks anybody."""
    with pytest.raises(UsageError, match="'user/a b' cannot be a name on the hub"):
        rk.push(rk.load(digits_run), "user/a b", endpoint="http://127.0.0.1:9", token="none")
    with pytest.raises(CheckpointError, match="cannot get user/a b from the hub"):
        rk.load("hf-hub:user/a b")


def test_the_card_says_what_was_measured(digits_run: Path) -> None:
    classifier = rk.load(digits_run)
    _, front, text = model_card(classifier, name="user/digits").split("---\n", 2)
    about = yaml.safe_load(front)
    assert (about["library_name"], about["pipeline_tag"], about["license"]) == (
        "resnetkit",
        "image-classification",
        "apache-2.0",
    )
    (metric,) = about["model-index"][0]["results"][0]["metrics"]
    assert metric["value"] == pytest.approx(classifier.metrics["top1"] / 100, abs=1e-5)
    assert f"{classifier.metrics['top1']:.2f} %" in text
    assert f"| logits are divided by this before the softmax | {classifier.temperature:.6g} |" in text
    assert "[optim]" in text


@pytest.mark.parametrize("offline", ["0", "1"])
def test_what_is_not_there_is_one_line_that_says_what_to_do(hub, offline: str) -> None:
    done = program(
        "from resnetkit.cli.app import main; main(['predict', 'user/nothing', 'x.png'])", HF_HUB_OFFLINE=offline
    )
    assert done.returncode == 4
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "cannot get user/nothing from the hub" in errors[0]
    assert "Try: fetch config.json and model.safetensors by hand" in errors[0]
    assert "Traceback" not in done.stderr


def test_a_file_of_the_right_length_with_other_content_is_refused(hub, digits_run: Path) -> None:
    """The hub's client compares lengths only."""
    files = {path.name: path.read_bytes() for path in (digits_run / "model").iterdir()}
    hub.files["truth"] = {"model.safetensors": files["model.safetensors"]}
    damaged = bytearray(files["model.safetensors"])
    damaged[-5] ^= 1
    hub.files["user/damaged"] = files | {"model.safetensors": bytes(damaged)}
    done = program("from resnetkit.cli.app import main; main(['summary', 'user/damaged'])")
    assert done.returncode == 4
    assert "the file in the hub's cache is damaged" in done.stderr


PUSH = "from resnetkit.cli.app import main; main(['push', {source!r}, 'user/digits', '--private', '--json'])"


def test_the_command_puts_a_run_on_the_hub(hub, digits_run: Path) -> None:
    """The oracle is the server: what it was asked for, and the files that it has afterwards."""
    done = program(PUSH.format(source=str(digits_run)))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["address"].endswith("/user/digits")
    assert (report["hub"], report["private"]) == ("user/digits", True)
    model = digits_run / "model"
    assert hub.files["user/digits"]["model.safetensors"] == (model / "model.safetensors").read_bytes()
    (made,) = hub.made
    assert made["name"] == "digits"
    assert made.get("private") or made["visibility"] == "private"  # by the version of the client


@pytest.mark.parametrize(
    ("environment", "code", "says"),
    [
        ({"HF_HUB_OFFLINE": "1"}, 7, "stay offline, by HF_HUB_OFFLINE or .* Try: once more, without that variable"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, 7, "refused. Try: once more, when http://127.0.0.1:9 can be reached"),
        ({"HF_TOKEN": ""}, 2, "there is no token for the hub: .* Try: HF_TOKEN=TOKEN"),
    ],
)
def test_what_keeps_a_model_from_the_hub_is_one_line_that_says_what_to_do(
    hub, environment: dict[str, str], code: int, says: str, digits_run: Path
) -> None:
    done = program(PUSH.format(source=str(digits_run)), **environment)
    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    assert re.search(says, line)
    assert not hub.files


@pytest.mark.parametrize("name", ["birds", "a/b/c", "user/", "user/with space", ""])
def test_a_name_that_cannot_be_on_the_hub_is_refused_before_it_is_asked(name: str, digits_run: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be a name on the hub\. Try: USER/NAME"):
        rk.push(rk.load(digits_run), name, endpoint="http://127.0.0.1:9", token="none")
