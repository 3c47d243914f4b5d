"""One file from the web. Under its final name it is whole and its SHA-256 is the one that was asked for, or it is not.

What has come so far lies beside as `<name>.part`, with a note of where it is from, so that the rest can be asked for.
"""

import hashlib
import http.client
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from resnetkit.errors import CheckpointError, StorageError, UsageError
from resnetkit.storage import sync_folder

TIMEOUT_S = 30.0
"""How long the server may be silent, in seconds, while connecting and between two reads."""
ATTEMPTS = 3
BACKOFF_S = 1.0
"""The pause after the first attempt that broke off, in seconds; after the second it is twice as long."""
CHUNK = 1 << 18
OFFLINE = ("RESNETKIT_OFFLINE", "HF_HUB_OFFLINE")


def fetch(
    url: str,
    target: Path,
    *,
    digest: str,
    progress: Callable[[int, int | None], None] | None = None,
    mirror: str | None = None,
) -> Path:
    """Make sure that `target` has the content with this SHA-256, from `url` where it is not there already.

    Several processes may ask for the same target at once: one downloads, the others wait for it. What is there under
    that name and is not right is renamed to `<name>.bad`.

    Args:
        url: An http or https address.
        target: The file's final name. Its folder is made where it is missing.
        digest: The SHA-256 in hexadecimal, or how it begins: 8 to 64 digits.
        progress: Called with the bytes that are on disk and the bytes of the whole file, `None` where unknown. The
            first number grows, unless the download has to start from zero.
        mirror: A folder on the web to take the file from instead, under the last part of the url's path; by default
            the environment variable RESNETKIT_MIRROR.

    Raises `CheckpointError` (exit code 4) where the file cannot be had or is another one, `StorageError` (exit code 7)
    where it cannot be written, `UsageError` (exit code 2) where the digest is none.
    """
    digest = digest.lower()
    if not re.fullmatch("[0-9a-f]{8,64}", digest):
        raise UsageError(f"{digest!r} is not a SHA-256", remedy="8 to 64 hexadecimal digits")
    mirror = mirror or os.environ.get("RESNETKIT_MIRROR")
    if mirror:
        url = f"{mirror.rstrip('/')}/{urlsplit(url).path.rpartition('/')[2]}"
    download = _Download(url, target, digest, progress)
    try:
        # First without the lock: a folder that others filled may be read-only.
        if not download.is_good(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(download.beside("lock")):
                download.run()
    except OSError as error:
        raise StorageError.from_os(error, "cannot store the download", target) from error
    return target


def is_offline() -> bool:
    """Whether the environment forbids the network: RESNETKIT_OFFLINE or HF_HUB_OFFLINE is 1, true, yes or on."""
    return _offline() is not None


def _offline() -> str | None:
    return next((name for name in OFFLINE if os.environ.get(name, "").lower() in ("1", "true", "yes", "on")), None)


class _BrokeOffError(Exception):
    """The connection ended too early; another attempt may go further."""


@dataclass(frozen=True)
class _Download:
    """One url on its way to one target. An `OSError` that leaves here is about the disk, never about the network."""

    url: str
    target: Path
    digest: str
    progress: Callable[[int, int | None], None] | None

    def beside(self, suffix: str) -> Path:
        return self.target.with_name(f"{self.target.name}.{suffix}")

    def is_good(self, path: Path) -> bool:
        return path.exists() and _sha256(path).startswith(self.digest)

    def run(self) -> None:
        """Fill the target; the caller holds the lock."""
        if self.is_good(self.target):
            return
        if self.target.exists():
            self.target.replace(self.beside("bad"))
        part, note = self.beside("part"), self.beside("part.json")
        try:
            # A process killed just before the last rename left all there is to have.
            if self.is_good(part):
                self._publish()
            else:
                self._download()
        finally:
            # Without a note of where it is from, nothing can be added to it.
            if not note.exists():
                part.unlink(missing_ok=True)

    def _download(self) -> None:
        if name := _offline():
            raise self._failed(f"{name} is set")
        part, why = self.beside("part"), ""
        for attempt in range(1, ATTEMPTS + 1):
            if attempt > 1:
                time.sleep(BACKOFF_S * (attempt - 1))
            resumed = False
            try:
                resumed = self._receive()
            except _BrokeOffError as error:
                why = str(error)
                # A server may promise more than there is: what came can still be all.
                if not self.is_good(part):
                    continue
            if self.is_good(part):
                return self._publish()
            why = self._set_aside(part)
            # What was put together from two answers may be of two files; one answer is what the server has.
            if not resumed:
                break
        raise self._failed(why)

    def _receive(self) -> bool:
        """Bring the partial file to its end. Whether it went on from an earlier answer."""
        response, offset, total = self._open()
        part, note = self.beside("part"), self.beside("part.json")
        if not offset:
            # In this order a note never stands beside content that it is not about.
            note.unlink(missing_ok=True)
        size = offset
        with response, part.open("ab" if offset else "wb") as stream:
            if not offset and (version := _version(response.headers)):
                note.write_text(json.dumps({"url": self.url, "version": version}), encoding="utf-8")
            while True:
                try:
                    # read() would lose what it has gathered when the connection breaks.
                    chunk = response.read1(CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise _BrokeOffError(_reason(error)) from error
                if not chunk:
                    break
                stream.write(chunk)
                size += len(chunk)
                if self.progress:
                    self.progress(size, total)
        if total is not None and size < total:
            raise _BrokeOffError(f"the connection ended after {size} of {total} bytes")
        return offset > 0

    def _open(self) -> tuple[Any, int, int | None]:
        """The server's answer, the offset in bytes at which it begins, and the size of the whole file in bytes."""
        have, version = self._earlier()
        if version:
            response = self._ask({"Range": f"bytes={have}-", "If-Range": version})
            if response is not None:
                if response.status == 200:
                    return response, 0, response.length
                place = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
                # A server may heed Range and not If-Range.
                if place and int(place[1]) == have and _version(response.headers) in (None, version):
                    return response, have, None if place[2] == "*" else int(place[2])
                response.close()
        response = self._ask({})
        return response, 0, response.length

    def _ask(self, headers: dict[str, str]) -> Any:
        """Send the request; `None` where the server has nothing in the range that was asked for."""
        try:
            if not _is_web(self.url):
                raise self._failed("the address is neither http nor https")
            request = urllib.request.Request(self.url, headers={"User-Agent": "resnetkit", **headers})
            return urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and headers:
                    return None
                why = f"the server says {error.code} {error.reason}"
                if error.code >= 500 or error.code in (408, 429):
                    raise _BrokeOffError(why) from error
                raise self._failed(why) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            passing = isinstance(cause, (TimeoutError, ConnectionError, http.client.HTTPException, ssl.SSLError))
            # ValueError: a certificate that does not hold, or an address that is none.
            if passing and not isinstance(cause, (ConnectionRefusedError, ValueError)):
                raise _BrokeOffError(_reason(cause)) from error
            raise self._failed(_reason(cause)) from error

    def _earlier(self) -> tuple[int, str | None]:
        """How many bytes of this url an earlier attempt left, and of which version of the file."""
        try:
            note = json.loads(self.beside("part.json").read_bytes())
            have = self.beside("part").stat().st_size
            return (have, note["version"]) if have and note["url"] == self.url else (0, None)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return 0, None

    def _publish(self) -> None:
        part = self.beside("part")
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        self.beside("part.json").unlink(missing_ok=True)
        part.replace(self.target)
        sync_folder(self.target.parent)

    def _set_aside(self, part: Path) -> str:
        """Keep the wrong content for a look at it, and say what is wrong with it."""
        with part.open("rb") as stream:
            start = stream.read(512).lstrip().lower()
        page = "it is an HTML page; " if start.startswith((b"<!doctype html", b"<html")) else ""
        bad, found = self.beside("bad"), _sha256(part)
        self.beside("part.json").unlink(missing_ok=True)
        part.replace(bad)
        return f"{page}SHA-256 expected {self.digest}, found {found}; what came is kept as {bad}"

    def _failed(self, why: str) -> CheckpointError:
        return CheckpointError(
            "cannot download the weights",
            file=self.url,
            why=why,
            remedy=f"fetch {self.url} by hand and put it at {self.target}",
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only within the web, and never from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not _is_web(newurl) or (req.full_url.startswith("https:") and not newurl.startswith("https:")):
            raise urllib.error.HTTPError(newurl, code, f"and leads to {newurl}, which is not allowed", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_web(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https")


def _version(headers: Any) -> str | None:
    """What tells this version of the file from another. A weak ETag does not: its bytes may differ."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _reason(error: object) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
