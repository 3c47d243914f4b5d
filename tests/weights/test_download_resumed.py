"""Downloads that break off, and go on where they were: with the same file, or with none of it."""

from pathlib import Path

import pytest

from resnetkit.weights import download
from weights.server import CONTENT, HALF, OTHER, Handler, Server, fetch, hang_up, names, refuse, reset, say, send, stall

pytestmark = pytest.mark.usefixtures("quick_and_alone")


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
