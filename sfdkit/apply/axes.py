"""Named directions among the descriptors: which coefficients move which factor of a face, and by how much.

This module needs no torch.

Legend: ``N`` identity coefficients, ``M`` motion coefficients, ``C`` coefficients of either block.

Example:
    >>> axes = Axes.load("runs/mine/axes.json")                         # doctest: +SKIP
    >>> step = axes.step("yaw", 10.0)                                   # doctest: +SKIP
    >>> motion = own_motion + step.motion                               # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from sfdkit.apply.axes_file import (
    BLOCKS,
    FILE_NAME,
    Block,
    BlockAxes,
    Direction,
    VectorFactor,
    parse_axes,
    read_axes,
    write_axes,
)
from sfdkit.apply.runner import Coefficients
from sfdkit.errors import CheckpointError, ConfigError, did_you_mean
from sfdkit.tensor_file import SUFFIX

__all__ = ["FILE_NAME", "Axes", "BlockAxes", "Direction", "VectorFactor", "find_axes", "raw_step"]

_STILL = 1e-6
"""A coefficient whose standard deviation is below this share of the block's largest one says nothing about a factor."""


@dataclass(frozen=True, eq=False)
class Axes:
    """The named directions of one model; read and written as ``axes.json``."""

    basis: str
    """:func:`sfdkit.model.fingerprints.basis_fingerprint` of the model."""
    motion: BlockAxes
    identity: BlockAxes

    def save(self, path: str | Path) -> None:
        """Write the file; it appears whole or not at all.

        Args:
            path: The file; its folder exists. Numbers give float32 back exactly.

        Raises:
            ValueError: What is to be written could not be read back: sizes that disagree, numbers that are not finite.
        """
        write_axes(Path(path), self.basis, {"motion": self.motion, "identity": self.identity})

    @classmethod
    def load(cls, path: str | Path, basis: str | None = None) -> Self:
        """Read the file.

        Args:
            path: An ``axes.json``.
            basis: :func:`sfdkit.model.fingerprints.basis_fingerprint` of the model, to check that the file belongs to
                it; None skips the check.

        Raises:
            DataError: No such file, no json, or not of this schema.
            CheckpointError: The file was measured on another model.
        """
        return cls.parse(read_axes(Path(path)), path, basis)

    @classmethod
    def parse(cls, text: str, source: str | Path, basis: str | None = None) -> Self:
        """Read the content of the file, which weights files hold as well; ``source`` names it in messages.

        Raises:
            DataError: No json, or not of this schema.
            CheckpointError: It was measured on another model than that of ``basis``.
        """
        measured, blocks = parse_axes(text, source)
        axes = cls(measured, **blocks)
        if basis is not None:
            axes.require(basis, source)
        return axes

    def require(self, basis: str, path: str | Path = FILE_NAME) -> None:
        """Check that these axes were measured on the model of this ``basis``.

        Raises:
            CheckpointError: They were not.
        """
        if self.basis != basis:
            raise CheckpointError(
                f"axes {path} were measured on another model (basis {self.basis}, this one has {basis}); "
                "evaluate this one, or give the axes that belong to it"
            )

    def step(self, axis: str, amount: float, sigma: bool = False) -> Coefficients:
        """Return what to add to a face's coefficients to move it along an axis.

        Args:
            axis: The name of a factor, such as ``yaw``; ``motion:yaw`` or ``identity:yaw`` where both blocks have it;
                ``motion:3`` or ``identity:7`` for one basis vector.
            amount: In the factor's unit; for a basis vector in standard deviations of its coefficient.
            sigma: Take ``amount`` in standard deviations for factors as well: one is the length of the direction at
                which ``sum((step / std)**2) = 1``, the Mahalanobis distance for coefficients without correlation.

        Returns:
            N identity and M motion coefficients; those of the other block are 0.

        Raises:
            ConfigError: There is no such axis, or ``sigma`` is asked of a direction whose coefficients never move.
        """
        block, key = self._find(axis)
        about: BlockAxes = getattr(self, block)
        if isinstance(key, int):
            vector = np.zeros_like(about.std)
            vector[key] = about.std[key]
        else:
            vector = about.directions[key].vector
            if sigma:
                vector = vector / self.sigmas(axis)
        still = Coefficients(np.zeros_like(self.identity.mean), np.zeros_like(self.motion.mean))
        return still._replace(**{block: (vector * amount).astype(np.float32)})

    def unit(self, axis: str, sigma: bool = False) -> str:
        """Return what one unit of ``amount`` in :meth:`step` is: the factor's unit, or ``sigma``.

        Raises:
            ConfigError: There is no such axis.
        """
        block, key = self._find(axis)
        return "sigma" if sigma or isinstance(key, int) else getattr(self, block).directions[key].unit

    def sigmas(self, axis: str) -> float:
        """Return how many standard deviations one unit of a factor is, see :meth:`step`.

        Raises:
            ConfigError: There is no such axis, or its coefficients never move.
        """
        block, key = self._find(axis)
        about: BlockAxes = getattr(self, block)
        return 1.0 if isinstance(key, int) else _sigmas(about.directions[key].vector, about.std, axis)

    def names(self) -> list[str]:
        """Return the factors that have a direction, those of motion first."""
        return [*self.motion.directions, *self.identity.directions]

    def _find(self, axis: str) -> tuple[Block, str | int]:
        """Return the block of an axis, and the factor's name or the number of the coefficient."""
        block, separator, key = axis.partition(":")
        if separator and block in BLOCKS:
            about: BlockAxes = getattr(self, block)
            if key.isascii() and key.isdecimal():
                if int(key) >= (size := len(about.mean)):
                    there = f"there are {size} {block} vectors, {block}:0 to {size - 1}"
                    raise ConfigError(f"axis: {axis} does not exist: {there}")
                return block, int(key)  # type: ignore[return-value]
            if key in about.directions:
                return block, key  # type: ignore[return-value]
        else:
            holders = [name for name in BLOCKS if axis in getattr(self, name).directions]
            if len(holders) > 1:
                raise ConfigError(f"axis: {axis!r} is a factor of both blocks; write motion:{axis} or identity:{axis}")
            if holders:
                return holders[0], axis
        known = self.names()
        raise ConfigError(
            f"axis: there is no {axis!r}.{did_you_mean(axis, known) or did_you_mean(key, known)} The axes are "
            f"{', '.join(known) or 'not named in this file'}, and motion:0 to motion:{len(self.motion.mean) - 1}, "
            f"identity:0 to identity:{len(self.identity.mean) - 1} for single basis vectors"
        )


