"""Packing: what lies in the folder, splits, repeated calls, refusals."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfdkit.cli import main
from sfdkit.data.pack import commands
from sfdkit.data.pack import encode as encode_module
from sfdkit.data.pack import writer as pack_module
from sfdkit.data.pack.commands import PackImages, PackPuppets, PackVideos
from sfdkit.data.pack.encode import encode_jpeg
from sfdkit.data.shards.format import ShardEntry
from sfdkit.data.shards.index import describe_shard, load_index
from sfdkit.data.shards.reader import read_clips
from sfdkit.errors import DataError, ShardError
from sfdkit.types import Clip
from tests.media.test_video import ramp, write
from tests.shards import decode_picture, read_members

SMALL = {"resolution": 32, "frames_per_clip": 4, "min_frames": 2, "crop": "centre"}
PUPPETS = {"identities": 9, "validation_identities": 2, "test_identities": 1, "resolution": 32, "frames_per_clip": 2}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten people with one video of ten frames each."""
    root = tmp_path_factory.mktemp("videos")
    for person in range(10):
        (root / f"id{person}").mkdir()
        write(root / f"id{person}" / "talk.mp4", 10)
    return root


def clips_in(folder: Path) -> list[Clip]:
    return [clip for entry in load_index(folder)["shards"] for clip in read_clips(folder / entry["name"])]


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def only(*splits: str) -> Callable[..., Any]:
    """An encoder that encodes the puppets of these splits and no others."""
    encode = encode_module.encode_clips

    def checked(source: Any, skips: Any) -> Any:
        assert source.split in splits
        return encode(source, skips)

    return checked


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_videos_are_split_by_identity_and_every_clip_is_there_once(tmp_path: Path, videos: Path) -> None:
    out = tmp_path / "out"
    PackVideos(
        str(videos), str(out), identity="folder", validation_share=0.2, test_share=0.1, clips_per_shard=5, **SMALL
    ).run()
    splits = {split: clips_in(out / split) for split in ("train", "validation", "test")}
    people = {split: {clip["meta"]["identity"] for clip in clips} for split, clips in splits.items()}
    assert {split: len(names) for split, names in people.items()} == {"train": 7, "validation": 2, "test": 1}
    assert set.union(*people.values()) == {f"id{n}" for n in range(10)}
    keys = [clip["key"] for clips in splits.values() for clip in clips]
    assert sorted(keys) == sorted(f"id{n}_talk-{c:04d}" for n in range(10) for c in range(3))
    assert json.loads((out / "pack.json").read_text())["splits"]["train"]["clips"] == 21
    assert (out / "skipped.csv").read_text() == "file,reason,detail\n"
    names = sorted(path.name for path in out.iterdir())
    assert names == ["pack.json", "skipped.csv", "sources.json", "test", "train", "validation"]


def test_index_promises_what_the_tars_hold_and_shards_mix_identities(tmp_path: Path, videos: Path) -> None:
    out = tmp_path / "out"
    PackVideos(
        str(videos), str(out), identity="folder", validation_share=0, test_share=0, clips_per_shard=8, **SMALL
    ).run()
    index = load_index(out / "train")
    assert [entry["clips"] for entry in index["shards"]] == [7, 8, 7, 8]
    assert index["resolution"] == 32 and index["identities"] == 10 and index["split"] == "train"
    for entry in index["shards"]:
        clips = list(read_clips(out / "train" / entry["name"]))
        assert (len(clips), sum(len(c["meta"]["times"]) for c in clips)) == (entry["clips"], entry["frames"])
        assert len({clip["meta"]["identity"] for clip in clips}) >= 4
    names = [member.name for member in read_members(out / "train" / index["shards"][0]["name"])]
    assert [name.split(".")[1] for name in names] == ["json", "frames"] * 7
    assert not (out / "validation").exists()


def test_the_result_depends_on_input_and_settings_alone(tmp_path: Path, videos: Path) -> None:
    for name, workers in (("a", 0), ("b", 2)):
        PackVideos(str(videos), str(tmp_path / name), workers=workers, clips_per_shard=4, **SMALL).run()
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    PackVideos(str(videos), str(tmp_path / "c"), clips_per_shard=4, seed=1, **SMALL).run()
    keys = [[clip["key"] for clip in clips_in(tmp_path / name / "train")] for name in ("a", "c")]
    assert keys[0] != keys[1]


