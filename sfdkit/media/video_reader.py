"""Reading videos and animated pictures, one frame in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer

from sfdkit.errors import DamageError, DataError
from sfdkit.media.container import LONGEST_PAUSE, may_start_over, open_video, picture_stream
from sfdkit.media.display import Display
from sfdkit.media.frame_rate import true_fps
from sfdkit.media.picture import picture_kind, read_animation

_TRUE_LENGTH = ("mov", "matroska")  # containers whose declared length does not shrink with the file
_BACK = 0.2  # seconds by which the time of a frame may be wrong


class VideoInfo(NamedTuple):
    """Properties of a video, after its rotation."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    fps: float
    """Average frames per second."""
    frames: int
    """As declared; estimated from the length where the file declares none; 0 where both are unknown."""
    has_audio: bool


def _frames_per_second(container: InputContainer) -> Fraction:
    stream = picture_stream(container)
    return stream.average_rate or stream.guessed_rate or Fraction(25)


def probe(path: str | Path) -> VideoInfo:
    """Read size, frame rate, length and whether there is sound.

    The whole file is read for the time stamps of its frames, since declared rates are often missing or wrong; one frame
    is decoded, since the rotation may belong to it.

    Args:
        path: A video file.

    Raises:
        DataError: The file is missing, is no video, or holds no frame.
    """
    path = Path(path)
    if picture_kind(path) == "animated":
        return _probe_animation(path)
    with open_video(path) as container:
        stamps, known = _stamps(container)
        fps = true_fps(float(_frames_per_second(container)), stamps)
        stream = picture_stream(container)
        frames = known or stream.frames or round((container.duration or 0) / av.time_base * fps)
        has_audio = bool(container.streams.audio)
    first = next(iter(read_frames(path)), None)
    if first is None:
        raise DataError(f"{path} holds no frame: give another video")
    height, width = first[0].shape[:2]
    return VideoInfo(width, height, fps, frames, has_audio)


def _probe_animation(path: Path) -> VideoInfo:
    shown = []
    try:
        for picture, time, length in read_animation(path):
            shown.append((picture.shape, time, length))
    except DataError:
        if not shown:
            raise
    (height, width, _), _, length = shown[0]
    declared = 1 / length if len(shown) == 1 else 0.0  # a single length may be rounded: 8 of 12 in a second last 80 ms
    return VideoInfo(width, height, true_fps(declared, [time for _, time, _ in shown]), len(shown), False)


def _stamps(container: InputContainer) -> tuple[list[float], int]:
    """Return when the frames of a video begin, in seconds, as far as that is known, and how many there are."""
    stream = picture_stream(container)
    shown, decoded, count = [], [], 0
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                count += 1
                shown += [] if packet.pts is None else [packet.pts]
                decoded += [] if packet.dts is None else [packet.dts]
    except (av.FFmpegError, OSError):
        pass  # the reading of frames meets the same damage and reports it
    base = float(stream.time_base or Fraction(1, av.time_base))
    return [stamp * base for stamp in (shown if len(shown) >= len(decoded) else decoded)], count


class _Damage(Exception):
    """A part of a video cannot be read."""


def _packets(container: InputContainer) -> Iterator[av.Packet]:
    """Yield the video packets in order.

    Raises:
        _Damage: The file ends before the length that it declares, or another stream's packet is incomplete.
    """
    video = picture_stream(container)
    end, whole = 0.0, True
    try:
        for packet in container.demux(video, *container.streams.audio):
            if packet.pts is not None and packet.time_base is not None and not packet.is_corrupt:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream is video and packet.size:
                yield packet
            whole = whole and not packet.is_corrupt
    except av.FFmpegError as error:
        raise _Damage(str(error.strerror)) from error
    if container.duration and container.format.name.startswith(_TRUE_LENGTH):
        promised = (container.duration + (container.start_time or 0)) / av.time_base
        if promised - end > 0.25 + 2 / float(_frames_per_second(container)):
            raise _Damage(f"its data ends at {end:.2f} s of the {promised:.2f} s that it declares")
    if not whole:
        raise _Damage("a packet is incomplete")