def find_axes(given: str | None, checkpoint: Path, stored: str | None) -> tuple[str, Path] | None:
    """Return the content of the ``axes.json`` that goes with a checkpoint, and the file that it comes from.

    Args:
        given: A file; ``none`` for no axes; None: those in the weights file or the exported model, or those in the
            folder of the run, above ``checkpoints/``, if they are there.
        checkpoint: The file of the checkpoint, or the folder of the exported model.
        stored: The axes in it, if it is a weights file or an exported model that has some.

    Raises:
        DataError: There is no file ``given``, or it is no text.
    """
    if given == "none":
        return None
    if given is None and (checkpoint.suffix.lower() == SUFFIX or checkpoint.is_dir()):
        return None if stored is None else (stored, checkpoint)
    path = Path(given) if given else checkpoint.resolve().parent.parent / FILE_NAME
    return (read_axes(path), path) if given or path.is_file() else None


def raw_step(axis: str, amount: float, identity_size: int, motion_size: int) -> Coefficients:
    """Return a step along one basis vector without any ``axes.json``: the amount is in raw coefficients.

    Args:
        axis: ``motion:3`` or ``identity:7``.
        amount: What is added to that coefficient.
        identity_size: ``N``.
        motion_size: ``M``.

    Returns:
        N identity and M motion coefficients; all but one are 0.

    Raises:
        ConfigError: The axis has another form, or there is no such vector.
    """
    sizes = {"motion": motion_size, "identity": identity_size}
    block, _, key = axis.partition(":")
    if block not in sizes or not (key.isascii() and key.isdecimal()):
        raise ConfigError(
            f"axis: {axis!r} is a name, and names need an {FILE_NAME}; give --axes FILE (sfdkit evaluate writes it), "
            f"or one basis vector: motion:0 to motion:{sizes['motion'] - 1}, identity:0 to "
            f"identity:{sizes['identity'] - 1}"
        )
    blocks = {name: BlockAxes(np.zeros(size, np.float32), np.ones(size, np.float32)) for name, size in sizes.items()}
    return Axes("", **blocks).step(axis, amount)


def _sigmas(vector: np.ndarray, std: np.ndarray, axis: str) -> float:
    """Return how many standard deviations ``vector`` is long; coefficients that never move are left out."""
    moving = std > _STILL * std.max()
    length = float(np.sqrt(np.square(vector[moving] / std[moving]).sum()))
    if not length > 0:
        raise ConfigError(f"axis: {axis!r} moves no coefficient that varies, so it has no standard deviation")
    return length
