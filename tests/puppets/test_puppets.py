import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from sfdkit.cli import main
from sfdkit.errors import ConfigError, DataError
from sfdkit.puppets.clips import factors_from_meta, make_clip, to_bytes
from sfdkit.puppets.commands import render_file, sheet
from sfdkit.puppets.factors import IdentityFactors, MotionFactors, groups, sample_identity, sample_motion
from sfdkit.puppets.render import render


def person(index: int = 4, **changes: float) -> IdentityFactors:
    return IdentityFactors.from_values(sample_identity(index, "test", 0).row(0) | changes)


def test_draws_are_repeatable_and_splits_differ() -> None:
    assert sample_identity(3, "train", 7).row(0) == sample_identity(3, "train", 7).row(0)
    assert sample_motion(3, "train", 7, 9).columns() == sample_motion(3, "train", 7, 9).columns()
    people = [
        sample_identity(k, split, seed).row(0)
        for k in (0, 1)
        for split in ("train", "validation", "test")
        for seed in (0, 1)
    ]
    moves = [
        sample_motion(k, split, seed, 4).columns()
        for k in (0, 1)
        for split in ("train", "validation", "test")
        for seed in (0, 1)
    ]
    for drawn in (people, moves):
        assert all(a != b for n, a in enumerate(drawn) for b in drawn[:n])


def test_motion_of_an_identity_does_not_follow_from_its_looks() -> None:
    looks = torch.cat([sample_identity(k, "train", 0).stack() for k in range(300)])
    moves = torch.cat([sample_motion(k, "train", 0, 1).stack() for k in range(300)])
    both = torch.corrcoef(torch.cat([looks, moves], dim=1).T)
    assert both[: looks.shape[1], looks.shape[1] :].abs().max() < 0.3


def test_motion_is_lively_smooth_and_within_its_range() -> None:
    clips = [sample_motion(k, "train", 0, 16) for k in range(60)]
    reach = {"yaw": 32, "pitch": 18, "roll": 18, "shift_x": 0.11, "shift_y": 0.1, "gaze_x": 1, "gaze_y": 1, "brows": 1}
    for name, limit in reach.items():
        values = torch.stack([getattr(clip, name) for clip in clips])
        assert values.abs().max() <= limit
        assert (values.amax(1) - values.amin(1)).mean() > 0.7 * limit
        assert values.diff(dim=1).abs().max() < 0.85 * limit
    mouth, scale = (torch.stack([getattr(clip, name) for clip in clips]) for name in ("mouth_open", "scale"))
    assert mouth.min() == 0 and mouth.max() > 0.99
    assert (mouth.amax(1) - mouth.amin(1)).mean() > 0.9
    assert scale.min() >= 0.85 and scale.max() <= 1.15
    blink = torch.stack([clip.blink for clip in clips])
    assert (blink > 0.95).any(1).float().mean() > 0.7, "most clips close the eyes"
    assert blink.mean() < 0.45, "but only shortly"


def test_pose_scales_the_head_and_leaves_expressions() -> None:
    full, half, still = (sample_motion(3, "train", 0, 20, pose=pose) for pose in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half.yaw, full.yaw / 2, atol=1e-3, rtol=0)
    torch.testing.assert_close(half.scale - 1, (full.scale - 1) / 2, atol=1e-3, rtol=0)
    assert still.roll.abs().max() == 0 and full.roll.abs().max() > 1
    for name in ("mouth_open", "smile", "blink", "gaze_x", "brows"):
        assert torch.equal(getattr(still, name), getattr(full, name))


def test_a_longer_clip_begins_like_the_shorter_one() -> None:
    assert sample_motion(5, "test", 0, 24)[:12].columns() == sample_motion(5, "test", 0, 12).columns()


def test_factors_index_expand_and_name_what_is_wrong() -> None:
    motion = sample_motion(0, "test", 0, 6)
    assert len(motion[2]) == 1 and len(motion[1:4]) == 3 and len(motion[-1]) == 1
    assert motion[-1].row(0) == motion.row(5)
    assert len(person().expand(4)) == 4
    assert MotionFactors.concat([motion[:2], motion[2:]]).columns() == motion.columns()
    assert motion.stack().shape == (6, 12)
    with pytest.raises(ValueError, match="6 rows of MotionFactors cannot become 4"):
        motion.expand(4)
    with pytest.raises(ValueError, match="yawn"):
        MotionFactors.from_values({**motion.columns(), "yawn": 1.0})
    with pytest.raises(ValueError, match="frames=0"):
        sample_motion(0, "test", 0, 0)


