from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from sfdkit.cli import main
from sfdkit.errors import ConfigError
from sfdkit.page.command import Page
from tests.running import ROOT


def test_without_gradio_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert main(["page"]) == 1
    assert capsys.readouterr().err == ("sfdkit: error: the page needs Gradio 6 or newer: pip install 'sfdkit[page]'\n")
    monkeypatch.setattr(metadata, "version", lambda name: "5.49.1")
    assert main(["page"]) == 1
    assert "this is 5.49.1" in capsys.readouterr().err


def test_the_models_on_offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.ckpt").touch()
    assert list(Page().models()) == ["puppets64"]
    offered = Page(checkpoint=["a.ckpt", "hf://user/name"], model="exported", crop="none", trust=["mine"]).models()
    shared = {"crop": "none", "margin": None, "detector": "opencv", "device": "auto"}
    assert offered["hf://user/name"] == {"checkpoint": "hf://user/name", "trust": ["mine"], **shared}
    assert offered["exported"] == {"model": "exported", **shared}
    with pytest.raises(ConfigError, match="empty lists"):
        Page(checkpoint=[]).models()


pytest.importorskip("gradio")

from sfdkit.page.server import serving  # noqa: E402

LIMIT_MB = 1


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("sfdkit-page-*"))


class Client:
    """Asks a page as a program would."""

    def __init__(self, address: str, folder: Path) -> None:
        self.host, self.folder = address.removeprefix("http://").rstrip("/"), folder

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, Any]:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()

    def upload(self, name: str, data: bytes, **headers: str) -> tuple[int, bytes, Any]:
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + b"\r\n--x--\r\n"
        return self.ask("POST", "/gradio_api/upload", body, Content_Type="multipart/form-data; boundary=x", **headers)


@pytest.fixture(scope="module")
def page(files: Path) -> Iterator[Client]:
    before, environment = folders(), dict(os.environ)
    models = Page(checkpoint=str(files / "run/checkpoints/last.ckpt"), device="cpu").models()
    with serving(models, "none", "127.0.0.1", 0, LIMIT_MB) as address:
        (folder,) = folders() - before
        yield Client(address, folder)
    assert not folders() - before and dict(os.environ) == environment


def test_the_page_names_no_address_that_a_browser_would_load(page: Client) -> None:
    status, body, headers = page.ask("GET", "/")
    text = body.decode()
    assert status == 200
    loaded = re.findall(r"""<(?:link|script|img|iframe)[^>]*(?:href|src)=["']?(https?:)?//([^"'\s>]+)""", text)
    assert not [host for _, host in loaded if not host.startswith(page.host)]
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "https:" not in headers["content-security-policy"] and "*" not in headers["content-security-policy"]
    config = json.loads(re.search(r"window.gradio_config = (\{.*?\});</script>", text, re.DOTALL)[1])  # type: ignore[index]
    assert config["stylesheets"] == [] and not config["analytics_enabled"] and config["footer_links"] == []
    status, info, _ = page.ask("GET", "/gradio_api/info")
    assert json.loads(info) == {"named_endpoints": {}, "unnamed_endpoints": {}}
    assert page.ask("GET", "/docs")[0] == 404


def test_other_pages_are_refused(page: Client) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::2]", "[", ""):
        assert page.ask("GET", "/", Host=host)[0] in (400, 403), "a name that another page has pointed here"
    for host in ("localhost", "127.0.0.1:80", "[::1]:7860"):
        assert page.ask("GET", "/", Host=host)[0] == 200
    assert page.upload("a.png", b"abc", Origin="http://evil.example")[0] == 403
    assert page.upload("a.png", b"abc", Origin="null")[0] == 403
    assert page.upload("a.png", b"abc", Origin=f"http://{page.host}")[0] == 200


def test_uploads_lie_in_the_page_s_folder_and_have_a_limit(page: Client) -> None:
    status, body, _ = page.upload("../../face.png", b"abc")
    (path,) = json.loads(body)
    assert status == 200 and page.folder in Path(path).resolve().parents
    assert page.ask("GET", f"/gradio_api/file={quote(path)}")[:2] == (200, b"abc")
    before = {path for path in page.folder.rglob("*") if path.is_file()}
    status, body, _ = page.upload("large.png", bytes(LIMIT_MB * 10**6 + 1))
    assert status == 413 and b"maximum allowed size" in body
    assert {path for path in page.folder.rglob("*") if path.is_file()} == before, "no part of it stays"
    assert page.upload("small.png", bytes(LIMIT_MB * 10**6 - 1000))[0] == 200


def test_no_other_file_is_served(page: Client, files: Path) -> None:
    for path in ("/etc/passwd", str(ROOT / "README.md"), str(files / "face.png"), f"{page.folder}/../../etc/passwd"):
        assert page.ask("GET", f"/gradio_api/file={quote(path)}")[0] in (403, 404), path


def test_a_port_in_use_is_told_before_anything_is_loaded(page: Client) -> None:
    before = folders()
    port = int(page.host.rpartition(":")[2])
    with pytest.raises(ConfigError, match=rf"port: {port} of 127\.0\.0\.1 cannot be used \(Address already in use\)"):
        Page(port=port).run()
    with pytest.raises(ConfigError, match="cannot be used"):
        Page(host="no.such.host.invalid", port=0).run()
    assert folders() == before


@pytest.mark.slow
def test_the_command_ends_at_a_signal_and_leaves_nothing(files: Path) -> None:
    before = folders()
    words = ["page", "--checkpoint", str(files / "run/checkpoints/last.ckpt"), "--port", "0", "--host", "0.0.0.0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sfdkit", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background shells ignore it
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        assert lines[0] == "warning: whoever reaches 0.0.0.0 can use this page: it has no password\n"
        assert re.fullmatch(r"look at http://\S+:\d+/; Ctrl-C ends it\n", lines[1])
        assert len(folders() - before) == 1
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.wait()
    until = time.monotonic() + 60
    while folders() - before and time.monotonic() < until:
        time.sleep(0.1)
    assert not folders() - before
    with socket.socket() as place:
        assert place.connect_ex(("127.0.0.1", int(lines[1].split(":")[2].partition("/")[0]))) != 0
