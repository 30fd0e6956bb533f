"""Weights files by the address of a web server: downloaded once, whole, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sfdkit.checkpoint import load_animator
from sfdkit.cli import main
from sfdkit.errors import StorageError
from sfdkit.files import sha256_of
from sfdkit.weights.commands import Pack
from sfdkit.weights.shipped import find_weights
from tests.written import lively_animator, write_checkpoint


class Server(ThreadingHTTPServer):
    """Answers with what ``answers`` holds for a path: status, headers, body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.asked.append(dict(self.headers.items()))
        status, headers, body = self.server.answers.get(self.path, (404, {}, b""))
        if any(headers.get(a) and self.headers.get(b) == headers[a] for a, b in VALIDATORS.items()):
            status, body = 304, b""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


VALIDATORS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("SFDKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SFDKIT_HTTP_AUTHORIZATION", "Bearer of-the-storage")
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Two weights files."""
    folder = tmp_path_factory.mktemp("weights")
    for seed in range(2):
        checkpoint = write_checkpoint(folder / "last.ckpt", lively_animator(seed))
        Pack(checkpoint=str(checkpoint), output=str(folder / f"{seed}.safetensors")).run()
    return [(folder / f"{seed}.safetensors").read_bytes() for seed in range(2)]


def cached(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())


@pytest.mark.parametrize("validator", VALIDATORS)
def test_it_is_downloaded_again_when_it_has_changed_alone(
    validator: str, server: Server, weights: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{server.url}/a/mine.safetensors"
    notes, found = [], []
    for version, body in (('"1"', weights[0]), ('"1"', weights[0]), ('"2"', weights[1])):
        server.answers["/a/mine.safetensors"] = (200, {validator: version}, body)
        loaded = load_animator(url)
        found.append(float(loaded.animator.descriptors.weight[0, 0]))
        (file,) = (tmp_path / "cache/models").rglob("*.safetensors")
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith(f"{url}: sha256 {sha256_of(file)}, ") and file.read_bytes() == body
        notes.append(line.rpartition(", ")[2])
    assert notes == ["downloaded", "unchanged since it was downloaded", "downloaded"]
    assert found[0] == found[1] != found[2]
    assert len(cached(tmp_path)) == 2 and not any("Authorization" in asked for asked in server.asked)


def test_a_server_without_versions_is_asked_each_time(server: Server, weights: list[bytes]) -> None:
    for body in weights:
        server.answers["/mine.safetensors"] = (200, {}, body)
        assert find_weights(f"{server.url}/mine.safetensors").read_bytes() == body


def test_a_damaged_copy_is_downloaded_again(server: Server, weights: list[bytes]) -> None:
    server.answers["/mine.safetensors"] = (200, {"ETag": '"1"'}, weights[0])
    path = find_weights(f"{server.url}/mine.safetensors")
    path.write_bytes(b"cut")
    assert find_weights(f"{server.url}/mine.safetensors") == path and path.read_bytes() == weights[0]


def test_the_copy_serves_when_the_server_is_away(
    server: Server, weights: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers["/mine.safetensors"] = (200, {}, weights[0])
    path = find_weights(f"{server.url}/mine.safetensors")
    server.shutdown()
    server.server_close()
    assert find_weights(f"{server.url}/mine.safetensors") == path
    assert "from the cache, as the server cannot be reached: " in capsys.readouterr().err
    with pytest.raises(StorageError, match=r"other\.safetensors cannot be read: .*refused.*; check the address"):
        find_weights(f"{server.url}/other.safetensors")


def test_it_may_move_on_this_machine(server: Server, weights: list[bytes]) -> None:
    server.answers["/old.safetensors"] = (302, {"Location": "/new"}, b"")
    server.answers["/new"] = (200, {}, weights[0])
    assert find_weights(f"{server.url}/old.safetensors").read_bytes() == weights[0]


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        (404, {}, b"", "there is no such file (status 404)"),
        (403, {}, b"", "access is refused (status 403)"),
        (500, {}, b"", "the server answers with status 500"),
        (200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>", "is a web page and no file"),
        (200, {}, b"\n<!DOCTYPE html>", "is a web page and no file"),
        (200, {}, b"no weights", "is damaged or no .safetensors file"),
        (200, {}, b"", "is damaged or no .safetensors file"),
        (200, {"Content-Length": "1000"}, b"cut off", "cannot be read"),
        (200, {}, b"x" * 5000, "has 0.0 MB or more, 0.0 MB are the most"),
        (200, {"Content-Length": "3000000000"}, b"", "has 3000.0 MB or more"),
        (302, {"Location": "http://example.org/x"}, b"", "leads, is no https address"),
        (302, {"Location": "/bad.safetensors"}, b"", "leads from one address to the next"),
    ],
)
def test_what_is_no_weights_file_is_one_line_and_stays_out_of_the_cache(
    status: int,
    headers: dict[str, str],
    body: bytes,
    said: str,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sfdkit.weights.shipped.MOST_BYTES", 4000)
    monkeypatch.setattr("urllib3.Retry.sleep", lambda *_: None)
    server.answers["/bad.safetensors"] = (status, headers, body)
    url = f"{server.url}/bad.safetensors"
    assert main(["model", "summary", "--checkpoint", url]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("sfdkit: error: ") and url in line and said in line
    assert cached(tmp_path) == []


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://example.org/x.safetensors", "is no https address"),
        ("ftp://example.org/x.safetensors", "has the scheme 'ftp', from which no model is loaded"),
        ("s3://bucket/x.safetensors", "has the scheme 's3'"),
        ("file:///x.safetensors", "has the scheme 'file'"),
        ("https://example.org/x.ckpt", "names no weights file; its path must end with .safetensors"),
        ("https://ann:secret@example.org/x.safetensors", "holds a user name or password"),
        ("https://example.org/x.safetensors?token=secret", "holds the parameter 'token'"),
        ("https:///x.safetensors", "is no https address"),
    ],
)
def test_addresses_that_are_refused(
    address: str, said: str, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "summary", "--checkpoint", address]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line and "secret" not in line