def test_full_windows_become_shards_and_free_their_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[int] = []

    def counted(path: Path) -> ShardEntry:
        waiting.append(len(list(tmp_path.glob("out/.packing/train/encoded/*.clips"))))
        return describe_shard(path)

    monkeypatch.setattr(pack_module, "_WINDOW", 2)
    monkeypatch.setattr(pack_module, "describe_shard", counted)
    monkeypatch.setattr(commands, "_PUPPETS_PER_SOURCE", 1)
    counts = {**PUPPETS, "validation_identities": 0, "test_identities": 0}
    PackPuppets(str(tmp_path / "out"), clips_per_shard=3, clips_per_identity=3, **counts).run()
    clips = clips_in(tmp_path / "out" / "train")
    assert len({clip["key"] for clip in clips}) == len(clips) == 27
    assert [entry["clips"] for entry in load_index(tmp_path / "out" / "train")["shards"]] == [3] * 9
    assert waiting == [2] * 8 + [1]


def test_the_mark_of_completeness_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    rename = Path.rename

    def noted(path: Path, target: Path) -> Path:
        moved.append(path.name)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", noted)
    PackPuppets(str(tmp_path / "out"), **PUPPETS).run()
    assert sorted(moved) == ["pack.json", "skipped.csv", "test", "train", "validation"] and moved[-1] == "pack.json"


def test_a_second_call_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    PackPuppets(str(out), **PUPPETS).run()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    first = capsys.readouterr().out
    PackPuppets(str(out), workers=3, **PUPPETS).run()
    second = capsys.readouterr().out
    assert "nothing was done" in second and second.endswith(first)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(DataError, match=r"other settings \(seed: 0 there, 1 now\).*--overwrite"):
        PackPuppets(str(out), seed=1, **PUPPETS).run()
    PackPuppets(str(out), seed=1, overwrite=True, **PUPPETS).run()
    assert json.loads((out / "pack.json").read_text())["settings"]["seed"] == 1


def test_a_dry_run_tells_what_would_be_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    write(root / "a.mp4", 6)
    (tmp_path / "people.csv").write_text("file,identity\na.mp4,ann\ngone.mp4,bob\n")
    words = ["prepare", "clips", f"--root={root}", f"--output={out}", f"--identities={tmp_path / 'people.csv'}"]
    words += [f"--{name}={value}" for name, value in {**SMALL, "validation_share": 0, "test_share": 0}.items()]
    assert main([*words, "--dry_run=true"]) == 0
    printed = capsys.readouterr().out
    assert "found     1 videos" in printed and re.search(r"train +1 segments", printed)
    assert "left out  missing: 1, such as gone.mp4" in printed and not out.exists()
    assert main(words) == 0
    assert load_index(out / "train")["identities"] == 1


@pytest.mark.parametrize("kind", ["videos", "puppets"])
def test_options_of_the_command_line_reach_the_workers(tmp_path: Path, kind: str) -> None:
    words = ["--resolution=32", "--frames_per_clip=4", "--fps=5", "--clips_per_shard=3", "--seed=1"]
    if kind == "videos":
        (tmp_path / "in").mkdir()
        write(tmp_path / "in/a.mp4", 30)
        words += [f"--root={tmp_path / 'in'}", "--min_frames=3", "--crop=centre", "--margin=0.3"]
        words += ["--validation_share=0.1", "--test_share=0.2"]
    else:
        words += ["--identities=2", "--validation_identities=0", "--test_identities=0", "--clips_per_identity=2"]
        words += ["--pose=0.5"]
    for workers in (0, 1):
        output = tmp_path / f"out-{workers}"
        assert main(["shards", "pack", kind, f"--output={output}", f"--workers={workers}", *words]) == 0
        assert load_index(output / "train")["resolution"] == 32
    assert contents(tmp_path / "out-0") == contents(tmp_path / "out-1")


