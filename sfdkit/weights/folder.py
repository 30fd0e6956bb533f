"""Model folders, which are what is shared: weights, what they are in ``model.json``, named axes, and a model card.

This module needs no torch.

``model.json``, of the schema ``sfdkit.model/1``::

    {"schema": "sfdkit.model/1", "sfdkit": "<version>",
     "animator": {class_path and init_args of the animator and its parts},
     "resolution": R, "identity_size": N, "motion_size": M, "basis": "<fingerprint of the basis>",
     "training": {statistics of the training, and its seed},
     "sha256": {"model.safetensors": "<of the file>", "axes.json": "<likewise, if there is one>"}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfdkit.apply.axes_file import FILE_NAME as AXES
from sfdkit.apply.axes_file import parse_axes, read_axes
from sfdkit.errors import CheckpointError
from sfdkit.files import sha256_of

SCHEMA = "sfdkit.model/1"
WEIGHTS, ABOUT, CARD = "model.safetensors", "model.json", "README.md"
LOADED = (WEIGHTS, AXES)
"""What loading reads besides ``model.json``."""
REMEDY = "download the folder again, or write it again with sfdkit model save"


def weights_of(folder: Path) -> Path:
    """Return the weights file of a model folder.

    Raises:
        CheckpointError: It is no model folder.
    """
    read_about(folder)
    return folder / WEIGHTS


def folder_of(weights: Path) -> Path | None:
    """Return the model folder that a weights file belongs to; None for one that stands alone."""
    return weights.parent if weights.name == WEIGHTS and (weights.parent / ABOUT).is_file() else None


def read_about(folder: Path) -> dict[str, Any]:
    """Read ``model.json``.

    Raises:
        CheckpointError: No such file, damaged, or of another schema.
    """
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{folder} is no model folder: {ABOUT} cannot be read ({error.strerror}); "
            "give a folder that sfdkit model save wrote, or a checkpoint or weights file"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); {REMEDY}") from error
    schema = about.get("schema") if isinstance(about, dict) else None
    if schema != SCHEMA:
        exported = "; it describes an exported model, which --model takes" if "export" in str(schema) else ""
        raise CheckpointError(
            f"{path} has the schema {schema!r}, {SCHEMA!r} is needed{exported}; "
            "give a folder that sfdkit model save wrote, or the sfdkit that wrote this one"
        )
    digests = about.get("sha256")
    if not isinstance(digests, dict) or WEIGHTS not in digests:
        raise CheckpointError(f"{path} is incomplete: it lacks the sha256 of {WEIGHTS}; {REMEDY}")
    return about


def check_files(folder: Path) -> str | None:
    """Check that the files of a model folder are those that its ``model.json`` means.

    Returns:
        The content of its ``axes.json``, if it has one.

    Raises:
        CheckpointError: A file is missing or another one, or ``model.json`` cannot be read.
        DataError: The axes cannot be read.
    """
    digests = read_about(folder)["sha256"]
    for name in LOADED:
        path, wanted = folder / name, digests.get(name)
        if wanted is None:
            continue
        if not path.is_file():
            raise CheckpointError(f"{folder} is incomplete: it lacks {name}, which {ABOUT} names; {REMEDY}")
        if (found := sha256_of(path)) != wanted:
            raise _disagreement(folder, f"sha256 of {name} is {found}, {ABOUT} says {wanted}")
    return read_axes(folder / AXES) if (folder / AXES).is_file() else None


def check_facts(folder: Path, facts: Mapping[str, Any], config: dict[str, Any], axes: str | None) -> None:
    """Check that a model folder's descriptions are those of the animator that its weights file holds.

    Args:
        folder: The folder.
        facts: :func:`sfdkit.weights.file.facts_of` the animator.
        config: Its configuration in the weights file.
        axes: The content of ``axes.json``, if there is one.

    Raises:
        CheckpointError: A description is of another animator.
        DataError: The axes cannot be read.
    """
    about = read_about(folder)
    for key, found in facts.items():
        if found != about.get(key):
            raise _disagreement(folder, f"{key} of {WEIGHTS} is {found}, {ABOUT} says {about.get(key)}")
    if config != about.get("animator"):
        raise _disagreement(folder, f"the animator that {ABOUT} describes is not that of {WEIGHTS}")
    if axes is not None and (measured := parse_axes(axes, folder / AXES)[0]) != facts["basis"]:
        raise _disagreement(folder, f"basis of {AXES} is {measured}, that of {WEIGHTS} {facts['basis']}")


def _disagreement(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{folder} is a model directory whose files disagree: {what}; {REMEDY}")
