"""Points of the face that travel with real clips: read in the crop, followed, interpolated, stored."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sfdkit.cli import main
from sfdkit.data.pack.face_points import PointRule, PointSettings, PointTracker
from sfdkit.data.pack.sources import ClipSettings
from sfdkit.data.shards.decode import decode_frames
from sfdkit.data.shards.index import load_index
from sfdkit.data.shards.reader import read_clips
from sfdkit.errors import ConfigError
from sfdkit.media.box import Box
from sfdkit.media.crop import CropRule, Place, crop_resize
from sfdkit.points import FACE5, FACE31
from tests.networks import save_centres, save_yunet

BOX = (-70.0, -60.0, 200.0, 220.0)
FIVE = (0.0, 0.0, 60.0, 0.0, 30.0, 20.0, 10.0, 60.0, 50.0, 60.0)
NAMES = {name: 2 for name in FACE31.names} | {"left_eye_outer": 0, "right_eye_outer": 1}
CONVENTION: dict[str, Any] = {
    "size": 64,
    "layout": "nhwc",
    "region": "level",
    "margin": 1.5,
    "margin_again": 2.5,
    "unit": "edges",
    "values": 3,
    "presence": 1,
    "presence_unit": "logit",
    "face31": NAMES,
}
OF_COLOURS = [FACE31.names.index(name) for name in ("left_eye_outer", "right_eye_outer", "chin")]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A detector that sees red squares, and a landmark network that reads where red, green and blue are."""
    folder = tmp_path_factory.mktemp("networks")
    (folder / "points.onnx.yaml").write_text(json.dumps(CONVENTION))
    return {
        "landmarks": str(save_centres(folder / "points.onnx", 64)),
        "detector": str(save_yunet(folder / "yunet.onnx", BOX, FIVE)),
    }


def picture(
    x: float, y: float, apart: float = 60.0, turn: float = 0.0, size: tuple[int, int] = (360, 480)
) -> np.ndarray:
    """A face: a red square for its left eye at (x, y), a green one for the right, a blue one for all else."""
    image = np.zeros((*size, 3), np.uint8)
    across = 60 * np.array([math.cos(math.radians(turn)), math.sin(math.radians(turn))])
    for colour, shift in enumerate((0 * across, across, across / 2 + (-across[1], across[0]))):
        left, top = (round(v) for v in (x + shift[0] - 11.5, y + shift[1] - 11.5))
        image[top : top + 24, left : left + 24, colour] = 255
    return image


def centres(crop: np.ndarray) -> np.ndarray:
    """Where red, green and blue are in a crop, 3 2 in its pixels."""
    weight = np.clip(crop.astype(float) - 60, 0, None)
    y, x = np.mgrid[: crop.shape[0], : crop.shape[1]]
    total = weight.sum((0, 1))
    return np.stack([(weight * x[..., None]).sum((0, 1)), (weight * y[..., None]).sum((0, 1))], 1) / total[:, None]


def rule(files: dict[str, str], every: int = 1) -> PointRule:
    made = PointSettings(**files, every=every).rule()
    assert made is not None
    return made


def box(x: float, y: float, side: float) -> Box:
    return Box(x, y, x + side, y + side)


PLACES = {
    "whole size": (Place(box(80, 20, 300)), 300, 1.0),
    "made small": (Place(box(80, 20, 300)), 64, 1.0),
    "made large": (Place(box(90, 60, 280)), 400, 1.0),
    "turned": (Place(box(80, 20, 300), 17.0), 128, 1.0),
    "turned the other way": (Place(box(80.3, 20.6, 310.5), -25.0), 64, 1.0),
    "over the border": (Place(box(-60, -90, 400)), 128, 1.0),
    "turned over the border": (Place(box(-40, -60, 420), 10.0), 96, 1.0),
    "larger than points are read at": (Place(box(-120, 30, 1500)), 64, 3.0),
    "larger and turned": (Place(box(100, 30, 1100), -8.0), 256, 3.0),
}


