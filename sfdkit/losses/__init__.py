"""Loss terms. One file, one term: to add one, write it and name it in ``TERMS``; a weight in YAML switches it on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sfdkit.errors import ConfigError, did_you_mean
from sfdkit.losses.gradient import GradientLoss
from sfdkit.losses.leakage import Leakage
from sfdkit.losses.perceptual import PerceptualLoss
from sfdkit.losses.reconstruction import MultiScaleL1
from sfdkit.losses.squared import SquaredError
from sfdkit.losses.structure import StructureLoss

TERMS: dict[str, type[nn.Module]] = {
    "l1": MultiScaleL1,
    "l2": SquaredError,
    "gradient": GradientLoss,
    "ssim": StructureLoss,
    "perceptual": PerceptualLoss,
    "warp": MultiScaleL1,
    "leakage": Leakage,
}
"""Terms that give a scalar: of (prediction, target), both B 3 H W in [0, 1], unless named below."""

OF_WARPED = ("warp",)
"""Terms whose prediction is the warped source, nothing painted: flow must explain motion where it can."""

OF_MOTION = ("leakage",)
"""Terms of the motion coefficients, B S M, of the S frames of each row: source and driving views."""

ADVERSARIAL = ("adversarial", "r1")
"""Weights that the task itself uses, with a discriminator."""


class Objective(nn.Module):
    """The weighted sum of the terms whose weight is not zero.

    Args:
        weights: Term name to weight, adversarial ones included (they are only checked here).

    Raises:
        ConfigError: A weight for a term that does not exist.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        known = (*TERMS, *ADVERSARIAL)
        for name in weights:
            if name not in known:
                raise ConfigError(
                    f"weights: there is no loss term {name!r}.{did_you_mean(name, known)} "
                    f"The terms are {', '.join(known)}"
                )
        self.weights = {name: float(weights[name]) for name in TERMS if weights.get(name, 0.0)}
        self.terms = nn.ModuleDict({name: TERMS[name]() for name in self.weights})

    @property
    def needs_warped(self) -> bool:
        """Whether a term wants the warped source."""
        return any(name in self.weights for name in OF_WARPED)

    def forward(
        self, prediction: Tensor, target: Tensor, warped: Tensor | None = None, motion: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum and each term's own value.

        Args:
            prediction: B 3 H W, the results.
            target: B 3 H W.
            warped: B 3 H W, the warped sources; needed when :attr:`needs_warped`.
            motion: B S M, motion coefficients of the frames of each row; needed by terms of :data:`OF_MOTION`.
        """
        values = {}
        for name, term in self.terms.items():
            if name in OF_MOTION:
                values[name] = term(motion)
            else:
                values[name] = term(warped if name in OF_WARPED else prediction, target)
        total = sum((self.weights[name] * value for name, value in values.items()), prediction.new_zeros(()))
        return torch.as_tensor(total), values
