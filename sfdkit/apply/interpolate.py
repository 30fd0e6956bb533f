"""The command ``sfdkit interpolate``: from one face's descriptors to another's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from sfdkit.apply.face import What, interpolate
from sfdkit.apply.strips import StripOptions, render_all
from sfdkit.files import write_picture
from sfdkit.media.draw import make_sheet


@dataclass(kw_only=True)
class Interpolate(StripOptions):
    """Go from one face's descriptors to another's and show it: a strip of pictures or a video.

    All pictures are rendered from the source: its features are warped whatever the coefficients say, and so the person
    hardly changes with the identity coefficients.

    Args:
        target: The face to end with, likewise.
        what: The coefficients that change: motion, identity or both.
    """

    target: str
    what: What = "motion"

    def run(self) -> Path:
        """Render the faces and return the file that they were written to.

        Raises:
            CheckpointError: The checkpoint is missing, damaged or of another model.
            ConfigError: An output of an unknown kind.
            DataError: A face cannot be read or was not found, or the output cannot be written.
        """
        path = self.check_output(target=self.target)
        animator = self.load_animator()
        state, other = (self.read_state(animator, face) for face in (self.source, self.target))
        shares = torch.linspace(0.0, 1.0, self.step_count)
        faces = interpolate(state.descriptors, other.descriptors, shares.to(state.image), self.what)
        row, cell = render_all(animator, state, faces), self.cell(animator)
        title = "identity and motion" if self.what == "both" else self.what
        source, target = state.image[0], other.image[0]
        captions = [f"{title} {float(share):.2f}" for share in shares]
        if self.is_strip:
            write_picture(path, make_sheet([[source, *row, target]], ["source", *captions, "target"], cell))
        else:
            frames = [
                make_sheet([[source, face, target]], ["source", caption, "target"], cell)
                for caption, face in zip(captions, row, strict=True)
            ]
            self.write_there_and_back(path, frames)
        print(f"wrote {path}: {title} of {self.source} to that of {self.target}, rendered from {self.source}")
        return path