def test_new_videos_are_noticed(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    write(root / "a.mp4", 4)
    shares: dict[str, Any] = {"validation_share": 0, "test_share": 0, **SMALL}
    PackVideos(str(root), str(out), **shares).run()
    write(root / "b.mp4", 4)
    with pytest.raises(DataError, match=r"files: 1 there, 2 now"):
        PackVideos(str(root), str(out), **shares).run()


def test_the_rest_of_a_download_is_added_without_encoding_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    write(root / "a.mp4", 9)
    write(root / "b.mp4", 4)
    shares: dict[str, Any] = {"validation_share": 0, "test_share": 0, **SMALL}
    PackVideos(str(root), str(out), **shares).run()
    for name in ("c", "d"):
        write(root / f"{name}.mp4", 6)
    with pytest.raises(DataError, match="--overwrite true, which takes over the clips of videos that did not change"):
        PackVideos(str(root), str(out), **shares).run()
    PackVideos(str(root), str(tmp_path / "anew"), **shares).run()
    encode, made = encode_module.encode_clips, []
    monkeypatch.setattr(encode_module, "encode_clips", lambda s, skips: (made.append(s.name), encode(s, skips))[1])
    capsys.readouterr()
    PackVideos(str(root), str(out), overwrite=True, **shares).run()
    assert sorted(made) == ["c.mp4", "d.mp4"] and contents(out) == contents(tmp_path / "anew")
    assert "2 sources did not change since they were packed" in capsys.readouterr().out
    (root / "b.mp4").unlink()  # and a video that changed, and a shard that did
    write(root / "a.mp4", 8)
    shard = next((out / "train").glob("*.tar"))
    shard.write_bytes(shard.read_bytes() + b"more")
    made.clear()
    PackVideos(str(root), str(out), overwrite=True, **shares).run()
    assert sorted(made) == ["a.mp4", "c.mp4", "d.mp4"]  # a changed, and shards that changed are not trusted at all
    made.clear()
    os.utime(root / "c.mp4", (1, 1))
    PackVideos(str(root), str(out), overwrite=True, **shares).run()
    assert made == ["c.mp4"]
    assert {clip["meta"]["video"] for clip in clips_in(out / "train")} == {"a.mp4", "c.mp4", "d.mp4"}


def test_a_lost_shard_is_noticed_on_the_second_call(tmp_path: Path) -> None:
    PackPuppets(str(tmp_path / "out"), **PUPPETS).run()
    next((tmp_path / "out" / "train").glob("*.tar")).unlink()
    with pytest.raises(ShardError, match="not on disk"):
        PackPuppets(str(tmp_path / "out"), **PUPPETS).run()


def test_foreign_files_are_never_touched(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="holds train, which was not packed"):
            PackPuppets(str(tmp_path), overwrite=overwrite, **PUPPETS).run()
    assert contents(tmp_path) == {"train/thesis.txt": b"precious"}
    with pytest.raises(DataError, match="cannot write"):
        PackPuppets(str(tmp_path / "train" / "thesis.txt"), **PUPPETS).run()


def test_a_failure_changes_nothing_and_the_next_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    PackPuppets(str(out), **PUPPETS).run()
    before = contents(out)
    with monkeypatch.context() as patch:
        patch.setattr(pack_module, "save_index", full)
        with pytest.raises(DataError, match=r"cannot write .*out \(No space left on device\).*resumes"):
            PackPuppets(str(out), overwrite=True, **PUPPETS).run()
    assert f"2 finished sources are kept in {out / '.packing'}" in capsys.readouterr().err
    assert {name: data for name, data in contents(out).items() if not name.startswith(".packing/")} == before
    monkeypatch.setattr(encode_module, "encode_clips", only("validation", "test"))
    PackPuppets(str(out), overwrite=True, **PUPPETS).run()
    assert contents(out) == before


def test_a_failure_before_the_first_source_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_module, "encode_clips", full)
    with pytest.raises(DataError, match="No space left"):
        PackPuppets(str(tmp_path / "new"), **PUPPETS).run()
    assert not (tmp_path / "new").exists()


