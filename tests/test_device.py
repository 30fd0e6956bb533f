from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sfdkit.device import prepare, training_precision, training_processes
from sfdkit.evaluate.command import default_batch_size
from sfdkit.evaluate.frames import frame_batches
from sfdkit.evaluate.samples import read_samples
from sfdkit.metrics.exact import exact, place_for_exact
from tests.written import write_puppets

ROOT = Path(__file__).parent.parent


def machine(monkeypatch: pytest.MonkeyPatch, cuda: bool, bfloat16: bool = False, other: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16 and not including_emulation
    )
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: cuda or other)


@pytest.mark.parametrize(
    ("cuda", "bfloat16", "other", "flags", "precision"),
    [
        (True, True, False, "sse avx2", "bf16-mixed"),
        (True, False, False, "avx512_bf16 amx_bf16", "32-true"),  # the GPU trains, not the processor
        (False, False, True, "avx512_bf16", "32-true"),
        (False, False, False, "avx2 avx512_bf16", "bf16-mixed"),
        (False, False, False, "avx2 amx_bf16", "bf16-mixed"),
        (False, False, False, "avx2 avx512f", "32-true"),
    ],
)
def test_precision_is_that_of_what_trains(
    cuda: bool, bfloat16: bool, other: bool, flags: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, cuda, bfloat16, other)
    assert training_precision(flags) == precision


@pytest.mark.parametrize(
    ("cores", "cuda", "flags", "shared"),
    [
        (2, False, "avx2", True),
        (1, False, "avx2", False),
        (8, True, "avx2", False),
        (2, False, "avx2 avx512_bf16", False),
    ],
)
def test_cores_share_a_training_in_float32_where_there_is_no_accelerator(
    cores: int, cuda: bool, flags: str, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, cuda)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert ("cpu2.yaml" in training_processes(flags)) == shared


def test_the_makefile_asks_the_kit() -> None:
    text = (ROOT / "Makefile").read_text()
    assert "sfdkit.device precision" in text and "sfdkit.device processes" in text
    assert "/proc/cpuinfo" not in text


def test_settings_of_a_gpu_leave_products_of_matrices_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    prepare(torch.device("cpu"))
    assert not torch.backends.cudnn.benchmark
    prepare(torch.device("cuda"))
    assert torch.backends.cudnn.benchmark and torch.get_float32_matmul_precision() == "highest"


def test_float64_is_made_in_one_place() -> None:
    """Devices without it get none: what is converted is on the CPU by then."""
    found = [p.name for p in (ROOT / "sfdkit").rglob("*.py") if re.search(r"\.double\(\)", p.read_text())]
    assert found == ["exact.py"]
    order: list[str] = []

    class Far:
        def __getattr__(self, name: str) -> Callable[[], Far]:
            order.append(name)
            return lambda: self

    exact(Far())  # type: ignore[arg-type]
    assert order.index("cpu") < order.index("double")
    assert exact(torch.ones(2, requires_grad=True)).dtype == torch.float64
    assert place_for_exact(torch.device("mps")).type == "cpu" and place_for_exact(torch.device("cuda:1")).index == 1


def test_batches_of_an_evaluation_follow_device_and_resolution() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [default_batch_size(cpu, r) for r in (64, 512)] == [16, 16]
    assert [default_batch_size(cuda, r) for r in (64, 128, 256, 512)] == [128, 128, 32, 16]


@pytest.mark.parametrize("size", [1, 4, 5, 64])
def test_batches_hold_frames_of_several_clips_in_order(size: int, tmp_path: Path) -> None:
    from sfdkit.data.shards.index import load_index

    folder = write_puppets(tmp_path / "puppets", shards=(3,), frames=4)
    samples = read_samples(folder, load_index(folder), None, 2)
    batches = list(frame_batches(samples, size, torch.device("cpu")))
    assert [len(batch) for batch in batches[:-1]] == [size] * ((9 - 1) // size)
    each = [next(frame_batches([sample], 64, torch.device("cpu"))) for sample in samples]
    assert torch.equal(torch.cat(batches), torch.cat(each)) and len(torch.cat(batches)) == 9