@pytest.mark.parametrize("name", PLACES)
def test_points_are_where_the_stored_crop_shows_them(name: str, files: dict[str, str]) -> None:
    place, resolution, scale = PLACES[name]
    image = picture(190, 150, turn=place.turn)
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    tracker = PointTracker(rule(files), place, resolution)
    tracker.see(image, 0.0)
    points = tracker.finish()
    assert points["set"] == "face31"
    (frame,) = points["frames"]
    assert frame is not None and len(frame) == 31
    shown = centres(crop_resize(image, place, resolution))
    np.testing.assert_allclose(np.array(frame)[OF_COLOURS], shown, atol=0.15 + 0.3 * resolution / 300)


def test_five_points_come_from_the_detector_alone(files: dict[str, str]) -> None:
    settings = PointSettings(detector=files["detector"]).rule()
    assert settings is not None and settings.set == "face5" and set(settings.networks) == {"detector"}
    image, (x, y) = picture(191.5, 151.5), (191.5, 151.5)
    for place, resolution in ((Place(box(80, 20, 320)), 320), (Place(box(80, 20, 320)), 80)):
        tracker = PointTracker(settings, place, resolution)
        tracker.see(image, 0.0)
        (frame,) = tracker.finish()["frames"]
        assert frame is not None and len(frame) == len(FACE5.names)
        wanted = (np.reshape(FIVE, (5, 2)) + (x - 80, y - 20) + 0.5) * resolution / 320 - 0.5
        apart = np.array(frame) - wanted  # the detector sees one of the cells of the square
        assert np.abs(apart - apart.mean(0)).max() < 0.02 and np.abs(apart).max() < 13 * resolution / 320


def tracked(rule: PointRule, xs: list[float | None], times: list[float] | None = None) -> list[float | None]:
    """Where the middle of the left eye is said to be when it is at these places, None for no face."""
    tracker = PointTracker(rule, Place(box(0, 0, 480)), 480)
    for number, x in enumerate(xs):
        image = np.zeros((480, 480, 3), np.uint8) if x is None else picture(x, 200, size=(480, 480))
        tracker.see(image, number / 25 if times is None else times[number])
    found = tracker.finish()["frames"]
    assert len(found) == len(xs)
    return [None if frame is None else frame[OF_COLOURS[0]][0] for frame in found]


def near(found: list[float | None], wanted: list[float | None]) -> bool:
    return [f is None for f in found] == [w is None for w in wanted] and all(
        f is None or w is None or abs(f - w) < 0.6 for f, w in zip(found, wanted, strict=True)
    )


def test_a_face_is_followed_and_found_again(files: dict[str, str]) -> None:
    xs: list[float | None] = [199.5, 205.5, 211.5, None, None, 119.5, 125.5, None]
    assert near(tracked(rule(files), xs), xs)


def test_frames_between_are_interpolated_and_the_last_one_is_read(files: dict[str, str]) -> None:
    xs: list[float | None] = [199.5, 203.5, 201.5, 195.5, 207.5, 213.5, 209.5, 211.5]
    assert near(tracked(rule(files, 3), xs), [199.5, 198.2, 196.8, 195.5, 200.2, 204.8, 209.5, 211.5])
    assert near(tracked(rule(files, 1), xs), xs)
    assert near(tracked(rule(files, 3), [199.5]), [199.5])


def test_nothing_is_interpolated_next_to_a_frame_without_a_face(files: dict[str, str]) -> None:
    xs: list[float | None] = [199.5, 203.5, None, 203.5, 199.5, 203.5, 207.5]
    assert near(tracked(rule(files, 2), xs), [199.5, None, None, None, 199.5, 203.5, 207.5])


def test_no_more_than_a_fifth_of_a_second_is_interpolated(files: dict[str, str]) -> None:
    xs: list[float | None] = [199.5, 203.5, 201.5, 195.5, 207.5, 213.5]
    ten = [number / 10 for number in range(6)]
    assert near(tracked(rule(files, 5), xs, ten), [199.5, 200.5, 201.5, 204.5, 207.5, 213.5])
    five = [number / 5 for number in range(6)]
    assert near(tracked(rule(files, 5), xs, five), xs)
    gap = [0.0, 0.04, 3.0, 3.04, 3.08, 3.12]  # the frame before the gap is read, and the one after it
    assert near(tracked(rule(files, 5), xs, gap), [199.5, 203.5, 201.5, 205.5, 209.5, 213.5])


