"""Writing videos: formats, sound, and what is left after a failure."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import get_args

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from sfdkit.errors import DataError
from sfdkit.media.video_reader import probe, read_frames
from sfdkit.media.video_writer import Codec, Encoding, Sound, VideoWriter
from tests.media.test_video import ramp, write

RATE = 16000


def beep(path: Path, silent: float = 1.0, seconds: float = 3.0) -> Path:
    """Write a wav that is silent for a while and then a tone."""
    time = np.arange(int(seconds * RATE)) / RATE
    tone = np.where(time < silent, 0, 12000 * np.sin(2 * np.pi * 440 * time)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(tone.tobytes())
    return path


def sound(path: Path) -> tuple[float, float, str]:
    """Return when the tone begins, how long the sound is, in seconds, and its codec."""
    loud, end = None, 0.0
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        for frame in container.decode(stream):
            values = np.abs(frame.to_ndarray().astype(float)).max(0)
            if loud is None and values.max() > 0.1:
                loud = frame.time + np.argmax(values > 0.1) / frame.sample_rate
            end = frame.time + frame.samples / frame.sample_rate
        return loud or -1.0, end, stream.codec_context.name


def test_odd_sizes_grow_by_one_repeated_pixel(tmp_path: Path) -> None:
    first = next(read_frames(write(tmp_path / "odd.mp4", 3, height=31, width=45)))[0]
    assert first.shape == (32, 46, 3)
    assert np.abs(first[:31, :45].astype(int) - ramp(0, 31, 45)).mean() < 4


def test_sound_is_encoded_then_copied_in_step_and_cut(tmp_path: Path) -> None:
    wav = beep(tmp_path / "beep.wav")
    for name, source, frames in (("a.mp4", wav, 50), ("b.mp4", tmp_path / "a.mp4", 40)):
        with VideoWriter(tmp_path / name, 25, source and Sound(source)) as writer:
            for index in range(frames):
                writer.write(ramp(index))
        begin, length, codec = sound(tmp_path / name)
        assert codec == "aac"
        assert begin == pytest.approx(1.0, abs=0.04)
        assert length == pytest.approx(frames / 25, abs=0.13)
        assert probe(tmp_path / name).has_audio


def test_copied_sound_is_bit_equal(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 25, Sound(beep(tmp_path / "beep.wav"))) as writer:
        for index in range(30):
            writer.write(ramp(index))
    with VideoWriter(tmp_path / "b.mp4", 25, Sound(tmp_path / "a.mp4")) as writer:
        for _ in range(30):
            writer.write(ramp(0))

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]

    first, second = packets(tmp_path / "a.mp4"), packets(tmp_path / "b.mp4")
    assert len(second) > 10 and set(second) <= set(first)


def test_a_source_without_sound_gives_a_silent_video(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "b.mp4", 25, Sound(write(tmp_path / "a.mp4", 5))) as writer:
        writer.write(ramp(0))
    assert not probe(tmp_path / "b.mp4").has_audio


@pytest.mark.parametrize(("fps", "kept"), [(25, 20), (30, 20), (100, 10)])
def test_gif_keeps_time_and_colour(tmp_path: Path, fps: float, kept: int) -> None:
    path = write(tmp_path / "a.gif", 20, fps)
    read = list(read_frames(path))
    assert len(read) == kept
    for picture, index in ((read[0][0], 0), (read[-1][0], 19 if kept == 20 else 18)):
        error = cv2.blur(picture.astype(np.float32) - ramp(index), (5, 5))[2:-2, 2:-2]
        assert np.abs(error).mean() < 2
    with Image.open(path) as gif:
        total = 0
        for index in range(gif.n_frames):
            gif.seek(index)
            total += gif.info["duration"]
        assert gif.info["loop"] == 0
    assert total == pytest.approx(1000 * 20 / fps, abs=10)


@pytest.mark.parametrize("fps", [12.5, 30, 60])
def test_webp_keeps_time_and_colour(tmp_path: Path, fps: float) -> None:
    path = write(tmp_path / "a.webp", 20, fps)
    read = list(read_frames(path))
    assert len(read) == 20 and probe(path).fps == pytest.approx(fps, rel=0.01)
    for index in (0, 19):
        assert np.abs(read[index][0].astype(int) - ramp(index)).mean() < 4
    with Image.open(path) as picture:
        assert picture.info["loop"] == 0 and picture.n_frames == 20


def test_webp_leaves_frames_out_that_viewers_would_slow_down(tmp_path: Path) -> None:
    path = write(tmp_path / "a.webp", 24, 120)
    with Image.open(path) as picture:
        durations = []
        for index in range(picture.n_frames):
            picture.seek(index)
            picture.load()
            durations.append(picture.info["duration"])
    assert len(durations) == 12 and min(durations) > 10 and sum(durations) == pytest.approx(200, abs=12)


def test_sound_begins_where_it_is_told_to(tmp_path: Path) -> None:
    wav = beep(tmp_path / "beep.wav")  # silent for a second
    for start in (0.6, 0.55, 0.9):
        with VideoWriter(tmp_path / "a.mp4", 25, Sound(wav, start)) as writer:
            for index in range(30):
                writer.write(ramp(index))
        assert sound(tmp_path / "a.mp4")[0] == pytest.approx(1.0 - start, abs=0.03)
    with VideoWriter(tmp_path / "b.mp4", 25, Sound(wav, 0.6, 0.7)) as writer:
        for index in range(50):
            writer.write(ramp(index))
    assert sound(tmp_path / "b.mp4")[1] == pytest.approx(0.7, abs=0.15)  # it comes in packets of 64 ms


def test_refusals_name_the_file_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    for name, words in (
        ("a.avi", r"suffix must be one of \.mp4, \.gif"),
        ("none/a.mp4", "none does not exist; create it"),
        ("folder.mp4", "is a folder"),
    ):
        with pytest.raises(DataError, match=words):
            VideoWriter(tmp_path / name, 25)
    with pytest.raises(DataError, match="no frame was written"), VideoWriter(tmp_path / "a.mp4", 25):
        pass
    with (
        pytest.raises(DataError, match=r"sound of .*file"),
        VideoWriter(tmp_path / "a.mp4", 25, Sound(tmp_path / "file")) as w,
    ):
        w.write(ramp(0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.mp4"]


def test_no_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(DataError, match=r"a\.mp4: Permission denied"), VideoWriter(tmp_path / "a.mp4", 25):
        pass


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_failure_keeps_the_old_file(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", 3)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="stop"), VideoWriter(path, 25) as writer:
        for index in range(60):
            writer.write(ramp(index))
        raise RuntimeError("stop")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be"), VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(ramp(0))
        writer.write(ramp(0, 20, 20))


def test_encoders_write_nothing_to_the_screen(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for codec in get_args(Codec):
        with VideoWriter(tmp_path / f"{codec}.mp4", 25, encoding=Encoding(codec)) as writer:
            for index in range(3):
                writer.write(np.tile(ramp(index), (2, 2, 1)))
    assert capfd.readouterr() == ("", "")
