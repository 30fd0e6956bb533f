"""What the descriptors of a model hold: probes, DCI scores, and named directions.

Legend: ``F`` frames of all samples, ``N`` identity coefficients, ``M`` motion coefficients, ``C`` channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from sfdkit.apply.axes import Axes, BlockAxes, Direction, VectorFactor
from sfdkit.evaluate.frames import frame_batches
from sfdkit.evaluate.samples import Sample
from sfdkit.metrics.dci import Vector, dci, describe_vectors
from sfdkit.metrics.exact import exact
from sfdkit.metrics.probes import LEAST_IDENTITIES, grouped_folds, probe, ridge, varying
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.blocks import resize
from sfdkit.model.fingerprints import basis_fingerprint
from sfdkit.puppets.clips import factors_from_meta
from sfdkit.puppets.factor_groups import IDENTITY_GROUPS, VISIBLE_64
from sfdkit.puppets.factors import IdentityFactors, MotionFactors

_UNITS = {"yaw": "degrees", "pitch": "degrees", "roll": "degrees", "scale": "times the size"}
_UNITS |= {"shift_x": "picture widths", "shift_y": "picture widths"}
_BOTH_WAYS = ("smile", "gaze_x", "gaze_y", "brows", "skin_warmth", "eye_tilt", "hair_part", "light_x", "light_warmth")

SILENT = 0.1
"""Nats per frame up to which a motion coefficient counts as silent."""

LEAST_READ = 0.25
"""A factor that is read worse than this gets a direction only so much longer than its slope, see :func:`make_axes`."""


class Codes(NamedTuple):
    """The codes of all frames of an evaluation, on the CPU."""

    identity: Tensor
    """F N."""
    motion: Tensor
    """F M."""
    backbone: Tensor
    """F C: the encoder's last map, averaged over height and width."""
    people: list[str]
    """F names of who is seen."""
    noise: Tensor | None = None
    """M: standard deviation of the noise that is added to each motion coefficient in training; None for no noise."""

    def active(self) -> Tensor:
        """Return whether each motion coefficient carries information, M: above :data:`SILENT` nats per frame.

        A coefficient that the loss term ``kl`` has silenced may still correlate with a factor, but its effect on the
        picture is lost in the noise, so it is not counted as a vector of any factor.
        """
        variance = self.motion.var(0, correction=0)
        if self.noise is None:
            return variance > 0
        return 0.5 * torch.log1p(variance / self.noise.square().clamp(min=1e-12)) > SILENT


class Truth(NamedTuple):
    """The known factors of all frames: name to F values."""

    motion: dict[str, Tensor]
    identity: dict[str, Tensor]


class Findings(NamedTuple):
    """Results of probes and scores."""

    metrics: dict[str, float | int | str]
    """``probe/...`` and ``dci/...``."""
    motion: list[Vector]
    """What each motion vector follows, in the order of the coefficients."""
    identity: list[Vector]


def encode_samples(animator: FaceAnimator, samples: Sequence[Sample], batch_size: int) -> Codes:
    """Encode the source and the driving frames of all samples, ``batch_size`` at a time; the animator in eval mode."""
    device = next(animator.parameters()).device
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    people = [sample.identity for sample in samples for _ in sample.chosen]
    with torch.no_grad(), tqdm(total=len(people), desc="describe", unit="frame") as bar:
        for image in frame_batches(samples, batch_size, device):
            features = animator.encoder(resize(image, animator.encoder.resolution))
            shared = animator.driving_encoder is None
            motion = animator.motion_head(features) if shared else animator.motion(image)
            parts.append((animator.identity_head(features), motion, features[-1].mean((2, 3))))
            bar.update(len(image))
    identity, motion, backbone = (torch.cat([t.float().cpu() for t in c]) for c in zip(*parts, strict=True))
    return Codes(identity, motion, backbone, people, animator.motion_head.log_noise.detach().exp().cpu())


def known_factors(samples: Sequence[Sample]) -> Truth:
    """Return the factors of all frames of puppets, in the order of :func:`encode_samples`.

    Raises:
        DataError: A clip is no puppet of this version.
    """
    motions, identities = [], []
    for sample in samples:
        identity, motion = factors_from_meta(sample.clip["meta"])
        motions.append(motion[torch.tensor(sample.chosen)])
        identities.append(identity.expand(len(sample.chosen)))
    return Truth(vars(MotionFactors.concat(motions)), vars(IdentityFactors.concat(identities)))


def why_no_probes(samples: Sequence[Sample]) -> str | None:
    """Return why nothing can be probed, or None if all is there."""
    if not all(sample.is_puppet for sample in samples):
        return "the clips hold no known factors, as only puppets do"
    people = len({sample.identity for sample in samples})
    if people < LEAST_IDENTITIES:
        return f"folds by identity need at least {LEAST_IDENTITIES} people, these clips show {people}"
    return None


