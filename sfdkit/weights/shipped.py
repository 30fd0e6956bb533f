"""Finding weights: those that come with sfdkit by their names from any folder, others by their addresses."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

from sfdkit.errors import CheckpointError, ConfigError, did_you_mean
from sfdkit.files import cache_folder, sha256_of
from sfdkit.storage.urls import redact
from sfdkit.tensor_file import SUFFIX
from sfdkit.weights.folder import ABOUT, CARD, WEIGHTS, folder_of, weights_of

FOLDER = Path(__file__).parent
MOST_BYTES = 2_000_000_000
"""Of a weights file from a web server."""
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def shipped_weights() -> dict[str, Path]:
    """Return name to file of the weights that come with sfdkit, in the order of the names."""
    return {path.stem: path for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}


def card_of(weights: Path) -> Path:
    """Return the file that says how weights were made and what they can do: it lies beside them."""
    return weights.with_name(CARD) if folder_of(weights) else weights.with_suffix(".yaml")


def find_weights(name: str | Path) -> Path:
    """Return the file that ``--checkpoint`` means.

    That is a file of this path, the weights in a model folder of this path, shipped weights of this name, or a copy of
    what is at this address. A path that looks like one is returned whether or not there is such a file.

    Args:
        name: A path, a name, ``hf://user/name[@revision][/folder]``, or the ``https://`` address of a weights file.

    Raises:
        CheckpointError: A bare name that is neither, or a folder that is no model folder.
        ConfigError: An address of another form, or no name at all, as an unset variable of a shell gives.
        DataError: What is at the address is too large, or no weights file.
        StorageError: Nothing is at the address, or it cannot be reached.
    """
    if name == "":
        raise ConfigError("checkpoint: the name is empty; is the variable that holds it set?")
    if match := _SCHEME.match(str(name)):
        return _from_address(str(name), match[1].lower())
    path, shipped = Path(name), shipped_weights()
    if (path / ABOUT).is_file() or (path / WEIGHTS).is_file():
        return weights_of(path)
    if not path.is_file() and path.name == str(name) and path.suffix in ("", SUFFIX):
        if path.name in shipped:
            return shipped[path.name]
        if not path.exists():
            raise CheckpointError(
                f"there are no weights {path.name!r}, and there is no such file.{did_you_mean(path.stem, shipped)} "
                f"sfdkit comes with {', '.join(shipped)}; sfdkit model list describes them"
            )
    return path


def _from_address(address: str, scheme: str) -> Path:
    """Return the copy on this machine of what is at an address, and say what it is."""
    if scheme == "hf":
        from sfdkit.weights.hub import HubAddress, fetch

        place = HubAddress.parse(address)
        weights, commit = fetch(place)
        print(f"{place}: commit {commit}, sha256 {sha256_of(weights)}", file=sys.stderr)
        return weights
    if scheme not in ("http", "https"):
        raise ConfigError(
            f"{redact(address)!r} has the scheme {scheme!r}, from which no model is loaded; "
            "give hf://user/name, the https address of a weights file, or a path"
        )
    if Path(urlsplit(address).path).suffix.lower() != SUFFIX:
        raise ConfigError(f"{redact(address)!r} names no weights file; its path must end with {SUFFIX}")
    from sfdkit.storage.download import download
    from sfdkit.weights.file import read_weights

    def check(path: Path) -> None:
        try:
            read_weights(path)
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(path), redact(address))) from error

    made = download(address, cache_folder() / "models", MOST_BYTES, check)
    print(f"{redact(address)}: sha256 {made.sha256}, {made.note}", file=sys.stderr)
    return made.path
