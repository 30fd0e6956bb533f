"""Motion tracks: the motion of a clip as coefficients over time, a few numbers per frame instead of pictures.

Legend: ``T`` frames, ``M`` motion coefficients. This module needs no torch.

A track is stored as float32, or rounded to 2 to 8 bits per coefficient: with the smallest and the largest value of each
coefficient in the track, ``value = offset + step * code``, ``step = (largest - smallest) / (2**bits - 1)``.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from sfdkit.apply.runner import Runner
from sfdkit.errors import CheckpointError, ConfigError, DataError
from sfdkit.media.frame_rate import require_fps
from sfdkit.tensor_file import check_suffix, read_arrays, write_tensors

SCHEMA = "sfdkit.motion/1"
FLOAT_BITS = 32
CODE_BITS = range(2, 9)


class Codes(NamedTuple):
    """Coefficients rounded to a few bits."""

    codes: np.ndarray
    """T M uint8, each from 0 to ``2**bits - 1``."""
    offset: np.ndarray
    """M float32: the value of code 0."""
    step: np.ndarray
    """M float32: from one code to the next; 0 where a coefficient never changes."""

    def values(self) -> np.ndarray:
        """Return the coefficients, T M float32, each off by at most half a step."""
        return self.offset + self.step * self.codes.astype(np.float32)


def quantise(motion: np.ndarray, bits: int) -> Codes:
    """Round coefficients T M to ``bits`` bits.

    Raises:
        ConfigError: ``bits`` is not from 2 to 8.
    """
    if bits not in CODE_BITS:
        raise ConfigError(f"bits: {bits} is not possible; give 2 to 8, or {FLOAT_BITS} for floats as they are")
    motion = np.asarray(motion, np.float32)
    offset, largest = motion.min(0), motion.max(0)
    step = (largest - offset) / np.float32(2**bits - 1)
    codes = ((motion - offset) / np.where(step > 0, step, 1)).round().clip(0, 2**bits - 1)
    return Codes(codes.astype(np.uint8), offset, step)


@dataclass(frozen=True, eq=False)
class MotionTrack:
    """The motion of one clip."""

    motion: np.ndarray
    """T M float32, as the file holds it: rounded where ``bits`` is below 32."""
    fps: float
    """Frames per second."""
    model: str
    """:func:`sfdkit.model.fingerprints.motion_fingerprint` of the model that read the clip."""
    clip: str
    """Name of the clip."""
    bits: int = FLOAT_BITS
    """Bits per coefficient in the file: 2 to 8, or 32."""

    def rounded(self, bits: int) -> MotionTrack:
        """Return the track as it comes back from a file with ``bits`` bits per coefficient.

        Raises:
            ConfigError: ``bits`` is neither 2 to 8 nor 32.
        """
        motion = self.motion if bits == FLOAT_BITS else quantise(self.motion, bits).values()
        return MotionTrack(motion, self.fps, self.model, self.clip, bits)

    def at_rate(self, fps: float) -> MotionTrack:
        """Return the track at another frame rate, linear between its frames; its length in seconds stays.

        Raises:
            ConfigError: ``fps`` is out of its range.
        """
        require_fps(fps)
        frames = max(1, round(len(self.motion) * fps / self.fps))
        last = len(self.motion) - 1
        at = np.minimum(np.arange(frames) * self.fps / fps, last)
        before = np.minimum(at.astype(int), max(0, last - 1))
        start, end = self.motion[before], self.motion[np.minimum(before + 1, last)]
        weight = (at - before)[:, None].astype(np.float32)
        motion = (1 - weight) * start + weight * end
        return MotionTrack(motion, fps, self.model, self.clip, FLOAT_BITS)

    def save(self, path: str | Path) -> None:
        """Write the track; the file appears whole or not at all.

        Args:
            path: A .safetensors file. With ``bits`` below 32 each code takes one byte in it: see
                :func:`compressed_size` for what a transmission needs.

        Raises:
            ConfigError: Another suffix.
            DataError: The file cannot be written.
        """
        path = check_suffix(path, "output")
        about = {
            "schema": SCHEMA,
            "model": self.model,
            "clip": self.clip,
            "fps": repr(self.fps),
            "bits": str(self.bits),
        }
        if self.bits == FLOAT_BITS:
            write_tensors(path, {"motion": np.asarray(self.motion, np.float32)}, about)
        else:
            write_tensors(path, quantise(self.motion, self.bits)._asdict(), about)

    @classmethod
    def load(cls, path: str | Path, runner: Runner | None = None) -> Self:
        """Read a track.

        Args:
            path: A file that :meth:`save` wrote.
            runner: The model to check the track against; None skips the check.

        Raises:
            CheckpointError: The track was read by another model.
            DataError: No such file, damaged, or with other content.
        """
        path = Path(path)
        _, about = read_arrays(path, SCHEMA, (), ("model", "clip", "fps", "bits"))
        try:
            fps, bits = float(about["fps"]), int(about["bits"])
        except ValueError as error:
            raise DataError(f"{path} is damaged ({error}): extract the motion again") from error
        if bits == FLOAT_BITS:
            motion = read_arrays(path, SCHEMA, ("motion",), ())[0]["motion"]
        else:
            motion = Codes(**read_arrays(path, SCHEMA, Codes._fields, ())[0]).values()
        if motion.ndim != 2 or not len(motion) or not (np.isfinite(fps) and fps > 0 and np.isfinite(motion).all()):
            raise DataError(
                f"{path} is no usable track: coefficients of shape {tuple(motion.shape)} at {fps:g} frames per second, "
                "of which there must be at least one, all finite; extract the motion again"
            )
        track = cls(motion, fps, about["model"], about["clip"], bits)
        if runner is not None:
            track.require(runner, path)
        return track

    def require(self, runner: Runner, path: str | Path) -> None:
        """Check that the track was read by this model.

        Raises:
            CheckpointError: The track was read by another model.
        """
        if self.model != runner.motion_model or self.motion.shape[1] != runner.motion_size:
            raise CheckpointError(
                f"{path} was read from {self.clip} by another model ({self.model} with {self.motion.shape[1]} "
                f"coefficients; this one has {runner.motion_model} with {runner.motion_size}), to whose coefficients "
                "this one gives another meaning; extract the motion again with this one"
            )


def compressed_size(track: MotionTrack) -> int:
    """Return the bytes of a track after lossless compression of its frame differences.

    The first frame, then each frame's difference to the one before it, coefficient after coefficient, through zlib at
    its highest level: of codes modulo 256, of floats the exclusive or of their bits, byte planes apart. The whole track
    is compressed at once, so this is the size of a file, not that of a stream without delay.
    """
    if track.bits == FLOAT_BITS:
        bits = np.asarray(track.motion, "<f4").view(np.uint32)
        change = bits.copy()
        change[1:] ^= bits[:-1]
        planes = np.ascontiguousarray(change.T).view(np.uint8).reshape(change.shape[1], -1, 4).transpose(2, 0, 1)
        return len(zlib.compress(np.ascontiguousarray(planes).tobytes(), 9))
    codes = quantise(track.motion, track.bits).codes
    change = np.diff(codes, axis=0, prepend=np.uint8(0))  # of bytes: modulo 256
    return len(zlib.compress(np.ascontiguousarray(change.T).tobytes(), 9))


def rate_line(track: MotionTrack, driving_bytes: int) -> str:
    """Return a line on the bit rate of a track, and on that of the clip that it was read from.

    Args:
        track: Of ``T / fps`` seconds.
        driving_bytes: Size of the driving file as it came, sound included.
    """
    frames, size = track.motion.shape
    seconds = frames / track.fps
    plain = size * track.bits * track.fps / 1000
    packed = compressed_size(track) * 8 / seconds / 1000
    text = f"{size} coefficients x {track.bits} bits x {track.fps:g} fps = {plain:.2f} kbit/s"
    text += f", {packed:.2f} kbit/s after zlib on frame differences"
    if track.bits != FLOAT_BITS:
        text += f" (and {2 * 4 * size} bytes once, for offsets and steps)"
    return f"{text}; {track.clip} itself: {driving_bytes * 8 / seconds / 1000:.1f} kbit/s"
