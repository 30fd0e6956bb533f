"""Addresses of storages: their schemes, patterns in them, and keeping secrets out of them."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from braceexpand import braceexpand

from sfdkit.errors import ConfigError, did_you_mean

SCHEMES: dict[str, str] = {
    "file": "",
    "http": "",
    "https": "",
    "s3": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "az",
    "abfs": "az",
    "hf": "hf",
    "pipe": "",
}
"""Scheme to the extra of sfdkit that installs its driver."""

READ_ONLY = ("http", "https", "pipe")
"""Schemes of storages that can only be read."""

SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_CLIENT_SECRET",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "SFDKIT_HTTP_AUTHORIZATION",
)
"""Variables of the environment whose values never show."""

_HIDDEN = "***"
_SECRET_PARAMETERS = re.compile(r"signature|credential|token|password|passwd|secret|api[-_]?key|^sig$|^key$", re.I)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.I)
_PARAMETER = re.compile(r"([?&]([^=&\s'\"<>]+)=)([^&\s'\"<>)]+)")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):(//)?")


def scheme_of(root: str) -> str:
    """Return the scheme of an address in small letters, an empty string for a local path.

    Raises:
        ConfigError: sfdkit knows no such scheme.
    """
    match = _SCHEME.match(root)
    if not match or (match[2] is None and match[1].lower() != "pipe"):
        return ""
    scheme = match[1].lower()
    if scheme not in SCHEMES:
        raise ConfigError(
            f"{redact(root)!r} has the scheme {scheme!r}, which no storage has.{did_you_mean(scheme, SCHEMES)} "
            f"Give a local path, or one of {', '.join(SCHEMES)}"
        )
    return scheme


def refuse_credentials(root: str) -> None:
    """Check that an address carries no credentials: it is saved with the config and written to logs.

    Raises:
        ConfigError: It has a user name or password, or a query parameter that looks like a key or a signature.
    """
    if scheme_of(root) in ("", "pipe"):
        return
    parts = urlsplit(root)
    guilty = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if _SECRET_PARAMETERS.search(name)]
    blob = scheme_of(root) == "abfs" and ":" not in parts.netloc  # abfs://container@account
    if ("@" in parts.netloc and not blob) or (scheme_of(root) == "s3" and ":" in parts.netloc) or guilty:
        what = f"the parameter {guilty[0]!r}" if guilty else "a user name or password"
        raise ConfigError(
            f"the address {redact(root)!r} holds {what}, and addresses are saved with the experiment: take it out and "
            "give credentials by the environment (AWS_ACCESS_KEY_ID ..., SFDKIT_HTTP_AUTHORIZATION, HF_TOKEN)"
        )


def redact(text: str) -> str:
    """Return a text without the secrets of the environment, without user names in addresses and secret parameters."""
    for name in SECRETS:
        value = os.environ.get(name, "")
        for part in (value, value.strip(), *(word for word in value.split() if len(word) >= 8)):
            if len(part) >= 4:  # shorter ones would blot out ordinary words
                text = text.replace(part, _HIDDEN)
    text = _URL.sub(lambda match: _redact_url(match[0]), text)
    return _PARAMETER.sub(lambda match: match[1] + (_HIDDEN if _SECRET_PARAMETERS.search(match[2]) else match[3]), text)


def _redact_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return _HIDDEN
    netloc = f"{_HIDDEN}@{parts.netloc.rsplit('@', 1)[1]}" if "@" in parts.netloc else parts.netloc
    shown = "&".join(f"{name}={_HIDDEN if _SECRET_PARAMETERS.search(name) else value}" for name, value in query)
    return urlunsplit((parts.scheme, netloc, parts.path, shown if query else parts.query, parts.fragment))


def expand_braces(root: str) -> list[str]:
    """Return the addresses that a pattern such as ``s3://bucket/part-{00..07}`` or ``shards/{a,b}`` stands for.

    Raises:
        ConfigError: A brace is not closed.
    """
    if "{" not in root or scheme_of(root) == "pipe":
        return [root]
    try:
        return list(braceexpand(root))
    except ValueError as error:
        raise ConfigError(f"the pattern {redact(root)!r} has a brace without its partner: close it") from error


def is_glob(root: str) -> bool:
    """Return whether an address holds ``*``, ``?`` or ``[...]``; ``?`` starts the query of an http address instead."""
    scheme = scheme_of(root)
    if scheme == "pipe":
        return False
    return any(letter in root for letter in ("*[" if scheme in ("http", "https") else "*?["))
