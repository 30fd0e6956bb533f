"""Errors a user can meet. Each message says what, where, the actual value and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SfdkitError(Exception):
    """Base of every error that sfdkit raises on purpose; the command line prints it without a traceback."""


class ConfigError(SfdkitError, ValueError):
    """A configuration value that cannot work: names the key, the value and the remedy."""


class DataError(SfdkitError):
    """Input data that is missing, damaged or of the wrong kind: names the file and the remedy."""


class DamageError(DataError):
    """A clip that lacks frames: all that can be read were delivered."""


class ShardError(DataError):
    """A shard or its index is missing, damaged, or the two disagree."""


class StorageError(DataError):
    """A file of a storage cannot be read or written, after all attempts; never holds a credential."""


class MissingError(StorageError):
    """The storage answers, and has no such file."""


class TruncatedError(StorageError):
    """A file is shorter than what was asked of it."""


class CheckpointError(SfdkitError):
    """A checkpoint that is missing, damaged, or belongs to another model."""


class ExportError(SfdkitError):
    """A model that cannot be exported, or whose export computes something else."""


class TrainingError(SfdkitError):
    """A training that cannot continue: says since when, what is kept, and how to resume."""


class SfdkitWarning(UserWarning):
    """Something that a user should know although the work continues; the command line prints it as one line."""


def did_you_mean(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return a hint such as ``" Did you mean 'resnet18'?"``, or an empty string when nothing is near.

    Args:
        name: What the user wrote.
        known: The names that exist.
        limit: The most names to offer.
    """
    near = get_close_matches(name, list(known), n=limit, cutoff=0.5)
    if not near:
        return ""
    return " Did you mean " + " or ".join(repr(n) for n in near) + "?"
