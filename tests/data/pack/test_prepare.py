"""From data sets as they are published to shards."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from datamodules import hdtf, voxceleb
from sfdkit.cli import main
from sfdkit.data.pack.datasets import data_sets
from sfdkit.data.pack.layout import Found
from sfdkit.data.shards.decode import decode_frames
from sfdkit.data.shards.index import load_index
from sfdkit.data.shards.reader import read_clips
from sfdkit.errors import DataError
from sfdkit.media.box import Box, Square, Track
from sfdkit.media.video_reader import read_frames
from tests import datasets
from tests.datasets import box_file, coded_video, seen

LOOKED = {"every": 4, "faces": "largest"}  # as often as the shortest clip needs


def prepare(name: str, root: Path, output: Path, *extra: str) -> int:
    sizes = ["--resolution=32", "--frames_per_clip=10", "--min_frames=4"]
    return main(["prepare", name, f"--root={root}", f"--output={output}", *sizes, *extra])


def packed(folder: Path) -> list[tuple[dict[str, object], np.ndarray]]:
    clips = [clip for entry in load_index(folder)["shards"] for clip in read_clips(folder / entry["name"])]
    found = [(clip["meta"], decode_frames(clip, range(len(clip["meta"]["times"])))) for clip in clips]
    return [(m, f.permute(0, 2, 3, 1).numpy()) for m, f in sorted(found, key=lambda pair: pair[0]["key"])]


def names(found: Found) -> dict[str, tuple[str, str | None]]:
    return {s.name: (s.identity, s.split) for s in found.segments}


def test_every_data_set_says_what_it_is() -> None:
    known = data_sets()
    assert set(known) == {"voxceleb", "hdtf", "celebv"}
    for data in known.values():
        assert data.address.startswith("https://") and data.citation and data.licence and data.layouts


def test_frames_from_a_time_on_are_those_of_the_whole_video(tmp_path: Path) -> None:
    path = coded_video(tmp_path / "v.mp4", 60)
    whole = list(read_frames(path))
    for start in (0.3, 1.0, 1.999):
        late = list(read_frames(path, start))
        assert late[0][1] <= start + 1e-6 and late[-1][1] == pytest.approx(whole[-1][1])
        for (picture, time), (other, moment) in zip(late[::-1], whole[::-1], strict=False):
            assert time == pytest.approx(moment, abs=1e-6) and np.array_equal(picture, other)


def test_squares_and_tracks_follow_the_size_of_the_picture() -> None:
    box = Box(10, 20, 30, 40)
    assert Square(box).in_picture(640, 360) == box
    assert Square(box, height=180).in_picture(640, 360) == Box(20, 40, 60, 80)
    assert Square(box, 320, 360).in_picture(640, 360) == Box(20, 20, 60, 40)
    track = Track((0.0, 0.04, 2.0), (box, Box(11, 20, 31, 40), box), height=180)
    assert track.at(0.03, 640, 360) == Box(22, 40, 62, 80)
    assert track.at(1.0, 640, 360) is None
    assert Track((0.0,), (Box(0.25, 0.5, 0.5, 1.0),)).at(0.1, 200, 100) == Box(50, 50, 100, 100)


def test_voxceleb_cropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = datasets.voxceleb_cropped(tmp_path / "vox")
    found = voxceleb.find(root)
    assert found.crop == "none" and not found.skips
    assert names(found) == {
        "train/id00012#abc#000010#000030.mp4": ("id00012", "train"),
        "train/id00012#abc#000100#000120.mp4": ("id00012", "train"),
        "train/id00015#xyz#000000#000020.mp4": ("id00015", "train"),
        "test/id10270#tst#000000#000020.mp4": ("id10270", "test"),
        "test/id10271#png#000000#000012.mp4": ("id10271", "test"),
    }
    output = tmp_path / "shards"
    assert prepare("voxceleb", root, output, "--dry_run=true") == 0
    said = capsys.readouterr().out
    assert "5 segments" in said and "CC BY 4.0" in said and "2 people" in said and not output.exists()
    assert prepare("voxceleb", root, output, "--validation_share=0") == 0
    test = packed(output / "test")
    assert [(m["identity"], len(f)) for m, f in test] == [("id10270", 10), ("id10270", 10), ("id10271", 10)]
    assert {m["dataset"] for m, _ in test} == {"voxceleb"}
    assert [round(seen(f)[2]) for f in test[1][1]] == list(range(10, 20))
    capsys.readouterr()
    assert prepare("voxceleb", root, output, "--validation_share=0") == 0
    assert "nothing was done" in capsys.readouterr().out


def test_voxceleb_by_metadata_scales_boxes_and_times(tmp_path: Path) -> None:
    root = tmp_path / "vox"
    coded_video(root / "videos/aaa.mp4", 60, fps=50)  # twice the rate of the boxes
    head = "video_id,start,end,bbox,fps,width,height,partition,person_id\n"
    lines = ["aaa,5,15,160-40-280-160,25.0,320,240,train,id1", "aaa,20,30,0-0-120-120,25.0,320,240,train,id1"]
    lines += ["bbb,0,10,0-0-9-9,25.0,320,240,test,id2", lines[0]]
    (root / "vox-metadata.csv").write_text(head + "\n".join(lines) + "\n")
    found = voxceleb.find(root)
    assert found.crop == "given" and [(s.file, s.reason) for s in found.skips] == [
        ("id2#bbb#000000#000010.mp4", "missing"),
        ("id1#aaa#000005#000015.mp4", "twice"),
    ]
    assert prepare("voxceleb", root, tmp_path / "out", "--validation_share=0") == 0
    (first, pictures), (second, others) = packed(tmp_path / "out/train")
    assert first["crop"] == {"method": "given", "box": [80, 20, 140, 80], "margin": 0.0, "detector": ""}
    assert first["times"][0] == pytest.approx(0.2) and len(first["times"]) == 10 == len(second["times"])
    x, y, number = seen(pictures[0])
    assert (x, y) == pytest.approx((110 / 160, 50 / 120), abs=0.03) and number == pytest.approx(10, abs=1)
    x, y, number = seen(others[-1])
    assert (x, y) == pytest.approx((30 / 160, 30 / 120), abs=0.03) and number == pytest.approx(58, abs=1)


@pytest.mark.parametrize("version", [1, 2])
def test_voxceleb_by_published_boxes(tmp_path: Path, version: int) -> None:
    root = tmp_path / "vox"
    coded_video(root / "videos/aaa.mp4", 60)
    unit = (3.0, 3.0) if version == 1 else (1 / 160, 1 / 120)  # pixels of a picture 360 high, or shares
    boxes = [(number, 60 * unit[0], 30 * unit[1], 40 * unit[0], 40 * unit[1]) for number in range(10, 40)]
    if version == 1:
        boxes = [(n, *(round(v) for v in rest)) for n, *rest in boxes]
    box_file(root / "txt/id10270/aaa/00001.txt", "id10270", boxes)
    box_file(root / "txt/id10001/gone/00001.txt", "id10001", boxes)
    found = voxceleb.find(root)
    assert found.crop == "face" and [s.detail for s in found.skips] == ["there is no videos/gone.mp4"]
    assert names(found) == {"id10270/aaa/00001": ("id10270", "test")}
    assert prepare("voxceleb", root, tmp_path / "out", "--margin=0.25") == 0
    clips = packed(tmp_path / "out/test")
    assert [len(f) for _, f in clips] == [10, 10, 10]
    assert (
        clips[0][0]["crop"]
        == {"method": "face", "box": [50, 16, 110, 76], "margin": 0.25, "detector": "data set"} | LOOKED
    )
    assert [m["times"][0] for m, _ in clips] == pytest.approx([0.4, 0.8, 1.2])
    assert seen(clips[0][1][0])[2] == pytest.approx(10, abs=1)


def test_both_official_test_lists_are_whole() -> None:
    tested = [f"id{number:05d}" for number in range(20000) if voxceleb.official_split(f"id{number:05d}") == "test"]
    assert len(tested) == 40 + 118 and {"id02286", "id07961", "id10270", "id10309"} <= set(tested)
    assert "id06149" not in tested


def test_voxceleb2_videos(tmp_path: Path) -> None:
    root = tmp_path / "vox"
    for place in ("dev/mp4/id00012/v/00001.mp4", "dev/mp4/id00012/w/00001.mp4", "test/mp4/id00017/v/00002.mp4"):
        coded_video(root / place, 8, 64, 64)
    assert names(voxceleb.find(root)) == {
        "dev/mp4/id00012/v/00001.mp4": ("id00012", "train"),
        "dev/mp4/id00012/w/00001.mp4": ("id00012", "train"),
        "test/mp4/id00017/v/00002.mp4": ("id00017", "test"),
    }
    shutil.move(root / "dev/mp4", root / "mp4")
    shutil.move(root / "test/mp4/id00017", root / "mp4/id00017")
    shutil.rmtree(root / "test")
    assert {s.identity: s.split for s in voxceleb.find(root).segments} == {"id00012": "train", "id00017": "test"}


def test_hdtf_by_its_text_files(tmp_path: Path) -> None:
    root = datasets.hdtf(tmp_path / "hdtf")
    found = hdtf.find(root)
    assert {s.name: s.identity for s in found.segments} == {
        "Radio1_0.mp4": "Radio1",
        "Radio1_1.mp4": "Radio1",
        "Radio2_0.mp4": "Radio2",
        "AnnLee0_0.mp4": "AnnLee",
        "AnnLee1_0.mp4": "AnnLee",
        "BobRay_0.mp4": "BobRay",
    }
    assert Counter(skip.reason for skip in found.skips) == {"not described": 2, "missing": 1}
    assert prepare("hdtf", root, tmp_path / "out", "--validation_share=0", "--test_share=0") == 0
    clips = {m["key"]: (m, f) for m, f in packed(tmp_path / "out/train")}
    assert seen(clips["Radio1_0-0000"][1][0])[:2] == pytest.approx((70 / 160, 50 / 120), abs=0.03)
    meta, pictures = clips["Radio1_1-0000"]
    assert seen(pictures[0]) == pytest.approx((30 / 160, 90 / 120, 25), abs=0.5) and meta["times"][0] == 1.0
    assert clips["AnnLee0_0-0000"][0]["crop"]["box"] == [80, 0, 140, 60], "boxes are of the resolution noted"
    assert sum(key.startswith("Radio2") for key in clips) == 5


def test_hdtf_clips_and_celebv(tmp_path: Path) -> None:
    for name in ("RD_Radio11_000.mp4", "WDA_AnnLee1_000.mp4", "WDA_AnnLee0_001.mp4"):
        coded_video(tmp_path / "clips" / name, 8, 64, 64)
    found = hdtf.find(tmp_path / "clips")
    assert found.crop == "none" and {s.identity for s in found.segments} == {"Radio11", "AnnLee"}
    root = datasets.celebv(tmp_path / "celebv")
    assert prepare("celebv", root, tmp_path / "out") == 0
    clips = packed(tmp_path / "out/test")
    assert [m["identity"] for m, _ in clips] == ["Ann", "Bob"] and not (tmp_path / "out/train").exists()
    assert [round(seen(f)[2]) for f in clips[0][1]] == list(range(10))


def test_what_is_no_data_set_is_told(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for data in data_sets().values():
        with pytest.raises(DataError, match="does not exist"):
            data.find(tmp_path / "nothing")
        with pytest.raises(DataError, match="is empty"):
            data.find(empty)
        (tmp_path / "odd").mkdir(exist_ok=True)
        (tmp_path / "odd/readme.txt").touch()
        with pytest.raises(DataError, match=r"(?s)it holds readme.txt. Expected is one of:\n  .+"):
            data.find(tmp_path / "odd")


def test_mixed_and_damaged_data_sets_are_told(tmp_path: Path) -> None:
    root = datasets.voxceleb_cropped(tmp_path / "vox")
    coded_video(root / "mp4/id00012/v/00001.mp4", 8, 64, 64)
    with pytest.raises(DataError, match="several forms of VoxCeleb at once"):
        voxceleb.find(root)
    shutil.rmtree(root / "mp4")
    coded_video(root / "test/id00012#new#000000#000008.mp4", 8, 64, 64)
    found = voxceleb.find(root)
    assert [s.name for s in found.segments if s.identity == "id00012"] == ["test/id00012#new#000000#000008.mp4"]
    assert Counter(skip.reason for skip in found.skips) == {"in the test split": 2}
    meta = tmp_path / "meta"
    coded_video(meta / "videos/aaa.mp4", 8)
    (meta / "vox-metadata.csv").write_text("video_id,start,end,bbox,fps,width,height\n")
    with pytest.raises(DataError, match="no column 'partition'"):
        voxceleb.find(meta)
    (meta / "vox-metadata.csv").write_text(
        "video_id,start,end,bbox,fps,width,height,partition\na#b,0,9,1-2-3,25,9,9,train\n"
    )
    with pytest.raises(DataError, match="line 2"):
        voxceleb.find(meta)
    head = "video_id,start,end,bbox,fps,width,height,partition"
    (meta / "vox-metadata.csv").write_text(f"{head}\naaa,36\n")
    with pytest.raises(DataError, match="line 2"):
        voxceleb.find(meta)
    boxes = tmp_path / "boxes"
    coded_video(boxes / "videos/aaa.mp4", 8)
    path = box_file(boxes / "txt/id1/aaa/1.txt", "id1", [(1, 0, 0, 9, 9)])
    path.write_text(path.read_text() + "half\ta\tline\n")
    with pytest.raises(DataError, match="is no box"):
        voxceleb.find(boxes)
    path.write_text("Identity : id1\n")
    with pytest.raises(DataError, match="no line 'FRAME X Y W H'"):
        voxceleb.find(boxes)
    shutil.rmtree(boxes / "videos")
    (boxes / "videos").mkdir()
    path.unlink()
    box_file(path, "id1", [(1, 0, 0, 9, 9)])
    with pytest.raises(DataError, match=r"nothing can be used, for example id1/aaa/1: there is no videos/aaa.mp4"):
        voxceleb.find(boxes)


def test_damaged_text_files_of_hdtf_are_told(tmp_path: Path) -> None:
    root = datasets.hdtf(tmp_path / "hdtf")
    lists = root / "HDTF_dataset"
    text = (lists / "RD_annotion_time.txt").read_text()
    (lists / "RD_annotion_time.txt").write_text(text.replace("00:01-00:02", "00:01"))
    with pytest.raises(DataError, match=r"'00:01' of Radio1 is no time"):
        hdtf.find(root)
    (lists / "RD_annotion_time.txt").write_text(text)
    (lists / "WRA_crop_wh.txt").write_text("BobRay_0.mp4 0 60\n")
    with pytest.raises(DataError, match=r"BobRay_0\.mp4 has '0 60', not four numbers"):
        hdtf.find(root)
    (lists / "WRA_crop_wh.txt").unlink()
    with pytest.raises(DataError, match=r"there is no .*WRA_crop_wh\.txt"):
        hdtf.find(root)


def test_given_crops_must_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = datasets.celebv(tmp_path / "celebv")
    assert prepare("celebv", root, tmp_path / "out", "--crop=given") == 1
    assert "say nothing of what to cut" in capsys.readouterr().err
    assert prepare("celebv", root, tmp_path / "out", "--crop=none", "--face.least=90") == 1
    assert "belongs to crops that look for faces (face, union, aligned), not to none" in capsys.readouterr().err
