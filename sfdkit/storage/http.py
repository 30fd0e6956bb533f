"""Web servers: ranges are read by urllib3, which takes less processor time than fsspec's asynchronous clients.

It also keeps what came before a break.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import fsspec
import urllib3

from sfdkit.storage.driver import Busy, Changed, Driver, Short, Transfer, skip
from sfdkit.storage.settings import StorageSettings

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_CODE = re.compile(rb"<Code>([A-Za-z]+)</Code>")
_IGNORED = 3  # ranges in a row that a server took no notice of, after which files are read whole
_REDIRECTS_ALONE = urllib3.Retry(  # what fails is repeated by the caller, who knows how much arrived
    total=5,
    redirect=5,
    connect=False,
    read=False,
    other=0,
    status=0,
    raise_on_redirect=False,
    respect_retry_after_header=False,
)


class HttpDriver(Driver):
    """Any web server; ranges are used where it has them."""

    def __init__(self, root: str, settings: StorageSettings) -> None:
        self.root = root.rstrip("/")
        timeout = urllib3.Timeout(connect=min(10.0, settings.timeout), read=settings.timeout)
        self._pool = urllib3.PoolManager(maxsize=16, timeout=timeout, retries=_REDIRECTS_ALONE)
        logging.getLogger("urllib3.connection").setLevel(logging.ERROR)  # its warnings show signed addresses
        self._ignored = 0
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "sfdkit"}
        if authorization := os.environ.get("SFDKIT_HTTP_AUTHORIZATION", "").strip():
            self._headers["Authorization"] = authorization

    def address(self, name: str) -> str:
        """Return the address of a file, as it is sent."""
        return f"{self.root}/{quote(name)}" if name else self.root

    def _get(self, name: str, headers: dict[str, str]) -> Any:
        headers = {**self._headers, **headers}
        return self._pool.request("GET", self.address(name), headers=headers, preload_content=False, redirect=True)

    def open(self, name: str, start: int, stop: int | None, etag: str | None) -> Transfer:
        """Ask for a range; an answer with the whole file is read up to it."""
        # Without an end as well: the answer then says how long the file is, whatever becomes of the transfer.
        headers = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
        if etag and not etag.startswith("W/"):
            headers["If-Match"] = etag if etag.startswith('"') else f'"{etag}"'
        response = self._get(name, headers)
        try:
            return self._checked(response, start, stop, etag)
        except BaseException:
            response.close()
            raise

    def _checked(self, response: Any, start: int, stop: int | None, etag: str | None) -> Transfer:
        if response.status == 416 and stop is None:
            return _transfer(response, 0)  # an empty file, or its end
        if response.status == 416:
            raise Short
        if response.status not in (200, 206):
            _refuse(response)
        if etag and response.headers.get("ETag") not in (None, etag):
            raise Changed
        length = response.headers.get("Content-Length", "")
        promised = int(length) if length.isdigit() else None
        wanted = None if stop is None else stop - start
        if told := _CONTENT_RANGE.match(response.headers.get("Content-Range", "")):
            self._ignored, self.whole = 0, False
            return _range(response, start, stop, int(told[1]), int(told[2]), told[3])
        if response.status == 206 or (start and wanted is not None and promised == wanted):
            return _transfer(response, wanted)  # some servers answer a range with 200 and no Content-Range
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise ConnectionError("the server answers with a web page")
        if promised is not None and stop is not None and promised < stop:
            return _transfer(response, promised - start, start, cut=True)
        if start or (stop is not None and promised != stop):
            self._ignored += 1
            self.whole = self._ignored >= _IGNORED  # it sends each file from its beginning: better few long transfers
        left = wanted if wanted is not None else (None if promised is None else promised - start)
        return _transfer(response, left, start)

    def size(self, name: str) -> int:
        """Ask for the first byte, since a signed address serves no HEAD, and read the size off the answer's head."""
        response = self._get(name, {"Range": "bytes=0-0"})
        try:
            told = response.headers.get("Content-Range", "").rsplit("/", 1)[-1]
            if told.isdigit() and response.status in (200, 206, 416):
                return int(told)
            if response.status == 416:
                return 0
            if response.status == 200 and "Content-Length" not in response.headers:
                raise ConnectionError("the server does not say how long the file is")
            if response.status != 200:
                _refuse(response)
            return int(response.headers["Content-Length"])
        finally:
            response.close()

    def _listing(self) -> Any:
        return fsspec.filesystem("http", skip_instance_cache=True, client_kwargs={"headers": dict(self._headers)})

    def names(self) -> list[str]:
        """Read the server's listing, where it makes one."""
        folder = unquote(urlsplit(self.root + "/").path)
        paths = {unquote(urlsplit(url).path) for url in self._listing().ls(self.root + "/", detail=False)}
        names = {path.removeprefix(folder) for path in paths if path.startswith(folder)}
        return sorted(name for name in names if name and "/" not in name)

    def glob(self) -> list[str]:
        """Match the folders of the server's listing."""
        return sorted(url.rstrip("/") for url in self._listing().glob(self.root))


def _range(response: Any, start: int, stop: int | None, first: int, last: int, total: str) -> Transfer:
    """Return the transfer of an answer that says which bytes of how many it holds."""
    if first != start:
        raise ConnectionError(f"the server answers with byte {first} where byte {start} was asked for")
    if stop is None:  # a server may give less at a time than there is
        return _transfer(response, (int(total) if total.isdigit() else last + 1) - first)
    if last + 1 < stop and total.isdigit() and int(total) < stop:
        return _transfer(response, last + 1 - first, cut=True)
    return _transfer(response, stop - start)


def _transfer(response: Any, left: int | None, unwanted: int = 0, cut: bool = False) -> Transfer:
    def close() -> None:
        if transfer.left == 0 and response.length_remaining in (None, 0):
            response.drain_conn()
            response.release_conn()
        else:
            response.close()  # what is left of the answer is not wanted

    # read1 gives what is there: of a transfer that breaks, all of it is kept
    skip(response.read1, unwanted)
    early = ConnectionError("the connection ended early")
    transfer = Transfer(response.read1, left, early, cut, response.headers.get("ETag"), close)
    return transfer


def _refuse(response: Any) -> None:
    """Raise what an unwelcome status stands for."""
    body = response.data if not isinstance(response.data, str) else b""
    code = _CODE.search(body[:4096] if body else b"")
    what = f"status {response.status}" + (f", {code[1].decode()}" if code else "")
    if response.status in (404, 410):
        raise FileNotFoundError(errno.ENOENT, what)
    if response.status in (401, 403):
        raise PermissionError(errno.EACCES, what)
    if response.status == 412:
        raise Changed
    wait = response.headers.get("Retry-After", "")
    raise Busy(what, float(wait) if wait.replace(".", "", 1).isdigit() else None)