def _decoded(container: InputContainer) -> Iterator[av.VideoFrame]:
    """Yield all frames that can be decoded; raise ``_Damage`` at the end if some are lost.

    After a packet that cannot be decoded, packets up to the next key frame are skipped, since they depend on it.
    """
    stream = picture_stream(container)
    context = stream.codec_context
    joins = may_start_over(container)  # where packets beside a join are called incomplete, and are not
    damage: _Damage | None = None
    frame: av.VideoFrame | None = None
    lost = False
    try:
        for packet in _packets(container):
            lost = lost and not packet.is_keyframe
            if lost:
                continue
            try:
                if packet.is_corrupt:
                    damage = damage or _Damage("a packet is incomplete")
                    if not joins:
                        raise damage
                for frame in context.decode(packet):
                    if not (damage and frame.is_corrupt):
                        yield frame
            except (_Damage, av.FFmpegError) as error:
                damage, lost = damage or _reason(error), True
                yield from _held(context)
                context.flush_buffers()
    except _Damage as error:
        damage = damage or error
    try:
        for frame in context.decode(None):
            yield frame
    except av.FFmpegError as error:
        damage = damage or _reason(error)
    if frame is not None and frame.is_corrupt:
        damage = damage or _Damage("the last frame is incomplete")
    if damage:
        raise damage


def _reason(error: Exception) -> _Damage:
    return error if isinstance(error, _Damage) else _Damage(str(getattr(error, "strerror", error)))


def _held(context: Any) -> Iterator[av.VideoFrame]:
    """Yield the whole frames that a decoder still holds."""
    with suppress(av.FFmpegError):
        for frame in context.decode(None):
            if not frame.is_corrupt:
                yield frame


def _seek(container: InputContainer, start: float) -> float | None:
    """Go to the last key frame up to a time; return the time stamp of the first frame where it is known and needed."""
    stream = picture_stream(container)
    if start <= 0 or stream.start_time is None or not container.format.name.startswith(_TRUE_LENGTH):
        return None
    base = stream.time_base or Fraction(1, av.time_base)
    try:
        container.seek(stream.start_time + int(start / base), stream=stream)
    except av.FFmpegError:
        return None
    return float(stream.start_time * base)


def read_frames(path: str | Path, start: float = 0.0) -> Iterator[tuple[np.ndarray, float]]:
    """Decode a video, or an animated picture, frame by frame; memory does not grow with its length.

    Frames come as a player shows them: turned and mirrored as the file says, with square pixels, high dynamic range
    and wide gamuts converted to BT.709, and all of the first one's size. Times are the true ones, so a variable frame
    rate is kept.

    Args:
        path: A video file.
        start: Seconds after the first frame: frames before the last key frame up to then are passed over where the file
            can be searched.

    Yields:
        The picture, H W 3 uint8 RGB, and its time in seconds after the first frame of the video.

    Raises:
        DataError: The file is missing or no video.
        DamageError: It is damaged or cut short, and all frames that can be read were yielded: those before the damage,
            and those from the next key frame on. A GIF that was cut between two frames cannot be told from a whole one.
    """
    path = Path(path)
    kind = picture_kind(path)
    if kind == "still":
        raise DataError(f"{path} is a picture and no video: give a video file")
    yield from _read_animation(path) if kind == "animated" else _read_video(path, start)


def _read_animation(path: Path) -> Iterator[tuple[np.ndarray, float]]:
    count = 0
    try:
        for picture, time, _ in read_animation(path):
            yield picture, time
            count += 1
    except DataError as error:
        raise _ended(path, count, error) from error


def _read_video(path: Path, start: float) -> Iterator[tuple[np.ndarray, float]]:
    with open_video(path) as container:
        stream = picture_stream(container)
        stream.thread_type = "AUTO"
        step, base = 1 / float(_frames_per_second(container)), stream.time_base or Fraction(1, av.time_base)
        count, first, time = 0, _seek(container, start), -step
        show, longest = Display(stream), LONGEST_PAUSE if may_start_over(container) else float("inf")
        try:
            for frame in _decoded(container):
                stamp = None if frame.pts is None else float(frame.pts * base)
                if first is None:
                    first = stamp or 0.0
                if stamp is not None and count and not -_BACK < stamp - first - time < longest:
                    first = stamp - time - step  # the clock was set anew, as where files were joined
                time = max(stamp - first, time) if stamp is not None else time + step
                count += 1
                yield show(frame), time
        except _Damage as damage:
            raise _ended(path, count, damage) from damage


def _ended(path: Path, count: int, reason: Exception) -> DamageError:
    return DamageError(
        f"{path} is damaged or cut short, {count} of its frames can be read ({reason}): copy or export the video again"
    )
