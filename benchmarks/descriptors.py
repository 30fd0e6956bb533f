"""What bits per motion coefficient cost in the picture, and what swapped coefficients change in it: held-out puppets.

``python -m benchmarks.descriptors --checkpoint runs/quickstart/checkpoints/last.ckpt`` prints two tables.
"""

from __future__ import annotations

import numpy as np
import torch
from jsonargparse import auto_cli

from sfdkit.apply.face import render
from sfdkit.apply.motion_track import FLOAT_BITS, MotionTrack, compressed_size
from sfdkit.apply.reenactment import animate_track, read_motion
from sfdkit.apply.torch_runner import TorchRunner
from sfdkit.checkpoint import load_animator
from sfdkit.model.animator import FaceAnimator
from sfdkit.puppets.clips import make_clip
from sfdkit.puppets.factors import sample_identity, sample_motion
from sfdkit.puppets.render import render as draw
from sfdkit.types import Descriptors

FPS, POSE = 25.0, 0.5


def bits_table(animator: FaceAnimator, clips: int, frames: int) -> None:
    """Print rate and PSNR against the picture of the float track, mean over frames and the worst frame."""
    rows: dict[int, list[list[float]]] = {}
    runner = TorchRunner(animator)
    for k in range(clips):
        driving = make_clip(2 * k, "test", 0, frames, animator.resolution, FPS, POSE)[0].permute(0, 2, 3, 1).numpy()
        source = make_clip(2 * k + 1, "test", 0, 1, animator.resolution, FPS, POSE)[0][0].permute(1, 2, 0).numpy()
        motion = np.concatenate([part for _, part in read_motion(runner, driving, 16)])
        exact = MotionTrack(motion, FPS, runner.motion_model, "")
        wanted = _animate(runner, source, exact)
        for bits in (FLOAT_BITS, 8, 6, 4, 3, 2):
            track = exact.rounded(bits)
            error = np.square(_animate(runner, source, track) - wanted).mean((1, 2, 3))
            psnr = -10 * np.log10(error.clip(min=1e-12))
            rate = motion.shape[1] * bits * FPS / 1000
            packed = compressed_size(track) * 8 / (frames / FPS) / 1000
            rows.setdefault(bits, []).append([rate, packed, float(psnr.mean()), float(psnr.min())])
    print(f"{clips} clips of {frames} frames at {FPS:g} fps, {animator.descriptors.motion_size} coefficients")
    print(f"{'bits':>6}{'kbit/s':>9}{'zlib':>9}{'PSNR':>9}{'worst':>9}")
    for bits, each in rows.items():
        table = torch.tensor(each)
        rate, packed, mean, _ = table.mean(0).tolist()
        print(f"{bits:>6}{rate:>9.2f}{packed:>9.2f}{mean:>9.2f}{float(table[:, 3].min()):>9.2f}")


def _animate(runner: TorchRunner, source: np.ndarray, track: MotionTrack) -> np.ndarray:
    parts = animate_track(runner, source, track.motion, batch_size=16)
    return np.concatenate([part.image for part in parts]) / 255.0


def swap_table(animator: FaceAnimator, people: int) -> None:
    """Print how far a picture goes towards the truth when one block of its coefficients is another puppet's."""
    identities = [sample_identity(k, "test", 0) for k in range(people)]
    motions = [sample_motion(k, "test", 0, 8, 3.0, POSE)[4] for k in range(people)]
    other = torch.arange(people).roll(1).tolist()
    size = animator.resolution
    pictures = torch.cat([draw(i, m, size).image for i, m in zip(identities, motions, strict=True)])
    true_swap = {
        "identity": torch.cat([draw(identities[other[k]], motions[k], size).image for k in range(people)]),
        "motion": torch.cat([draw(identities[k], motions[other[k]], size).image for k in range(people)]),
    }
    with torch.no_grad():
        state = animator.source_state(pictures)
        own = state.descriptors
        plain = render(animator, state, own).image.clamp(0, 1)
        swapped = {
            "identity": Descriptors(own.identity[other], own.motion),
            "motion": Descriptors(own.identity, own.motion[other]),
        }
        if animator.template is None:  # trained without code_share
            del swapped["identity"]
        made = {name: render(animator, state, face).image.clamp(0, 1) for name, face in swapped.items()}
    print(f"{people} puppets, one block of coefficients taken from another: mean absolute change of the picture")
    print(f"{'block':>10}{'true':>9}{'rendered':>10}{'share of the way':>18}")
    for name, image in made.items():
        truth = true_swap[name]
        way, change = truth - plain, image - plain
        share = float((way * change).sum() / way.square().sum())
        print(
            f"{name:>10}{float((truth - pictures).abs().mean()):>9.4f}{float(change.abs().mean()):>10.4f}{share:>18.3f}"
        )


def descriptors(checkpoint: str, clips: int = 8, frames: int = 100, people: int = 32) -> None:
    """Measure a checkpoint of puppets.

    Args:
        checkpoint: A checkpoint that sfdkit fit wrote.
        clips: Driving clips, each with a source of its own.
        frames: Frames of each.
        people: Puppets whose coefficients are swapped.
    """
    animator = load_animator(checkpoint).animator
    bits_table(animator, clips, frames)
    swap_table(animator, people)


if __name__ == "__main__":
    auto_cli(descriptors, as_positional=False)
