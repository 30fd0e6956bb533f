"""The whole way with each published data set: its official tree, shards, training, evaluation by a protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.clips import ClipsDataModule
from datamodules.voxceleb import VoxCelebDataModule
from sfdkit.cli import main
from sfdkit.errors import ShardError
from tests.datasets import box_file
from tests.running import fit
from tests.written import puppet_frames, write_video


def clip(path: Path, puppet: int, frames: int = 24, size: int = 48, canvas: bool = False) -> None:
    """Write a puppet's video; on a canvas it fills the square from (40, 20)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = puppet_frames(puppet, frames, size)
    if canvas:
        pictures = [np.pad(p, ((20, 12), (40, 8), (0, 0)), mode="edge") for p in pictures]
    write_video(path, pictures, 25)


def voxceleb(root: Path) -> None:
    for person in range(4):
        clip(root / f"train/id1000{person}#v#000000#000024.mp4", person)
    for person in range(2):
        clip(root / f"test/id1027{person}#v#000000#000024.mp4", 10 + person)


def voxceleb_boxes(root: Path) -> None:
    for number, person in enumerate(("id10001", "id10002", "id10003", "id10270", "id10271")):
        clip(root / f"videos/v{number}.mp4", number, canvas=True)
        scale = 360 / 80  # boxes are of a picture 360 high
        boxes = [(k, round(52 * scale), round(30 * scale), round(24 * scale), round(24 * scale)) for k in range(24)]
        box_file(root / f"txt/{person}/v{number}/00001.txt", person, boxes)


def hdtf(root: Path) -> None:
    names = [f"Speaker{letter}" for letter in "ABCDEFG"]
    lists = {"video_url": "{} https://youtu.be/x", "resolution": "{}.mp4 80", "annotion_time": "{}.mp4 00:00-00:01 "}
    lists |= {"crop_wh": "{}_0.mp4 40 48 20 48", "crop_ratio": ""}
    (root / "HDTF_dataset").mkdir(parents=True)
    for part, people in (("RD", names[:1]), ("WDA", names[1:5]), ("WRA", names[5:])):
        for kind, line in lists.items():
            text = "\n".join(line.format(name) for name in people)
            mark = "\ufeff" if (part, kind) == ("WDA", "video_url") else ""
            (root / f"HDTF_dataset/{part}_{kind}.txt").write_text(mark + text, encoding="utf-8")
    for number, name in enumerate(names):
        clip(root / f"videos/{name}.mp4", number, canvas=True)


def celebv(root: Path) -> None:
    for number, person in enumerate(("Ann", "Bob", "Cem")):
        (root / person / "Image").mkdir(parents=True)
        for k, picture in enumerate(puppet_frames(number, 24, 48)):
            Image.fromarray(picture).save(root / person / f"Image/{k}.jpg")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "build", "protocol"),
    [
        ("voxceleb", voxceleb, "reconstruction"),
        ("voxceleb", voxceleb_boxes, "cross"),
        ("hdtf", hdtf, "cross_best"),
    ],
    ids=["voxceleb", "voxceleb_boxes", "hdtf"],
)
def test_from_the_official_tree_to_a_table(
    tmp_path: Path, name: str, build: Callable[[Path], None], protocol: str
) -> None:
    build(tmp_path / "root")
    words = ["--resolution=32", "--frames_per_clip=8", "--min_frames=4", "--validation_share=0.34", "--test_share=0.3"]
    shards = tmp_path / "shards"
    assert main(["prepare", name, f"--root={tmp_path / 'root'}", f"--output={shards}", *words]) == 0
    files = ("base.yaml", "encoder/tiny.yaml", f"data/{name}.yaml", "trainer/auto.yaml")
    checkpoint = fit(shards, tmp_path / "run", steps=20, files=files)
    evaluate = ["evaluate", f"--checkpoint={checkpoint}", f"--shards={shards / 'test'}", f"--output={tmp_path / 'out'}"]
    evaluate += ["--device=cpu", f"--protocol={protocol}", "--keep=videos", "--cross_pairs=2", "--frames=6"]
    assert main([*evaluate, "--measure.lpips=none"]) == 0
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["evaluation/dataset"] == name and metrics["evaluation/protocol"] == protocol
    kind = "self" if protocol == "reconstruction" else "cross"
    assert len(list((tmp_path / "out/results" / kind / "generated").iterdir())) == 2
    assert ("self/psnr" in metrics) == (protocol == "reconstruction")


@pytest.mark.slow
def test_celebv_tests_a_model_of_another_data_set(tmp_path: Path) -> None:
    celebv(tmp_path / "root")
    voxceleb(tmp_path / "vox")
    words = ["--resolution=32", "--frames_per_clip=8", "--min_frames=4", "--validation_share=0.34"]
    for name, root in (("celebv", "root"), ("voxceleb", "vox")):
        assert main(["prepare", name, f"--root={tmp_path / root}", f"--output={tmp_path / name}", *words]) == 0
    files = ("base.yaml", "encoder/tiny.yaml", "data/voxceleb.yaml", "trainer/auto.yaml")
    checkpoint = fit(tmp_path / "voxceleb", tmp_path / "run", steps=20, files=files)
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("source,driving\nAnn/Image/3.jpg,Bob/Image/7.jpg\nCem/Image/0.jpg,Ann/Image/9.jpg\n")
    evaluate = ["evaluate", f"--checkpoint={checkpoint}", f"--shards={tmp_path / 'celebv/test'}", "--device=cpu"]
    evaluate += [f"--output={tmp_path / 'out'}", "--protocol=pairs", f"--pairs={pairs}", "--keep=frames"]
    assert main([*evaluate, "--measure.lpips=none"]) == 0
    assert len(list((tmp_path / "out/results/cross/generated").iterdir())) == 2


def test_shards_of_one_data_set_are_no_other(tmp_path: Path) -> None:
    voxceleb(tmp_path / "root")
    words = ["--resolution=32", "--frames_per_clip=8", "--min_frames=4"]
    assert main(["prepare", "voxceleb", f"--root={tmp_path / 'root'}", f"--output={tmp_path / 'out'}", *words]) == 0
    VoxCelebDataModule(str(tmp_path / "out"), 32).shards("train")
    ClipsDataModule(str(tmp_path / "out"), 32).shards("train")
    from datamodules.hdtf import HDTFDataModule

    with pytest.raises(ShardError, match="are of data set 'voxceleb'"):
        HDTFDataModule(str(tmp_path / "out"), 32).shards("train")
