"""Storages: local folders, web servers and real S3 servers, through a proxy that breaks answers."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sfdkit.config.parser import OneLineParser
from sfdkit.errors import ConfigError, MissingError, StorageError, TruncatedError
from sfdkit.storage import Storage, StorageSettings, storages
from sfdkit.storage.buckets import FsspecDriver
from sfdkit.storage.urls import redact, scheme_of
from tests.servers.loopback import S3Server, serve_http, serve_s3, serve_swift
from tests.servers.proxy import KINDS, Fault, FaultProxy, always, first, never, once, random_faults

DATA = os.urandom(300_000)
QUICK = StorageSettings(first_wait=0.01, longest_wait=0.05, block_mb=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    for name in ("bucket/a/one.bin", "bucket/b/one.bin", "bucket/b/two words+ä.bin"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(DATA)
    return root


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[S3Server]:
    with serve_s3(folder) as started:
        yield started


@pytest.fixture(scope="module")
def proxy(server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", server.port) as started:
        yield started


@pytest.fixture
def s3(server: S3Server, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """The bucket, by way of the proxy."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    proxy.choose = never
    proxy.clear()
    return Storage("s3://bucket/b", QUICK)


def check_reading(storage: Storage, sendable: bool = True) -> None:
    assert storage.read("one.bin") == DATA
    for start, stop in ((0, 10), (5, 5), (1, 250_001), (299_990, 300_000), (100_000, None)):
        assert storage.read("one.bin", start, stop) == DATA[start:stop]
    assert storage.size("one.bin") == len(DATA) and storage.exists("one.bin")
    assert storage.read("two words+ä.bin", 3, 9) == DATA[3:9]
    with pytest.raises(MissingError, match=r"nothing\.bin: there is no such file"):
        storage.read("nothing.bin")
    assert not storage.exists("nothing.bin")
    with pytest.raises(TruncatedError, match="shorter than its index says"):
        storage.read("one.bin", 299_000, 300_001)
    if sendable:
        assert pickle.loads(pickle.dumps(storage)).read("one.bin", 0, 4) == DATA[:4]


def check_writing(storage: Storage, tmp_path: Path) -> None:
    path = tmp_path / "made.bin"
    path.write_bytes(DATA[:1000])
    below = storage.child("new")
    below.put("x.bin", path)
    below.write("y.bin", b"y")
    assert below.read("x.bin") == DATA[:1000] and below.names() == ["x.bin", "y.bin"]
    below.remove("x.bin")
    below.remove("x.bin")
    assert below.names() == ["y.bin"]
    below.remove("y.bin")


def test_local(folder: Path, tmp_path: Path) -> None:
    for address in (str(folder / "bucket/b"), f"file://{folder}/bucket/b"):
        check_reading(Storage(address))
    check_writing(Storage(tmp_path), tmp_path)


def test_s3(s3: Storage, tmp_path: Path) -> None:
    check_reading(s3)
    check_writing(s3, tmp_path)


@pytest.mark.parametrize("ranges", [True, False])
def test_web_servers_with_ranges_and_without(folder: Path, ranges: bool) -> None:
    with serve_http(folder / "bucket", ranges) as url:
        check_reading(Storage(f"{url}/b", QUICK))
        assert Storage(f"{url}/b", QUICK).names() == ["one.bin", "two words+ä.bin"]
        with pytest.raises(ConfigError, match="cannot be written over http"):
            Storage(url, QUICK).write("x", b"")


@pytest.mark.slow
def test_swift(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        with serve_swift(tmp_path) as server:
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            import s3fs

            system = s3fs.S3FileSystem(
                endpoint_url=server.endpoint, config_kwargs={"signature_version": "s3v4"}, skip_instance_cache=True
            )
            system.mkdir("bucket")
            storage = Storage("s3://bucket/b", QUICK)
            for path in (folder / "bucket/b").iterdir():
                storage.put(path.name, path)
            check_reading(storage)
            check_writing(storage, tmp_path)
            with FaultProxy("127.0.0.1", server.port, random_faults(1, 8, ["cut", "status", "corrupt"], 16)) as proxy:
                monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
                assert len(Storage("s3://bucket/b", QUICK).read("one.bin")) == len(DATA)
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 5)
            with pytest.raises(StorageError, match="access is refused"):
                Storage("s3://bucket/b", QUICK).read("one.bin")
    except RuntimeError as error:
        pytest.skip(str(error))


