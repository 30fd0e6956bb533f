"""One attempt at a transfer, for each kind of storage; :mod:`sfdkit.storage.files` counts and repeats them.

Every driver raises ``FileNotFoundError`` where the storage says that there is no such file, ``PermissionError`` where
it refuses, :class:`Changed` where the file is not the one it was, and any other exception where another attempt may
help. fsspec (https://filesystem-spec.readthedocs.io) lists, writes and signs; bytes over HTTP and S3 are read by
urllib3, which takes less processor time than fsspec's asynchronous clients and keeps what came before a break.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote, unquote, urlsplit

import fsspec
import urllib3

from sfdkit.errors import ConfigError
from sfdkit.storage.settings import StorageSettings
from sfdkit.storage.urls import SCHEMES, redact, scheme_of

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_PIECE = 1 << 20
_CODE = re.compile(rb"<Code>([A-Za-z]+)</Code>")


class Changed(Exception):
    """The file was replaced while it was read."""


class Short(Exception):
    """The file ends before the byte that was asked for."""


class Busy(Exception):
    """The server asks to come back later."""

    def __init__(self, what: str, wait: float | None) -> None:
        super().__init__(what)
        self.wait = wait
        """Seconds that the server wants, where it says so."""


class Transfer(Protocol):
    """Bytes that are on their way."""

    etag: str | None
    """Version of the file, where the storage has one."""

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes, and none at the end."""

    def close(self) -> None:
        """Give up the rest."""


class Driver(Protocol):
    """Files under one root, each named by its path below it."""

    whole: bool
    """Whether a file is best read in one transfer, because each transfer starts it from its beginning."""

    def open(self, name: str, start: int, stop: int | None, etag: str | None) -> Transfer:
        """Begin to read the bytes ``start`` to ``stop`` (not included) of a file, of the version ``etag``."""

    def size(self, name: str) -> int:
        """Return the bytes of a file."""

    def names(self) -> list[str]:
        """Return the names of the files directly under the root."""

    def put(self, name: str, path: Path) -> None:
        """Copy a local file; a reader sees the old one or the whole new one."""

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""

    def glob(self) -> list[str]:
        """Return the addresses of the folders that the root, a pattern, stands for."""


def make_driver(root: str, settings: StorageSettings) -> Driver:
    """Return the driver of an address.

    Raises:
        ConfigError: The scheme is unknown or switched off, or its library is not installed.
    """
    scheme = scheme_of(root)
    if scheme in ("", "file"):
        return LocalDriver(root)
    if scheme == "pipe":
        return PipeDriver(root, settings)
    try:
        if scheme == "s3":
            return S3Driver(root, settings)
        if scheme in ("http", "https"):
            return HttpDriver(root, settings)
        return FsspecDriver(root, scheme)
    except ImportError as error:
        extra = SCHEMES[scheme]
        raise ConfigError(f"{redact(root)!r} needs a library for {scheme}: pip install 'sfdkit[{extra}]'") from error


class _FileTransfer:
    def __init__(self, file: BinaryIO, left: int | None) -> None:
        self.etag: str | None = None
        self._file, self._left = file, left

    def read(self, size: int) -> bytes:
        if self._left is not None:
            size = min(size, self._left)
        data = self._file.read(size)
        if self._left is not None:
            if size and not data:
                raise Short
            self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


class LocalDriver:
    """A folder of this machine."""

    whole = False

    def __init__(self, root: str) -> None:
        self.root = Path(local_path(root))

    def open(self, name: str, start: int, stop: int | None, etag: str | None) -> Transfer:
        """Open and seek."""
        file = open(self.root / name, "rb")  # noqa: SIM115  # the transfer closes it
        file.seek(start)
        return _FileTransfer(file, None if stop is None else stop - start)

    def size(self, name: str) -> int:
        """Ask the file system."""
        return (self.root / name).stat().st_size

    def names(self) -> list[str]:
        """List the folder."""
        return sorted(path.name for path in self.root.iterdir() if path.is_file())

    def put(self, name: str, path: Path) -> None:
        """Copy beside the place, then rename."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as out, path.open("rb") as source:
                shutil.copyfileobj(source, out, _PIECE)
                os.fchmod(out.fileno(), 0o644)
                out.flush()
                os.fsync(out.fileno())
            os.replace(partial, target)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise

    def remove(self, name: str) -> None:
        """Unlink."""
        (self.root / name).unlink(missing_ok=True)

    def glob(self) -> list[str]:
        """Match folders."""
        anchor = Path(self.root.anchor or ".")
        pattern = self.root.relative_to(anchor) if self.root.is_absolute() else self.root
        return sorted(str(path) for path in anchor.glob(str(pattern)) if path.is_dir())


def local_path(root: str) -> str:
    """Return the path of a local address, with or without ``file://``."""
    return root.removeprefix("file://") if root.startswith("file://") else root


