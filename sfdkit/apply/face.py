"""Arithmetic on semantic facial descriptors: recombine, interpolate, edit, render, save and load faces.

Legend: ``B`` faces, ``N`` identity coefficients, ``M`` motion coefficients. A face of one row goes with any number.

Example:
    >>> a, b = animator.describe(image_a), animator.describe(image_b)   # doctest: +SKIP
    >>> face = recombine(a, b)                        # who a is, moved as b    # doctest: +SKIP
    >>> face = interpolate(a, b, 0.5, "motion")       # doctest: +SKIP
    >>> face = edit(a, axes.step("yaw", 10.0))        # ten degrees to the right    # doctest: +SKIP
    >>> render(animator, animator.source_state(image_a), face).image    # doctest: +SKIP

The way back, from a latent code to coefficients, is ``animator.project(latent)``.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sfdkit.apply.runner import Coefficients, What
from sfdkit.errors import CheckpointError
from sfdkit.model.animator import FaceAnimator, SourceState
from sfdkit.model.descriptors import DescriptorLayer
from sfdkit.model.fingerprints import basis_fingerprint
from sfdkit.tensor_file import check_suffix, read_tensors, write_tensors
from sfdkit.types import Descriptors, Generated

SCHEMA = "sfdkit.descriptors/1"

CHANGE = 0.1
"""Change of a drawing against its surroundings, of 1, at which a picture's detail has faded to a third."""


def recombine(identity_of: Descriptors, motion_of: Descriptors) -> Descriptors:
    """Return the identity of one face with the motion of another."""
    return _same_rows(identity_of.identity, motion_of.motion)


def interpolate(a: Descriptors, b: Descriptors, t: float | Tensor, what: What = "both") -> Descriptors:
    """Go straight from one face to another: ``(1 - t) a + t b``.

    Args:
        a: Where ``t`` is 0, B rows or 1.
        b: Where ``t`` is 1, B rows or 1.
        t: A number, or B numbers for B rows; outside [0, 1] it extrapolates.
        what: The coefficients that change; the others stay those of ``a``.

    Returns:
        B rows.
    """
    weight = torch.as_tensor(t, dtype=a.motion.dtype, device=a.motion.device)
    if weight.dim():
        weight = weight[:, None]
    mixed = [
        torch.lerp(one, other, weight) if what in (name, "both") else one
        for name, one, other in zip(Descriptors._fields, a, b, strict=True)
    ]
    return _same_rows(*mixed)


def edit(face: Descriptors, step: Descriptors | Coefficients) -> Descriptors:
    """Return a face moved by a step.

    Args:
        face: B rows or 1.
        step: What to add, from :meth:`sfdkit.apply.axes.Axes.step` or :func:`sfdkit.apply.axes.raw_step`: N and M
            numbers, or B rows of them. How far it goes (standard deviations, degrees, ...) is chosen there.

    Returns:
        B rows.
    """
    return _same_rows(*(own + torch.as_tensor(added).to(own) for own, added in zip(face, step, strict=True)))


def change_identity(animator: FaceAnimator, state: SourceState, identity: Tensor) -> SourceState:
    """Return sources that look as other identity coefficients say, in their own pose, with their own detail.

    The person wanted is drawn from the code alone, and what the source's picture has beyond a drawing of its own code,
    such as texture, is put on top. Where shapes of the two drawings differ it fades out: under a new pair of glasses,
    the detail of the old skin is wrong. The picture is then encoded again, as a source like any other.

    Args:
        animator: In eval mode.
        state: ``animator.source_state(image)``, B rows.
        identity: B N.

    Returns:
        B rows; the motion coefficients stay those of ``state``.

    Raises:
        ConfigError: The model was trained without ``code_share``.
    """
    own = state.descriptors
    before, after = (_draw(animator, each, own.motion) for each in (own.identity, identity))
    return _encode_as(animator, after + _detail(state.image, before, after), Descriptors(identity, own.motion))


def morph(animator: FaceAnimator, state: SourceState, other: SourceState, share: Tensor) -> SourceState:
    """Return sources on the way from one person to another, in the pose of the first.

    As :func:`change_identity`, with detail of both: the other's is that of its picture, animated to the first's pose.

    Args:
        animator: In eval mode.
        state: B rows.
        other: B rows.
        share: B numbers: 0 is the first person, 1 the other.

    Returns:
        B rows.

    Raises:
        ConfigError: The model was trained without ``code_share``.
    """
    own, weight = state.descriptors, share[:, None, None, None]
    identity = torch.lerp(own.identity, other.descriptors.identity, share[:, None])
    start, end, between = (
        _draw(animator, each, own.motion) for each in (own.identity, other.descriptors.identity, identity)
    )
    moved = animator.generate(other, own.motion).image.float()
    detail = torch.lerp(_detail(state.image, start, between), _detail(moved, end, between), weight)
    return _encode_as(animator, between + detail, Descriptors(identity, own.motion))


