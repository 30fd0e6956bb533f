"""Reading videos and pictures."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sfdkit.errors import DataError, SfdkitWarning
from sfdkit.media.picture import list_pictures, picture_kind, read_picture
from sfdkit.media.video_reader import probe, read_frames
from sfdkit.media.video_writer import VideoWriter


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
    [
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda p: np.rot90(p, 2).transpose(1, 0, 2)),
    ],
)
def test_turns_and_mirrors_of_a_phone_are_applied(tmp_path: Path, matrix: tuple[int, ...], turned: object) -> None:
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
    assert "cut" + suffix in str(caught.value) and f"{len(read)} of its frames" in str(caught.value)
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


def level(*shape: int) -> np.ndarray:
    """Levels from 0 to 1 along the rows."""
    return np.broadcast_to(np.linspace(0, 1, 256), (*shape, 256)).copy()


@pytest.mark.parametrize(
    ("values", "suffix"),
    [
        (level(8).astype(np.float32), ".tif"),
        ((level(8) * 255).astype(np.float32), ".tif"),
        ((level(8) * 65535).astype(np.float32), ".tif"),
        ((level(8) * 255).round().astype(np.int32), ".tif"),
        ((level(8) * 65535).astype(np.int32), ".tif"),
        ((level(8) * (2**31 - 1)).astype(np.int32), ".tif"),
        ((level(8) * 65535).astype(np.uint16), ".png"),
        ((level(8) * 65535).astype(np.uint16), ".tif"),
        ((level(8) * 65535).astype(np.uint16), ".jp2"),
    ],
)
def test_every_depth_is_read_in_its_own_range(tmp_path: Path, values: np.ndarray, suffix: str) -> None:
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    read = read_picture(tmp_path / f"a{suffix}").astype(int)
    assert np.abs(read - np.arange(256)[None, :, None]).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16"])
def test_every_mode_is_read(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(np.where(level(8) > 0.5, 255, 0).astype(np.uint8))
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    elif mode == "LAB":
        picture = Image.merge("LAB", [grey, *(Image.new("L", grey.size, 128) for _ in "ab")])
    else:
        picture = grey.convert("RGB").convert(mode) if mode in ("CMYK", "P") else grey.convert(mode)
    key = {"transparency": 1} if mode == "I;16" else {}
    picture.save(tmp_path / ("a.tif" if mode in ("CMYK", "LAB") else "a.png"), **key)
    (name,) = tmp_path.iterdir()
    assert np.abs(read_picture(name).astype(int) - np.asarray(grey)[..., None]).max() <= 3


def _profile(gamma: float, primaries: tuple[float, ...]) -> bytes:
    """Return an ICC profile of version 2 with three primaries, as X Y Z each, and one gamma for all."""
    tags = {name: b"XYZ " + bytes(4) + _fixed(primaries[3 * k : 3 * k + 3]) for k, name in enumerate(("r", "g", "b"))}
    body = {f"{name}XYZ".encode(): data for name, data in tags.items()}
    curve = b"curv" + bytes(4) + struct.pack(">IHxx", 1, round(gamma * 256))
    body |= {f"{name}TRC".encode(): curve for name in "rgb"}
    body[b"wtpt"] = b"XYZ " + bytes(4) + _fixed((0.9642, 1.0, 0.8249))
    body[b"desc"] = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    table, data = struct.pack(">I", len(body)), b""
    for name, tag in body.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(body) + len(data), len(tag))
        data += tag + bytes(-len(tag) % 4)
    size = 128 + len(table) + len(data)
    head = struct.pack(">I4xI4s4s4s12x4s24x", size, 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    head += bytes(4) + _fixed((0.9642, 1.0, 0.8249))
    return head.ljust(128, b"\0")[:128] + table + data


def _fixed(values: Sequence[float]) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


SRGB = (0.4361, 0.2225, 0.0139, 0.3851, 0.7169, 0.0971, 0.1431, 0.0606, 0.7139)
P3 = (0.5151, 0.2412, -0.0011, 0.2920, 0.6922, 0.0419, 0.1571, 0.0666, 0.7841)


def test_colour_profiles_are_converted(tmp_path: Path) -> None:
    picture = Image.fromarray(np.full((8, 8, 3), (200, 120, 90), np.uint8))
    picture.save(tmp_path / "linear.png", icc_profile=_profile(1.0, SRGB))
    picture.save(tmp_path / "p3.png", icc_profile=_profile(2.2, P3))
    linear, wide = (read_picture(tmp_path / f"{name}.png")[0, 0].astype(int) for name in ("linear", "p3"))
    light = np.array([200, 120, 90]) / 255
    assert np.abs(linear - 255 * (1.055 * light ** (1 / 2.4) - 0.055)).max() <= 2
    assert wide[0] > 205 and wide[1] < 119 and wide[2] < 88  # the same colour is nearer to the edge of a narrow gamut
    grey = picture.convert("L")
    grey.save(tmp_path / "grey.png", icc_profile=_profile(1.0, SRGB))
    with pytest.warns(SfdkitWarning, match=r"colour profile of .*grey\.png cannot be used"):
        assert (read_picture(tmp_path / "grey.png") == np.asarray(grey)[..., None]).all()
    picture.save(tmp_path / "bad.png", icc_profile=b"no profile")
    with pytest.warns(SfdkitWarning, match=r"colour profile of .*bad\.png cannot be used"):
        assert (read_picture(tmp_path / "bad.png")[0, 0] == (200, 120, 90)).all()


@pytest.mark.parametrize(("gamma", "level"), [(1.0, 188), (0.45455, 128), (0.55556, 145)])
def test_the_exponent_of_a_png_counts_where_it_has_no_profile(tmp_path: Path, gamma: float, level: int) -> None:
    about = PngInfo()
    about.add(b"gAMA", round(100_000 * gamma).to_bytes(4, "big"))
    Image.new("RGB", (4, 4), (128, 0, 255)).save(tmp_path / "a.png", pnginfo=about)
    assert read_picture(tmp_path / "a.png")[0, 0].tolist() == pytest.approx([level, 0, 255], abs=2)


@pytest.mark.parametrize("most", [1.0, 255.0])
def test_a_tiff_of_coloured_floats_is_read(tmp_path: Path, most: float) -> None:
    true = ramp(20)
    cv2.imwrite(str(tmp_path / "a.tif"), np.ascontiguousarray(true[..., ::-1]).astype(np.float32) * (most / 255))
    assert picture_kind(tmp_path / "a.tif") == "still"
    assert np.abs(read_picture(tmp_path / "a.tif").astype(int) - true).max() <= 1


def test_a_profile_leaves_transparency_alone(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (8, 8), (200, 120, 90, 0))
    picture.putpixel((0, 0), (200, 120, 90, 255))
    picture.save(tmp_path / "a.png", icc_profile=_profile(1.0, SRGB))
    read = read_picture(tmp_path / "a.png")
    assert (read[1:] == 255).all() and 220 < read[0, 0, 0] < 232


@pytest.mark.parametrize("mode", ["1", "L", "P"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_large_pictures_become_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, suffix: str) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setattr("sfdkit.media.picture._LARGE", 5000)
    monkeypatch.setattr("sfdkit.media.picture.MOST_MEGAPIXELS", 0.04)
    if suffix == ".jpg":
        mode = "RGB"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (240, 160), "white").convert(mode).save(tmp_path / f"a{suffix}", exif=exif)
    read = read_picture(tmp_path / f"a{suffix}")
    assert read[..., 0].size <= 5000 and read.shape[0] / read.shape[1] == pytest.approx(1.5, rel=0.05)
    assert (read == 255).all()
    assert Image.MAX_IMAGE_PIXELS == 1000
    Image.new("L", (300, 200)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png has 300x200 pixels, .* make it smaller than 0\.04 megapixels"):
        read_picture(tmp_path / "b.png")


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
