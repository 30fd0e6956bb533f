r"""A proxy that breaks HTTP answers on purpose, to see how a client takes it.

It stands between a client and a plain HTTP server (see ``tests.servers.loopback``) and takes one decision for each
request: pass it on as it is, or apply a :class:`Fault`. Requests are passed on unchanged, with their ``Host``, so
signatures that name the proxy's address hold. Every answer closes its connection.

Example::

    with serve_s3(folder) as server, FaultProxy("127.0.0.1", server.port) as proxy:
        proxy.choose = once(Fault("cut", after=1000), matching=r"\.tar$")
        ...  # read through proxy.url
        assert [seen.fault for seen in proxy.log] == ["cut", ""]
"""

from __future__ import annotations

import contextlib
import random
import re
import select
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BufferedReader
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

PIECE = 64 * 1024
Kind = Literal[
    "refuse",
    "cut",
    "truncate",
    "close_delimited",
    "corrupt",
    "status",
    "delay",
    "stall",
    "drip",
    "html",
    "no_range",
    "wrong_range",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
OBJECT = r"^/[^/]+/.*[^/]$"  # a key in a bucket: listings and buckets have a single name

CODES = {
    400: ("Bad Request", "InvalidRequest"),
    401: ("Unauthorized", "Unauthorized"),
    403: ("Forbidden", "AccessDenied"),
    404: ("Not Found", "NoSuchKey"),
    416: ("Range Not Satisfiable", "InvalidRange"),
    429: ("Too Many Requests", "TooManyRequests"),
    500: ("Internal Server Error", "InternalError"),
    502: ("Bad Gateway", "BadGateway"),
    503: ("Service Unavailable", "SlowDown"),
    504: ("Gateway Timeout", "GatewayTimeout"),
}
HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Accept the terms to go online.</body></html>"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Kinds:

    - ``refuse``: the connection is reset before any answer.
    - ``cut``: the connection ends after some bytes of the body, although ``Content-Length`` promised more.
    - ``truncate``: ends after some bytes too, and ``Content-Length`` is lowered, so the answer looks complete.
    - ``close_delimited``: ends after some bytes too, and there is no ``Content-Length``, so the end looks right.
    - ``corrupt``: one byte of the body is flipped.
    - ``status``: an error status with a small XML body, without asking the server.
    - ``delay``: a pause before the answer.
    - ``stall``: after some bytes of the body nothing comes for a while, then the connection closes.
    - ``drip``: the body comes slowly.
    - ``html``: status 200 with a page of HTML, as captive portals send, without asking the server.
    - ``no_range``: ``Range`` does not reach the server, which answers 200 with everything. Only for presigned or
      unsigned requests, since a signature in headers may cover ``Range``.
    - ``wrong_range``: 206 with bytes from one further on than asked for, and a ``Content-Range`` that says so. A
      request without ``Range`` gets the object from its second byte on. Only for presigned or unsigned requests.

    Attributes:
        kind: which of them.
        after: bytes of the body that pass before ``cut``, ``truncate``, ``close_delimited`` and ``stall``, and the
            position of the flipped byte. Counted modulo the length of the body, so each value hits each body.
        reset: ``cut`` with a reset in place of a close; the client may then lose some of the bytes that passed.
        status: of ``status``.
        code: S3's error code in the body of ``status``; empty for the usual one.
        retry_after: seconds of the ``Retry-After`` header of ``status``; None for no header.
        seconds: how long ``delay`` and ``stall`` last.
        rate: bytes per second of ``drip``.
    """

    kind: Kind
    after: int = 0
    reset: bool = False
    status: int = 503
    code: str = ""
    retry_after: int | None = None
    seconds: float = 1.0
    rate: float = PIECE

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no such fault: {self.kind!r}; there are {', '.join(KINDS)}")
        if self.after < 0 or self.seconds < 0 or self.rate <= 0:
            raise ValueError(f"after and seconds must not be negative, and rate must be positive: {self}")


@dataclass(frozen=True)
class Seen:
    """One request in the log of a proxy.

    Attributes:
        number: the first one is 1.
        method: ``GET`` and the like.
        path: without the query, which may hold signatures.
        range: the ``Range`` header, or empty.
        fault: the kind of fault that was applied, or empty.
    """

    number: int
    method: str
    path: str
    range: str
    fault: str


Chooser = Callable[[int, str, str], "Fault | None"]


def never(number: int, method: str, path: str) -> Fault | None:
    """Leave every request alone."""
    return None


def always(fault: Fault, matching: str = "") -> Chooser:
    """Apply a fault to every request whose path matches."""
    return lambda number, method, path: fault if re.search(matching, path) else None


def first(count: int, fault: Fault, matching: str = "") -> Chooser:
    """Apply a fault to the next ``count`` requests whose path matches."""
    left = count

    def choose(number: int, method: str, path: str) -> Fault | None:
        nonlocal left
        if left <= 0 or not re.search(matching, path):
            return None
        left -= 1
        return fault

    return choose


def once(fault: Fault, matching: str = "") -> Chooser:
    """Apply a fault to the next request whose path matches."""
    return first(1, fault, matching)


def scripted(faults: Mapping[int, Fault]) -> Chooser:
    """Apply faults to requests by the proxy's numbers, from 1 on."""
    chosen = dict(faults)
    return lambda number, method, path: chosen.get(number)


def random_faults(
    seed: int, count: int, kinds: Sequence[Kind | Fault], among: int, matching: str = OBJECT, reach: int = 2**40
) -> Chooser:
    r"""Spread random faults over the next requests for objects.

    The same arguments give the same faults at the same places, counted over the ``GET`` requests whose path matches.

    Args:
        seed: of the random choices.
        count: how many faults.
        kinds: what to choose from, each equally often up to one; a :class:`Fault` stands for its kind with its
            parameters, except for ``after``.
        among: over how many requests they are spread.
        matching: which paths are objects; the default fits S3's ``/bucket/key``. For files right below the address
            of a web server give for example ``r"\.tar$"``.
        reach: faults have a random ``after`` below this number. The default makes it anywhere in a body.

    Raises:
        ValueError: more faults than requests, or no kinds.
    """
    if count > among or (count and not kinds):
        raise ValueError(f"cannot spread {count} faults of {len(kinds)} kinds over {among} requests")
    generator = random.Random(seed)
    places = sorted(generator.sample(range(among), count))
    templates = [Fault(kind) if isinstance(kind, str) else kind for kind in kinds]
    order: list[Fault] = []
    while len(order) < count:
        order += generator.sample(templates, len(templates))
    faults = {
        place: replace(fault, after=generator.randrange(reach)) for place, fault in zip(places, order, strict=False)
    }
    number_of_objects = 0

    def choose(number: int, method: str, path: str) -> Fault | None:
        nonlocal number_of_objects
        if method != "GET" or not re.search(matching, path):
            return None
        number_of_objects += 1
        return faults.get(number_of_objects - 1)

    return choose


class FaultProxy:
    """A proxy in threads of this process; a context manager.

    Attributes:
        choose: called for each request with its number (from 1), method and path without the query; returns what is
            to go wrong. May be set at any time. The proxy calls it in one thread at a time.
    """

    def __init__(self, host: str, port: int, choose: Chooser = never) -> None:
        """Prepare for a server; nothing listens before the ``with`` statement.

        Args:
            host: of the server.
            port: of the server.
            choose: the first chooser.
        """
        self.choose = choose
        self._target = (host, port)
        self._lock = threading.Lock()
        self._log: list[Seen] = []
        self._ending = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener: _Listener | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> FaultProxy:
        if self._listener is not None:
            raise RuntimeError("a proxy can be used once")
        self._listener = _Listener(self)
        self._thread = threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.02}, name="fault-proxy", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._listener is not None and self._thread is not None
        self._ending.set()
        self._listener.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._listener.server_close()  # waits for the threads of the connections

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        if self._listener is None:
            raise RuntimeError("the proxy listens inside its with statement only")
        return int(self._listener.server_address[1])

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> list[Seen]:
        """The requests so far, in the order of their numbers. A request is in it before its answer begins."""
        with self._lock:
            return list(self._log)

    def clear(self) -> None:
        """Empty the log and count from 1 again."""
        with self._lock:
            self._log.clear()

    def _decide(self, head: _Head) -> Fault | None:
        method, target, _ = head.start.decode("latin-1").split(" ", 2)
        path = urlsplit(target).path
        with self._lock:
            number = len(self._log) + 1
            fault = self.choose(number, method, path)
            self._log.append(Seen(number, method, path, head.get("Range"), fault.kind if fault else ""))
        return fault

    @contextlib.contextmanager
    def _registered(self, connection: socket.socket) -> Iterator[None]:
        """Let the end of the proxy wake whoever waits for this connection."""
        with self._lock:
            if self._ending.is_set():
                raise ConnectionAbortedError("the proxy ends")
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = False  # server_close joins them
    request_queue_size = 128

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Connection)

    def server_close(self) -> None:
        """Close the listening socket, also where a forked process holds a copy, and wait for the connections."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent about ends of connections; they are this program's trade."""


