"""What a training step renders: the batch itself, and cross-identity results for the terms that need them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sfdkit.losses import Bent, Crossed, Objective, Step
from sfdkit.losses.equivariance import Bend
from sfdkit.model.animator import FaceAnimator, SourceState
from sfdkit.types import FrameBatch, Generated


def encode(animator: FaceAnimator, batch: FrameBatch) -> tuple[Tensor, SourceState]:
    """Encode a batch: motion coefficients of the sources and the driving views, B 1+K M, and the sources."""
    source, driving = batch["source"], batch["driving"]
    views = batch.get("driving_view", driving)
    faces = torch.cat([source[:, None], views], 1)
    motion = animator.motion(faces.flatten(0, 1)).unflatten(0, faces.shape[:2])
    return motion, animator.source_state(source, motion[:, 0])


def render(animator: FaceAnimator, batch: FrameBatch) -> tuple[Generated, Tensor, Tensor]:
    """Render a batch.

    Returns:
        The results (B*K rows), the motion coefficients of source and driving frames (B 1+K M), and the targets
        (B*K 3 R R).
    """
    motion, state = encode(animator, batch)
    driving = batch["driving"]
    result = animator.generate(state.expand(driving.shape[1]), motion[:, 1:].flatten(0, 1))
    return result, motion, driving.flatten(0, 1)


def training_forward(
    animator: FaceAnimator,
    objective: Objective,
    batch: FrameBatch,
    step: int,
    cross_share: float,
    generator: torch.Generator | None = None,
) -> Step:
    """Render a batch for training, with all that the loss terms need at this step.

    Args:
        animator: The model.
        objective: Its active terms decide what is rendered besides the batch.
        batch: With ``driving_view`` where the motion branch sees another view.
        step: Training steps done.
        cross_share: Fraction of the rows that another person drives as well.
        generator: Random numbers for the noise of the motion coefficients.
    """
    with animator.descriptors.kept():
        motion, state = encode(animator, batch)
        sent = motion[:, 1:].flatten(0, 1)
        if objective.needs("noise", step):
            sent = animator.motion_head.noisy(sent, objective.share("kl", step), generator)
        each = batch["driving"].shape[1]
        sources, of_code = state.expand(each), None
        if animator.code_share:
            of_code = torch.rand(len(sent), generator=generator, device=sent.device) < animator.code_share
            sources = sources.replace_rows(of_code, animator.code_state(sources.descriptors.identity))
        result = animator.generate(sources, sent)
        identity, people = None, None
        if objective.needs("identity", step):
            people = _people(batch["identity"], motion.device)
            other = animator.identity(batch["driving"][:, -1])
            identity = torch.stack([state.descriptors.identity, other], 1)
        bent = _bend(animator, batch, generator) if objective.needs("bent", step) else None
        points, warped_points = None, None
        if batch.get("point_set") == objective.points.name:
            points = batch["points"]
            warped_points = points[:, :1].expand_as(points[:, 1:]).flatten(0, 1)
            if of_code is not None:  # there is no telling where the template's face is
                warped_points = warped_points.masked_fill(of_code[:, None, None], torch.nan)
        restore, crossed = objective.needs("restored", step), None
        if restore or objective.needs("crossed", step):
            crossed = _cross(animator, batch, motion, state, cross_share, restore)
        return Step(
            image=result.image,
            target=batch["driving"].flatten(0, 1),
            source=batch["source"],
            motion=motion,
            log_noise=animator.motion_head.log_noise,
            flow=result.flow,
            mask=result.mask,
            warped=result.warped,
            source_identity=state.descriptors.identity,
            points=None if points is None else points[:, 1:].flatten(0, 1),
            row_points=points,
            warped_points=warped_points,
            identity=identity,
            people=people,
            bent=bent,
            crossed=crossed,
        )


def _bend(animator: FaceAnimator, batch: FrameBatch, generator: torch.Generator | None) -> Bent:
    """Bend the first driving view of each row, and read its motion."""
    view = batch.get("driving_view", batch["driving"])[:, 0]
    bend = Bend.draw(len(view), view.device, generator)
    return Bent(animator.motion(bend.apply(view)), bend)


def _cross(
    animator: FaceAnimator, batch: FrameBatch, motion: Tensor, state: SourceState, cross_share: float, restore: bool
) -> Crossed | None:
    """Drive rows with another person's first driving frame and encode the results.

    What reads the results is not trained by them; the generator is, and what it was given of the sources.
    """
    pairs = cross_rows(batch["identity"], cross_share)
    if not pairs:
        return None
    sources, drivers = (to_device(rows, motion.device) for rows in zip(*pairs, strict=True))
    driver_motion = motion[drivers, 1].detach()
    image = animator.generate(state.rows(sources), driver_motion).image
    with frozen(animator.reading_parts()):
        found = animator.describe(image)
    return Crossed(
        image=image,
        source_identity=state.descriptors.identity[sources].detach(),
        driver_motion=driver_motion,
        identity=found.identity,
        motion=found.motion,
        restored=animator.generate(state.rows(drivers), found.motion).image if restore else None,
        driver=batch["driving"][drivers, 0],
        source=batch["source"][sources],
    )


def cross_rows(identities: Sequence[str], share: float) -> list[tuple[int, int]]:
    """Pair rows of different people: each of the first ``share`` of the rows with the next row of another person.

    Returns:
        Pairs of row numbers, source and driver; none where all rows show one person.
    """
    count = len(identities)
    pairs = []
    for row in range(round(share * count)):
        others = (other % count for other in range(row + 1, row + count))
        other = next((o for o in others if identities[o] != identities[row]), None)
        if other is not None:
            pairs.append((row, other))
    return pairs


def _people(identities: Sequence[str], device: torch.device) -> Tensor:
    """Return a number for each row, equal for rows of the same person."""
    numbers = {name: number for number, name in enumerate(identities)}
    return to_device([numbers[name] for name in identities], device)


def to_device(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Return integers as a tensor on a device, without waiting for it."""
    made = torch.tensor(numbers)
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)


@contextmanager
def frozen(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Put modules into eval mode without gradients of their parameters; gradients still flow to their inputs.

    Normalisation layers use their running statistics, so that a single row can be encoded as well.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    training = [part for module in modules for part in module.modules() if part.training]
    for parameter in parameters:
        parameter.requires_grad_(False)
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for part in training:
            part.training = True
