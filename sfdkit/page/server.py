"""Serving the page, and leaving nothing behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sfdkit.errors import ConfigError
from sfdkit.media.crop import CropMethod
from sfdkit.page.desk import Desk
from sfdkit.page.examples import draw_examples
from sfdkit.page.models import Models

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts that nobody reaches from another machine."""


@contextmanager
def serving(
    models: Mapping[str, Mapping[str, Any]], crop: CropMethod, host: str, port: int, limit_mb: int
) -> Iterator[str]:
    """Serve a page while the context lasts, and give its address.

    Args:
        models: Name to options of :class:`sfdkit.apply.options.AnimatorOptions`; the first is chosen at the start.
        crop: How faces are cut out, at the start.
        host: Address to listen at.
        port: Its port; 0 for a free one.
        limit_mb: The largest upload, in megabytes.

    Raises:
        ConfigError: The port is taken, or there is no such host.
    """
    port = _free_port(host, port)
    with Desk() as desk, _environment(desk):
        from starlette.middleware import Middleware

        from sfdkit.page.build import LOOK, STYLE, build
        from sfdkit.page.gate import Gate

        blocks = build(Models(models), desk, draw_examples(desk.examples), crop)
        blocks.queue(api_open=False, max_size=256)
        try:
            _, address, _ = blocks.launch(
                server_name=f"[{host}]" if ":" in host else host,
                server_port=port,
                max_file_size=limit_mb * 10**6,
                app_kwargs={"middleware": [Middleware(Gate, LOOPBACK if host in LOOPBACK else None)]},
                theme=LOOK,
                css=STYLE,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                mcp_server=False,
                pwa=False,
                share=False,
                ssr_mode=False,
                inline=False,
                prevent_thread_lock=True,
                quiet=True,
            )
        except OSError as error:
            raise ConfigError(f"port: {port} cannot be used; give another, or 0 for any") from error
        try:
            yield address
        finally:
            blocks.close(verbose=False)


def _free_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0.

    Raises:
        ConfigError: It is taken, or there is no such host.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family) as place:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            place.bind((host, port))
            return place.getsockname()[1]
    except OSError as error:
        raise ConfigError(
            f"port: {port} of {host} cannot be used ({error.strerror}); give another, or 0 for any"
        ) from error


@contextmanager
def _environment(desk: Desk) -> Iterator[None]:
    """Let Gradio keep its files at the desk and ask nobody, whatever its variables say; no proxy is for this page."""
    earlier = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ |= {"GRADIO_TEMP_DIR": str(desk.folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    os.environ |= {name: _without_proxy(earlier, name) for name in ("NO_PROXY", "no_proxy")}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= earlier


def _without_proxy(variables: Mapping[str, str], name: str) -> str:
    return ",".join([*filter(None, [variables.get(name)]), *LOOPBACK])
