"""The graphs that an animator is exported as.

Legend: ``B`` driving frames, ``R`` resolution, ``N`` identity and ``M`` motion coefficients, ``C r r`` feature maps.

    source   picture 1 R R 3 uint8 -> image 1 3 R R, identity 1 N, own 1 M, features_0 ... 1 C r r      once per source
    motion   frames B R R 3 uint8 -> motion B M                                                         per frame
    render   motion B M and all that ``source`` gave -> frames B R R 3 uint8                            per frame
    person   image, identity, own, wanted 1 N -> what ``source`` gives, of another person               per person

``person`` is there for models that can draw faces from their code alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sfdkit.apply.face import change_identity
from sfdkit.model.animator import FaceAnimator, SourceState
from sfdkit.types import Descriptors


class _Part(nn.Module):
    """One of the graphs.

    Args:
        animator: In eval mode.
    """

    def __init__(self, animator: FaceAnimator) -> None:
        super().__init__()
        self.animator = animator


class SourceGraph(_Part):
    """Encodes a source."""

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """Map 1 R R 3 uint8 to the source's image, identity and own motion coefficients, and features."""
        state = self.animator.source_state(_as_float(picture))
        return state.image, *state.descriptors, *state.features


class MotionGraph(_Part):
    """Reads motion coefficients."""

    def forward(self, frames: Tensor) -> Tensor:
        """Map B R R 3 uint8 to B M."""
        return self.animator.motion(_as_float(frames))


class RenderGraph(_Part):
    """Renders one source under any number of motions."""

    def forward(self, motion: Tensor, image: Tensor, identity: Tensor, own: Tensor, features: list[Tensor]) -> Tensor:
        """Map motion B M, and one row each of what :class:`SourceGraph` gave, to B R R 3 uint8."""

        def repeat(value: Tensor) -> Tensor:
            return value.expand(motion.shape[0], *[-1] * (value.dim() - 1))

        state = SourceState(repeat(image), [repeat(f) for f in features], Descriptors(repeat(identity), repeat(own)))
        image = self.animator.generate(state, motion).image
        return (image.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1)


class PersonGraph(_Part):
    """Makes another person of a source, see :func:`sfdkit.apply.face.change_identity`."""

    def forward(self, image: Tensor, identity: Tensor, own: Tensor, wanted: Tensor) -> tuple[Tensor, ...]:
        """Map what :class:`SourceGraph` gave, and identity coefficients 1 N, to what it would give of that person."""
        state = change_identity(self.animator, SourceState(image, [], Descriptors(identity, own)), wanted)
        return state.image, *state.descriptors, *state.features


def _as_float(pictures: Tensor) -> Tensor:
    """Map B R R 3 uint8 to B 3 R R in [0, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 255.0


class Traceable(NamedTuple):
    """A graph with what is needed to trace it."""

    module: nn.Module
    arguments: tuple[Tensor | list[Tensor], ...]
    """Examples; B is 2 in those of any number of rows."""
    dynamic: int | None
    """The argument whose first dimension is B."""
    inputs: list[str]
    outputs: list[str]


def graphs_of(animator: FaceAnimator, rows: int) -> dict[str, Traceable]:
    """Return the graphs of an animator, by name.

    Args:
        animator: In eval mode.
        rows: B of the examples.
    """
    side = animator.resolution
    device = animator.descriptors.weight.device
    picture = torch.zeros(1, side, side, 3, dtype=torch.uint8, device=device)
    frames = picture.expand(rows, -1, -1, -1).clone()
    source, motion = SourceGraph(animator), MotionGraph(animator)
    with torch.no_grad():
        image, identity, own, *features = source(picture)
        read = motion(frames)
    given = ["image", "identity", "own", *(f"features_{number}" for number in range(len(features)))]
    graphs = {
        "source": Traceable(source, (picture,), None, ["picture"], given),
        "motion": Traceable(motion, (frames,), 0, ["frames"], ["motion"]),
        "render": Traceable(
            RenderGraph(animator), (read, image, identity, own, features), 0, ["motion", *given], ["frames"]
        ),
    }
    if animator.template is not None:
        names = ["image", "identity", "own", "wanted"]
        changed = [f"changed_{name}" for name in given]
        wanted = identity.clone()  # the exporter takes one tensor given twice for one input
        graphs["person"] = Traceable(PersonGraph(animator), (image, identity, own, wanted), None, names, changed)
    return graphs