def _draw(animator: FaceAnimator, identity: Tensor, motion: Tensor) -> Tensor:
    return animator.generate(animator.code_state(identity), motion).image.float()


def _detail(picture: Tensor, drawn: Tensor, wanted: Tensor) -> Tensor:
    """Return what a picture has beyond its drawing, B 3 R R, less where another drawing is wanted that differs.

    A colour that changes evenly leaves the detail on it as it is; hence changes count against their surroundings.
    """
    change = wanted - drawn
    change = _smooth((change - _smooth(change, 8)).abs().mean(1, keepdim=True), 16)
    return torch.exp(-(change / CHANGE).square()) * (picture - drawn)


def _smooth(image: Tensor, parts: int) -> Tensor:
    """Average over squares of about a ``parts``-th of the picture's width."""
    reach = image.shape[-1] // (2 * parts)
    return F.avg_pool2d(image, 2 * reach + 1, 1, reach, count_include_pad=False)


def _encode_as(animator: FaceAnimator, image: Tensor, face: Descriptors) -> SourceState:
    return animator.source_state(image.clamp(0.0, 1.0), face.motion)._replace(descriptors=face)


def render(animator: FaceAnimator, state: SourceState, face: Descriptors) -> Generated:
    """Render the person of a source picture with other coefficients, of motion and of identity.

    Other identity coefficients change the source first, see :func:`change_identity`.

    Args:
        animator: In eval mode.
        state: ``animator.source_state(image)``; one row serves any number of faces.
        face: B rows.

    Returns:
        B rows.

    Raises:
        ConfigError: Other identity coefficients for a model that was trained without ``code_share``.
    """
    if len(state.image) == 1:
        state = state.expand(len(face.motion))
    own = state.descriptors.identity
    if not torch.allclose(face.identity, own, rtol=0.0, atol=1e-3 * float(own.abs().mean())):  # read in another batch
        state = change_identity(animator, state, face.identity)
    return animator.generate(state, face.motion)


def save_face(path: str | Path, face: Descriptors, descriptors: DescriptorLayer) -> None:
    """Write the descriptors of B faces to a file.

    Args:
        path: A .safetensors file; it appears whole or not at all.
        face: B rows.
        descriptors: The layer of the model that they belong to: coefficients mean nothing to another.

    Raises:
        ConfigError: Another suffix.
        DataError: The file cannot be written.
        ValueError: The sizes are not those of ``descriptors``.
    """
    path = check_suffix(path, "face")
    shapes = [tuple(part.shape) for part in face]
    wanted = [(len(face.motion), size) for size in (descriptors.identity_size, descriptors.motion_size)]
    if shapes != wanted:
        raise ValueError(f"identity and motion have the shapes {shapes}, the descriptor layer needs {wanted}")
    about = {
        "schema": SCHEMA,
        "basis": basis_fingerprint(descriptors),
        "identity_size": descriptors.identity_size,
        "motion_size": descriptors.motion_size,
        "complete": str(descriptors.complete).lower(),
        "orthogonal": str(descriptors.orthogonal).lower(),
    }
    write_tensors(path, {k: v.float() for k, v in face._asdict().items()}, {k: str(v) for k, v in about.items()})


def load_face(path: str | Path, descriptors: DescriptorLayer) -> Descriptors:
    """Read descriptors that :func:`save_face` wrote.

    Args:
        path: The file.
        descriptors: The layer of the model that is to use them.

    Returns:
        B rows, float32, on the layer's device.

    Raises:
        CheckpointError: They belong to another model.
        DataError: No such file, damaged, or with other content.
    """
    path = Path(path)
    tensors, about = read_tensors(path, SCHEMA, Descriptors._fields, ("basis", "identity_size", "motion_size"))
    own = basis_fingerprint(descriptors)
    if about["basis"] != own:
        raise CheckpointError(
            f"{path} holds descriptors of another model (basis {about['basis']}, {about['identity_size']} identity and "
            f"{about['motion_size']} motion coefficients; this one has {own}, {descriptors.identity_size} and "
            f"{descriptors.motion_size}); describe the face again with this model, or use the model that wrote it"
        )
    return Descriptors(*(tensors[name].to(descriptors.weight.device) for name in Descriptors._fields))


def _same_rows(identity: Tensor, motion: Tensor) -> Descriptors:
    if len(identity) == len(motion):
        return Descriptors(identity, motion)
    if 1 not in (len(identity), len(motion)):
        raise ValueError(
            f"{len(identity)} identities and {len(motion)} motions: give as many of both, or one of either"
        )
    rows = max(len(identity), len(motion))
    return Descriptors(identity.expand(rows, -1), motion.expand(rows, -1))
