"""The groups of parameters that the first optimiser trains, and their state in a checkpoint.

A loss term may have a head that learns, in a group of its own: a training can be resumed with other terms than it began
with, and what the optimiser knows of all else stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from sfdkit.errors import CheckpointError
from sfdkit.losses import Objective
from sfdkit.model.animator import FaceAnimator

NOISE_LR_FACTOR = 5.0
"""Factor on the learning rate of the logarithm of the motion coefficients' noise, which has to move by some units."""
_TERM = "term"
_BUILT_IN = ("params", "amsgrad", "capturable", "centered", "differentiable", "foreach", "fused", "maximize")
"""Options that an optimiser's state is made for."""


def parameter_groups(animator: FaceAnimator, objective: Objective, basis_factor: float) -> list[dict[str, Any]]:
    """Return the groups for an optimiser, each with the ``scale`` of its learning rate.

    Args:
        animator: Its basis and the noise of its motion coefficients have groups of their own.
        objective: Each term that learns has one, with its name as ``term``.
        basis_factor: Scale of the basis.
    """
    basis, noise = animator.descriptors.weight, animator.motion_head.log_noise
    others = [p for p in _learned(animator) if p is not basis and p is not noise]
    groups: list[dict[str, Any]] = [
        {"params": others, "scale": 1.0},
        {"params": [basis], "scale": basis_factor},
        {"params": [noise], "scale": NOISE_LR_FACTOR},
    ]
    heads = {name: _learned(term) for name, term in objective.terms.items()}
    return groups + [{"params": head, "scale": 1.0, _TERM: name} for name, head in heads.items() if head]


def settable(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return the options of each group that a resumed training may change, whatever its checkpoint says."""
    return [{key: value for key, value in group.items() if key not in _BUILT_IN} for group in optimizer.param_groups]


def _learned(network: nn.Module) -> list[nn.Parameter]:
    return [p for p in network.parameters() if p.requires_grad]


def fit_state(stored: dict[str, Any], groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return an optimiser's stored state for the groups that it has now.

    What is known of a term's head is kept where both trainings have the term; a new head begins without a past.

    Args:
        stored: The optimiser's ``state_dict`` in a checkpoint.
        groups: As of :func:`parameter_groups`.

    Raises:
        CheckpointError: It is of another number of weights.
    """
    of_terms = {group[_TERM]: group for group in stored["param_groups"] if _TERM in group}
    kept = iter([group for group in stored["param_groups"] if _TERM not in group])
    fitted: dict[str, Any] = {"state": {}, "param_groups": []}
    count = 0
    for group in groups:
        begun = of_terms.get(group[_TERM]) if _TERM in group else next(kept, None)
        options = begun or {**stored["param_groups"][0], **group}
        numbers = list(range(count, count := count + len(group["params"])))
        if begun and len(begun["params"]) != len(numbers):
            raise CheckpointError(
                f"the optimiser in the checkpoint trains {len(begun['params'])} weights where this model has "
                f"{len(numbers)}: use the config.yaml that lies beside the checkpoint's run"
            )
        for new, old in zip(numbers, begun["params"] if begun else (), strict=False):
            if old in stored["state"]:
                fitted["state"][new] = stored["state"][old]
        fitted["param_groups"].append({**options, "params": numbers})
    return fitted
