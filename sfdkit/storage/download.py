"""Single files from web servers into a cache; one that has not changed since is not loaded again."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import urllib3

from sfdkit.errors import ConfigError, DataError, MissingError, StorageError
from sfdkit.files import make_folder, sha256_of
from sfdkit.storage.driver import PIECE
from sfdkit.storage.urls import redact, refuse_credentials

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)
_UNCHANGED = 304
_VALIDATORS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
_PAGE = "is a web page and no file; give the address of the file itself (on Hugging Face with /resolve/, not /blob/)"


class Downloaded(NamedTuple):
    """A file in the cache."""

    path: Path
    sha256: str
    note: str
    """Where it comes from: ``downloaded``, or why the copy in the cache was taken."""


def download(
    url: str, folder: Path, most_bytes: int, check: Callable[[Path], object], timeout: float = 30.0
) -> Downloaded:
    """Return a file of a web server, from the cache if the server says that it has not changed, or cannot be reached.

    No credentials are sent.

    Args:
        url: https; http from this machine alone.
        folder: The cache.
        most_bytes: A larger file is refused.
        check: Called with the path of a new file before it enters the cache.
        timeout: Seconds without an answer after which a connection counts as broken.

    Raises:
        ConfigError: The address is of another scheme, or holds credentials.
        DataError: The file is too large, is a web page, or the cache cannot be written.
        MissingError: There is no such file.
        StorageError: The server cannot be reached, or refuses.
    """
    _require_secure(url, url)
    refuse_credentials(url)
    place = folder / hashlib.sha256(url.encode()).hexdigest()[:20] / Path(urlsplit(url).path).name[-100:]
    state = place.with_name("download.json")
    known = _cached(place, state)
    headers = {_VALIDATORS[name]: known[name] for name in _VALIDATORS if name in known}
    pool = urllib3.PoolManager(timeout=timeout, headers={"Accept-Encoding": "identity", "User-Agent": "sfdkit"})
    try:
        response = _get(pool, url, headers)
        with response:
            if known and response.status == _UNCHANGED:
                return Downloaded(place, known["sha256"], "unchanged since it was downloaded")
            _require_file(response, url, most_bytes)
            make_folder(place.parent)
            digest = _receive(response, place, url, most_bytes, check)
            told = {name: response.headers[name] for name in _VALIDATORS if name in response.headers}
            number, part = tempfile.mkstemp(dir=place.parent)  # another process may load the same file
            try:
                with open(number, "w", encoding="utf-8") as file:
                    json.dump({"url": url, "sha256": digest, **told}, file)
                os.replace(part, state)
            finally:
                Path(part).unlink(missing_ok=True)
            return Downloaded(place, digest, "downloaded")
    except urllib3.exceptions.HTTPError as error:
        reason = _reason(error)
        if known:
            return Downloaded(place, known["sha256"], f"from the cache, as the server cannot be reached: {reason}")
        raise StorageError(f"{redact(url)} cannot be read: {reason}; check the address and the network") from None
    except OSError as error:
        raise DataError(
            f"{redact(url)} cannot be kept in {place.parent}: {error.strerror or error}; check it"
        ) from error
    finally:
        pool.clear()


def _require_secure(url: str, first: str) -> None:
    """Refuse what others on the way could change: all but https, and http within this machine."""
    parts = urlsplit(url)
    within = parts.hostname in LOOPBACK and urlsplit(first).hostname in LOOPBACK
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and within)):
        what = "" if url == first else f", to which {redact(first)} leads,"
        raise ConfigError(f"{redact(url)}{what} is no https address; files are downloaded by https alone")


def _cached(place: Path, state: Path) -> dict[str, str]:
    """Return what is known of a whole file in the cache; nothing of any other."""
    with suppress(OSError, ValueError, KeyError):
        known = json.loads(state.read_text(encoding="utf-8"))
        if known["sha256"] == sha256_of(place):
            return known
    return {}


def _get(pool: urllib3.PoolManager, url: str, headers: dict[str, str]) -> Any:
    where = url
    retries = urllib3.Retry(total=3, redirect=False, status=0, backoff_factor=0.2)
    for _ in range(_REDIRECTS):
        sent = {**pool.headers, **headers}
        response: Any = pool.request("GET", where, headers=sent, preload_content=False, redirect=False, retries=retries)
        if response.status not in _MOVED or "Location" not in response.headers:
            return response
        response.close()
        where = urljoin(where, response.headers["Location"])
        _require_secure(where, url)
    raise StorageError(f"{redact(url)} leads from one address to the next, {_REDIRECTS} times; give the last one")


def _require_file(response: Any, url: str, most_bytes: int) -> None:
    """Refuse answers that are not the file."""
    if response.status in (404, 410):
        raise MissingError(f"{redact(url)}: there is no such file (status {response.status}); check the address")
    if response.status in (401, 403):
        raise StorageError(
            f"{redact(url)}: access is refused (status {response.status}); download the file with what has access, "
            "and give its path"
        )
    if response.status != 200:
        raise StorageError(f"{redact(url)}: the server answers with status {response.status}; try again later")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise DataError(f"{redact(url)} {_PAGE}")
    if (length := response.headers.get("Content-Length", "")).isdigit() and int(length) > most_bytes:
        raise _too_large(url, int(length), most_bytes)


def _receive(response: Any, place: Path, url: str, most_bytes: int, check: Callable[[Path], object]) -> str:
    digest, size = hashlib.sha256(), 0
    number, part = tempfile.mkstemp(dir=place.parent, suffix=place.suffix)
    try:
        with open(number, "wb") as file:
            for piece in response.stream(PIECE):
                if not size and piece.lstrip().startswith(b"<"):
                    raise DataError(f"{redact(url)} {_PAGE}")
                size += len(piece)
                if size > most_bytes:
                    raise _too_large(url, size, most_bytes)
                digest.update(piece)
                file.write(piece)
        check(Path(part))
        os.replace(part, place)
    finally:
        Path(part).unlink(missing_ok=True)
    return digest.hexdigest()


def _too_large(url: str, size: int, most_bytes: int) -> DataError:
    return DataError(
        f"{redact(url)} has {size / 1e6:.1f} MB or more, {most_bytes / 1e6:.1f} MB are the most that is downloaded; "
        "check the address, or download it yourself and give its path"
    )


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None) or error
    text = " ".join(redact(str(inner)).split())
    return text.rpartition(": ")[2] or type(inner).__name__
