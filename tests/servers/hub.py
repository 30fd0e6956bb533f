"""A stand-in for the HTTP interface of the Hugging Face hub: as much of it as huggingface_hub asks for, in memory.

Uploads go the way of small files (``regular``), within the commit. ``TOKEN`` may write, and see what is private;
``READER`` may see only what is public.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN, READER = "hf_mayWriteAndReadAll", "hf_mayReadWhatIsPublic"
GATED = "ann/gated"


@dataclass
class Repository:
    """A repository: commits are whole folders."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit("main", {".gitattributes": b""})

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        """Add a commit with files, and return its name."""
        content = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        name = hashlib.sha1(f"{branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[name], self.branches[branch] = content, name
        return name


@dataclass
class Hub:
    """The stand-in while it runs."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Method and path of each request."""


@contextlib.contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve an empty hub on this machine."""
    hub = Hub("")

    class Handler(_Handler):
        served = hub

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def answer(self, status: int, content: Any = None, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code})

    def repository(self, name: str) -> Repository | None:
        """Return a repository that the token may see; refuse otherwise, as the hub does."""
        found, token = self.served.repositories.get(name), self.headers.get("Authorization", "")
        if found is None or (found.private and token != f"Bearer {TOKEN}"):
            self.refuse(401 if not token else 404, "RepoNotFound")
            return None
        if name == GATED:
            self.refuse(403, "GatedRepo")
            return None
        return found

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.served.asked.append(f"{self.command} {self.path}")
        words = [unquote(word) for word in urlsplit(self.path).path.strip("/").split("/")]
        if words[:2] == ["api", "models"]:
            if (found := self.repository("/".join(words[2:4]))) is not None:
                name = "/".join(words[2:4])
                revision = found.branches[words[5] if words[4:5] == ["revision"] else "main"]
                self.answer(200, {"id": name, "private": found.private, "sha": revision, "siblings": []})
        elif words[2:3] == ["resolve"]:
            self.file("/".join(words[:2]), words[3], "/".join(words[4:]))
        else:
            self.refuse(404, "")

    def file(self, name: str, revision: str, path: str) -> None:
        if (found := self.repository(name)) is None:
            return
        commit = found.branches.get(revision, revision)
        if commit not in found.commits:
            self.refuse(404, "RevisionNotFound")
        elif path not in found.commits[commit]:
            self.refuse(404, "EntryNotFound")
        else:
            body = found.commits[commit][path]
            self.answer(200, body, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(body).hexdigest()}"'})

    def do_POST(self) -> None:
        self.served.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        words = [unquote(word) for word in urlsplit(self.path).path.strip("/").split("/")]
        if words == ["api", "validate-yaml"]:
            self.answer(200, {"errors": [], "warnings": []})
        elif (token := self.headers.get("Authorization")) != f"Bearer {TOKEN}":
            self.refuse(403 if token else 401, "")
        elif words == ["api", "repos", "create"]:
            self.create(json.loads(body))
        elif words[4:5] == ["branch"] and (found := self.repository("/".join(words[2:4]))) is not None:
            new = words[5] not in found.branches
            found.branches.setdefault(words[5], found.branches["main"])
            self.answer(200 if new else 409, {})
        elif words[4:5] == ["preupload"]:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})
        elif words[4:5] == ["commit"] and (found := self.repository("/".join(words[2:4]))) is not None:
            lines = [json.loads(line) for line in body.splitlines()]
            values = [line["value"] for line in lines if line["key"] == "file"]
            commit = found.commit(words[5], {v["path"]: base64.b64decode(v["content"]) for v in values})
            url = f"{self.served.url}/{'/'.join(words[2:4])}/commit/{commit}"
            self.answer(200, {"commitUrl": url, "commitOid": commit, "pullRequestUrl": None})
        else:
            self.refuse(404, "")

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        there = name in self.served.repositories
        if not there:
            private = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.served.repositories[name] = Repository(private)
        self.answer(409 if there else 200, {"url": f"{self.served.url}/{name}"})
