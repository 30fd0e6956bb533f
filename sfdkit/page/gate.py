"""Who may ask the page, and whom the page may ask."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)
"""What the browser may load: nothing from any other host."""
_PORT = re.compile(r":\d+$")
_HEADERS = {"content-security-policy": POLICY, "referrer-policy": "no-referrer", "x-content-type-options": "nosniff"}


class Gate:
    """Refuses requests that another web page makes a browser send, and tells the browser to ask no other host.

    Args:
        app: What answers, an ASGI application.
        hosts: Names by which the page may be asked for; None for any.
    """

    def __init__(self, app: Any, hosts: Collection[str] | None) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        known = self.hosts is None or _PORT.sub("", host).strip("[]") in self.hosts
        if not known or (origin is not None and origin.partition("://")[2] != host):
            return await PlainTextResponse("asked from another page", 403)(scope, receive, send)

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self.app(scope, receive, answer)
