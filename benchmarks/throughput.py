"""How fast this machine loads, trains and drives: ``make bench`` or ``python -m benchmarks.throughput``.

Prints the median of several repetitions. Loading reads puppet shards that it packs first, into a temporary folder.
"""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from jsonargparse import auto_cli

from sfdkit.data.pack.commands import PackPuppets
from sfdkit.data.shards.index import load_index
from sfdkit.device import choose_device
from sfdkit.losses import Objective
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.descriptors import DescriptorLayer
from sfdkit.model.encoders import TimmEncoder
from sfdkit.model.generator import Generator
from sfdkit.model.summary import gmac_per_driven_frame, parameters
from sfdkit.puppets.clips import make_clip


def median_seconds(function: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the median time of one call, after one that does not count."""
    times = []
    for number in range(repeats + 1):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def animator_for(resolution: int) -> FaceAnimator:
    """Return the animator of experiments/base.yaml with experiments/encoder/tiny.yaml at a resolution."""
    return FaceAnimator(
        TimmEncoder("test_resnet", resolution, max_stride=16),
        DescriptorLayer(),
        Generator(resolution, detail=8),
        TimmEncoder("test_resnet", 64, max_stride=16),
    )


def throughput(resolutions: list[int] | None = None, batch: int = 16, repeats: int = 5, device: str = "auto") -> None:
    """Print clips rendered and read, frames trained and frames driven per second.

    Args:
        resolutions: Of the model; 64, 128 and 256 by default.
        batch: Driving frames per training step; a quarter as many sources.
        repeats: Repetitions, of which the median counts.
        device: auto, cpu, cuda.
    """
    place = choose_device(device)
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {place}, batch {batch}")
    seconds = median_seconds(lambda: make_clip(0, "train", 0, 16, 64), torch.device("cpu"), repeats)
    print(f"puppets at 64: {16 / seconds:.0f} frames/s")
    print(f"shards at 64, one process: {_rows_per_second(repeats):.0f} rows/s (source and driving frame)")
    print(
        f"{'resolution':>10}{'parameters':>12}{'GMAC':>8}{'train frames/s':>16}"
        f"{'driven frames/s':>17}{'latency ms':>12}"
    )
    for resolution in resolutions or [64, 128, 256]:
        print(_model_row(resolution, batch, repeats, place))


def _rows_per_second(repeats: int) -> float:
    from datamodules.puppets import PuppetsDataModule

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "shards"
        PackPuppets(
            str(root), identities=64, validation_identities=1, test_identities=1, resolution=64, frames_per_clip=12
        ).run()
        clips = sum(entry["clips"] for entry in load_index(root / "train")["shards"])
        module = PuppetsDataModule(str(root), resolution=64, batch_size=16, rows_per_clip=4)
        module.setup("fit")
        loader = module.train_dataloader()
        seconds = median_seconds(lambda: [None for _ in loader], torch.device("cpu"), repeats)
        return 4 * clips / seconds


def _model_row(resolution: int, batch: int, repeats: int, device: torch.device) -> str:
    animator = animator_for(resolution).to(device)
    objective = Objective({"l1": 1.0, "gradient": 0.5})
    optimizer = torch.optim.Adam(animator.parameters(), lr=1e-4)
    sources = torch.rand(max(1, batch // 4), 3, resolution, resolution, device=device)
    targets = torch.rand(4 * len(sources), 3, resolution, resolution, device=device)

    def step() -> None:
        result = animator.generate(animator.source_state(sources).expand(4), animator.motion(targets))
        optimizer.zero_grad()
        (objective.terms["l1"](result.image, targets) + objective.terms["gradient"](result.image, targets)).backward()
        optimizer.step()

    train = len(targets) / median_seconds(step, device, repeats)
    animator.eval()
    with torch.no_grad():
        state = animator.source_state(sources[:1])
        many = state.expand(len(targets))
        driven = len(targets) / median_seconds(
            lambda: animator.generate(many, animator.motion(targets)), device, repeats
        )
        single = median_seconds(lambda: animator.generate(state, animator.motion(targets[:1])), device, repeats)
    cost = gmac_per_driven_frame(animator)
    return f"{resolution:>10}{parameters(animator):>12,}{cost:>8.3f}{train:>16.1f}{driven:>17.1f}{1000 * single:>12.1f}"


if __name__ == "__main__":
    auto_cli(throughput, as_positional=False)