def test_file_systems_of_fsspec(tmp_path: Path) -> None:
    """The driver of Google's, Azure's and Hugging Face's storages, on the file system that fsspec keeps in memory."""
    storage = Storage(tmp_path, QUICK)  # its address is not used any more
    storage._driver = os.getpid(), FsspecDriver("memory://bucket/b", "memory")
    storage.is_local = False
    for name in ("one.bin", "two words+ä.bin"):
        storage.write(name, DATA)
    check_reading(storage, sendable=False)
    assert storage.names() == ["one.bin", "two words+ä.bin"] and storage.driver.glob() == ["memory:///bucket/b"]
    pieces = storage.pieces("one.bin", 299_000, 300_001)
    assert next(pieces) == DATA[299_000:]  # what is there comes before the error
    with pytest.raises(TruncatedError):
        next(pieces)
    storage.remove("one.bin")
    storage.remove("one.bin")
    assert storage.names() == ["two words+ä.bin"]


def test_wrong_keys_are_refused_and_show_nowhere(s3: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "very-secret-secret-key"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    for attempt in (lambda: Storage(s3.root, QUICK).read("one.bin"), lambda: Storage(s3.root, QUICK).write("x", b"")):
        with pytest.raises(StorageError, match="access is refused") as caught:
            attempt()
        text = f"{caught.value} {caught.value.__cause__}"
        assert secret not in text and os.environ["AWS_ACCESS_KEY_ID"] not in text and "Signature=" not in text


SURVIVED = [
    *(Fault(kind, after=70_000, seconds=0.05) for kind in KINDS if kind not in ("status", "drip", "corrupt", "html")),
    Fault("cut", after=33, reset=True),
    Fault("stall", after=50_000, seconds=9),
    Fault("drip", rate=400_000),
    *(Fault("status", status=status) for status in (429, 500, 503, 404)),
    Fault("status", status=503, retry_after=1),
]


@pytest.mark.parametrize("fault", SURVIVED, ids=lambda fault: f"{fault.kind}-{fault.status}-{fault.reset}")
def test_faults_in_passing_are_survived(s3: Storage, proxy: FaultProxy, fault: Fault) -> None:
    proxy.choose = once(fault, matching="one.bin")
    assert Storage(s3.root, replace(QUICK, timeout=2)).read("one.bin") == DATA
    assert fault.kind in [seen.fault for seen in proxy.log]


def test_a_broken_transfer_goes_on_at_its_byte(s3: Storage, proxy: FaultProxy) -> None:
    proxy.choose = once(Fault("cut", after=70_000), matching="one.bin")
    assert s3.read("one.bin", 10, 200_010) == DATA[10:200_010]
    ranges = [seen.range for seen in proxy.log if seen.method == "GET"]
    assert ranges == ["bytes=10-100009", "bytes=70010-170009", "bytes=170010-200009"]
    assert s3.repeats == 1


def test_a_server_that_cuts_transfer_after_transfer_still_gives_the_file(s3: Storage, proxy: FaultProxy) -> None:
    proxy.choose = first(25, Fault("cut", after=9_999), matching="one.bin")
    assert s3.read("one.bin") == DATA


def test_attempts_end_and_waits_double(s3: Storage, proxy: FaultProxy) -> None:
    proxy.choose = always(Fault("status", status=503), matching="one.bin")
    patient = Storage(s3.root, StorageSettings(attempts=4, first_wait=0.05, longest_wait=0.1))
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"one\.bin: status 503, SlowDown, 4 times in a row in \d+\.\d s.*attempts"):
        patient.read("one.bin")
    assert len(proxy.log) == 4 and time.monotonic() - start >= 0.5 * 0.25
    proxy.choose = first(3, Fault("refuse"))
    assert Storage(s3.root, QUICK).read("one.bin") == DATA


def test_a_server_that_asks_for_time_gets_it(s3: Storage, proxy: FaultProxy) -> None:
    proxy.choose = once(Fault("status", status=503, retry_after=1), matching="one.bin")
    start = time.monotonic()
    assert Storage(s3.root, StorageSettings(first_wait=0.01)).read("one.bin") == DATA
    assert time.monotonic() - start >= 1 and len(proxy.log) == 2


def test_a_file_that_changes_while_it_is_read_is_an_error(s3: Storage, folder: Path) -> None:
    (folder / "bucket/b/changing.bin").write_bytes(DATA)
    pieces = s3.pieces("changing.bin", 0, len(DATA))
    next(pieces)
    (folder / "bucket/b/changing.bin").write_bytes(DATA[::-1])
    with pytest.raises(StorageError, match="was replaced while it was read"):
        list(pieces)
    (folder / "bucket/b/changing.bin").unlink()


