"""A page on this machine that shows the newest picture: a stream of JPEG pictures, which any browser plays."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import cv2
import numpy as np

from sfdkit.errors import ConfigError

HOST = "127.0.0.1"
_BOUNDARY = "sfdkit"
_QUALITY = 90
_PAGE = b"""<!doctype html><meta charset="utf-8"><title>sfdkit live</title>
<style>body{margin:0;background:#111;color:#ddd;font:16px sans-serif;text-align:center}
img{height:80vh;max-width:100vw;object-fit:contain;image-rendering:auto}</style>
<img src="stream" alt="the animated face"><p id="told">waiting for a face</p>
<script>setInterval(async () => {
  const told = await (await fetch("told")).json();
  if (told.frames) document.getElementById("told").textContent =
    `${told.frames_per_second.toFixed(1)} frames per second, ${told.latency_ms.toFixed(0)} ms behind, ` +
    `${told.dropped} frames dropped`;
}, 500)</script>
"""


class Page:
    """Serves pictures and what is told of them, to this machine alone.

    Args:
        port: Of the address; 0 takes a free one.

    Raises:
        ConfigError: The port is taken.
    """

    def __init__(self, port: int) -> None:
        self._picture: bytes | None = None
        self._told: dict[str, Any] = {}
        self._number = 0
        self._closed = False
        self._changed = threading.Condition()
        try:
            self._server = ThreadingHTTPServer((HOST, port), self._handler())
        except OSError as error:
            raise ConfigError(f"port: {port} cannot be used ({error.strerror}); give another, or 0 for any") from error
        self._server.daemon_threads = True
        self.address = f"http://{HOST}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def show(self, picture: np.ndarray, told: Mapping[str, Any]) -> None:
        """Show a picture, H W 3 uint8, and what is told of it."""
        _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        with self._changed:
            self._picture, self._told = data.tobytes(), dict(told)
            self._number += 1
            self._changed.notify_all()

    def _handler(page) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host = (self.headers.get("Host") or "").partition(":")[0]
                if host not in (HOST, "localhost"):  # a foreign page that has taken this address for its own name
                    self.send_error(403)
                elif self.path == "/":
                    self._send(_PAGE, "text/html; charset=utf-8")
                elif self.path == "/told":
                    self._send(json.dumps(page._told).encode(), "application/json")
                elif self.path == "/stream":
                    self._stream()
                else:
                    self.send_error(404)

            def _send(self, data: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _stream(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                seen = 0
                try:
                    while (data := page._next(seen)) is not None:
                        seen = page._number
                        head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                        self.wfile.write(head.encode() + data + b"\r\n")
                except (BrokenPipeError, ConnectionResetError):  # the browser has closed the page
                    pass

            def log_message(self, format: str, *args: Any) -> None:
                """Stay silent."""

        return Handler

    def _next(self, seen: int) -> bytes | None:
        """Wait for a picture after number ``seen``; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._number > seen)
            return None if self._closed else self._picture