class _Reset(Exception):
    """The connection to the client ends with a reset."""


class _Head:
    """The first line and the headers of a request or an answer, in their order and spelling."""

    def __init__(self, start: bytes, lines: list[tuple[str, bytes]]) -> None:
        self.start = start
        self.lines = lines

    @classmethod
    def read(cls, source: BufferedReader) -> _Head:
        """Read up to the empty line.

        Raises:
            ConnectionAbortedError: the other side closed before.
        """
        start = source.readline(PIECE).rstrip(b"\r\n")
        lines: list[tuple[str, bytes]] = []
        while line := source.readline(PIECE):
            if line in (b"\r\n", b"\n"):
                if start.count(b" ") < 1:
                    break
                return cls(start, lines)
            lines.append((line.partition(b":")[0].decode("latin-1").strip().lower(), line.rstrip(b"\r\n")))
        raise ConnectionAbortedError("no complete head")

    def get(self, name: str) -> str:
        """Return a header's value, or nothing."""
        for key, line in self.lines:
            if key == name.lower():
                return line.partition(b":")[2].decode("latin-1").strip()
        return ""

    def drop(self, *names: str) -> None:
        """Remove headers."""
        dropped = {name.lower() for name in names}
        self.lines = [pair for pair in self.lines if pair[0] not in dropped]

    def put(self, name: str, value: object) -> None:
        """Set a header, at its old place where it had one."""
        line = (name.lower(), f"{name}: {value}".encode("latin-1"))
        places = [place for place, (key, _) in enumerate(self.lines) if key == name.lower()]
        if places:
            self.lines[places[0]] = line
        else:
            self.lines.append(line)

    def encode(self) -> bytes:
        """Return the bytes with the empty line."""
        return b"\r\n".join([self.start, *(line for _, line in self.lines), b"", b""])

    @property
    def status(self) -> int:
        """The status of an answer."""
        return int(self.start.split(b" ", 2)[1])

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return "chunked" in self.get("Transfer-Encoding").lower()

    @property
    def length(self) -> int | None:
        """What Content-Length says, if it counts."""
        value = self.get("Content-Length")
        return int(value) if value.isdigit() and not self.chunked else None