def test_addresses_with_credentials_are_refused_without_showing_them() -> None:
    for address in (
        "https://me:hunter22@host/x",
        "https://host/x?X-Amz-Signature=hunter22",
        "s3://K:hunter22@bucket",
    ):
        with pytest.raises(ConfigError, match="by the environment") as caught:
            Storage(address)
        assert "hunter22" not in str(caught.value)
    with pytest.raises(ConfigError, match="by the environment"):
        StorageSettings(endpoint="http://me:hunter22@host")


def test_redaction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef\n")
    monkeypatch.setenv("SFDKIT_HTTP_AUTHORIZATION", "Bearer topsecretvalue\n")
    assert redact("Invalid header value b'Bearer topsecretvalue\\n'") == "Invalid header value b'***\\n'"
    assert (
        redact("exceeded with url: /b/k?X-Amz-Signature=12ab&x=1 (")
        == "exceeded with url: /b/k?X-Amz-Signature=***&x=1 ("
    )
    text = "Bearer hf_abcdef at https://u:p@host:1/x?sig=1&page=2 and s3://bucket/key"
    assert redact(text) == "Bearer *** at https://***@host:1/x?sig=***&page=2 and s3://bucket/key"


def test_redirects_are_followed(folder: Path) -> None:
    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"{target}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serve_http(folder) as target, ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert Storage(f"http://127.0.0.1:{server.server_port}/bucket", QUICK).read("b/one.bin", 5, 900) == DATA[5:900]
        server.shutdown()


def test_the_header_of_the_environment_is_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFDKIT_HTTP_AUTHORIZATION", "Bearer abcdefgh")
    with serve_http(folder / "bucket") as url:
        storage = Storage(url, QUICK)
        assert storage.driver._headers["Authorization"] == "Bearer abcdefgh"  # type: ignore[attr-defined]
        assert storage.read("b/one.bin", 0, 3) == DATA[:3]


def test_unknown_schemes_and_missing_drivers_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"scheme 's4'.*Did you mean 's3'"):
        Storage("s4://bucket")
    assert scheme_of("/data/a:b") == scheme_of("C#4/x") == scheme_of("a:b") == ""
    with pytest.raises(ConfigError, match=r"pip install 'sfdkit\[gcs\]'"):
        Storage("gs://bucket").read("x")


def test_patterns(folder: Path, s3: Storage) -> None:
    for base in (folder / "bucket", "s3://bucket"):
        expected = [f"{base}/a", f"{base}/b"]
        assert [found.root for found in storages(f"{base}/{{a,b}}", QUICK)] == expected
        assert [found.root for found in storages(f"{base}/*", QUICK)] == expected
        with pytest.raises(ConfigError, match="fits no folder"):
            storages(f"{base}/none*", QUICK)
    assert len(storages("s3://bucket/part-{000..011}")) == 12
    with pytest.raises(ConfigError, match="brace without its partner"):
        storages("s3://bucket/{a")


def test_pipes_are_off_until_they_are_allowed(folder: Path) -> None:
    root = f"pipe:cat {folder}/bucket/{{}}"
    with pytest.raises(ConfigError, match=r"runs a shell command.*storage\.allow_pipe: true"):
        Storage(root)
    allowed = StorageSettings(allow_pipe=True, first_wait=0.01, attempts=2)
    check = Storage(root, allowed).child("b")
    assert check.read("one.bin") == DATA and check.read("two words+ä.bin", 100, 200) == DATA[100:200]
    with pytest.raises(TruncatedError):
        check.read("one.bin", 10, 300_001)
    with pytest.raises(StorageError, match="its command ended with status"):
        check.read("nothing", 0, 10)
    slow = StorageSettings(allow_pipe=True, first_wait=0.01, attempts=2, timeout=0.2)
    with pytest.raises(StorageError, match=r"its command gave no byte for 0\.2 s, 2 times in a row"):
        Storage("pipe:sleep 60 | cat {}", slow).read("-")
    with pytest.raises(ConfigError, match=r"has no \{\}"):
        Storage("pipe:cat x", allowed)


@pytest.mark.parametrize(
    "word",
    ["attempts=0", "timeout=0", "block_mb=0", "first_wait=-1", "longest_wait=-1", "read_ahead_mb=-1", "cache_gb=0"],
)
def test_settings_out_of_range(capsys: pytest.CaptureFixture[str], word: str) -> None:
    parser = OneLineParser()
    parser.add_class_arguments(StorageSettings, "storage")
    with pytest.raises(SystemExit):
        parser.parse_args([f"--storage.{word}"])
    name, value = word.split("=")
    assert f"storage.{name}: {value} is out of range; give" in capsys.readouterr().err
