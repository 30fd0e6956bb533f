"""Object stores through fsspec (https://filesystem-spec.readthedocs.io), which lists, writes and signs."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec

from sfdkit.storage.driver import Driver, Transfer
from sfdkit.storage.http import HttpDriver
from sfdkit.storage.settings import StorageSettings


class _FsspecFolder(Driver):
    """What fsspec does for a folder: all but reading."""

    _system: Any

    def names(self) -> list[str]:
        """List the folder."""
        try:
            found = self._system.ls(self.root, detail=True)
        except FileNotFoundError:
            return []
        return sorted(entry["name"].rstrip("/").rsplit("/", 1)[1] for entry in found if entry["type"] == "file")

    def put(self, name: str, path: Path) -> None:
        """Upload, in parts where the file is large; an object appears when it is whole."""
        self._system.put_file(str(path), f"{self.root}/{name}")

    def remove(self, name: str) -> None:
        """Delete."""
        with suppress(FileNotFoundError):
            self._system.rm_file(f"{self.root}/{name}")

    def glob(self) -> list[str]:
        """Match folders."""
        return sorted(self._system.unstrip_protocol(path) for path in self._system.glob(self.root))


class FsspecDriver(_FsspecFolder):
    """Google, Azure and Hugging Face through their fsspec file systems; each MB is a range request of its own."""

    def __init__(self, root: str, scheme: str) -> None:
        self.root = root.rstrip("/")
        self._system = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False)

    def open(self, name: str, start: int, stop: int | None, etag: str | None) -> Transfer:
        """Find out the size, then read range by range."""
        path, position, size = f"{self.root}/{name}", start, self.size(name)

        def read(count: int) -> bytes:
            nonlocal position
            data: bytes = self._system.cat_file(path, start=position, end=position + count)
            position += len(data)
            return data

        end = size if stop is None else min(stop, size)
        early = ConnectionError("the connection ended early")
        return Transfer(read, max(0, end - start), early, cut=stop is not None and size < stop)

    def size(self, name: str) -> int:
        """Ask for the file's data."""
        return int(self._system.info(f"{self.root}/{name}")["size"])


class S3Driver(_FsspecFolder, HttpDriver):
    """A bucket: s3fs lists, writes, and signs the requests that urllib3 sends."""

    def __init__(self, root: str, settings: StorageSettings) -> None:
        super().__init__(root, settings)
        self._headers.pop("Authorization", None)  # the signature is in the address
        self._system = _s3(settings)

    def address(self, name: str) -> str:
        """Return a signed address."""
        return str(self._system.sign(f"{self.root}/{name}", expiration=3600)) if name else self.root


def _s3(settings: StorageSettings) -> Any:
    import botocore.session
    import s3fs

    session = botocore.session.get_session()
    endpoint = settings.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config: dict[str, Any] = {
        "signature_version": "s3v4",
        "request_checksum_calculation": "when_required",  # servers other than Amazon's refuse the new checksums
        "response_checksum_validation": "when_required",
        "connect_timeout": min(10.0, settings.timeout),
        "read_timeout": settings.timeout,
        "retries": {"max_attempts": 0},
    }
    if endpoint:
        config["s3"] = {"addressing_style": "path"}
    anonymous = session.get_credentials() is None
    if anonymous:
        del config["signature_version"]
    system = s3fs.S3FileSystem(
        anon=anonymous,
        endpoint_url=endpoint,
        config_kwargs=config,
        client_kwargs={"region_name": session.get_config_variable("region") or "us-east-1"},
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    system.retries = 1  # attempts are counted by the caller
    return system
