"""Running an animator by torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from sfdkit.apply import face
from sfdkit.apply.cuda_graph import CudaGraph
from sfdkit.apply.runner import Coefficients, Precision
from sfdkit.model.animator import FaceAnimator, SourceState
from sfdkit.model.fingerprints import basis_fingerprint, motion_fingerprint
from sfdkit.types import Descriptors


class TorchRunner:
    """Arrays in, arrays out, see :class:`sfdkit.apply.runner.Runner`.

    On CUDA frames are driven by recorded work, see :class:`sfdkit.apply.cuda_graph.CudaGraph`.

    Args:
        animator: In eval mode, on the device to compute on.
        precision: bfloat16 and float16 compute in it what can be, and keep coordinates and the basis in float32.
        compiled: Compile the generator and the motion encoder: the first frames take a minute or more. For each other
            number of frames at a time it is compiled again.
    """

    def __init__(self, animator: FaceAnimator, precision: Precision = "float32", compiled: bool = False) -> None:
        self.animator = animator
        self.precision = precision
        self.resolution = animator.resolution
        self.identity_size = animator.descriptors.identity_size
        self.motion_size = animator.descriptors.motion_size
        self.basis = basis_fingerprint(animator.descriptors)
        self.motion_model = motion_fingerprint(animator)
        self._place = animator.descriptors.weight.device
        if compiled:
            for part in (animator.generator, animator.driving_encoder or animator.encoder):
                part.compile(dynamic=False)
        on_cuda = self._place.type == "cuda"
        self._read = CudaGraph(self._motion) if on_cuda else self._motion
        self._draw = CudaGraph(self._render) if on_cuda else self._render

    @property
    def device(self) -> str:
        """Where it computes."""
        return str(self._place)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        lower = self.precision != "float32"
        dtype = getattr(torch, self.precision) if lower else None
        with torch.no_grad(), torch.autocast(self._place.type, dtype, enabled=lower):
            yield

    def source(self, picture: np.ndarray) -> SourceState:
        """Encode a source, R R 3 uint8."""
        with self._computing():
            return self.animator.source_state(_pictures(self._pixels(picture[None])))

    def describe(self, source: SourceState) -> Coefficients:
        """Return the descriptors of an encoded source."""
        return Coefficients(*(value[0].float().cpu().numpy() for value in source.descriptors))

    def motion(self, frames: np.ndarray) -> np.ndarray:
        """Read the motion coefficients, B M float32, of frames B R R 3 uint8."""
        return self._read(self._pixels(frames)).cpu().numpy()

    def render(self, source: SourceState, motion: np.ndarray) -> np.ndarray:
        """Render one source, or B, under motion coefficients B M: B R R 3 uint8."""
        state = source if len(source.image) == len(motion) else source.expand(len(motion))
        return self._draw(self._numbers(motion), state.image, *state.descriptors, *state.features).cpu().numpy()

    def _motion(self, pixels: Tensor) -> Tensor:
        """Map B R R 3 uint8 to B M float32."""
        with self._computing():
            return self.animator.motion(_pictures(pixels)).float()

    def _render(self, motion: Tensor, image: Tensor, identity: Tensor, own: Tensor, *features: Tensor) -> Tensor:
        """Map motion coefficients and the parts of a source state, B rows each, to B R R 3 uint8."""
        with self._computing():
            state = SourceState(image, list(features), Descriptors(identity, own))
            made = self.animator.generate(state, motion).image.float()
            pixels = (made.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
            return pixels.permute(0, 2, 3, 1).contiguous()

    def change_identity(self, source: SourceState, identity: np.ndarray) -> SourceState:
        """Return B sources that look as identity coefficients B N say, see :func:`sfdkit.apply.face.change_identity`.

        Raises:
            ConfigError: The model was trained without ``code_share``.
        """
        with self._computing():
            return face.change_identity(self.animator, source.expand(len(identity)), self._numbers(identity))

    def morph(self, source: SourceState, other: SourceState, share: np.ndarray) -> SourceState:
        """Return B sources on the way from one person to another, see :func:`sfdkit.apply.face.morph`.

        Raises:
            ConfigError: The model was trained without ``code_share``.
        """
        rows = len(share)
        with self._computing():
            return face.morph(self.animator, source.expand(rows), other.expand(rows), self._numbers(share))

    def _numbers(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self._place)

    def _pixels(self, pictures: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(pictures)).to(self._place)  # a copy: frames may be read-only


def _pictures(pixels: Tensor) -> Tensor:
    """Map B R R 3 uint8 to B 3 R R in [0, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 255.0
