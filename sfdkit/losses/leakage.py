"""Leakage: the share of the motion coefficients that tells people apart rather than movements."""

from __future__ import annotations

from torch import Tensor, nn


class Leakage(nn.Module):
    """Intraclass correlation of motion coefficients: what frames of one clip have in common, against all variance.

    If motion coefficients say nothing of the person, two frames of a clip far apart in time are as different as frames
    of two people, and the covariance of coefficients between frames of the same clip is zero. It is estimated without
    bias from the ``S`` frames that each row of a batch holds, as in a one-way analysis of variance
    (https://doi.org/10.1037/0033-2909.86.2.420), so that small batches push the right way on average.

    A pose that a person keeps through a whole clip counts as leakage too. Where clips are short against the movements,
    the term has little variance to divide by, its gradient drowns the others and training diverges: it did so with a
    weight of 0.05 on short clips of real talking faces at 25 frames per second. Use it on clips in which people move
    much, and watch the reconstruction terms.

    Args:
        together: Take the share of all coefficients' variance together instead of the mean of each one's share. Under a
            price on information (:class:`sfdkit.losses.rate.Rate`) coefficients that say nothing have no variance, so
            that those count which move the face. Without that price a coefficient that the generator does not heed
            could hide the others' leakage by its own variance.
    """

    def __init__(self, together: bool = False) -> None:
        super().__init__()
        self.together = together

    def forward(self, motion: Tensor) -> Tensor:
        """Return the share: up to 1, and 0 where people do not differ.

        It falls below 0 where movements swing around a middle within short clips: -0.13 for the true factors of puppets
        in clips of 8 frames at 2 per second.

        Args:
            motion: B S M, coefficients of S >= 2 frames of each of B clips; 0 for a single clip or frame, where nothing
                can be estimated.
        """
        clips, frames = motion.shape[:2]
        if clips < 2 or frames < 2:
            return motion.new_zeros(())
        centred = motion.float() - motion.float().mean((0, 1))
        squares = centred.square()
        between = (centred.sum(1).square() - squares.sum(1)).mean(0) / (frames * (frames - 1))
        total = squares.mean((0, 1))
        if self.together:
            return between.sum() / (total.sum() + 1e-6)
        return (between / (total + 1e-6)).mean()
