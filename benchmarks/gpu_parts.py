"""What ``python -m benchmarks.gpu`` measures: each function is one part, run in a process of its own.

A part gives rows as it goes, so that what was measured stays when its time is over.

Legend: ``B`` sources of a step, ``K`` driving frames of each.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from sfdkit.device import wait_for

ROOT = Path(__file__).parent.parent
Row = dict[str, Any]

PEAKS = {
    "H200": (989.0, 495.0),
    "GH200": (989.0, 495.0),
    "H100 PCIE": (756.0, 378.0),
    "H100 NVL": (835.0, 418.0),
    "H100": (989.0, 495.0),
    "H800": (989.0, 495.0),
    "B200": (2250.0, 1125.0),
    "A100": (312.0, 156.0),
    "A800": (312.0, 156.0),
    "A10": (125.0, 62.5),
    "A40": (149.7, 74.8),
    "L40S": (362.0, 183.0),
    "L40": (181.0, 90.5),
    "L4": (121.0, 60.0),
    "RTX A6000": (154.8, 77.4),
    "RTX 6000 ADA": (364.2, 182.1),
    "RTX 5090": (209.5, 104.8),
    "RTX 4090": (165.2, 82.6),
    "RTX 4080": (97.5, 48.7),
    "RTX 3090": (71.0, 35.6),
}
"""Name to dense TFLOP/s in bfloat16 and in TF32, from the makers' data sheets; the longest name that fits counts."""

COMPILING = 120.0
"""Seconds that a compiled generator takes at most before it can be measured: more than 60 on one of two hosts."""
SOURCES = {32: 2, 64: 64, 128: 32, 256: 16, 512: 4}
"""B of a training step by resolution."""
LARGER = 8
"""Times as many sources as usual, which fill a large GPU."""
DRIVING = 2
"""K."""


class Plan(NamedTuple):
    """What a part is given."""

    device: torch.device
    seconds: float
    """For all of it."""
    folder: Path
    """For what it writes."""
    began: float

    @property
    def rehearsal(self) -> bool:
        """Whether this is a trial without a GPU, of tiny sizes."""
        return self.device.type == "cpu"

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.seconds - (time.monotonic() - self.began)

    @property
    def resolutions(self) -> list[int]:
        """Pixels of the models that are measured."""
        return [32] if self.rehearsal else [64, 128, 256, 512]


def published_peak(name: str, precision: str) -> float | None:
    """Return the dense TFLOP/s of a GPU in ``bf16`` or ``tf32``; None for one that is not in the table."""
    words = set(re.split(r"[\s-]+", name.upper()))
    fitting = [known for known in PEAKS if set(known.split()) <= words]
    return PEAKS[max(fitting, key=len)][precision == "tf32"] if fitting else None


def seconds_each(run: Callable[[], object], device: torch.device, seconds: float, least: int = 3) -> float:
    """Return the mean time of calls that follow each other without waiting, over about so many seconds."""
    run()
    wait_for(device)
    start = time.perf_counter()
    run()
    wait_for(device)
    count = max(least, min(1000, int(seconds / max(1e-6, time.perf_counter() - start))))
    start = time.perf_counter()
    for _ in range(count):
        run()
    wait_for(device)
    return (time.perf_counter() - start) / count


def device_work(step: Callable[[], object], device: torch.device) -> Row:
    """Return how long the GPU works in one call, and on how many kernels, copies and fills; nothing on a CPU.

    A step that takes much longer than its GPU works waits for the CPU to launch the next kernel.
    """
    if device.type != "cuda":
        return {}
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        step()
        wait_for(device)
    on_device = [event for event in profiled.events() if event.device_type == DeviceType.CUDA]
    work = [event.self_device_time_total for event in on_device if not event.is_user_annotation]
    return {"busy_ms": round(sum(work) / 1000, 2), "launches": len(work)}


