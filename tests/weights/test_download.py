import errno
import hashlib
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from progress import until, until_asleep
from resnetkit.errors import StorageError, UsageError
from resnetkit.weights import download
from weights.server import (
    CONTENT,
    DIGEST,
    HALF,
    OTHER,
    Handler,
    Server,
    fetch,
    names,
    refuse,
    say,
    send,
)

pytestmark = pytest.mark.usefixtures("quick_and_alone")


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
