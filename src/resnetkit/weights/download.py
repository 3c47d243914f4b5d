"""One file from the web. Under its final name it is whole and its SHA-256 is the one that was asked for, or it is not.

What has come so far lies beside as `<name>.part`, with a note of where it is from, so that the rest can be asked for.
"""

import json
import os
import re
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from filelock import FileLock

from resnetkit.errors import CheckpointError, StorageError, UsageError
from resnetkit.machine.storage import sha256_file, sync_folder

TIMEOUT_S = 30.0  # how long the server may be silent, while connecting and between two reads
PAUSES_S = (0.0, 1.0, 2.0)  # before each attempt: there are as many
WEB = ("http", "https")

Progress = Callable[[int, int | None], None]
"""Gets the bytes on disk, which grow unless the download starts anew, and the bytes of the whole file where known."""


def fetch(url: str, target: Path, *, digest: str, progress: Progress | None = None, mirror: str | None = None) -> Path:
    """Make sure that `target` holds the content with this SHA-256, from `url` (http or https) where it does not yet.

    `digest` is in hexadecimal, whole or its first 8 digits or more. `mirror` is a folder on the web to take the file
    from instead, under the last part of the url's path; by default the environment variable RESNETKIT_MIRROR. Several
    processes may want the same target at once: one downloads. A wrong file under that name is renamed `<name>.bad`.

    Raises `CheckpointError` (exit code 4) where the file cannot be had or is another one, `StorageError` (exit code 7)
    where it cannot be written, `UsageError` (exit code 2) where the digest is none.
    """
    if not re.fullmatch("[0-9a-fA-F]{8,64}", digest):
        raise UsageError(f"{digest!r} is not a SHA-256", remedy="8 to 64 hexadecimal digits")
    if mirror := mirror or os.environ.get("RESNETKIT_MIRROR"):
        url = f"{mirror.rstrip('/')}/{urlsplit(url).path.rpartition('/')[2]}"
    download = _Download(url, target, digest.lower(), progress or (lambda *_: None))
    try:
        # First without the lock: a folder that others filled may be read-only.
        if not download.is_good(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{target}.lock"):
                download.run()
    except OSError as error:
        raise StorageError.from_os(error, "cannot store the download", target) from error
    return target


def is_offline() -> bool:
    """Whether the environment forbids the network: RESNETKIT_OFFLINE or HF_HUB_OFFLINE is 1, true, yes or on."""
    values = (os.environ.get(name, "") for name in ("RESNETKIT_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.strip().lower() in ("1", "true", "yes", "on") for value in values)


class _BrokeOffError(Exception):
    """The connection ended too early; another attempt may go further."""


class _Download:
    """One url on its way to one target. An `OSError` that leaves here is about the disk, never about the network."""

    def __init__(self, url: str, target: Path, digest: str, progress: Progress) -> None:
        self.url, self.target, self.digest, self.progress = url, target, digest, progress
        self.part, self.note, self.bad = (Path(f"{target}.{end}") for end in ("part", "part.json", "bad"))

    def is_good(self, path: Path) -> bool:
        return path.exists() and sha256_file(path).startswith(self.digest)

    def run(self) -> None:
        """Fill the target; the caller holds the lock."""
        if self.is_good(self.target):
            return
        if self.target.exists():
            self.target.replace(self.bad)
        try:
            # A process killed just before the last rename left all there is to have.
            if not self.is_good(self.part):
                self._download()
            with self.part.open("rb+") as stream:
                os.fsync(stream.fileno())
            self.note.unlink(missing_ok=True)
            self.part.replace(self.target)
            sync_folder(self.target.parent)
        finally:
            # Without a note of where it is from, nothing can be added to it.
            if not self.note.exists():
                self.part.unlink(missing_ok=True)

    def _download(self) -> None:
        if is_offline():
            raise self._failed("RESNETKIT_OFFLINE or HF_HUB_OFFLINE is set")
        why = ""
        for pause in PAUSES_S:
            time.sleep(pause)
            resumed = None
            try:
                resumed = self._receive()
            except _BrokeOffError as error:
                why = str(error)
            # A server may promise more than there is: what came before it broke off can be all.
            if self.is_good(self.part):
                return
            if resumed is not None:
                why = self._set_aside()
                # What was put together from two answers may be of two files; one answer is what the server has.
                if not resumed:
                    break
        raise self._failed(why)

    def _receive(self) -> bool:
        """Bring the partial file to its end. Whether it went on from an earlier answer."""
        response, size, total = self._open()
        resumed = size > 0
        if not resumed:
            # In this order a note never stands beside content that it is not about.
            self.note.unlink(missing_ok=True)
        with response, self.part.open("ab" if resumed else "wb") as stream:
            if not resumed and (version := _version(response.headers)):
                self.note.write_text(json.dumps({"url": self.url, "version": version}), encoding="utf-8")
            while chunk := _read(response):
                stream.write(chunk)
                size += len(chunk)
                self.progress(size, total)
        if total is not None and size < total:
            raise _BrokeOffError(f"the connection ended after {size} of {total} bytes")
        return resumed

    def _open(self) -> tuple[Any, int, int | None]:
        """The server's answer, the offset in bytes at which it begins, and the size of the whole file in bytes."""
        have, version = self._earlier()
        if version and (response := self._ask({"Range": f"bytes={have}-", "If-Range": version})):
            if response.status == 200:
                return response, 0, response.length
            place = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            # A server may heed Range and not If-Range.
            if place and int(place[1]) == have and _version(response.headers) in (None, version):
                return response, have, None if place[2] == "*" else int(place[2])
            response.close()
        response = self._ask({})
        return response, 0, response.length

    def _earlier(self) -> tuple[int, str | None]:
        """How many bytes of this url an earlier attempt left, and of which version of the file."""
        try:
            note, have = json.loads(self.note.read_bytes()), self.part.stat().st_size
            return (have, note["version"]) if have and note["url"] == self.url else (0, None)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return 0, None

    def _ask(self, headers: dict[str, str]) -> Any:
        """Send the request; `None` where the server has nothing in the range that was asked for."""
        try:
            if urlsplit(self.url).scheme not in WEB:
                raise self._failed("the address is neither http nor https")
            request = Request(self.url, headers={"User-Agent": "resnetkit", **headers})  # noqa: S310 - seen above
            return build_opener(_Redirects).open(request, timeout=TIMEOUT_S)
        except HTTPError as error:
            with error:
                if error.code == 416 and headers:
                    return None
                cause, passing = f"the server says {error.code} {error.reason}", error.code >= 500
        except (OSError, HTTPException, ValueError) as error:
            cause = error.reason if isinstance(error, URLError) else error
            # A ValueError is a certificate that does not hold, or an address that is none.
            passing = isinstance(cause, (TimeoutError, ConnectionError, HTTPException, SSLError))
            passing = passing and not isinstance(cause, (ConnectionRefusedError, ValueError))
        raise _BrokeOffError(str(cause)) if passing else self._failed(str(cause))

    def _set_aside(self) -> str:
        """Keep the wrong content for a look at it, and say what is wrong with it."""
        with self.part.open("rb") as stream:
            page = stream.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html"))
        found = sha256_file(self.part)
        self.note.unlink(missing_ok=True)
        self.part.replace(self.bad)
        return f"{'it is an HTML page; ' * page}SHA-256 expected {self.digest}, found {found}, kept as {self.bad}"

    def _failed(self, why: str) -> CheckpointError:
        remedy = f"fetch {self.url} by hand and put it at {self.target}"
        return CheckpointError("cannot download the weights", file=self.url, why=why, remedy=remedy)


class _Redirects(HTTPRedirectHandler):
    """Follows a redirect only within the web, and never from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in WEB or (before, after) == ("https", "http"):
            raise HTTPError(newurl, code, f"and a redirect to {newurl}, which is not allowed", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read(response: Any) -> bytes:
    try:
        # read() would lose what it has gathered when the connection breaks.
        return response.read1(1 << 18)
    except (OSError, HTTPException) as error:
        raise _BrokeOffError(str(error)) from error


def _version(headers: Any) -> str | None:
    """What tells this version of the file from another. A weak ETag does not: its bytes may differ."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")
