"""Reading videos and pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sfdkit.data.picture import list_pictures, read_picture
from sfdkit.data.video import VideoWriter, probe, read_frames
from sfdkit.errors import DataError


def ramp(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture whose red grows to the right, green downwards, blue with the index."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, np.full_like(x, index * 8 % 256)], -1).astype(np.uint8)


def write(path: Path, frames: int = 30, fps: float = 25, **size: int) -> Path:
    with VideoWriter(path, fps) as writer:
        for index in range(frames):
            writer.write(ramp(index, **size))
    return path


def noise_video(path: Path, frames: int = 40, stamps: list[int] | None = None) -> Path:
    """Write frames that cannot be compressed, so that each takes its share of the file; stamps in hundredths."""
    options = {"movflags": "+faststart"} if path.suffix == ".mp4" else {}
    random = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(random.integers(0, 255, (48, 64, 3), dtype=np.uint8))
            picture.pts, picture.time_base = stamps[index] if stamps else index * 4, Fraction(1, 100)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def test_colours_sizes_and_times_survive(tmp_path: Path) -> None:
    read = list(read_frames(write(tmp_path / "a.mp4")))
    assert [round(time, 4) for _, time in read] == [round(i / 25, 4) for i in range(30)]
    for index in (0, 13, 29):
        assert np.abs(read[index][0].astype(int) - ramp(index)).mean() < 3
    assert probe(tmp_path / "a.mp4") == (64, 48, 25.0, 30, False)


def test_variable_frame_rate_keeps_the_true_times(tmp_path: Path) -> None:
    stamps = [0, 4, 8, 20, 21, 60, 64]
    times = [time for _, time in read_frames(noise_video(tmp_path / "v.mp4", len(stamps), stamps))]
    assert np.allclose(times, [stamp / 100 for stamp in stamps], atol=1e-3)


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [((0, 1, -1, 0), lambda p: np.rot90(p, -1)), ((0, -1, 1, 0), np.rot90), ((-1, 0, 0, -1), lambda p: np.rot90(p, 2))],
)
def test_rotation_of_a_phone_is_applied(tmp_path: Path, matrix: tuple[int, ...], turned: object) -> None:
    path = write(tmp_path / "phone.mp4", frames=3)
    upright = next(read_frames(path))[0]
    body = bytearray(path.read_bytes())
    start = body.index(b"tkhd") + 4 + 40  # the 3 x 3 matrix of the track header, ISO/IEC 14496-12, 8.3.2
    for place, value in zip((0, 4, 12, 16), matrix, strict=True):
        body[start + place : start + place + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(body)
    assert np.array_equal(next(read_frames(path))[0], turned(upright))  # type: ignore[operator]
    assert probe(path)[:2] == turned(upright).shape[1::-1]  # type: ignore[operator]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_cut_video_gives_its_frames_and_then_says_so(tmp_path: Path, suffix: str) -> None:
    path = noise_video(tmp_path / f"whole{suffix}")
    whole = [picture for picture, _ in read_frames(path)]
    assert len(whole) == 40
    cut = tmp_path / f"cut{suffix}"
    body = path.read_bytes()
    cut.write_bytes(body[: len(body) * 6 // 10])
    read: list[np.ndarray] = []
    with pytest.raises(DataError) as caught:
        for picture, _ in read_frames(cut):
            read.append(picture)
    assert 15 < len(read) < 36
    assert "cut" + suffix in str(caught.value) and f"after {len(read)} frames" in str(caught.value)
    assert all(np.array_equal(picture, true) for picture, true in zip(read, whole, strict=False))


def test_files_that_are_no_video(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("no video\n" * 100)
    (tmp_path / "bytes.mp4").write_bytes(bytes(range(256)) * 20)
    Image.fromarray(ramp(0)).save(tmp_path / "picture.jpg")
    for name in ("text.txt", "bytes.mp4", "picture.jpg", "missing.mp4"):
        with pytest.raises(DataError, match=name):
            list(read_frames(tmp_path / name))
    with pytest.raises(DataError, match=r"bytes\.mp4"):
        probe(tmp_path / "bytes.mp4")


def test_pictures_are_read_upright_over_white(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to show
    Image.fromarray(ramp(3)).save(tmp_path / "phone.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "phone.png"), np.rot90(ramp(3), -1))
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_picture(tmp_path / "clear.png") == 255).all()
    Image.fromarray(np.full((4, 4), 32896, np.uint16)).save(tmp_path / "deep.png")
    assert (read_picture(tmp_path / "deep.png") == 128).all()


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    Image.fromarray(ramp(0, 200, 200)).save(tmp_path / "half.jpg")
    body = (tmp_path / "half.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(body[: len(body) // 2])
    for name in ("half.jpg", "missing.jpg"):
        with pytest.raises(DataError, match=name):
            read_picture(tmp_path / name)


def test_pictures_are_listed_in_natural_order(tmp_path: Path) -> None:
    for name in ("frame10.jpg", "frame2.PNG", "frame1.jpg", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).touch()
    assert [path.name for path in list_pictures(tmp_path)] == ["frame1.jpg", "frame2.PNG", "frame10.jpg"]
    with pytest.raises(DataError, match="there is no folder"):
        list_pictures(tmp_path / "none")