def test_clip_renders_the_same_from_its_json() -> None:
    frames, meta = make_clip(12, "test", 3, frames=5, resolution=48)
    again, meta_again = make_clip(12, "test", 3, frames=5, resolution=48)
    assert torch.equal(frames, again) and meta == meta_again
    assert frames.shape == (5, 3, 48, 48) and frames.dtype == torch.uint8
    identity, motion = factors_from_meta(meta)
    assert (len(identity), len(motion)) == (1, 5)
    assert torch.equal(to_bytes(render(identity, motion, 48).image), frames)
    alone = to_bytes(render(identity, motion[3], 48).image)[0].int()
    assert (alone - frames[3].int()).abs().max() <= 1


def test_clip_json_follows_the_contract() -> None:
    _, meta = make_clip(12, "validation", 3, frames=5, resolution=32, fps=12.5)
    assert meta["key"] == "puppet-validation-000012" and meta["identity"] == "puppet-validation-12"
    assert meta["times"] == [0.0, 0.08, 0.16, 0.24, 0.32] and meta["crop"]["box"] == [0, 0, 32, 32]
    assert set(meta["groups"]) == {"skin", "age", "glasses", "beard"}
    assert set(meta["puppet"]["identity"]) == set(IdentityFactors.names())
    assert {len(values) for values in meta["puppet"]["motion"].values()} == {5}


def test_meta_without_puppet_or_of_another_version_is_refused() -> None:
    _, meta = make_clip(0, "test", 0, frames=1, resolution=16)
    del meta["puppet"]["motion"]["yaw"]
    with pytest.raises(DataError, match=r"puppet-test-000000.*yaw.*make the shards again"):
        factors_from_meta(meta)
    del meta["puppet"]
    with pytest.raises(DataError, match="puppet-test-000000"):
        factors_from_meta(meta)


def test_groups_vary_and_follow_the_factors() -> None:
    seen = [groups(sample_identity(k, "train", 0)) for k in range(120)]
    for name, values in {"skin": 3, "age": 3, "glasses": 2, "beard": 2}.items():
        counts = [sum(row[name] == value for row in seen) for value in {row[name] for row in seen}]
        assert len(counts) == values and min(counts) > 15, name
    assert groups(person(skin_tone=0.9, age=0.1, glasses=1, beard=0.0)) == {
        "skin": "dark", "age": "young", "glasses": "yes", "beard": "no",
    }  # fmt: skip


def test_factors_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        person().age = torch.zeros(1)  # type: ignore[misc]


def test_sheet_is_a_picture_with_one_cell_per_pair(tmp_path, capsys) -> None:
    sheet(str(tmp_path / "sheet.png"), identities=3, motions=2, resolution=32)
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert picture.shape == (64, 96, 3)
    who, what = sample_identity(2, "test", 0), sample_motion(1, "test", 0, 1)
    cell = to_bytes(render(who, what, 32).image[0]).permute(1, 2, 0).numpy()
    assert np.abs(picture[32:, 64:].astype(int) - cell).max() <= 1
    assert "sheet.png" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "still.png"])
def test_render_file_writes_pictures_and_videos(tmp_path, name: str) -> None:
    render_file(str(tmp_path / name), identity=1, motion=2, resolution=32, frames=4)
    assert (tmp_path / name).stat().st_size > 100
    if name.endswith("png"):
        assert Image.open(tmp_path / name).size == (32, 32)
    if name.endswith("gif"):
        assert Image.open(tmp_path / name).n_frames == 4


def test_commands_say_what_to_do(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.*does not exist"):
        sheet(str(tmp_path / "nowhere" / "a.png"))
    with pytest.raises(ConfigError, match=r"\.jpg.*use \.png"):
        sheet(str(tmp_path / "a.jpg"))
    with pytest.raises(ConfigError, match=r"\.avi.*\.mp4"):
        render_file(str(tmp_path / "a.avi"), 0, 0)
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(DataError, match=r"cannot write \S+/taken\.png: Is a directory"):
        sheet(str(tmp_path / "taken.png"), identities=1, motions=1, resolution=16)


@pytest.mark.parametrize(
    ("command", "option", "words"),
    [
        ("render", "--pose=1.5", "pose: 1.5 is out of range; give 0 to 1"),
        ("render", "--frames=0", "frames: 0 is out of range; give more than 0"),
        ("render", "--fps=0", "fps: 0 is out of range; give 0.1 to 1000"),
        ("sheet", "--identities=0", "identities: 0 is out of range; give more than 0"),
        ("sheet", "--motions=0", "motions: 0 is out of range; give more than 0"),
    ],
)
def test_numbers_that_cannot_work(command: str, option: str, words: str, capsys) -> None:
    given = ["--identity=0", "--motion=0"] if command == "render" else []
    with pytest.raises(SystemExit):
        main(["puppets", command, "--output=a.png", *given, option])
    assert capsys.readouterr().err.strip() == f"sfdkit: error: {words}"
