"""Protocols of the field: which frames drive which, and what is kept."""

from __future__ import annotations

import copy
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm

from sfdkit.cli import main
from sfdkit.data.shards.decode import decode_frames
from sfdkit.data.shards.index import load_index
from sfdkit.errors import ConfigError, DataError
from sfdkit.evaluate.command import evaluate
from sfdkit.evaluate.frames import Frames, Pictures, load_frames
from sfdkit.evaluate.networks import Networks
from sfdkit.evaluate.plan import add_best_frames, draw_pairs, plan_protocol
from sfdkit.evaluate.run import drive, reenact
from sfdkit.evaluate.samples import Pair, Sample, Video, read_videos
from sfdkit.face_networks.types import MeasureSettings
from sfdkit.media.video_reader import probe
from sfdkit.metrics.image import frame_psnr
from tests import datasets
from tests.datasets import seen as seen_in
from tests.written import lively_animator, write_checkpoint

NOTHING = MeasureSettings(regressor="none", lpips="none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VoxCeleb in small: five videos of 12 or 20 frames in clips of 8, all of them for the test."""
    place = tmp_path_factory.mktemp("protocols")
    root = datasets.voxceleb_cropped(place / "vox")
    for path in list((root / "train").iterdir()):
        path.rename(root / "test" / path.name)
    sizes = ["--resolution=32", "--frames_per_clip=8", "--min_frames=2"]
    assert main(["prepare", "voxceleb", f"--root={root}", f"--output={place / 'shards'}", *sizes]) == 0
    write_checkpoint(place / "model.ckpt", lively_animator())
    return place


@pytest.fixture(scope="module")
def videos(folder: Path) -> list[Video]:
    return read_videos(folder / "shards/test", load_index(folder / "shards/test"))


def numbers(sample: Sample) -> list[int]:
    """Which frames a sample holds, as their pictures say."""
    pictures = decode_frames(sample.clip, range(len(sample.chosen))).permute(0, 2, 3, 1).numpy()
    return [round(seen_in(picture)[2]) for picture in pictures]


def test_clips_of_a_video_are_put_together_again(videos: list[Video]) -> None:
    assert [(v.identity, len(v.clips), len(v.times)) for v in videos] == [
        ("id00012", 3, 20),
        ("id00012", 3, 20),
        ("id00015", 3, 20),
        ("id10270", 3, 20),
        ("id10271", 2, 12),
    ]
    sample = videos[0].sample([0, 3, 9, 19, 8])
    assert numbers(sample) == [0, 3, 9, 19, 8] and sample.chosen == [0, 3, 9, 19, 8]
    assert len(sample.clip["meta"]["times"]) == 20
    assert videos[0].number(17) == 17 and videos[0].number(25) is None


def test_frames_are_named_by_their_number_in_the_video(videos: list[Video]) -> None:
    clips = copy.deepcopy(videos[0].clips)
    for clip in clips:
        clip["meta"]["numbers"] = [2 * number + 1 for number in clip["meta"]["numbers"]]
    halved = videos[0]._replace(clips=clips)
    assert halved.number(9) == 4 and halved.number(8) is None
    del clips[1]["meta"]["numbers"]
    with pytest.raises(DataError, match="does not say which frames of its video it holds"):
        halved.number(9)


def test_videos_of_one_name_are_told_apart_by_their_folders(videos: list[Video], tmp_path: Path) -> None:
    alike = [videos[0]._replace(name="Ann/Image"), videos[3]._replace(name="Bob/Image")]
    path = tmp_path / "list.csv"
    path.write_text("source,driving\n/data/Bob/Image/3.jpg,/data/Ann/Image/5.jpg\n")
    (pair,) = plan_protocol("pairs", alike, 0, 0, None, str(path)).cross_pairs
    assert pair.source.identity == videos[3].identity and numbers(pair.driver)[1:] == [5]
    path.write_text("source,driving\nImage/3.jpg,Ann/Image/5.jpg\n")
    with pytest.raises(DataError, match=r"Image/3\.jpg may be Ann/Image or Bob/Image"):
        plan_protocol("pairs", alike, 0, 0, None, str(path))


def test_reconstruction_drives_frame_0_by_all(videos: list[Video]) -> None:
    plan = plan_protocol("reconstruction", videos, 9, 0, None, None)
    assert not plan.cross_pairs and len(plan.self_pairs) == 5 and all(p.source is p.driver for p in plan.self_pairs)
    assert numbers(plan.self_pairs[4].source) == [0, *range(12)]
    assert numbers(plan_protocol("reconstruction", videos, 9, 0, 4, None).self_pairs[0].source) == [0, 0, 6, 13, 19]


def test_long_videos_are_measured_piece_by_piece(videos: list[Video], monkeypatch: pytest.MonkeyPatch) -> None:
    animator, plan = lively_animator(), plan_protocol("reconstruction", videos, 9, 0, None, None)
    shown: list[tuple[Pair, Pictures]] = []
    networks = Networks()
    whole = reenact(animator, plan.self_pairs, 32, networks, "self")
    monkeypatch.setattr("sfdkit.evaluate.run._PIECE", 3)
    pieces = reenact(animator, plan.self_pairs, 2, networks, "self", [lambda *given: shown.append(given)])
    by_key = {row.pair.source.clip["key"]: row.values for row in whole.rows}
    assert len(pieces.rows) == 5 == len(shown)
    for row in pieces.rows:
        assert row.values == pytest.approx(by_key[row.pair.source.clip["key"]], rel=1e-4)
    pair, (result, driving, truth) = shown[-1]
    assert len(result) == len(driving) == len(pair.driver.chosen) - 1 and torch.equal(driving, truth)
    made = drive(animator, load_frames([pair], torch.device("cpu")), 4).image
    assert torch.allclose(made, result, atol=1e-5)
    wanted = float(frame_psnr(result, driving).mean())
    assert pieces.rows[-1].values["psnr"] == pytest.approx(wanted, rel=1e-4)


def test_cross_drives_by_all_frames_of_another_person(videos: list[Video]) -> None:
    plan = plan_protocol("cross", videos, 6, 3, None, None)
    assert len(plan.cross_pairs) == 6 and not plan.self_pairs and not plan.best
    for pair in plan.cross_pairs:
        assert pair.source.identity != pair.driver.identity and pair.start is None
        assert numbers(pair.source)[0] == 0 and numbers(pair.driver)[1:] == list(range(len(pair.driver.chosen) - 1))
    again = plan_protocol("cross", videos, 6, 3, None, None)
    assert [p.driver.clip["key"] for p in again.cross_pairs] == [p.driver.clip["key"] for p in plan.cross_pairs]
    assert plan_protocol("cross_best", videos, 2, 3, None, None).best


def test_pairs_come_from_lists_of_frames(videos: list[Video], tmp_path: Path) -> None:
    one, other, third = (
        "id00012#abc#000010#000030.mp4",
        "id10270#tst#000000#000020.mp4",
        "id10271#png#000000#000012.mp4",
    )
    rows = [
        (
            f"/data/vox/test/{one}/0000017.png",
            f"/data/vox/test/{other}/0000009.png",
            f"/data/vox/test/{other}/0000004.png",
        ),
        (f"{one}/0000001.png", f"{one}/0000005.png", ""),
        (one, third, ""),
        ("id999#gone#0#9.mp4/0000001.png", f"{one}/0000005.png", ""),
        (f"{one}/0000077.png", f"{other}/0000005.png", ""),
    ]
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("source", "driving", "best_frame"), *rows])
    plan = plan_protocol("pairs", videos, 0, 0, None, str(path))
    relative, whole = plan.cross_pairs
    assert numbers(relative.source)[0] == 17 and numbers(relative.driver)[1:] == [9]
    assert relative.start is not None and numbers(relative.start)[0] == 4 and relative.start.identity == "id10270"
    assert numbers(whole.source)[0] == 0 and numbers(whole.driver)[1:] == list(range(12)) and whole.start is None
    (own,) = plan.self_pairs
    assert own.is_self and numbers(own.source) == [1, 5]


