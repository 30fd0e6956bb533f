from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType

from benchmarks import gpu, gpu_parts
from benchmarks.gpu_parts import PARTS, Plan, make_task, published_peak, train
from sfdkit.train.task import AnimationTask


@pytest.mark.parametrize(
    ("name", "bf16", "tf32"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0, 495.0),
        ("NVIDIA H100 PCIe", 756.0, 378.0),
        ("NVIDIA H200", 989.0, 495.0),
        ("NVIDIA A100-SXM4-80GB", 312.0, 156.0),
        ("NVIDIA L4", 121.0, 60.0),
        ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
        ("NVIDIA L40S", 362.0, 183.0),
        ("Tesla T4", None, None),
    ],
)
def test_peaks_are_found_by_name(name: str, bf16: float | None, tf32: float | None) -> None:
    assert (published_peak(name, "bf16"), published_peak(name, "tf32")) == (bf16, tf32)


@pytest.mark.slow
def test_a_step_that_is_timed_teaches_the_model_and_the_heads_of_terms(tmp_path: Path) -> None:
    made: list[AnimationTask] = []

    def keep(*arguments: Any) -> AnimationTask:
        made.append(make_task(*arguments))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_parts, "make_task", keep)
        step = gpu_parts.training_step(32, 4, "bf16", False, Plan(torch.device("cpu"), 60, tmp_path, 0))
    (task,) = made
    before = [parameter.detach().clone() for parameter in task.learners.parameters()]
    step()
    moved = [not torch.equal(old, new) for old, new in zip(before, task.learners.parameters(), strict=True)]
    assert sum(moved) > 0.7 * len(moved) and moved[-1], "the last are those of the points head"


def test_without_a_gpu_one_line_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no GPU is visible to torch" in line and "--device cpu --minutes 1" in line


def test_what_fails_is_noted_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, float]] = []

    def child(name: str, device: str, limit: float, folder: Path) -> dict[str, Any]:
        written = json.loads((folder / "results.json").read_text())["parts"] if asked else {}
        assert list(written) == [n for n, _ in asked], "the figures are written after each part"
        asked.append((name, limit))
        broken = name == "drive"
        return {"seconds": 1.0, "problem": "ended with status 1: no memory" * broken, "rows": [{"a": 1.5, "b": name}]}

    monkeypatch.setattr(gpu, "run_child", child)
    assert gpu.main(["--device", "cpu", "--minutes", "2", "--output", str(tmp_path)]) == 1
    assert [name for name, _ in asked] == list(gpu.ORDER)
    assert sum(limit for _, limit in asked) <= 3 * 120 and max(limit for _, limit in asked) <= 120
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["parts"]["drive"]["problem"] and not found["parts"]["puppets"]["problem"]
    shown = capsys.readouterr().out
    assert "no memory" in shown and "look at drive" in shown
    assert gpu.main(["--device", "cpu", "--only", "peak", "--output", str(tmp_path)]) == 0


def test_a_part_that_cannot_start_is_told_by_its_last_line(tmp_path: Path) -> None:
    found = gpu.run_child("nothing", "cpu", 30.0, tmp_path)
    assert "invalid choice" in found["problem"] and found["rows"] == []


def test_a_gpu_that_is_named_is_the_only_one_that_the_parts_see(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []

    def start(command: list[str], env: dict[str, str], **_: Any) -> None:
        started.append((command, env))
        raise OSError

    monkeypatch.setattr(gpu.subprocess, "Popen", start)
    seen = []
    for device, visible in (("cuda", "4,7"), ("cuda:1", "4,7"), ("cuda:1", "")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with pytest.raises(OSError):
            gpu.run_child("peak", device, 1.0, tmp_path)
        command, environment = started[-1]
        seen.append((command[command.index("--device") + 1], environment["CUDA_VISIBLE_DEVICES"]))
    assert seen == [("cuda", "4,7"), ("cuda", "7"), ("cuda", "1")]


def test_a_part_takes_a_gpu_without_a_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(PARTS, "peak", (0.1, lambda plan: iter([{"device": str(plan.device)}])))
    assert gpu.main(["--part", "peak", "--device", "cuda", "--until", "0", "--output", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "peak.json").read_text()) == [{"device": "cuda"}]


def test_shares_make_a_whole() -> None:
    assert set(PARTS) == set(gpu.ORDER)
    assert sum(share for share, _ in PARTS.values()) == pytest.approx(1)


def test_a_training_that_fails_leaves_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("out of memory\nlong explanation")

    monkeypatch.setattr("benchmarks.gpu_parts.training_step", broken)
    rows = list(train(Plan(torch.device("cpu"), 1.0, tmp_path, 0.0)))
    assert [row["failed"] for row in rows][:2] == ["OutOfMemoryError: out of memory"] * 2


def test_rows_of_one_kind_share_a_table() -> None:
    shown = gpu.table([{"a": 1, "b": 2.0}, {"a": 3, "b": 4.0, "failed": "why"}, {"c": 5}])
    assert [line.split() for line in shown.splitlines()] == [
        ["a", "b", "failed"],
        ["1", "2"],
        ["3", "4", "why"],
        ["c"],
        ["5"],
    ]


def test_a_gpu_works_on_kernels_and_not_on_what_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the events of a step those on the GPU count, without the ranges that somebody named."""
    launch = SimpleNamespace(device_type=DeviceType.CPU, self_device_time_total=700.0, is_user_annotation=False)
    kernel = SimpleNamespace(device_type=DeviceType.CUDA, self_device_time_total=1500.0, is_user_annotation=False)
    named = SimpleNamespace(device_type=DeviceType.CUDA, self_device_time_total=9000.0, is_user_annotation=True)
    events = [launch, kernel, named, kernel]
    called: list[str] = []
    monkeypatch.setattr(gpu_parts, "profile", lambda activities: nullcontext(SimpleNamespace(events=lambda: events)))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: called.append("waited"))
    found = gpu_parts.device_work(lambda: called.append("step"), torch.device("cuda"))
    assert found == {"busy_ms": 3.0, "launches": 2} and called == ["step", "waited"]
    assert gpu_parts.device_work(lambda: called.append("step"), torch.device("cpu")) == {} and len(called) == 2


def test_compiling_begins_at_256_after_the_eager_cases_and_only_while_time_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfdkit.device.prepare", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L4")
    now = [0.0]
    monkeypatch.setattr(gpu_parts.time, "monotonic", lambda: now[0])

    def case(plan: Plan, row: dict[str, Any], operations: dict[int, float]) -> dict[str, Any]:
        now[0] += 40.0 if row["generator"] == "compiled" else 10.0
        operations[row["resolution"]] = 1.0
        return {"tflops": 1.0}

    monkeypatch.setattr(gpu_parts, "_train_case", case)
    rows = list(train(Plan(torch.device("cuda"), 290.0, tmp_path, 0.0)))
    assert [row["generator"] for row in rows[:13]] == [*["eager"] * 12, "compiled"]
    assert (rows[12]["resolution"], rows[12]["precision"]) == (256, "bf16")
    assert [(row["resolution"], row["sources"]) for row in rows[2:8:2]] == [(256, 16), (64, 512), (256, 128)]
    assert [row.get("failed") for row in rows] == [*[None] * 14, *["no time left"] * 6]
    assert now[0] <= 290.0