def peak(plan: Plan) -> Iterator[Row]:
    """Measure products of large matrices, which no network is faster than."""
    size = 256 if plan.rehearsal else 8192
    for precision, dtype in (("bf16", torch.bfloat16), ("tf32", torch.float32)):
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        a, b = (torch.randn(size, size, device=plan.device).to(dtype) for _ in range(2))
        taken = seconds_each(lambda a=a, b=b: a @ b, plan.device, min(2.0, plan.seconds / 8))  # type: ignore[misc]
        name = torch.cuda.get_device_name(plan.device) if plan.device.type == "cuda" else "cpu"
        yield {
            "precision": precision,
            "measured_tflops": round(2 * size**3 / taken / 1e12, 3),
            "published_tflops": published_peak(name, precision),
        }


def tests(plan: Plan) -> Iterator[Row]:
    """Run the tests that are marked gpu; each is told of when it has ended, and at the end why some failed.

    Raises:
        RuntimeError: pytest itself failed.
    """
    environment = {**os.environ, "SFDKIT_TEST_DEVICE": plan.device.type}
    options = ["-m", "gpu", "-vv", "-rfEs", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "tests/test_gpu.py", *options]
    if plan.rehearsal:
        command += ["-k", "augmentation or average or basis"]
    since = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            if ended := re.match(r"\S+::(.+?) (PASSED|FAILED|ERROR|SKIPPED)", line):
                now = time.monotonic()
                yield {"test": ended[1], "result": ended[2].lower(), "seconds": round(now - since, 1)}
                since = now
            elif why := re.match(r"(?:FAILED|ERROR) \S+?::(.+?) - (.+)|(SKIPPED) \[\d+\] \S+ (.+)", line):
                yield {"test": why[1] or "skipped", "why": (why[2] or why[4])[:300]}
    if running.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with status {running.returncode}; see tests.log")


