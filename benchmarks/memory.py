"""How much memory a training step needs by batch size.

``python -m benchmarks.memory experiments/voxceleb256.yaml`` prints a line for each batch size. On a GPU the peak of a
step is measured; on a CPU it is counted: weights, Adam's two moments and the average last, and a step needs the
gradients and all tensors that the backward pass keeps, each storage once. It is the generator's phase with all terms
that have a weight but those whose networks are downloaded; the discriminator's own phase is not in it.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from jsonargparse import auto_cli
from torch import Tensor, nn

from sfdkit.points import PointSet
from sfdkit.train.command import build
from sfdkit.train.task import AnimationTask
from sfdkit.types import FrameBatch

MIB = 2**20


def with_points(batch: FrameBatch, of: PointSet) -> FrameBatch:
    """Return a batch with points of the face anywhere in its pictures, for the loss terms that read some."""
    rows, driving = batch["driving"].shape[:2]
    places = torch.rand(rows, 1 + driving, len(of.names), 2, device=batch["driving"].device) * 2 - 1
    return {**batch, "points": places, "point_set": of.name}


def make_batch(size: int, driving: int, resolution: int, device: torch.device) -> FrameBatch:
    """Return a batch of noise."""
    source = torch.rand(size, 3, resolution, resolution, device=device)
    frames = torch.rand(size, driving, 3, resolution, resolution, device=device)
    names = [str(number) for number in range(size)]
    return {"source": source, "driving": frames, "driving_view": frames, "key": names, "identity": names}


def lasting(task: nn.Module) -> int:
    """Return the bytes that stay between steps: weights, two moments, and the average of the animator."""
    animator = task.animator
    assert isinstance(animator, nn.Module)
    own = sum(p.numel() * p.element_size() for p in task.parameters())
    return 3 * own + sum(t.numel() * t.element_size() for t in animator.state_dict().values())


def step_bytes(task: AnimationTask, batch: FrameBatch, device: torch.device, precision: str) -> int:
    """Return the bytes that one step needs besides what lasts."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    lower = nullcontext() if precision == "32" else torch.autocast(device.type, torch.bfloat16)
    counting: Any = nullcontext()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    else:
        counting = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with counting, lower:
        made = task.take_step(batch)
        loss, _ = task.objective(made)
        if task.discriminator is not None:
            loss = loss + task.discriminator(made.image).mean()
    loss.backward()
    task.zero_grad(set_to_none=True)
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device) - before)
    weights = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in task.parameters()}
    return sum(weights.values()) + sum(size for place, size in kept.items() if place not in weights)


def memory(
    experiment: str,
    batch_sizes: list[int] | None = None,
    driving: int = 2,
    precision: str = "bf16",
    device: str = "auto",
) -> None:
    """Print the memory of a training step for each batch size.

    Args:
        experiment: Its YAML file.
        batch_sizes: Sources per batch; 2, 4, 8 and 16 by default; batch normalisation needs 2.
        driving: Driving frames of each source.
        precision: bf16 or 32.
        device: auto, cpu or cuda.
    """
    place = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu"))
    cli = build(["--config", experiment, "--trainer.logger=false", "--trainer.accelerator=auto"])
    task = cli.model
    assert isinstance(task, AnimationTask)
    task.to(place).train()
    task.objective.starts.clear()  # all terms count
    resolution, stays = task.animator.resolution, lasting(task)
    how = "measured" if place.type == "cuda" else "counted"
    print(f"{experiment}: {resolution} pixels, {precision}, {driving} driving frames a source; {how} on {place.type}")
    print(f"{'batch':>6}{'lasting MiB':>13}{'step MiB':>10}{'together GiB':>14}")
    for size in batch_sizes or [2, 4, 8, 16]:
        batch = with_points(make_batch(size, driving, resolution, place), task.points)
        step = step_bytes(task, batch, place, precision)
        print(f"{size:>6}{stays / MIB:>13.0f}{step / MIB:>10.0f}{(stays + step) / 2**30:>14.2f}")


if __name__ == "__main__":
    auto_cli(memory, as_positional=True)
