"""Which driver reads which address."""

from __future__ import annotations

from sfdkit.errors import ConfigError
from sfdkit.storage.buckets import FsspecDriver, S3Driver
from sfdkit.storage.driver import Driver
from sfdkit.storage.http import HttpDriver
from sfdkit.storage.local import LocalDriver
from sfdkit.storage.pipe import PipeDriver
from sfdkit.storage.settings import StorageSettings
from sfdkit.storage.urls import SCHEMES, redact, scheme_of


def make_driver(root: str, settings: StorageSettings) -> Driver:
    """Return the driver of an address.

    Raises:
        ConfigError: The scheme is unknown or switched off, or its library is not installed.
    """
    scheme = scheme_of(root)
    if scheme in ("", "file"):
        return LocalDriver(root)
    if scheme == "pipe":
        return PipeDriver(root, settings)
    try:
        if scheme == "s3":
            return S3Driver(root, settings)
        if scheme in ("http", "https"):
            return HttpDriver(root, settings)
        return FsspecDriver(root, scheme)
    except ImportError as error:
        extra = SCHEMES[scheme]
        raise ConfigError(f"{redact(root)!r} needs a library for {scheme}: pip install 'sfdkit[{extra}]'") from error
