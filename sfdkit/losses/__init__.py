"""Loss terms. One file, one term: to add one, write it and name it in ``TERMS``; a weight in YAML switches it on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sfdkit.errors import ConfigError, did_you_mean
from sfdkit.losses.consistency import Consistency
from sfdkit.losses.field import Painting, Smoothness
from sfdkit.losses.gradient import GradientLoss
from sfdkit.losses.leakage import Leakage
from sfdkit.losses.perceptual import PerceptualLoss
from sfdkit.losses.rate import Rate
from sfdkit.losses.reconstruction import MultiScaleL1
from sfdkit.losses.reencode import Reencode
from sfdkit.losses.sparsity import Sparsity
from sfdkit.losses.squared import SquaredError
from sfdkit.losses.step import Crossed, Step
from sfdkit.losses.structure import StructureLoss

__all__ = ["TERMS", "Crossed", "Objective", "Step"]


class Term(NamedTuple):
    """How a term is made and what it reads."""

    make: Callable[[], nn.Module]
    read: Callable[[Step], tuple[Tensor | None, ...] | None]
    """Its arguments; None where the step has nothing for it to judge."""
    needs: str = ""
    """The field of :class:`~sfdkit.losses.step.Step` that is made for such terms alone."""


def _pictures(step: Step) -> tuple[Tensor | None, ...]:
    return step.image, step.target


def _crossed(*fields: str) -> Callable[[Step], tuple[Tensor | None, ...] | None]:
    return lambda step: None if step.crossed is None else tuple(getattr(step.crossed, name) for name in fields)


def _reread(step: Step) -> tuple[Tensor | None, ...] | None:
    found = _crossed("identity", "motion", "source_identity", "driver_motion")(step)
    return None if found is None else (*found, step.log_noise)


TERMS: dict[str, Term] = {
    "l1": Term(MultiScaleL1, _pictures),
    "l2": Term(SquaredError, _pictures),
    "gradient": Term(GradientLoss, _pictures),
    "ssim": Term(StructureLoss, _pictures),
    "perceptual": Term(PerceptualLoss, _pictures),
    "warp": Term(MultiScaleL1, lambda step: (step.warped, step.target), "warped"),
    "smoothness": Term(Smoothness, lambda step: (step.flow,)),
    "painting": Term(Painting, lambda step: (step.mask,)),
    "rate": Term(Rate, lambda step: (step.motion, step.log_noise), "noise"),
    "sparsity": Term(Sparsity, lambda step: (step.motion,)),
    "leakage": Term(Leakage, lambda step: (step.motion,)),
    "consistency": Term(Consistency, lambda step: (step.identity, step.people), "identity"),
    "reencode": Term(Reencode, _reread, "crossed"),
    "cycle": Term(MultiScaleL1, _crossed("restored", "driver"), "restored"),
}
"""Name to term; each gives a scalar."""

RAMP = 200
"""Steps over which a term that starts late grows to its full weight."""

ADVERSARIAL = ("adversarial", "r1")
"""Weights that the task itself uses, with a discriminator."""


class Objective(nn.Module):
    """The weighted sum of the terms whose weight is not zero.

    Args:
        weights: Term name to weight, adversarial ones included (they are only checked here).
        starts: Term name to the step from which it counts; from the first one by default. Its weight then rises over
            :data:`RAMP` steps.

    Raises:
        ConfigError: A weight or a start for a term that does not exist.
    """

    def __init__(self, weights: Mapping[str, float], starts: Mapping[str, int] | None = None) -> None:
        super().__init__()
        require_terms("weights", weights)
        require_terms("starts", starts or {})
        self.weights = {name: float(weights[name]) for name in TERMS if weights.get(name, 0.0)}
        self.starts = dict(starts or {})
        self.terms = nn.ModuleDict({name: TERMS[name].make() for name in self.weights})

    def active(self, step: int) -> list[str]:
        """Return the names of the terms that count at a step."""
        return [name for name in self.weights if step >= self.starts.get(name, 0)]

    def needs(self, field: str, step: int) -> bool:
        """Whether a term that counts at ``step`` wants that field of :class:`Step`."""
        return any(TERMS[name].needs == field for name in self.active(step))

    def forward(self, made: Step, step: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum and each term's own value.

        Args:
            made: What the batch has given.
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
        """Return the share of its weight that a term has at a step."""
        start = self.starts.get(name, 0)
        return min(1.0, max(0.0, (step - start + 1) / RAMP)) if start else 1.0


def require_terms(key: str, names: Mapping[str, float] | Mapping[str, int]) -> None:
    """Refuse names that are no loss terms.

    Raises:
        ConfigError: One is not.
    """
    known = (*TERMS, *ADVERSARIAL)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{key}: there is no loss term {name!r}.{did_you_mean(name, known)} The terms are {', '.join(known)}"
            )
