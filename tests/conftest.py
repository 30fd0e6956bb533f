from __future__ import annotations

import os

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # no test downloads weights, or waits for the attempt to fail
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # processes that share the machine, and so do theirs
    threads = max(1, torch.get_num_threads() // int(workers))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    torch.set_num_threads(threads)


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs, on which figures differ in their last digits, from all tests but those that are for them."""
    if config.option.markexpr != "gpu":
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
