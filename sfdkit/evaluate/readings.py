"""What networks read in the frames of pairs, as values of each frame.

Legend: ``G`` pairs of one batch, ``K`` driving frames of each, ``F`` = G * K frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sfdkit.evaluate.frames import Frames, first_frames, true_landmarks, true_motion
from sfdkit.evaluate.samples import Pair
from sfdkit.face_networks.types import FaceMeasurer, Measured
from sfdkit.metrics.faces import csim, identity_distance, landmark_error, reading_columns, reading_errors
from sfdkit.puppets.landmarks import LANDMARKS


class Readings(NamedTuple):
    """What was read in F pictures of each kind."""

    result: Measured
    truth: Measured | None
    """In the true results; in self-reenactment these are the driving frames. None where they are not known."""
    driving: Measured
    unchanged: Measured
    """In the unchanged source."""
    first: Measured | None
    """In the first frame of the driver's clip; None of puppets."""
    names: tuple[str, ...]
    """Of the expression values."""
    pairs: Sequence[Pair]
    """The G pairs."""

    @property
    def reference(self) -> Measured:
        """What pose and expression of results should be: those of the truth, or of the driver."""
        return self.truth or self.driving


def read_faces(
    measurer: FaceMeasurer, pairs: Sequence[Pair], frames: Frames, result: Tensor, truth: Tensor | None
) -> Readings:
    """Read the frames of G pairs, their results F 3 R R, and the truth of these, F 3 R R, where it is known."""
    with torch.no_grad():
        driving = measurer.measure(frames.driving.flatten(0, 1))
        true = driving if pairs[0].is_self else None if truth is None else measurer.measure(truth)
        times = frames.driving.shape[1]
        unchanged, first = _repeat(measurer.measure(frames.source), times), None
        if pairs[0].is_self:
            first = unchanged
        elif not pairs[0].has_truth and "identity" not in measurer.missing:
            first = _repeat(measurer.measure(first_frames([pair.driver for pair in pairs], result.device)), times)
        return Readings(measurer.measure(result), true, driving, unchanged, first, measurer.expression_names, pairs)


def _repeat(once: Measured, times: int) -> Measured:
    return Measured(*(None if read is None else read.repeat_interleave(times, 0) for read in once))


def reading_values(read: Readings) -> dict[str, Tensor]:
    """Return errors of landmarks, pose and expression and similarities of identity, F values each.

    ``docs/evaluate.md`` explains the names.
    """
    # a driver's face has another shape than the source's, so its landmarks are no reference
    reference = read.truth or read.driving._replace(landmarks=None)
    values = reading_errors(read.result, reference, read.names)
    values |= {f"copy_{name}": value for name, value in reading_errors(read.unchanged, reference, read.names).items()}
    if read.truth is read.driving and read.pairs[0].has_truth:
        values |= {f"floor_{name}": value for name, value in _network_errors(read).items()}
    values |= _identity(read)
    if values:
        values["unread"] = torch.stack([~value.isfinite() for value in values.values()]).any(0).float()
    if read.result.found is not None and read.reference.found is not None:
        values["no_face"] = (~read.result.found).float()
        values["reference_no_face"] = (~read.reference.found).float()
    if not read.pairs[0].has_truth:
        values |= _same_clip(read)
    return values


def _same_clip(read: Readings) -> dict[str, Tensor]:
    """Return what the similarity of two frames of one clip is: of the driver's first frame and each other."""
    if read.first is None or read.first.embedding is None or read.driving.embedding is None:
        return {}
    values = csim(read.first.embedding, read.driving.embedding)
    same = torch.tensor([k == pair.driver.chosen[0] for pair in read.pairs for k in pair.driver.chosen[1:]])
    return {"csim_same_clip": values.masked_fill(same.to(values.device), torch.nan)}


def _network_errors(read: Readings) -> dict[str, Tensor]:
    """Return the errors of the network itself: what it reads in driving frames of puppets against known factors."""
    found, motion, known = read.driving, true_motion(read.pairs), Measured()
    if found.pose is not None:
        known = known._replace(pose=torch.stack([motion.yaw, motion.pitch, motion.roll], 1).to(found.pose.device))
    if found.expression is not None and set(read.names) <= set(motion.names()):
        columns = torch.stack([getattr(motion, name) for name in read.names], 1)
        known = known._replace(expression=columns.to(found.expression.device))
    errors = reading_errors(found, known, read.names)
    if found.landmarks is not None and found.landmarks.shape[1] == len(LANDMARKS):
        points = true_landmarks(read.pairs, found.landmarks.device).flatten(0, 1)
        errors["landmark_error"] = landmark_error(found.landmarks, points)
    return errors


def _identity(read: Readings) -> dict[str, Tensor]:
    """Return how much results look like the person that they should show, and like the driver."""
    result, driving, unchanged = read.result.embedding, read.driving.embedding, read.unchanged.embedding
    if result is None or driving is None or unchanged is None:
        return {}
    if read.truth is read.driving:
        values = {"csim": csim(result, driving), "copy_csim": csim(unchanged, driving)}
        if not read.pairs[0].has_truth:
            values["csim_source"] = csim(result, unchanged)
        return values | {"aed": identity_distance(result, driving), "copy_aed": identity_distance(unchanged, driving)}
    values = {"csim_source": csim(result, unchanged), "csim_driver": csim(result, driving)}
    values["csim_gap"] = values["csim_source"] - values["csim_driver"]
    values["copy_csim_driver"] = csim(unchanged, driving)
    gap = 1.0 - values["copy_csim_driver"]
    if read.truth is not None and read.truth.embedding is not None:
        values["truth_csim_source"] = csim(read.truth.embedding, unchanged)
        values["truth_csim_driver"] = csim(read.truth.embedding, driving)
        values["truth_csim_gap"] = gap = values["truth_csim_source"] - values["truth_csim_driver"]
    values["leakage"] = gap - values["csim_gap"]
    return values


def follow_columns(read: Readings) -> dict[str, Tensor]:
    """Return pose and expression of each frame: factor to F 4, the columns of :class:`sfdkit.evaluate.run.Follow`."""
    result, truth, unchanged = (reading_columns(m, read.names) for m in (read.result, read.reference, read.unchanged))
    motion = true_motion(read.pairs) if read.pairs[0].has_truth else None
    columns = {}
    for name, wanted in truth.items():
        known = getattr(motion, name, torch.full_like(wanted, torch.nan))
        columns[name] = torch.stack([result[name].cpu(), wanted.cpu(), unchanged[name].cpu(), known.cpu()], 1)
    return columns
