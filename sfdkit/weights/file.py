"""Weights files: an animator alone, mostly in half precision, in one ``.safetensors`` file.

Its header, all in text::

    schema      sfdkit.animator/1
    animator    json: the animator's configuration, class_path and init_args of each part
    training    json: statistics of its training, and its seed
    axes        what its evaluation wrote to axes.json, if there was one
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sfdkit.errors import CheckpointError, DataError
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.fingerprints import basis_fingerprint
from sfdkit.tensor_file import read_tensors, write_tensors

SCHEMA = "sfdkit.animator/1"
BASIS = "descriptors.weight"
"""The raw matrix of the basis, float32 in the file: directions of ``axes.json`` and saved faces belong to its bits."""


class StoredAnimator(NamedTuple):
    """What a file holds of an animator."""

    config: dict[str, Any]
    """``class_path`` and ``init_args`` of the animator and its parts."""
    weights: dict[str, Tensor]
    """Its state dict."""
    train: dict[str, Any]
    """Statistics of its training: ``steps seconds frames images_per_second identities world_size seed``."""
    axes: str | None
    """The content of ``axes.json``, if the file holds it."""


def write_weights(path: Path, stored: StoredAnimator) -> None:
    """Write a weights file; it appears whole or not at all.

    Args:
        path: The file; its folder exists.
        stored: What to write; weights are rounded by :func:`rounded`.

    Raises:
        CheckpointError: A weight is not finite.
        DataError: The file cannot be written.
    """
    if wrong := [name for name, value in stored.weights.items() if not value.isfinite().all()]:
        raise CheckpointError(f"weights: {wrong[0]} is not finite; take a checkpoint from before the training diverged")
    about = {"schema": SCHEMA, "animator": json.dumps(stored.config), "training": json.dumps(stored.train)}
    write_tensors(path, rounded(stored.weights), about | ({} if stored.axes is None else {"axes": stored.axes}))


def read_weights(path: Path) -> StoredAnimator:
    """Read a weights file; rounded weights come back as float32.

    Raises:
        CheckpointError: No such file, damaged, of another kind or of another version.
    """
    try:
        tensors, about = read_tensors(path, SCHEMA, None, ("animator", "training"))
        config, train = json.loads(about["animator"]), json.loads(about["training"])
    except DataError as error:
        raise CheckpointError(str(error)) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: its header is no json ({error}); pack the weights again") from error
    weights = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    return StoredAnimator(config, weights, train, about.get("axes"))


def facts_of(animator: FaceAnimator) -> dict[str, Any]:
    """Return ``resolution identity_size motion_size basis``, which tell whether files belong to an animator."""
    layer = animator.descriptors
    return {
        "resolution": animator.resolution,
        "identity_size": layer.identity_size,
        "motion_size": layer.motion_size,
        "basis": basis_fingerprint(layer),
    }


def rounded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights as the file holds them.

    Kernels and matrices are float16, unless they hold a number beyond its range. The basis stays as it is, and so does
    what has one dimension: biases, scales and running statistics, whose squares would leave the range of float16 soon.
    """
    return {name: value if name == BASIS or value.dim() < 2 else _half(value) for name, value in weights.items()}


def _half(value: Tensor) -> Tensor:
    half = value.to(torch.float16)
    return half if value.is_floating_point() and half.isfinite().all() else value