def test_what_is_left_out_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    for name in ("a", "b"):
        write(root / f"{name}.mp4", 5)
    (root / "c.mp4").write_bytes(b"no video")
    (tmp_path / "people.csv").write_text("file,identity\nin/a.mp4,ann\nin/c.mp4,cid\n")
    shares: dict[str, Any] = {"validation_share": 0, "test_share": 0, **SMALL}
    PackVideos(str(root), str(out), identities=str(tmp_path / "people.csv"), **shares).run()
    printed = capsys.readouterr().out
    assert "left out, not in the manifest: 1 in b.mp4" in printed and "left out, unreadable: 1 in c.mp4" in printed
    listed = (out / "skipped.csv").read_text().splitlines()
    assert sorted(line.split(",")[0] + line.split(",")[1] for line in listed[1:]) == sorted(
        ["a.mp4short", "b.mp4not in the manifest", "c.mp4unreadable"]
    )


def test_videos_without_a_face_are_an_error_only_when_nothing_is_left(tmp_path: Path, videos: Path) -> None:
    with pytest.raises(DataError, match=r"no clip is left .*no face: 30 in id"):
        PackVideos(str(videos), str(tmp_path / "out"), **{**SMALL, "crop": "face"}).run()
    assert not (tmp_path / "out").exists()


def test_folders_of_pictures(tmp_path: Path) -> None:
    from PIL import Image

    for person in ("ann", "bob"):
        (tmp_path / "in" / person).mkdir(parents=True)
        for index in range(4):
            Image.fromarray(ramp(index)).save(tmp_path / "in" / person / f"{index}.png")
    PackImages(str(tmp_path / "in"), str(tmp_path / "out"), validation_share=0, test_share=0.5, fps=5, **SMALL).run()
    assert [len(clips_in(tmp_path / "out" / split)) for split in ("train", "test")] == [1, 1]
    assert clips_in(tmp_path / "out" / "test")[0]["meta"]["fps"] == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--resolution=16", "resolution: 16 is out of range; give 32 to 1024"),
        ("--resolution=2048", "resolution: 2048 is out of range; give 32 to 1024"),
        ("--fps=0", "fps: 0 is out of range; give 0.1 to 1000"),
        ("--margin=-1", "margin: -1 is out of range; give 0 to 2"),
        ("--face.every=0", r"face\.every: 0 is out of range; give more than 0"),
        ("--face.least=-1", r"face\.least: -1 is out of range; give 0 or more"),
        ("--face.border=-1", r"face\.border: -1 is out of range; give 0 or more"),
        ("--min_frames=1", "min_frames: 1 is out of range; give more than 1"),
        ("--frames_per_clip=4 --min_frames=5", "--frames_per_clip is 4: give at least 5"),
        ("--validation_share=0.5 --test_share=0.5", "sum is below 1"),
        ("--validation_share=-0.1", "validation_share: -0.1 is out of range"),
        ("--clips_per_shard=0", "clips_per_shard: 0 is out of range"),
        ("--workers=-1", "workers: -1 is out of range"),
        ("--crop=centre --face.every=2", "belongs to crops that look for faces"),
    ],
)
def test_impossible_settings_are_refused(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    for command in (["shards", "pack", "videos"], ["prepare", "clips"], ["crop", "preview"]):
        if command[0] == "crop" and ("share" in words or "shard" in words or "workers" in words):
            continue
        arguments = [*command, f"--root={videos}", f"--output={tmp_path / 'out'}", *words.split()]
        with contextlib.suppress(SystemExit):
            assert main(arguments) == 1
        line = capsys.readouterr().err
        assert re.search(said, line) and line.count("\n") == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("side", "worst"), [(64, 6), (256, 6)])
def test_pictures_keep_their_colours(side: int, worst: float) -> None:
    picture = ramp(9, side, side)
    decoded = decode_picture(encode_jpeg(picture), side).permute(1, 2, 0).numpy()
    assert np.abs(decoded.astype(int) - picture).mean() < worst / 2


def test_small_pictures_keep_full_colour_resolution() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (255, 0, 0), (0, 0, 255)
    decoded = decode_picture(encode_jpeg(stripes), 64).permute(1, 2, 0).numpy()
    assert np.abs(decoded.astype(int) - stripes).mean() < 10