class _HttpTransfer:
    def __init__(self, response: urllib3.BaseHTTPResponse, skip: int, left: int | None, short: bool = False) -> None:
        self.etag = response.headers.get("ETag")
        self._response, self._left, self._short = response, left, short
        while skip:
            data = response.read1(min(skip, _PIECE))
            if not data:
                raise Short
            skip -= len(data)

    def read(self, size: int) -> bytes:
        if self._left is not None:
            size = min(size, self._left)
            if not size and self._short:
                raise Short
            if not size:
                return b""
        data: bytes = self._response.read1(size)  # what is there: of a transfer that breaks, all of it is kept
        if self._left is not None:
            if not data:
                raise ConnectionError("the connection ended early")
            self._left -= len(data)
        return data

    def close(self) -> None:
        if self._left == 0 and self._response.length_remaining in (None, 0):
            self._response.drain_conn()
            self._response.release_conn()
        else:
            self._response.close()  # what is left of the answer is not wanted


class HttpDriver:
    """Any web server; ranges are used where it has them."""

    whole = False

    def __init__(self, root: str, settings: StorageSettings) -> None:
        self.root = root.rstrip("/")
        timeout = urllib3.Timeout(connect=min(10.0, settings.timeout), read=settings.timeout)
        follow = urllib3.Retry(  # redirects alone: what fails is repeated by the caller, who knows how much arrived
            total=5,
            redirect=5,
            connect=False,
            read=False,
            other=0,
            status=0,
            raise_on_redirect=False,
            respect_retry_after_header=False,
        )
        self._pool = urllib3.PoolManager(maxsize=16, timeout=timeout, retries=follow)
        logging.getLogger("urllib3.connection").setLevel(logging.ERROR)  # its warnings show signed addresses
        authorization = os.environ.get("SFDKIT_HTTP_AUTHORIZATION", "").strip()
        self._ignored = 0  # ranges in a row that the server took no notice of
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "sfdkit"}
        if authorization:
            self._headers["Authorization"] = authorization

    def address(self, name: str) -> str:
        """Return the address of a file, as it is sent."""
        return f"{self.root}/{quote(name)}" if name else self.root

    def open(self, name: str, start: int, stop: int | None, etag: str | None) -> Transfer:
        """Ask for a range; an answer with the whole file is read up to it."""
        # Without an end as well: the answer then says how long the file is, whatever becomes of the transfer.
        headers = {**self._headers, "Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
        if etag and not etag.startswith("W/"):
            headers["If-Match"] = etag if etag.startswith('"') else f'"{etag}"'
        response = self._pool.request("GET", self.address(name), headers=headers, preload_content=False, redirect=True)
        try:
            return self._checked(response, start, stop, etag)
        except BaseException:
            response.close()
            raise

    def _checked(self, response: Any, start: int, stop: int | None, etag: str | None) -> Transfer:
        status = response.status
        if status == 416 and stop is None:
            return _HttpTransfer(response, 0, 0)  # an empty file, or its end
        if status == 416:
            raise Short
        if status not in (200, 206):
            _refuse(response)
        if etag and response.headers.get("ETag") not in (None, etag):
            raise Changed
        length = response.headers.get("Content-Length", "")
        promised = int(length) if length.isdigit() else None
        told = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        wanted = None if stop is None else stop - start
        if told:
            self._ignored, self.whole = 0, False
            first, last, total = int(told[1]), int(told[2]), told[3]
            if first != start:
                raise ConnectionError(f"the server answers with byte {first} where byte {start} was asked for")
            if stop is not None and last + 1 < stop and total.isdigit() and int(total) < stop:
                return _HttpTransfer(response, 0, last + 1 - first, short=True)
            if wanted is None:  # a server may give less at a time than there is
                wanted = (int(total) if total.isdigit() else last + 1) - first
            return _HttpTransfer(response, 0, wanted)
        if status == 206 or (start and wanted is not None and promised == wanted):
            return _HttpTransfer(response, 0, wanted)  # some servers answer a range with 200 and no Content-Range
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise ConnectionError("the server answers with a web page")
        if promised is not None and stop is not None and promised < stop:
            return _HttpTransfer(response, start, promised - start, short=True)
        if start or (stop is not None and promised != stop):
            self._ignored += 1
            self.whole = self._ignored >= 3  # it sends each file from its beginning: better few long transfers
        left = wanted if wanted is not None else (None if promised is None else promised - start)
        return _HttpTransfer(response, start, left)

    def size(self, name: str) -> int:
        """Ask for the first byte, since a signed address serves no HEAD, and read the size off the answer's head."""
        headers = {**self._headers, "Range": "bytes=0-0"}
        response = self._pool.request("GET", self.address(name), headers=headers, preload_content=False, redirect=True)
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
        folder = urlsplit(self.root + "/").path
        found = self._listing().ls(self.root + "/", detail=False)
        paths = {unquote(urlsplit(url).path) for url in found}
        names = {path.removeprefix(unquote(folder)) for path in paths if path.startswith(unquote(folder))}
        return sorted(name for name in names if name and "/" not in name)

    def put(self, name: str, path: Path) -> None:
        """Refuse."""
        raise ConfigError(f"{redact(self.root)} cannot be written over http: give a local folder or an object store")

    def remove(self, name: str) -> None:
        """Refuse."""
        raise ConfigError(f"{redact(self.root)} cannot be changed over http: give a local folder or an object store")

    def glob(self) -> list[str]:
        """Match the folders of the server's listing."""
        found = self._listing().glob(self.root)
        return sorted(url.rstrip("/") for url in found)


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


class _FsspecFolder:
    """What fsspec does for a folder: all but reading."""

    root: str
    _system: Any

    def names(self) -> list[str]:
        """List the folder."""
        try:
            found = self._system.ls(self.root, detail=True)
        except FileNotFoundError:
            return []
        return sorted(entry["name"].rstrip("/").rsplit("/", 1)[1] for entry in found if entry["type"] == "file")

    def put(self, name: str, path: Path) -> None:
        """Upload, in parts where the file is large; an object appears when it is whole."""
        self._system.put_file(str(path), f"{self.root}/{name}")

    def remove(self, name: str) -> None:
        """Delete."""
        with suppress(FileNotFoundError):
            self._system.rm_file(f"{self.root}/{name}")

    def glob(self) -> list[str]:
        """Match folders."""
        return sorted(self._system.unstrip_protocol(path) for path in self._system.glob(self.root))


class S3Driver(_FsspecFolder, HttpDriver):
    """A bucket: s3fs lists, writes, and signs the requests that urllib3 sends."""

    def __init__(self, root: str, settings: StorageSettings) -> None:
        import botocore.session
        import s3fs

        super().__init__(root, settings)
        self._headers.pop("Authorization", None)  # the signature is in the address
        session = botocore.session.get_session()
        endpoint = settings.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        config = {
            "signature_version": "s3v4",
            "request_checksum_calculation": "when_required",  # servers other than Amazon's refuse the new checksums
            "response_checksum_validation": "when_required",
            "connect_timeout": min(10.0, settings.timeout),
            "read_timeout": settings.timeout,
            "retries": {"max_attempts": 0},
        }
        if endpoint:
            config["s3"] = {"addressing_style": "path"}
        anonymous = session.get_credentials() is None
        if anonymous:
            del config["signature_version"]
        region = {"region_name": session.get_config_variable("region") or "us-east-1"}
        self._system = s3fs.S3FileSystem(
            anon=anonymous,
            endpoint_url=endpoint,
            config_kwargs=config,
            client_kwargs=region,
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        self._system.retries = 1  # attempts are counted by the caller

    def address(self, name: str) -> str:
        """Return a signed address."""
        return str(self._system.sign(f"{self.root}/{name}", expiration=3600)) if name else self.root


class _BytesTransfer:
    def __init__(self, fetch: Callable[[int, int], bytes], start: int, stop: int, short: bool) -> None:
        self.etag: str | None = None
        self._fetch, self._position, self._stop, self._short = fetch, start, stop, short

    def read(self, size: int) -> bytes:
        end = min(self._stop, self._position + size)
        if end <= self._position and self._short:
            raise Short
        if end <= self._position:
            return b""
        data = self._fetch(self._position, end)
        if not data:
            raise ConnectionError("the connection ended early")
        self._position += len(data)
        return data

    def close(self) -> None:
        pass


class FsspecDriver(_FsspecFolder):
    """Google, Azure and Hugging Face through their fsspec file systems; each MB is a range request of its own."""

    whole = False

    def __init__(self, root: str, scheme: str) -> None:
        self.root = root.rstrip("/")
        self._system = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False)

    def open(self, name: str, start: int, stop: int | None, etag: str | None) -> Transfer:
        """Find out the size, then read range by range."""
        path = f"{self.root}/{name}"
        size = self.size(name)
        end = size if stop is None else min(stop, size)
        short = stop is not None and size < stop
        return _BytesTransfer(lambda a, b: self._system.cat_file(path, start=a, end=b), start, end, short)

    def size(self, name: str) -> int:
        """Ask for the file's data."""
        return int(self._system.info(f"{self.root}/{name}")["size"])


class _PipeTransfer:
    def __init__(self, command: str, start: int, left: int | None, timeout: float) -> None:
        self.etag: str | None = None
        self._timeout, self._left = timeout, left
        # in a session of its own, so that all that the shell starts ends with it
        self._process = subprocess.Popen(
            command, shell=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, bufsize=0, start_new_session=True
        )
        try:
            while start:
                data = self._next(min(start, _PIECE))
                if not data:
                    raise Short
                start -= len(data)
        except BaseException:
            self.close()
            raise

    def _next(self, size: int) -> bytes:
        """Return what the command has written; nothing at its end."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], self._timeout)[0]:
            raise TimeoutError(f"its command gave no byte for {self._timeout:g} s")
        data = os.read(self._process.stdout.fileno(), size)
        if not data and (status := self._process.wait()):
            raise ConnectionError(f"its command ended with status {status}")
        return data

    def read(self, size: int) -> bytes:
        if self._left is not None:
            size = min(size, self._left)
        data = self._next(size) if size else b""
        if size and not data and self._left:
            raise Short
        if self._left is not None:
            self._left -= len(data)
        return data

    def close(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class PipeDriver:
    """The output of a shell command, for storages that nothing else reaches."""

    whole = True

    def __init__(self, root: str, settings: StorageSettings) -> None:
        self.command, self._timeout = root.removeprefix("pipe:"), settings.timeout
        if not settings.allow_pipe:
            raise ConfigError(
                f"the root {redact(root)!r} runs a shell command: if you trust it, set storage.allow_pipe: true"
            )
        if "{}" not in self.command:
            raise ConfigError(f"the root {redact(root)!r} has no {{}}: write it where the file's name belongs")

    def open(self, name: str, start: int, stop: int | None, etag: str | None) -> Transfer:
        """Run the command and leave out its first bytes."""
        command = self.command.replace("{}", shlex.quote(name))
        return _PipeTransfer(command, start, None if stop is None else stop - start, self._timeout)

    def size(self, name: str) -> int:
        """Count what the command gives."""
        transfer = self.open(name, 0, None, None)
        size = 0
        while data := transfer.read(_PIECE):
            size += len(data)
        transfer.close()
        return size

    def names(self) -> list[str]:
        """Refuse."""
        raise ConfigError("a pipe: root cannot be listed: give the folder of one split, which has an index.json")

    def put(self, name: str, path: Path) -> None:
        """Refuse."""
        raise ConfigError("a pipe: root cannot be written: give a local folder or an object store")

    def remove(self, name: str) -> None:
        """Refuse."""
        raise ConfigError("a pipe: root cannot be changed: give a local folder or an object store")

    def glob(self) -> list[str]:
        """Refuse."""
        raise ConfigError("a pipe: root is no pattern")
