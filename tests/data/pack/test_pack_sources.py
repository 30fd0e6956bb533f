"""From files to clips: cutting, identities, keys, and what is left out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfdkit.data.pack import video_source
from sfdkit.data.pack.find import clip_keys, find_picture_folders, find_videos, other_files
from sfdkit.data.pack.people import identity_of, read_manifest, split_identities
from sfdkit.data.pack.puppet_source import PuppetSource
from sfdkit.data.pack.sources import ClipSettings, CutClip, Skip
from sfdkit.data.pack.video_source import VideoSource
from sfdkit.errors import DataError
from sfdkit.media.box import Box
from sfdkit.media.container import VIDEO_SUFFIXES
from sfdkit.media.crop import CropRule, FaceSettings
from sfdkit.media.detect import CascadeDetector, Face
from sfdkit.puppets.clips import factors_from_meta
from sfdkit.puppets.render import render
from tests.media.test_video import noise_video, ramp, write

CENTRE = ClipSettings(resolution=32, rule=CropRule("centre"), frames_per_clip=8, min_frames=4, fps=25.0)


def source(path: Path, settings: ClipSettings = CENTRE) -> VideoSource:
    return VideoSource(path, "key", path.name, "someone", "test", "CC0-1.0", settings)


def clips_of(path: Path, settings: ClipSettings = CENTRE) -> tuple[list[CutClip], list[Skip]]:
    skips: list[Skip] = []
    return list(source(path, settings).clips(skips.append)), skips


def test_long_video_becomes_clips_and_a_short_rest_is_reported(tmp_path: Path) -> None:
    clips, skips = clips_of(write(tmp_path / "a.mp4", 27))
    assert [clip.meta["key"] for clip in clips] == ["key-0000", "key-0001", "key-0002"]
    assert [len(clip.frames) for clip in clips] == [8, 8, 8]
    assert clips[1].meta["times"] == [round(i / 25, 6) for i in range(8, 16)]
    assert clips[1].meta["numbers"] == list(range(8, 16))
    assert clips[1].meta["fps"] == 25 and clips[1].meta["crop"]["box"] == [8, 0, 56, 48]
    assert all(frame.shape == (32, 32, 3) and frame.dtype == np.uint8 for clip in clips for frame in clip.frames)
    blue = [int(clip.frames[0][..., 2].mean()) for clip in clips]
    assert np.allclose(blue, [0, 64, 128], atol=5)
    assert [(skip.file, skip.reason) for skip in skips] == [("a.mp4", "short")]
    assert "frames 24 to 26" in skips[0].detail


@pytest.mark.parametrize(("rate", "kept", "fps"), [(50, 20, 25), (30, 34, 25), (12, 40, 12)])
def test_rate_is_brought_down_and_never_up(tmp_path: Path, rate: float, kept: int, fps: float) -> None:
    settings = ClipSettings(32, CropRule("centre", 0.4), 1000, 4, 25.0)
    clips, _ = clips_of(write(tmp_path / "a.mp4", 40, rate), settings)
    assert len(clips[0].frames) == pytest.approx(kept, abs=1)
    assert clips[0].meta["fps"] == pytest.approx(fps, abs=1)
    assert all(abs(time * rate - round(time * rate)) < 1e-3 for time in clips[0].meta["times"])
    assert clips[0].meta["numbers"] == [round(time * rate) for time in clips[0].meta["times"]]


def test_rounded_times_lose_no_frame(tmp_path: Path) -> None:
    stamps = [round(100 * index / 30) for index in range(16)]
    clips, _ = clips_of(
        noise_video(tmp_path / "a.mp4", 16, stamps), ClipSettings(32, CropRule("centre", 0.4), 16, 4, 30.0)
    )
    assert [len(clip.frames) for clip in clips] == [16]


def test_each_clip_has_its_own_square_and_lost_faces_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def detector(self: CascadeDetector, image: np.ndarray, near: Box | None = None) -> list[Face]:
        blue = int(image[..., 2].mean())
        return [] if 60 < blue < 130 else [Face(Box(10 + blue / 16, 12, 26 + blue / 16, 28), 1)]

    monkeypatch.setattr(CascadeDetector, "__call__", detector)
    clips, skips = clips_of(write(tmp_path / "a.mp4", 24), ClipSettings(32, CropRule("face", 0.2), 8, 4, 25.0))
    assert [clip.meta["key"] for clip in clips] == ["key-0000", "key-0002"]
    assert [(skip.reason, skip.detail[:15]) for skip in skips] == [("no face", "frames 8 to 15:")]
    first, last = (clip.meta["crop"] for clip in clips)
    assert first["method"] == "face" and first["margin"] == 0.2 and first["detector"]
    assert last["box"][0] > first["box"][0] + 4


@pytest.mark.parametrize("method", ["face", "union"])
def test_reading_once_or_twice_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any) -> None:
    def detector(self: CascadeDetector, image: np.ndarray, near: Box | None = None) -> list[Face]:
        blue = int(image[..., 2].mean())
        return [] if 60 < blue < 100 else [Face(Box(10 + blue / 16, 12, 26 + blue / 16, 28), 1)]

    monkeypatch.setattr(CascadeDetector, "__call__", detector)
    path, settings = (
        write(tmp_path / "a.mp4", 31),
        ClipSettings(32, CropRule(method, 0.1, FaceSettings(every=3)), 8, 4, 25.0),
    )
    once, skips = clips_of(path, settings)
    monkeypatch.setattr(video_source, "_BUFFER", 0)
    twice, others = clips_of(path, settings)
    assert [clip.meta for clip in once] == [clip.meta for clip in twice] and len(once) >= 2 and skips == others
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(once, twice, strict=True))


def test_a_damaged_video_gives_the_clips_before_the_damage(tmp_path: Path) -> None:
    path = noise_video(tmp_path / "a.mp4", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clips, skips = clips_of(path)
    assert 1 <= len(clips) <= 3
    assert skips[-1].reason == "damaged" and "a.mp4" in skips[-1].detail
    (tmp_path / "b.mp4").write_bytes(b"nothing at all")
    clips, skips = clips_of(tmp_path / "b.mp4")
    assert not clips and [skip.reason for skip in skips] == ["unreadable"]


def test_folder_of_pictures_is_a_video_in_natural_order(tmp_path: Path) -> None:
    for index in range(12):
        Image.fromarray(ramp(index)).save(tmp_path / f"{index + 1}.png")
    clips, skips = clips_of(tmp_path, ClipSettings(48, CropRule("centre", 0.4), 12, 4, 10.0))
    blue = [int(frame[0, 0, 2]) for frame in clips[0].frames]
    assert blue == [index * 8 for index in range(12)] and not skips
    assert clips[0].meta["times"][-1] == 1.1 and clips[0].meta["fps"] == 10
    Image.fromarray(ramp(0, 20, 20)).save(tmp_path / "6.png")
    clips, skips = clips_of(tmp_path)
    assert [len(clip.frames) for clip in clips] == [5] and skips[0].reason == "size changes"


def test_videos_are_found_below_hidden_ones_are_not(tmp_path: Path) -> None:
    for name in ("b/10.mp4", "b/9.MOV", "a.gif", ".trash/x.mp4", "b/notes.txt", "b/c", "d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    others = other_files(tmp_path, find_videos(tmp_path))
    assert [(skip.file, skip.reason) for skip in others] == [(n, "no video") for n in ("b/c", "b/notes.txt", "d.png")]
    assert not other_files(tmp_path, find_videos(tmp_path), str(tmp_path / "b"), None, str(tmp_path / "d.png"))
    assert [p.relative_to(tmp_path).as_posix() for p in find_videos(tmp_path)] == ["a.gif", "b/9.MOV", "b/10.mp4"]
    shutil.rmtree(tmp_path / "b")
    (tmp_path / "a.gif").unlink()
    (tmp_path / "d.png").unlink()
    with pytest.raises(DataError, match=r"holds no video; files ending in \.mp4, \.mov, \.mkv"):
        find_videos(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        find_videos(tmp_path / "none")
    with pytest.raises(DataError, match=r"no folder .* holds pictures"):
        find_picture_folders(tmp_path)
    (tmp_path / "a.jpg").touch()
    with pytest.raises(DataError, match="folder of its own"):
        find_picture_folders(tmp_path)


@pytest.mark.parametrize("name", [*(f"a{suffix.upper()}" for suffix in VIDEO_SUFFIXES), "a"])
def test_videos_of_every_kind_are_found(tmp_path: Path, name: str) -> None:
    video = write(tmp_path / "v.mp4", 2).rename(tmp_path / name)
    assert find_videos(tmp_path) == [video]


def test_animated_pictures_are_found_and_still_ones_are_not(tmp_path: Path) -> None:
    frames = [Image.fromarray(ramp(20 * index)) for index in range(5)]
    for name in ("a.webp", "b.png", "c.apng"):
        kind = "WEBP" if name == "a.webp" else "PNG"
        frames[0].save(tmp_path / name, kind, save_all=True, append_images=frames[1:], duration=40)
    frames[0].save(tmp_path / "d.png")
    found = find_videos(tmp_path)
    assert [path.name for path in found] == ["a.webp", "b.png", "c.apng"]
    assert [len(clip.frames) for clip in clips_of(found[0])[0]] == [5]
    assert [skip.file for skip in other_files(tmp_path, found)] == ["d.png"]


def test_keys_are_safe_unique_and_short() -> None:
    videos = ["a/b.c.mp4", "a_b_c.mp4", "A/B/C.mp4", "id1#v#0#9.mp4", "###.mp4", "x" * 200 + ".mp4", "é.mp4"]
    keys = clip_keys(videos)
    assert keys["id1#v#0#9.mp4"] == "id1_v_0_9"
    assert len({key.lower() for key in keys.values()}) == len(videos)
    assert all(0 < len(key) <= 60 and not set("./#") & set(key) for key in keys.values())


def test_identity_rules(tmp_path: Path) -> None:
    path = tmp_path / "id10270" / "video" / "id7#v#1.mp4"
    assert identity_of(path, tmp_path, "file") == "id10270/video/id7#v#1"
    assert identity_of(path, tmp_path, "folder") == "id10270"
    assert identity_of(path, tmp_path, "prefix") == "id7"
    with pytest.raises(DataError, match="not in a folder named by its person"):
        identity_of(tmp_path / "a.mp4", tmp_path, "folder")
    with pytest.raises(DataError, match="has no '#'"):
        identity_of(tmp_path / "a.mp4", tmp_path, "prefix")


def test_manifest_is_looked_up_from_its_folder_and_from_root(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    manifest = tmp_path / "people.csv"
    manifest.write_text(
        "\ufefffile,identity,licence,group_age\nvideos/a.mp4,ann,CC0,old\nb.mp4,bob,,young\n", encoding="utf-8"
    )
    people, missing = read_manifest(manifest, root)
    assert people[root / "a.mp4"] == ("ann", "CC0", {"age": "old"})
    assert people[root / "b.mp4"] == ("bob", "", {"age": "young"})
    assert [skip.file for skip in missing] == ["videos/a.mp4", "b.mp4"]
    root.mkdir()
    (root / "b.mp4").touch()
    assert [skip.file for skip in read_manifest(manifest, root)[1]] == ["videos/a.mp4"]
    manifest.write_text("file,identity\na,ann\nb\n")
    with pytest.raises(DataError, match=r"people\.csv, line 3: give each file a path and an identity"):
        read_manifest(manifest, root)
    manifest.write_text("file,identitie\na,b\n")
    with pytest.raises(DataError, match=r"no column 'identity'.*Did you mean 'identitie'"):
        read_manifest(manifest, root)
    with pytest.raises(DataError, match=r"none\.csv"):
        read_manifest(tmp_path / "none.csv", root)


def test_spaces_around_the_words_of_a_manifest_make_no_other_person(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file,identity,group_age\na.mp4,ann,30\n b.mp4 , ann , 30\n")
    people, _ = read_manifest(tmp_path / "list.csv", tmp_path)
    assert people[tmp_path / "a.mp4"] == people[tmp_path / "b.mp4"]


def test_a_person_named_twice_is_an_error(tmp_path: Path) -> None:
    manifest = tmp_path / "people.csv"
    (tmp_path / "a.mp4").touch()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
    for again in ("a.mp4", "./a.mp4", "link.mp4", str(tmp_path / "a.mp4")):
        manifest.write_text(f"file,identity\na.mp4,ann\nb.mp4,bob\n{again},eve\n")
        with pytest.raises(DataError, match=r"names .* twice: ann in line 2 and eve in line 4 differ"):
            read_manifest(manifest, tmp_path)
        manifest.write_text(f"file,identity\na.mp4,ann\n{again},ann\n")
        assert read_manifest(manifest, tmp_path)[0][tmp_path / "a.mp4"].identity == "ann"


def test_split_is_by_identity_exact_seeded_and_blind_to_order() -> None:
    names = [f"id{number}" for number in range(50)]
    split = split_identities(names, 0.1, 0.2, seed=0)
    counts = {name: list(split.values()).count(name) for name in ("train", "validation", "test")}
    assert counts == {"train": 35, "validation": 5, "test": 10}
    assert split == split_identities(names[::-1] * 2, 0.1, 0.2, seed=0)
    assert split != split_identities(names, 0.1, 0.2, seed=1)
    assert sorted(split_identities("abc", 0.1, 0.1, seed=0).values()) == ["test", "train", "validation"]
    assert set(split_identities(names, 0, 0, seed=0).values()) == {"train"}


def test_puppets_of_one_identity_move_differently() -> None:
    made = PuppetSource("train", 3, 5, 2, seed=0, frames=3, resolution=32, fps=12.5, pose=1.0)
    skips: list[Skip] = []
    clips = list(made.clips(skips.append))
    assert len({clip.meta["key"] for clip in clips}) == 4 and not skips
    assert [clip.meta["identity"] for clip in clips] == [f"puppet-train-{i}" for i in (3, 3, 4, 4)]
    assert clips[0].meta["puppet"]["identity"] == clips[1].meta["puppet"]["identity"]
    assert clips[0].meta["puppet"]["motion"] != clips[1].meta["puppet"]["motion"]
    assert all(len(clip.frames) == 3 == len(clip.meta["times"]) for clip in clips)
    assert clips[1].frames[0].shape == (32, 32, 3) and not np.array_equal(clips[0].frames[0], clips[1].frames[0])
    assert len(factors_from_meta(clips[1].meta)) == 2


def test_points_of_puppets_are_those_of_their_own_frames() -> None:
    clips = list(PuppetSource("train", 3, 4, 2, seed=0, frames=3, resolution=32, fps=12.5, pose=1.0).clips(print))
    for clip in clips:
        points = clip.meta["points"]
        rendered = render(*factors_from_meta(clip.meta), 32)
        assert points["set"] == "face31"
        np.testing.assert_allclose(np.array(points["frames"], float), rendered.landmarks.numpy(), atol=0.02)
    assert clips[0].meta["points"] != clips[1].meta["points"]
