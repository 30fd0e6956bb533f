"""The weights that come with sfdkit, found by their names from any folder."""

from __future__ import annotations

from pathlib import Path

from sfdkit.errors import CheckpointError, did_you_mean
from sfdkit.tensor_file import SUFFIX

FOLDER = Path(__file__).parent


def shipped_weights() -> dict[str, Path]:
    """Return name to file of the weights that come with sfdkit, in the order of the names."""
    return {path.stem: path for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}


def card_of(weights: Path) -> Path:
    """Return the file that says how weights were made and what they can do: it lies beside them."""
    return weights.with_suffix(".yaml")


def find_weights(name: str | Path) -> Path:
    """Return the file that ``--checkpoint`` means: a file of this path, or else shipped weights of this name.

    A path that looks like one is returned whether or not there is such a file.

    Raises:
        CheckpointError: A bare name that is neither.
    """
    path, shipped = Path(name), shipped_weights()
    if not path.is_file() and path.name == str(name) and path.suffix in ("", SUFFIX):
        if path.name in shipped:
            return shipped[path.name]
        if not path.exists():
            raise CheckpointError(
                f"there are no weights {path.name!r}, and there is no such file.{did_you_mean(path.stem, shipped)} "
                f"sfdkit comes with {', '.join(shipped)}; sfdkit model list describes them"
            )
    return path