def run_probes(codes: Codes, truth: Truth) -> Findings:
    """Probe both blocks and the backbone for all factors, and score the two blocks by DCI.

    Probes see all coefficients; DCI and the description of the vectors see the active motion coefficients alone.
    """
    folds = grouped_folds(codes.people)
    metrics: dict[str, float | int | str] = {"probe/frames": len(folds), "probe/identities": len(set(codes.people))}
    skipped: dict[str, None] = {}
    for place, code in (("motion", codes.motion), ("identity", codes.identity), ("backbone", codes.backbone)):
        for what, factors in truth._asdict().items():
            found = probe(code, factors, folds)
            metrics |= {f"probe/{what}_from_{place}/{name}": value for name, value in found.r2.items()}
            if found.r2:
                metrics[f"probe/{what}_from_{place}/mean"] = found.mean
            if what == "identity":
                means = group_means(found.r2)
                metrics |= {f"probe/identity_groups_from_{place}/{name}": value for name, value in means.items()}
            skipped |= dict.fromkeys(found.skipped)
    if skipped:
        metrics["probe/skipped"] = ", ".join(skipped)
    active = codes.active()
    vectors: dict[str, list[Vector]] = {}
    for block, code in (("motion", codes.motion * active), ("identity", codes.identity)):
        factors = getattr(truth, block)
        if varying(factors):
            metrics |= {f"dci/{block}/{name}": value for name, value in dci(code, factors, folds)._asdict().items()}
        vectors[block] = describe_vectors(code, factors, folds)
    metrics["dci/active_vectors"] = int(active.sum())
    metrics["dci/own_vectors"] = sum(vector.exclusive for vector in vectors["motion"])
    metrics["dci/factors"] = len(varying(truth.motion))
    return Findings(metrics, **vectors)


def group_means(r2: Mapping[str, float]) -> dict[str, float]:
    """Return the mean R2 of identity factors: of those that a picture of 64 pixels shows, and of each group.

    ``visible`` and the names of :data:`sfdkit.puppets.factor_groups.IDENTITY_GROUPS`; factors that were not probed, as
    they are constant, are left out, and so is a group of which none was.
    """
    groups = {"visible": VISIBLE_64, **IDENTITY_GROUPS}
    found = {name: [r2[factor] for factor in factors if factor in r2] for name, factors in groups.items()}
    return {name.replace(" ", "_"): sum(values) / len(values) for name, values in found.items() if values}


def make_axes(animator: FaceAnimator, codes: Codes, truth: Truth | None, findings: Findings | None) -> Axes:
    """Return what ``axes.json`` holds.

    Mean and standard deviation of each coefficient are over all frames. A direction is that in which the coefficients
    change with a factor, from one ridge regression of each coefficient on all factors of its block together; its
    strength is chosen by folds of people, and is negligible where there are many more frames than factors. One unit
    of it is as long as a ridge regression of the factor on the coefficients takes for one unit: the coefficients alone
    change by less where they tell the factor in a part of the people only. Without ``truth`` there are no directions,
    without ``findings`` no word of what the vectors follow.
    """
    folds = grouped_folds(codes.people)
    blocks = []
    for name in ("motion", "identity"):
        code: Tensor = getattr(codes, name)
        directions = _directions(code, getattr(truth, name), folds) if truth else {}
        vectors = [VectorFactor(v.coefficient, v.factor, v.explains, v.share) for v in getattr(findings, name, ())]
        mean, std = (value.float().cpu().numpy() for value in (code.mean(0), code.std(0, correction=0)))
        blocks.append(BlockAxes(mean, std, tuple(vectors), directions))
    return Axes(basis_fingerprint(animator.descriptors), *blocks)


def _directions(code: Tensor, factors: Mapping[str, Tensor], folds: Tensor) -> dict[str, Direction]:
    factors = varying(factors)
    if not factors:
        return {}
    known = torch.stack(list(factors.values()), 1)
    slopes, reading = ridge(known, code, folds).weights, ridge(code, known, folds).weights
    read = (slopes * reading.T).sum(1, keepdim=True)  # of one unit
    weights = (slopes / read.clamp(LEAST_READ, 1.0)).float()
    units = [_UNITS.get(name, "of -1 to 1" if name in _BOTH_WAYS else "of 0 to 1") for name in factors]
    return {name: Direction(row.cpu().numpy(), unit) for name, row, unit in zip(factors, weights, units, strict=True)}


def orthonormality(animator: FaceAnimator) -> float:
    """Return the largest entry of ``|Q^T Q - I|`` of the basis ``Q``: 0 up to rounding if it is orthonormal."""
    with torch.no_grad():
        basis = exact(animator.descriptors.basis())
    return float((basis.T @ basis - torch.eye(basis.shape[1], dtype=basis.dtype)).abs().max())
