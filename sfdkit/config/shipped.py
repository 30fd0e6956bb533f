"""The experiments that come with sfdkit, found by their names from any folder."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path, PurePath

from sfdkit.errors import ConfigError

FOLDER = "experiments"


def shipped_experiments() -> Path:
    """Return the folder of the shipped experiments: inside an installed package, beside the package in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / FOLDER
    return inside if inside.is_dir() else package.parent / FOLDER


def find_config(name: str, folder: Path = Path(), named_by: str = "") -> Path:
    """Return the file that a name means: a file in ``folder``, or else a shipped experiment.

    Args:
        name: A path, or a shipped experiment: ``trainer/ddp.yaml`` or ``experiments/trainer/ddp.yaml``.
        folder: What a path is relative to.
        named_by: Who names it, for messages.

    Raises:
        ConfigError: There is neither.
    """
    if (path := folder / name).exists():
        return path
    shipped = shipped_experiments()
    inside = PurePath(name)
    if inside.parts[:1] == (FOLDER,):
        inside = inside.relative_to(FOLDER)
    if not inside.is_absolute() and ".." not in inside.parts and (shipped / inside).is_file():
        return shipped / inside
    known = sorted(file.relative_to(shipped).as_posix() for file in shipped.rglob("*.yaml"))
    raise ConfigError(
        f"config file {path}{named_by} cannot be read: No such file or directory. {_hint(inside.as_posix(), known)}"
    )


def _hint(name: str, known: Sequence[str]) -> str:
    """Name shipped experiments: those with the same file name, else those spelt alike, else those that are whole."""
    same = [one for one in known if PurePath(one).name == PurePath(name).name]
    stems = {one.removesuffix(".yaml"): one for one in known}
    near = same or [stems[stem] for stem in get_close_matches(name.removesuffix(".yaml"), stems, 3, 0.7)]
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"sfdkit ships {', '.join(one for one in known if '/' not in one)}"