def test_relative_motion_starts_at_the_best_frame(videos: list[Video]) -> None:
    animator = lively_animator()
    plan = plan_protocol("cross_best", videos, 1, 0, None, None)
    (found,) = add_best_frames(animator, plan, None, 3).cross_pairs
    frames = load_frames([found], torch.device("cpu"))
    assert frames.start is not None
    with torch.no_grad():
        own, moving = animator.motion(frames.source), animator.motion(frames.driving[0])
        best = int((moving - own).norm(dim=1).argmin())
        assert torch.equal(frames.start[0], frames.driving[0, best])
        state = animator.source_state(frames.source)
        wanted = animator.generate(state.expand(len(moving)), own + moving - moving[best]).image.clamp(0, 1)
    made = drive(animator, frames, 8).image
    assert torch.allclose(made, wanted, atol=1e-5)
    late = Frames(frames.source, frames.driving, frames.driving[:, -1])
    assert not torch.allclose(made, drive(animator, late, 8).image, atol=1e-3)


@pytest.mark.parametrize("form", ["videos", "frames"])
def test_evaluate_follows_a_protocol_and_keeps_results(folder: Path, tmp_path: Path, form: str) -> None:
    words = ["evaluate", f"--checkpoint={folder / 'model.ckpt'}", f"--shards={folder / 'shards/test'}", "--device=cpu"]
    words += [f"--output={tmp_path}", "--measure.regressor=none", "--measure.lpips=none", "--sheet_rows=1"]
    assert main([*words, "--protocol=reconstruction", f"--keep={form}", "--frames=5"]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["evaluation/protocol"] == "reconstruction" and "cross/psnr" not in metrics
    with (tmp_path / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 and {row["kind"] for row in rows} == {"self"}
    assert np.mean([float(row["psnr"]) for row in rows]) == pytest.approx(metrics["self/psnr"], rel=1e-5)
    sides = [sorted(p.name for p in (tmp_path / "results/self" / side).iterdir()) for side in ("generated", "truth")]
    assert sides[0] == sides[1] and len(sides[0]) == 5
    first = tmp_path / "results/self/truth" / sides[0][0]
    if form == "videos":
        assert probe(first).frames == 5
    else:
        pictures = sorted(first.iterdir())
        assert [p.name for p in pictures] == [f"{k:07d}.png" for k in range(5)]
        assert round(seen_in(np.asarray(Image.open(pictures[-1])))[2]) == 19


def test_cross_results_of_real_faces_are_kept_beside_their_driver(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {"device": "cpu", "measure": NOTHING, "sheet_rows": 1, "cross_pairs": 2, "frames": 3}
    model, shards = str(folder / "model.ckpt"), str(folder / "shards/test")
    metrics = evaluate(model, shards, str(tmp_path), protocol="cross_best", keep="frames", **arguments)
    assert metrics["evaluation/protocol"] == "cross_best"
    printed = capsys.readouterr().out
    assert "0 clips, 0 pairs with truth, 2 without; wrote report.html" in printed and "PSNR" not in printed
    assert sorted(p.name for p in (tmp_path / "results/cross").iterdir()) == ["driving", "generated"]
    assert len(list((tmp_path / "results/cross/generated").iterdir())) == 2


def test_lists_that_cannot_be_used_are_told(videos: list[Video], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="belongs to --protocol pairs"):
        plan_protocol("pairs", videos, 0, 0, None, None)
    with pytest.raises(ConfigError, match="belongs to --protocol pairs"):
        plan_protocol("cross", videos, 0, 0, None, "list.csv")
    with pytest.raises(DataError, match="cannot read"):
        plan_protocol("pairs", videos, 0, 0, None, str(tmp_path / "gone.csv"))
    path = tmp_path / "list.csv"
    path.write_text("source,driver\na,b\n")
    with pytest.raises(DataError, match="no column 'driving'"):
        plan_protocol("pairs", videos, 0, 0, None, str(path))
    path.write_text("source,driving\nother.mp4,another.mp4\n")
    with pytest.raises(DataError, match=r"none of the 1 pairs .* for example other\.mp4"):
        plan_protocol("pairs", videos, 0, 0, None, str(path))
    path.write_text("source,driving\n")
    with pytest.raises(DataError, match="holds no pair"):
        plan_protocol("pairs", videos, 0, 0, None, str(path))


def test_sets_are_compared_by_a_feature_network(folder: Path, tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    torch.jit.script(net).save(str(tmp_path / "net.pt"))
    measure = MeasureSettings(regressor="none", lpips="none", features=str(tmp_path / "net.pt"))
    model, shards = str(folder / "model.ckpt"), str(folder / "shards/test")
    metrics = evaluate(
        model, shards, str(tmp_path), protocol="reconstruction", measure=measure, device="cpu", sheet_rows=1
    )
    assert metrics["self/fid_frames"] == 92 and "cross/fid" not in metrics and "self/kid" not in metrics
    pairs = plan_protocol("reconstruction", read_videos(shards, load_index(shards)), 0, 0, None, None).self_pairs
    results, truths = [], []
    reenact(
        lively_animator(),
        pairs,
        16,
        Networks(),
        "self",
        [lambda _, p: (results.append(p.result), truths.append(p.truth))],
    )
    x, y = (
        net(torch.nn.functional.interpolate(torch.cat(p), (299, 299), mode="bilinear") * 2 - 1)
        for p in (truths, results)
    )
    x, y = x.double().numpy(), y.double().numpy()
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    wanted = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert metrics["self/fid"] == pytest.approx(wanted, rel=1e-2)


@pytest.mark.slow
def test_two_processes_measure_what_one_does(folder: Path, tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    torch.jit.script(net).save(str(tmp_path / "net.pt"))
    words = ["evaluate", f"--checkpoint={folder / 'model.ckpt'}", f"--shards={folder / 'shards/test'}", "--device=cpu"]
    words += ["--measure.regressor=none", "--measure.lpips=none", f"--measure.features={tmp_path / 'net.pt'}"]
    words += ["--sheet_rows=1", "--protocol=cross_best", "--keep=frames", "--cross_pairs=7", "--batch_size=8"]
    assert main([*words, f"--output={tmp_path / 'one'}"]) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "sfdkit"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, *words, f"--output={tmp_path / 'two'}"], env=environment, check=True, timeout=300)
    one, two = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("one", "two"))
    assert one["cross/fid_frames"] == two["cross/fid_frames"] >= 100 and set(one) == set(two)
    assert two.pop("cross/kid") == pytest.approx(one.pop("cross/kid"), rel=0.2)  # of other subsets
    for name in set(one) - {"evaluation/seconds"}:
        assert two[name] == (pytest.approx(one[name], rel=1e-3) if isinstance(one[name], float) else one[name]), name
    rows = [(tmp_path / run / "pairs.csv").read_text().splitlines() for run in ("one", "two")]
    assert [row.split(",")[:4] for row in rows[0]] == [row.split(",")[:4] for row in rows[1]] and len(rows[0]) == 8
    kept = [sorted(p.relative_to(tmp_path / run) for p in (tmp_path / run).rglob("*.png")) for run in ("one", "two")]
    assert kept[0] == kept[1] and len(kept[0]) > 20


def test_pairs_are_of_two_people_seeded_and_without_repetition() -> None:
    names = ["a", "b", "a", "c", "b", "d"]
    every = {(i, j) for i in range(6) for j in range(6) if names[i] != names[j]}
    assert set(draw_pairs(names, 1000, 0)) == every
    assert len(draw_pairs(names, 1000, 0)) == len(every)
    some = draw_pairs(names, 7, 4)
    assert len(set(some)) == 7 and set(some) <= every
    assert some == draw_pairs(names, 7, 4) != draw_pairs(names, 7, 5)
    assert draw_pairs(["a", "a"], 5, 0) == [] == draw_pairs([], 5, 0)


def test_all_pairs_are_equally_likely() -> None:
    names = ["a", "a", "b", "c"]
    counts: dict[tuple[int, int], int] = {}
    for seed in range(2000):
        (pair,) = draw_pairs(names, 1, seed)
        counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == 10
    assert min(counts.values()) > 150 and max(counts.values()) < 255  # 200 expected, deviation 13