def test_settings_without_points_are_as_they_were() -> None:
    clips = ClipSettings(32, CropRule("centre"), 8, 4, 25.0)
    assert "points" not in json.dumps(clips.as_json()) and clips.as_json()["rule"]["method"] == "centre"


def test_what_points_are_read_by_is_told_by_content(files: dict[str, str], tmp_path: Path) -> None:
    one = rule(files).as_json()
    assert one["points"] == "face31" and set(one["points_by"]) == {"landmarks", "detector", "every"}
    moved = {}
    for name, path in files.items():
        moved[name] = str(tmp_path / Path(path).name)
        Path(moved[name]).write_bytes(Path(path).read_bytes())
    (tmp_path / "points.onnx.yaml").write_text(json.dumps(CONVENTION))
    assert rule(moved).as_json() == one
    (tmp_path / "points.onnx.yaml").write_text(json.dumps({**CONVENTION, "margin": 1.6}))
    assert rule(moved).as_json() != one
    assert rule(files, 2).as_json() != one


def test_what_is_missing_is_named(files: dict[str, str], tmp_path: Path) -> None:
    assert PointSettings().rule() is None
    with pytest.raises(ConfigError, match=r"--points\.\* needs --points\.detector"):
        PointSettings(landmarks=files["landmarks"]).rule()
    with pytest.raises(ConfigError, match=r"--points\.\* needs --points\.detector"):
        PointSettings(every=2).rule()
    with pytest.raises(ConfigError, match=r"none\.onnx"):
        PointSettings(detector=str(tmp_path / "none.onnx")).rule()
    with pytest.raises(ConfigError, match=r"none\.onnx"):
        PointSettings(str(tmp_path / "none.onnx"), files["detector"]).rule()
    path = tmp_path / "points.onnx"
    path.write_bytes(Path(files["landmarks"]).read_bytes())
    some = {name: 0 for name in FACE31.names[:-1]}
    (tmp_path / "points.onnx.yaml").write_text(json.dumps({**CONVENTION, "face31": some}))
    with pytest.raises(ConfigError, match=r"points of .* are right_jaw_upper .*under face31 in points\.onnx\.yaml"):
        PointSettings(str(path), files["detector"]).rule()


def folders(root: Path, people: int = 5, frames: int = 7, lost: int = 0) -> Path:
    """Folders of pictures, one for each person; the last ones are without a face."""
    for person in range(people):
        folder = root / f"person{person}"
        folder.mkdir(parents=True)
        for number in range(frames):
            gone = person >= people - lost or (person == 0 and number == 3)
            image = np.zeros((360, 480, 3), np.uint8) if gone else picture(180 + 3 * number, 140 + 2 * person)
            cv2.imwrite(str(folder / f"{number}.png"), image[..., ::-1])
    return root


def pack(root: Path, output: Path, files: dict[str, str], *more: str) -> int:
    sizes = ["--resolution=96", "--frames_per_clip=7", "--min_frames=4", "--crop=none"]
    points = [f"--points.{name}={path}" for name, path in files.items()]
    shares = ["--validation_share=0.2", "--test_share=0"]
    return main(["shards", "pack", "images", f"--root={root}", f"--output={output}", *sizes, *shares, *points, *more])


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.suffix in (".tar", ".json")
    }


