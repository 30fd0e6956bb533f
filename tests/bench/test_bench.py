"""The benchmarks measure what they say; how fast anything is, no test asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sfdkit.bench.inference import DRIVEN, BenchInference
from sfdkit.bench.machine import Roofline, measure_roofline
from sfdkit.bench.pipeline import BenchPipeline
from sfdkit.bench.timing import Spread, ratios, time_in_turn
from sfdkit.bench.training import BenchTraining
from sfdkit.cli import main
from sfdkit.errors import ConfigError
from sfdkit.export.write import export_animator
from sfdkit.losses.perceptual import PerceptualLoss
from sfdkit.model.summary import cost_per_driven_frame
from tests.running import EXPERIMENTS, make_data
from tests.written import lively_animator, puppet_frames, write_checkpoint, write_video


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and the folder exported from it."""
    folder = tmp_path_factory.mktemp("models")
    animator = lively_animator().requires_grad_(False)
    write_checkpoint(folder / "last.ckpt", animator)
    export_animator(animator, folder / "exported")
    return folder


def test_stages_take_turns_and_warm_up_does_not_count() -> None:
    called: list[str] = []
    stages = [{"x": lambda: called.append("ax"), "y": lambda: called.append("ay")}, {"x": lambda: called.append("bx")}]
    one, other = time_in_turn(stages, repeats=2, warm_up=1)
    assert called == ["ax", "ay", "bx", "bx", "ax", "ay", "ax", "ay", "bx"]
    assert [len(times) for times in (*one.values(), *other.values())] == [2, 2, 2]
    assert list(ratios(one, other)) == ["x"]


def test_ratios_are_of_rounds_and_spread_is_of_quartiles() -> None:
    found = ratios({"x": [1.0, 2.0, 4.0]}, {"x": [2.0, 4.0, 16.0], "y": [1.0]})
    assert found == {"x": Spread(2.0, 2.0, 3.0)}
    assert Spread.of([5.0, 1.0, 2.0, 3.0, 4.0]) == Spread(3.0, 2.0, 4.0)


def test_the_roofline_is_the_higher_of_two_bounds() -> None:
    roofline = Roofline(flops=1e9, bandwidth=1e6)
    assert roofline.seconds(gmac=2.0, moved=1e6) == 4.0
    assert roofline.seconds(gmac=0.1, moved=3e6) == 3.0
    measured = measure_roofline(torch.device("cpu"), torch.float32)
    assert measured.flops > 1e8 and measured.bandwidth > 1e7


def test_the_cost_counts_products_and_what_they_read_and_write() -> None:
    cost = cost_per_driven_frame(lively_animator())
    weights = sum(p.numel() * 4 for p in lively_animator().generator.parameters())
    assert 0 < cost.gmac < 1 and cost.moved > weights


def test_inference_of_a_checkpoint_and_its_export_in_turn(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"bench inference --animator {models}/last.ckpt --compare {models}/exported --repeats 2 --warm_up 0"
    assert main([*words.split(), "--batch_size", "2", "--device", "cpu", "--output", str(tmp_path / "b.json")]) == 0
    report = json.loads((tmp_path / "b.json").read_text())
    one, other = report["animators"]
    parts = ["detect", "crop", "source", "motion", "render", DRIVEN, "write"]
    assert report["schema"] == "sfdkit.bench/1" and report["kind"] == "inference"
    assert list(one["seconds"]) == list(other["seconds"]) == list(report["ratios"]) == parts
    assert one["frames_per_second"] == pytest.approx(2 / one["seconds"][DRIVEN]["median"])
    assert one["gmac"] == other["gmac"] > 0 and one["psnr_to_float32"] is None
    assert other["psnr_to_float32"] is None or other["psnr_to_float32"] > 60
    assert {"device", "name", "threads", "torch", "sfdkit", "python"} <= set(report["machine"])
    assert report["peak_memory_mb"] > 10
    out = capsys.readouterr().out
    assert "driven frames/s" in out
    assert f"{models}/exported takes, in turn with {models}/last.ckpt, times as long" in out


def test_lower_precision_tells_what_it_costs(models: Path) -> None:
    command = BenchInference(
        animator=str(models / "last.ckpt"), precision="bfloat16", repeats=1, warm_up=0, device="cpu"
    )
    (figures,) = command.run()
    assert figures["precision"] == "bfloat16" and 20 < figures["psnr_to_float32"] < 100


def test_pipeline_goes_from_file_to_file(models: Path, tmp_path: Path) -> None:
    output, clip = str(tmp_path / "b.json"), str(write_video(tmp_path / "clip.mp4", puppet_frames(0, 9)))
    options = {"driving": clip, "crop": "none", "repeats": 1, "device": "cpu", "output": output}
    figures = BenchPipeline(animator=str(models / "last.ckpt"), **options).run()
    parts = {name: spread["median"] for name, spread in figures["seconds"].items()}
    assert set(parts) == {"find face", "source", "decode, crop", "motion", "render", "write", "all"}
    assert figures["frames"] == 9 and sum(parts.values()) - parts["all"] <= parts["all"] * 1.001
    assert json.loads(Path(output).read_text())["animators"] == [figures]


def test_training_is_split_into_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[int] = []
    judge = PerceptualLoss.forward
    monkeypatch.setattr(PerceptualLoss, "forward", lambda term, *of: judged.append(len(of[0])) or judge(term, *of))
    data = make_data(tmp_path / "data")
    common = [f"--data.init_args.root={data}", "--data.init_args.resolution=32", "--data.init_args.num_workers=0"]
    common += ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=32-true"]
    common += [f"--model.weights.{name}=0" for name in ("points", "parts")]
    command = BenchTraining(
        experiment=str(EXPERIMENTS / "quickstart.yaml"),
        options=[*common, "--data.init_args.batch_size=2"],
        compare_options=["--data.init_args.batch_size=3"],
        steps=2,
        blocks=1,
        warm_up=1,
        output=str(tmp_path / "b.json"),
    )
    one, other = command.run()
    report = json.loads((tmp_path / "b.json").read_text())
    assert (one["targets_per_step"], other["targets_per_step"]) == (4, 6)
    seconds = {name: spread["median"] for name, spread in one["seconds"].items()}
    assert list(seconds) == ["wait for data", "forward", "loss terms", "backward", "rest", "step"]
    assert min(seconds.values()) > 0 and seconds["forward"] + seconds["backward"] < seconds["step"]
    assert judged == [2, 2, 2, 3, 3, 3], "terms with a network count, for one result of each source"
    assert report["ratios"]["step"]["median"] > 0 and np.isfinite(report["peak_memory_mb"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": "b.csv"}, r"output: b\.csv has the suffix '\.csv'; use \.json"),
        ({"animator": "exported", "precision": "bfloat16"}, r"precision: .*exported has its own; export with --half"),
        ({"animator": "exported", "compile": True}, r"compile: ONNX Runtime runs .*exported; leave it out"),
    ],
)
def test_what_cannot_be_measured_is_said_at_once(models: Path, options: dict[str, Any], words: str) -> None:
    given = {"animator": "last.ckpt", **options}
    with pytest.raises(ConfigError, match=words):
        BenchInference(**(given | {"animator": str(models / given["animator"])}), device="cpu").run()
