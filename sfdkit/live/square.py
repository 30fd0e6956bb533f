"""The square that is cut out of a camera's frames: it follows the face smoothly, and neither turns nor trembles."""

from __future__ import annotations

import numpy as np

from sfdkit.errors import DataError
from sfdkit.media.box import Box
from sfdkit.media.crop import CropRule, Place, Refusal

SMOOTH = 0.15
"""Share of the way to the face that the square goes in each frame."""
STILL = 0.04
"""Share of its side by which the face may leave the square's middle before the square follows."""
ANOTHER = 1.4
"""How many times as large or small a face makes a new square."""


class FollowingSquare:
    """Finds the face in every ``every``-th frame and moves a square of one size after it.

    Args:
        rule: How faces are cut out, as in the training data; ``aligned`` would turn the square and is refused.
        every: Frames from one look for the face to the next.
    """

    def __init__(self, rule: CropRule, every: int) -> None:
        self.rule, self.every = rule, every
        self._look = rule.watcher() if rule.looks else None
        self._frames = 0
        self._middle = self._wanted = np.zeros(2)
        self._side = 0.0

    def __call__(self, picture: np.ndarray) -> Place | None:
        """Return the square for the next frame, H W 3 uint8; None as long as no face was found.

        Raises:
            DataError: The rule refuses the picture.
        """
        if self._look is None:
            return self._still(picture)
        if self._frames % self.every == 0 or not self._side:
            self._find(picture)
        self._frames += 1
        if not self._side:
            return None
        away = self._wanted - self._middle
        if np.abs(away).max() > STILL * self._side:
            self._middle = self._middle + SMOOTH * away
        (x, y), half = self._middle, self._side / 2
        return Place(Box(float(x - half), float(y - half), float(x + half), float(y + half)))

    def _find(self, picture: np.ndarray) -> None:
        assert self._look is not None
        face = self._look(picture)
        if face is None:
            return
        place = self.rule.place([face], picture.shape[1], picture.shape[0])
        if isinstance(place, Refusal):
            return
        box = place.box
        side, self._wanted = box.x1 - box.x0, np.array([box.x0 + box.x1, box.y0 + box.y1]) / 2
        if not self._side / ANOTHER < side < self._side * ANOTHER:  # the first one, or another face
            self._side, self._middle = side, self._wanted

    def _still(self, picture: np.ndarray) -> Place:
        place = self.rule.place([], picture.shape[1], picture.shape[0])
        if isinstance(place, Refusal):
            raise DataError(f"camera: {place.detail}")
        return place