@pytest.fixture(scope="module")
def packed(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of pictures, and its shards with points."""
    folder = tmp_path_factory.mktemp("packed")
    root = folders(folder / "in", lost=1)
    assert pack(root, folder / "out", files) == 0
    return root, folder / "out"


def test_packed_clips_carry_points_and_their_index_says_so(packed: tuple[Path, Path]) -> None:
    seen = 0
    for split in ("train", "validation"):
        index = load_index(packed[1] / split)
        assert index["points"] == "face31"
        for entry in index["shards"]:
            for clip in read_clips(packed[1] / split / entry["name"]):
                points, frames = clip["meta"]["points"], decode_frames(clip, range(7))
                assert points["set"] == "face31" and len(points["frames"]) == 7
                for picture_of, found in zip(frames.permute(0, 2, 3, 1).numpy(), points["frames"], strict=True):
                    if found is not None:
                        seen += 1
                        np.testing.assert_allclose(np.array(found)[OF_COLOURS], centres(picture_of), atol=0.3)
                        assert np.array_equal(np.round(found, 2), found)
    assert seen == 4 * 7 - 1, "person 4 has no face, person 0 none in one frame"


def test_what_is_packed_is_told_checked_and_listed(
    packed: tuple[Path, Path], files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    root, output = packed
    assert pack(root, output, files) == 0
    printed = capsys.readouterr().out
    assert "nothing was done" in printed
    assert "points face31 not found in 8 of 35 frames; 1 clips have none" in printed
    assert main(["shards", "ls", f"--folder={output}"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[-2:] == ["points", "MB"] and [row.split()[-2] for row in rows] == ["face31", "face31"]
    assert main(["shards", "check", f"--folder={output}", "--decode=true"]) == 0
    totals = [line for line in capsys.readouterr().out.splitlines() if line.startswith("total")]
    assert sum(int(line.split(" not found in ")[1].split()[0]) for line in totals) == 8


def test_other_points_are_other_settings(
    packed: tuple[Path, Path], files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    root, output = packed
    for given, said in (
        ({}, r"points: 'face31' there, None now"),
        ({"detector": files["detector"]}, "points: 'face31' there, 'face5' now"),
        (files | {"every": "2"}, "points_by: {"),
    ):
        assert pack(root, output, given) == 1
        assert "was packed with other settings (" in (line := capsys.readouterr().err) and said in line


def test_clips_without_points_are_not_taken_over(
    packed: tuple[Path, Path], files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = packed[0]
    assert pack(root, tmp_path / "out", {}) == 0
    assert "points" not in load_index(tmp_path / "out/train") and "points" not in capsys.readouterr().out
    assert pack(root, tmp_path / "out", files, "--overwrite=true") == 0
    assert "taken over" not in capsys.readouterr().out
    assert contents(tmp_path / "out") == contents(packed[1])
    assert pack(root, tmp_path / "out", files, "--overwrite=true", "--seed=1") == 0
    assert "5 sources did not change" in (printed := capsys.readouterr().out)
    assert "points face31 not found in 8 of 35 frames; 1 clips have none" in printed


@pytest.mark.slow
def test_workers_read_the_same_points(packed: tuple[Path, Path], files: dict[str, str], tmp_path: Path) -> None:
    assert pack(packed[0], tmp_path / "out", files, "--workers=2") == 0
    assert contents(tmp_path / "out") == contents(packed[1])


def test_a_copy_carries_points(packed: tuple[Path, Path], tmp_path: Path) -> None:
    assert main(["shards", "copy", f"--source={packed[1]}", f"--target={tmp_path / 'copy'}"]) == 0
    assert load_index(tmp_path / "copy/train")["points"] == "face31"


def test_the_sheet_shows_points(packed: tuple[Path, Path], files: dict[str, str], tmp_path: Path) -> None:
    words = [f"--points.{name}={path}" for name, path in files.items()]
    sheets = []
    for name, more in (("with", words), ("without", [])):
        sheet = tmp_path / f"{name}.png"
        given = [
            f"--root={packed[0]}",
            f"--output={sheet}",
            "--crop=none",
            "--columns=1",
            "--cell=120",
            "--min_frames=4",
        ]
        assert main(["crop", "preview", *given, "--frames_per_clip=4", *more]) == 0
        sheets.append(cv2.imread(str(sheet))[..., ::-1].astype(int))
    changed = np.abs(sheets[0] - sheets[1]).sum(2) > 30
    first = changed[15:135, 240:360]
    y, x = np.nonzero(first)
    assert 8 <= len(x) <= 60
    shown = centres(sheets[1][15:135, 240:360].astype(np.uint8))
    for place in shown:
        assert np.hypot(*(np.stack([x, y], 1) - place).T).min() < 1.5
    assert not changed[15 + 4 * 139 :].any(), "the last one has no face"