def lower(plan: Plan, precision: str) -> AbstractContextManager[Any]:
    """Return autocast to bfloat16, or nothing."""
    return torch.autocast(plan.device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def animator_for(resolution: int) -> Any:
    """Return the animator of experiments/base.yaml with experiments/encoder/tiny.yaml at a resolution."""
    from sfdkit.model.animator import FaceAnimator
    from sfdkit.model.descriptors import DescriptorLayer
    from sfdkit.model.encoders import TimmEncoder
    from sfdkit.model.generator import Generator

    return FaceAnimator(
        TimmEncoder("test_resnet", resolution, max_stride=16),
        DescriptorLayer(),
        Generator(resolution, detail=8),
        TimmEncoder("test_resnet", 64, max_stride=16),
    )


def make_task(resolution: int, device: torch.device) -> Any:
    """Return the training task of experiments/puppets64.yaml, with all its terms, for a resolution, on a device."""
    from sfdkit.train.task import AnimationTask

    model = yaml.safe_load((ROOT / "experiments/puppets64.yaml").read_text())["model"]
    return AnimationTask(animator_for(resolution), model["weights"], networks=model["networks"]).to(device).train()


def training_step(resolution: int, sources: int, precision: str, compiled: bool, plan: Plan) -> Callable[[], None]:
    """Return a function that does what a training does with a batch: send, augment, render, judge, learn, average."""
    from benchmarks.memory import with_points
    from sfdkit.data.augment import DriverViewAugmentation
    from sfdkit.train.callbacks import WeightEMA
    from sfdkit.train.gradients import skip_unless_finite
    from sfdkit.types import FrameBatch

    device = plan.device
    task = make_task(resolution, device)
    average = WeightEMA()
    average.setup(None, task, "fit")  # type: ignore[arg-type]
    average.average.to(device)  # type: ignore[union-attr]
    if compiled:
        task.animator.generator.compile()
    augment, seeds = DriverViewAugmentation(), itertools.count()
    optimizer = torch.optim.Adam(task.learners.parameters(), lr=1e-4, fused=True)
    frames = torch.randint(0, 256, (sources, 1 + DRIVING, 3, resolution, resolution), dtype=torch.uint8)
    if device.type == "cuda":
        frames = frames.pin_memory()
    names = [str(number // 2) for number in range(sources)]

    def step() -> None:
        there = frames.to(device, non_blocking=True).float() / 255
        batch = FrameBatch(source=there[:, 0], driving=there[:, 1:], key=names, identity=names)
        batch = augment(with_points(batch, task.points), next(seeds))
        task.statistics.save()
        with lower(plan, precision):
            loss, _ = task.objective(task.take_step(batch))
        loss.backward()
        _, finite = task.clipping.clip(task.learners)
        task.statistics.reduce(finite)
        skip_unless_finite(optimizer, finite)
        optimizer.step()
        optimizer.zero_grad()
        average.update(task.animator)

    return step


def train(plan: Plan) -> Iterator[Row]:
    """Measure training: bfloat16 and TF32 with the usual batches, large batches, then with a compiled generator.

    What comes later is measured while time lasts.
    """
    from sfdkit.device import prepare

    prepare(plan.device)
    name = torch.cuda.get_device_name(plan.device) if plan.device.type == "cuda" else ""
    operations: dict[int, float] = {}
    usual = [
        {"resolution": size, "precision": precision, "generator": "eager", "sources": SOURCES[size]}
        for precision in ("bf16", "tf32")
        for size in plan.resolutions
    ]
    near_256 = sorted(usual, key=lambda row: (row["precision"] != "bf16", abs(row["resolution"] - 256)))
    compiled = [{**row, "generator": "compiled"} for row in near_256]
    large = [{**row, "sources": LARGER * row["sources"]} for row in usual if row["precision"] == "bf16"]
    half = len(usual) // 2

    def measure(row: Row) -> Row:
        measured = _train_case(plan, row, operations)
        return measured | _utilisation(name, operations[row["resolution"]], row["precision"], measured)

    yield from _while_time_lasts(plan, [*usual[:half], *large, *usual[half:], *compiled], measure)


def _while_time_lasts(plan: Plan, cases: Sequence[Row], measure: Callable[[Row], Row]) -> Iterator[Row]:
    """Yield each case with what is measured of it, or why nothing is; ``generator`` says how."""
    slowest = 0.0
    for row in cases:
        compiled = row["generator"] == "compiled"
        if row["generator"] != "eager" and plan.rehearsal:
            yield {**row, "failed": f"{row['generator']} is for a GPU"}
            continue
        needed = max(COMPILING, 1.2 * slowest) if compiled else 5.0
        if not plan.rehearsal and plan.left < needed:
            yield {**row, "failed": "no time left"}
            continue
        began = time.monotonic()
        try:
            yield row | measure(row)
        except Exception as error:  # a benchmark goes on
            yield {**row, "failed": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"}
        if compiled:
            slowest = max(slowest, time.monotonic() - began)


def _train_case(plan: Plan, row: Row, operations: dict[int, float]) -> Row:
    """Measure one way of training; a batch that does not fit is halved."""
    resolution, sources = row["resolution"], row["sources"]
    while True:
        if plan.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(plan.device)
        try:
            step = training_step(resolution, sources, row["precision"], row["generator"] == "compiled", plan)
            began = time.monotonic()
            if resolution not in operations:
                with FlopCounterMode(display=False) as counter:
                    step()
                operations[resolution] = counter.get_total_flops() / sources
            step()
            wait_for(plan.device)
            warm = time.monotonic() - began
            taken = seconds_each(step, plan.device, min(2.0, plan.seconds / 40))
        except torch.cuda.OutOfMemoryError:
            if sources == 1:
                raise
            sources //= 2
            continue
        measured: Row = {
            "sources": sources,
            "driving": DRIVING,
            "images_per_second": round(sources * DRIVING / taken, 1),
            "step_ms": round(1000 * taken, 2),
            "first_steps_s": round(warm, 1),
            "gflop_per_source": round(operations[resolution] / 1e9, 2),
            "tflops": round(operations[resolution] * sources / taken / 1e12, 3),
        }
        if plan.device.type == "cuda":
            measured["peak_gib"] = round(torch.cuda.max_memory_allocated(plan.device) / 2**30, 2)
        return measured | device_work(step, plan.device)


def _utilisation(name: str, operations: float, precision: str, measured: Row) -> Row:
    known = published_peak(name, precision)
    return {} if known is None else {"mfu": round(measured["tflops"] / known, 4)}


def drive(plan: Plan) -> Iterator[Row]:
    """Measure what a driven frame takes once the source is encoded: reading its motion and rendering.

    One at a time and 16 together: as it is and by recorded work (CUDA graphs) at all resolutions, then compiled at 256
    and 512 pixels while time lasts.
    """
    cases: list[Row] = [
        {"resolution": size, "precision": precision, "generator": how, "frames": frames}
        for how in ("eager", "CUDA graph")
        for size, precision, frames in itertools.product(plan.resolutions, ("bf16", "tf32"), (1, 16))
    ]
    later = itertools.product((256, 512), (1, 16))
    cases += [
        {"resolution": size, "precision": "bf16", "generator": "compiled", "frames": frames} for size, frames in later
    ]
    yield from _while_time_lasts(plan, cases, lambda row: _drive_case(plan, row))


def _drive_case(plan: Plan, row: Row) -> Row:
    """Measure one way of driving frames."""
    from sfdkit.apply.cuda_graph import CudaGraph

    how, frames = row["generator"], row["frames"]
    animator = animator_for(row["resolution"]).to(plan.device).eval()
    pictures = torch.rand(frames, 3, row["resolution"], row["resolution"], device=plan.device)
    if how == "compiled":
        for part in (animator.generator, animator.driving_encoder):
            part.compile(dynamic=False)
    with torch.no_grad(), lower(plan, row["precision"]):
        state = animator.source_state(pictures[:1]).expand(frames)

    def draw(given: Tensor) -> Tensor:
        with torch.no_grad(), lower(plan, row["precision"]):
            return animator.generate(state, animator.motion(given)).image

    run = CudaGraph(draw) if how == "CUDA graph" else draw
    times = []
    for _ in range(3 + (2 if plan.rehearsal else 27)):  # the first ones set up, compile or record
        start = time.perf_counter()
        run(pictures)
        wait_for(plan.device)
        times.append(time.perf_counter() - start)
    if isinstance(run, CudaGraph) and run.recorded is None:
        raise RuntimeError("the work could not be recorded; drive.log has the warning")
    return {"ms_per_frame": round(1000 * statistics.median(times[3:]) / frames, 3), "first_s": round(sum(times[:2]), 1)}


def puppets(plan: Plan) -> Iterator[Row]:
    """Pack puppets, train experiments/puppets64.yaml on them for the time there is, and evaluate it."""
    run, shards = plan.folder / "puppets64", plan.folder / "shards"
    for old in (run, shards):
        shutil.rmtree(old, ignore_errors=True)
    workers = max(1, min(16, os.cpu_count() or 1))
    identities = 12 if plan.rehearsal else _identities(0.1 * plan.seconds, workers)
    tests_of = 6 if plan.rehearsal else 96
    began = time.monotonic()
    pack = ["shards", "pack", "puppets", "--output", shards, "--resolution", 64, "--identities", identities]
    pack += ["--validation_identities", 6, "--test_identities", tests_of, "--frames_per_clip", 8, "--fps", 2]
    _sfdkit(*pack, "--workers", workers)
    yield {"step": "pack", "identities": identities, "seconds": round(time.monotonic() - began, 1)}

    training = max(5, min(int(0.635 * plan.seconds), int(plan.left - 0.23 * plan.seconds)))
    began = time.monotonic()
    _sfdkit(*_fit_arguments(plan, run, shards, training, min(8, workers)))
    row: Row = {"step": "fit", "max_seconds": training, "seconds": round(time.monotonic() - began, 1)}
    yield row | _from_log(run)

    began = time.monotonic()
    checkpoint = run / "checkpoints/last.ckpt"
    evaluation = ["evaluate", "--checkpoint", checkpoint, "--shards", shards / "test", "--output", run / "evaluation"]
    _sfdkit(*evaluation, "--device", plan.device.type)
    found = json.loads((run / "evaluation/metrics.json").read_text())
    keys = ["train/steps", "train/images_per_second", "self/psnr", "self/copy_psnr", "cross/psnr", "copy/psnr"]
    keys += ["self/sharpness", "cross/sharpness"]
    keys += ["probe/motion_from_motion/mean", "probe/identity_from_identity/mean", "probe/identity_from_motion/mean"]
    keys += ["dci/own_vectors", "basis/orthonormality"]
    row = {"step": "evaluate", "seconds": round(time.monotonic() - began, 1)}
    row |= {key: found[key] for key in keys if key in found}
    row["cross_gain_db"] = round(found["cross/psnr"] - found["copy/psnr"], 2)
    yield {**row, "sheet": str(run / "evaluation/sheet.png")}


def _identities(seconds: float, workers: int) -> int:
    """Return how many puppets can be drawn in so many seconds, 2,400 at most."""
    from sfdkit.puppets.clips import make_clip

    make_clip(0, "train", 0, 8, 64)
    start = time.perf_counter()
    make_clip(1, "train", 0, 8, 64)
    each = time.perf_counter() - start
    return int(min(2400, max(64, 0.5 * seconds * workers / each)))


def _fit_arguments(plan: Plan, run: Path, shards: Path, seconds: int, workers: int) -> list[Any]:
    words = ["fit", "--config", "experiments/puppets64.yaml"]
    if not plan.rehearsal:
        words += ["--config", "experiments/trainer/gpu.yaml"]
    minutes, rest = divmod(seconds, 60)
    options = {
        "data.init_args.root": shards,
        "data.init_args.batch_size": 4 if plan.rehearsal else 64,
        "data.init_args.num_workers": 0 if plan.rehearsal else workers,
        "trainer.accelerator": "cpu" if plan.rehearsal else "gpu",
        "trainer.devices": 1,
        "trainer.max_time": f"00:00:{minutes:02d}:{rest:02d}",
        "trainer.log_every_n_steps": 2 if plan.rehearsal else 50,
        "trainer.enable_progress_bar": "false",
        "trainer.limit_val_batches": 0,
        "trainer.logger.init_args.save_dir": run.parent,
        "trainer.logger.init_args.name": run.name,
        "checkpoint.dirpath": run / "checkpoints",
    }
    return [*words, *(word for name, value in options.items() for word in (f"--{name}", value))]


def _from_log(run: Path) -> Row:
    """Return what a training's log says: how much of its time it waited for data, and how fast it was at its end."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    found: Row = {}
    for key in ("train/wait_share", "train/images_per_second"):
        if key in events.Tags()["scalars"]:
            values = [event.value for event in events.Scalars(key)]
            found[key.removeprefix("train/")] = round(statistics.median(values), 4)
    return found


def _sfdkit(*words: object) -> None:
    """Run the command line in a process of its own.

    Raises:
        RuntimeError: It failed.
    """
    command = [sys.executable, "-m", "sfdkit", *map(str, words)]
    print("$", " ".join(command[1:]), flush=True)
    done = subprocess.run(command, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"sfdkit {words[0]} ended with status {done.returncode}; see puppets.log")


PARTS: dict[str, tuple[float, Callable[[Plan], Iterator[Row]]]] = {
    "peak": (0.02, peak),
    "drive": (0.16, drive),
    "tests": (0.33, tests),
    "train": (0.24, train),
    "puppets": (0.25, puppets),
}
"""Name to the share of the time, and what is measured.

With an H100 and a slow host the tests took 190 s of ten minutes, all of driving that is not compiled 40 s, and training
in bfloat16 105 s; what is compiled needs more time: ``--only train --minutes 6``.
"""