def _sized(source: BufferedReader, length: int) -> Iterator[bytes]:
    """Pieces of a body of known length, as they come; fewer if the source ends."""
    while length > 0 and (piece := source.read1(min(PIECE, length))):
        length -= len(piece)
        yield piece


def _unchunked(source: BufferedReader, raw: bool) -> Iterator[bytes]:
    """Pieces of a body in chunks: as sent if raw, else what they hold.

    Raises:
        ConnectionAbortedError: the body is not complete.
    """
    while True:
        line = source.readline(PIECE)
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            raise ConnectionAbortedError("a body ended early") from None
        if raw:
            yield line
        left = size
        for piece in _sized(source, size):
            left -= len(piece)
            yield piece
        if left:
            raise ConnectionAbortedError("a body ended early")
        while line := source.readline(PIECE):  # the end of the chunk, or the trailers and an empty line
            if raw:
                yield line
            if line in (b"\r\n", b"\n"):
                break
        if not size:
            return


def _to_the_end(source: BufferedReader) -> Iterator[bytes]:
    while piece := source.read1(PIECE):
        yield piece


class _Connection(socketserver.BaseRequestHandler):
    """One connection of a client, which carries one request."""

    request: socket.socket
    server: _Listener

    def handle(self) -> None:
        """Read the request, decide, ask the server and answer."""
        proxy = self.server.proxy
        self.request.settimeout(600)
        with proxy._registered(self.request), contextlib.suppress(OSError, ValueError):
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                with self.request.makefile("rb") as source:
                    self._serve(source)
            except _Reset:
                # reset in place of a polite end, once the handler closes the socket
                self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.request.close()
            else:
                self.request.shutdown(socket.SHUT_WR)

    def _serve(self, source: BufferedReader) -> None:
        request = _Head.read(source)
        fault = self.server.proxy._decide(request)
        method = request.start.split(b" ", 1)[0]
        if fault is not None and fault.kind == "refuse":
            raise _Reset
        if request.get("Expect").lower() == "100-continue":
            request.drop("Expect")  # the answer to it is given here
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = _unchunked(source, raw=True) if request.chunked else _sized(source, request.length or 0)
        if fault is not None and fault.kind in ("status", "html"):
            for _ in body:  # a close with unread bytes would be a reset
                pass
            self._invent(fault, method)
            return
        if fault is not None and fault.kind == "delay":
            self._pause(fault.seconds)
        if fault is not None and fault.kind == "no_range":
            request.drop("Range", "If-Range")
        if fault is not None and fault.kind == "wrong_range":
            _shift_range(request)
        request.put("Connection", "close")
        try:
            server = socket.create_connection(self.server.proxy._target, timeout=600)
        except OSError:
            for _ in body:
                pass
            self._answer_whole(502, "text/plain", b"the server behind the proxy does not answer\n", method)
            return
        with server, self.server.proxy._registered(server):
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with server.makefile("rb") as reply:
                with contextlib.suppress(ConnectionError):  # it may have answered already, as on a wrong key
                    server.sendall(request.encode())
                    for piece in body:
                        server.sendall(piece)
                self._relay(reply, request, fault, method)

    def _relay(self, reply: BufferedReader, request: _Head, fault: Fault | None, method: bytes) -> None:
        """Pass the answer on, with its fault."""
        try:
            head = _Head.read(reply)
            while head.status < 200:
                head = _Head.read(reply)
        except (OSError, ValueError):
            raise _Reset from None
        head.put("Connection", "close")
        head.drop("Keep-Alive")
        if method == b"HEAD" or head.status in (204, 304):
            self.request.sendall(head.encode())
            return
        length = head.length
        if length is not None:
            body = _sized(reply, length)
        elif fault is not None:  # faults count bytes of the body, not of its wrapping
            whole = b"".join(_unchunked(reply, raw=False) if head.chunked else _to_the_end(reply))
            length, body = len(whole), iter([whole[at : at + PIECE] for at in range(0, len(whole), PIECE)])
            head.drop("Transfer-Encoding", "Trailer")
            head.put("Content-Length", length)
        elif head.chunked:
            body = _unchunked(reply, raw=True)
        else:
            body = _to_the_end(reply)
        if fault is not None:
            assert length is not None
            self._break(fault, request, head, length, body)
            return
        self.request.sendall(head.encode())
        sent = 0
        try:
            for piece in body:
                self.request.sendall(piece)
                sent += len(piece)
        except ConnectionAbortedError:
            raise _Reset from None
        if length is not None and sent < length:
            raise _Reset

    def _break(self, fault: Fault, request: _Head, head: _Head, length: int, body: Iterator[bytes]) -> None:
        """Answer with a fault of those that need the server's answer."""
        kind = fault.kind
        at = fault.after % length if length else 0
        short = length > 0 and kind in ("cut", "truncate", "close_delimited", "stall")
        if kind == "truncate":
            head.put("Content-Length", at)
        elif kind == "close_delimited":
            head.drop("Content-Length")
        elif kind == "wrong_range" and head.status in (200, 206):
            _claim_range(request, head, length)
        self.request.sendall(head.encode())
        sent = 0
        start = time.monotonic()
        step = max(1, min(PIECE, int(fault.rate / 20))) if kind == "drip" else PIECE
        for whole_piece in body:
            for offset in range(0, len(whole_piece), step):
                piece = whole_piece[offset : offset + step]
                if short:
                    piece = piece[: at - sent]
                if kind == "corrupt" and sent <= at < sent + len(piece):
                    piece = piece[: at - sent] + bytes([piece[at - sent] ^ 0xFF]) + piece[at - sent + 1 :]
                self.request.sendall(piece)
                sent += len(piece)
                if kind == "drip":
                    self._pause(start + sent / fault.rate - time.monotonic())
            if short and sent == at:
                break
        if kind == "stall":
            self._pause(fault.seconds)
        if kind == "cut" and fault.reset:
            self._pause(0.02)  # lets what was sent arrive
            raise _Reset
        if not short and sent < length:
            raise _Reset  # the server ended early

    def _pause(self, seconds: float) -> None:
        """Wait, but no longer than the client and the proxy stay.

        Raises:
            ConnectionAbortedError: one of them is gone.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            readable, _, _ = select.select([self.request], [], [], min(left, 0.1))
            if self.server.proxy._ending.is_set():
                raise ConnectionAbortedError("the proxy ends")
            if readable:
                if not self.request.recv(1, socket.MSG_PEEK):
                    raise ConnectionAbortedError("the client is gone")
                time.sleep(min(left, 0.1))  # bytes of a next request, which stay unread

    def _invent(self, fault: Fault, method: bytes) -> None:
        """Answer in the server's place."""
        if fault.kind == "html":
            self._answer_whole(200, "text/html; charset=utf-8", HTML, method)
            return
        code = fault.code or CODES.get(fault.status, ("", "Error"))[1]
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{code}</Message></Error>'
        extra = "" if fault.retry_after is None else f"Retry-After: {fault.retry_after}\r\n"
        self._answer_whole(fault.status, "application/xml", body.encode(), method, extra)

    def _answer_whole(self, status: int, kind: str, body: bytes, method: bytes, extra: str = "") -> None:
        reason = "OK" if status == 200 else CODES.get(status, ("Error", ""))[0]
        head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}"
        self.request.sendall(head.encode() + b"Connection: close\r\n\r\n" + (b"" if method == b"HEAD" else body))


def _shift_range(request: _Head) -> None:
    """Ask the server for one byte further on than the client did."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.get("Range"))
    start, end = (int(found[1]), found[2]) if found else (0, "")
    request.put("Range", f"bytes={start + 1}-{int(end) + 1 if end else ''}")


def _claim_range(request: _Head, head: _Head, length: int) -> None:
    """Make an answer 206 with the range that was asked of the server."""
    head.start = b"HTTP/1.1 206 Partial Content"
    if not head.get("Content-Range"):
        start = int(request.get("Range").partition("=")[2].partition("-")[0])
        head.put("Content-Range", f"bytes {start}-{start + length - 1}/*")
