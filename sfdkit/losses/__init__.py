"""The objective: a weighted sum of loss terms. To add a term, write its file and add it to :data:`TERMS`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sfdkit.errors import ConfigError, did_you_mean
from sfdkit.losses.consistency import Consistency
from sfdkit.losses.equivariance import Equivariance
from sfdkit.losses.field import Painting, PointFlow, Smoothness
from sfdkit.losses.gradient import GradientLoss
from sfdkit.losses.identity import IdentityTerm
from sfdkit.losses.kl import KLDivergence
from sfdkit.losses.leakage import Leakage
from sfdkit.losses.parts import PartsLoss, PointsLoss
from sfdkit.losses.perceptual import VGG19, PerceptualLoss
from sfdkit.losses.portrait import PortraitLoss
from sfdkit.losses.proportions import Proportions
from sfdkit.losses.reconstruction import MultiScaleL1
from sfdkit.losses.reencode import Reencode
from sfdkit.losses.sparsity import Sparsity
from sfdkit.losses.squared import SquaredError
from sfdkit.losses.step import Bent, Crossed, Step
from sfdkit.losses.structure import StructureLoss
from sfdkit.points import FACE31, PointSet

__all__ = ["TERMS", "Bent", "Crossed", "Objective", "Step"]


class Term(NamedTuple):
    """How a term is built, and what of a step it takes."""

    make: Callable[..., nn.Module]
    """Builds it; terms of :data:`OF_NETWORKS` take their network."""
    read: Callable[[Step], tuple[Tensor | None, ...] | None]
    """Returns its arguments, or None where the step lacks them."""
    needs: str = ""
    """What a step computes for such terms only, noise, identity, bent, crossed or restored, or must bring: points."""
    takes: tuple[str, ...] = ()
    """What it is built from, see :class:`Objective`: points, code_size, motion_size."""


def _pictures(step: Step) -> tuple[Tensor | None, ...]:
    return step.image, step.target


def _one_of_each(step: Step) -> tuple[Tensor | None, ...]:
    """Take one result of each source, where the rest would cost more than it teaches."""
    each = len(step.image) // len(step.source)
    return step.image[::each], step.target[::each]


def _crossed(*fields: str) -> Callable[[Step], tuple[Tensor | None, ...] | None]:
    return lambda step: None if step.crossed is None else tuple(getattr(step.crossed, name) for name in fields)


def _reread(step: Step) -> tuple[Tensor | None, ...] | None:
    found = _crossed("identity", "motion", "source_identity", "driver_motion")(step)
    return None if found is None else (*found, step.log_noise)


def _people(step: Step) -> tuple[Tensor | None, ...]:
    sources = step.source.repeat_interleave(len(step.image) // len(step.source), 0)
    if step.crossed is None:
        return step.image, sources
    return torch.cat([step.image, step.crossed.image]), torch.cat([sources, step.crossed.source])


def _bent(step: Step) -> tuple[Tensor | None, ...] | None:
    return None if step.bent is None else (step.motion[:, 1], step.bent.motion, *step.bent.bend)


TERMS: dict[str, Term] = {
    "l1": Term(MultiScaleL1, _pictures),
    "l2": Term(SquaredError, _pictures),
    "gradient": Term(GradientLoss, _pictures),
    "ssim": Term(StructureLoss, _pictures),
    "perceptual": Term(PerceptualLoss, _one_of_each),
    "parts": Term(PartsLoss, lambda step: (step.image, step.target, step.points), "points", ("points",)),
    "points": Term(
        PointsLoss, lambda step: (step.source_identity, step.motion, step.row_points), "points", ("points", "code_size")
    ),
    "portrait": Term(
        PortraitLoss,
        lambda step: (step.source_identity, step.motion, step.target, step.points),
        takes=("points", "code_size"),
    ),
    "warp": Term(MultiScaleL1, lambda step: (step.warped, step.target)),
    "smoothness": Term(Smoothness, lambda step: (step.flow,)),
    "point_flow": Term(PointFlow, lambda step: (step.flow, step.points, step.warped_points), "points"),
    "painting": Term(Painting, lambda step: (step.mask,)),
    "kl": Term(KLDivergence, lambda step: (step.motion, step.log_noise), "noise"),
    "sparsity": Term(Sparsity, lambda step: (step.motion,)),
    "leakage": Term(Leakage, lambda step: (step.motion,)),
    "total_leakage": Term(partial(Leakage, together=True), lambda step: (step.motion,)),
    "proportions": Term(Proportions, lambda step: (step.motion, step.row_points), "points", ("points", "motion_size")),
    "consistency": Term(Consistency, lambda step: (step.identity, step.people), "identity"),
    "equivariance": Term(Equivariance, _bent, "bent", ("motion_size",)),
    "reencode": Term(Reencode, _reread, "crossed"),
    "identity": Term(IdentityTerm, _people),
    "cycle": Term(MultiScaleL1, _crossed("restored", "driver"), "restored"),
}
"""Name to term; each returns a scalar."""

OF_NETWORKS: dict[str, str | None] = {"identity": None, "perceptual": VGG19}
"""Terms that judge by a network, and the network that they take where none is named."""

RAMP = 200
"""Steps over which the weight of a term that starts late rises from 0."""
RAMP_SHARE = 0.05
"""The same as a share of the training, for a start that is one."""

ADVERSARIAL = ("adversarial", "feature_matching", "r1")
"""Weights that the task itself uses, with a discriminator."""


class Objective(nn.Module):
    """The weighted sum of the terms whose weight is not zero.

    Args:
        weights: Term name to weight; those in :data:`ADVERSARIAL` are only checked here.
        starts: Term name to the step from which it counts, or below 1 to the share of the training after which it does;
            from the first step by default. Its weight then rises over :data:`RAMP` steps, or over :data:`RAMP_SHARE` of
            the training.
        networks: Term name to its network, for the terms of :data:`OF_NETWORKS`: a file, or a name that the term knows.
        points: The set of points that batches bring.
        code_sizes: ``N`` and ``M``, numbers of identity and motion coefficients.

    Raises:
        ConfigError: A weight, start or network for an unknown term, a weight that is negative or no number, a start for
            what begins with another term, a term without its network, or a file that holds no such network.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        starts: Mapping[str, float] | None = None,
        networks: Mapping[str, str] | None = None,
        points: PointSet = FACE31,
        code_sizes: tuple[int, int] = (96, 32),
    ) -> None:
        super().__init__()
        require_terms("weights", weights)
        require_terms("starts", starts or {})
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                raise ConfigError(f"weights: {name} is {weight:g}; give 0, which switches it off, or a positive number")
        for name in set(starts or {}) & set(ADVERSARIAL[1:]):
            raise ConfigError(f"starts: {name} counts from where adversarial does; name that, and leave {name} out")
        require_terms("networks", networks or {}, tuple(OF_NETWORKS))
        judges = OF_NETWORKS | dict(networks or {})
        self.weights = {name: float(weights[name]) for name in TERMS if weights.get(name, 0.0)}
        self.starts = dict(starts or {})
        self.points = points
        for name in self.weights:
            if name in judges and judges[name] is None:
                raise ConfigError(
                    f"weights: {name} is not 0, but there is no network for it; give the file of a face recognition "
                    f"network (.onnx, .pt, .safetensors) as model.networks.{name}, or set the weight to 0"
                )
        built_from = {"points": points, "code_size": sum(code_sizes), "motion_size": code_sizes[1]}
        made = {}
        for name in self.weights:
            taken = [built_from[key] for key in TERMS[name].takes]
            made[name] = TERMS[name].make(*([judges[name]] if name in judges else []), *taken)
        self.terms = nn.ModuleDict(made)
        self.progress = 0.0
        """Share of the training that is done; the task sets it before each step."""

    def active(self, step: int) -> list[str]:
        """Return the names of the terms that count at a step."""
        return [name for name in self.weights if self.started(name, step)]

    def started(self, name: str, step: int) -> bool:
        """Whether a term, or the adversarial part of the task, counts at a step."""
        start = self.starts.get(name, 0)
        return self.progress >= start if 0 < start < 1 else step >= start

    def needs(self, field: str, step: int) -> bool:
        """Whether a term that counts at ``step`` needs that part of a step, see :class:`Term`."""
        return any(TERMS[name].needs == field for name in self.active(step))

    def forward(self, made: Step, step: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum and each term's own value.

        Args:
            made: What was rendered for the batch.
            step: Training steps done.
        """
        values = {}
        for name in self.active(step):
            arguments = TERMS[name].read(made)
            if arguments is not None:
                values[name] = self.terms[name](*arguments)
        parts = (self.weights[name] * self.share(name, step) * value for name, value in values.items())
        return torch.as_tensor(sum(parts, made.image.new_zeros(()))), values

    def share(self, name: str, step: int) -> float:
        """Return the fraction of its weight that a term has at a step."""
        start = self.starts.get(name, 0)
        if not start:
            return 1.0
        risen = (self.progress - start) / RAMP_SHARE if start < 1 else (step - start + 1) / RAMP
        return min(1.0, max(0.0, risen))


def require_terms(key: str, names: Iterable[str], known: Sequence[str] = (*TERMS, *ADVERSARIAL)) -> None:
    """Check the names of loss terms.

    Raises:
        ConfigError: There is no term of that name.
    """
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{key}: there is no loss term {name!r}.{did_you_mean(name, known)} The terms are {', '.join(known)}"
            )
