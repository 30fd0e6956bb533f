"""``sfdkit bench pipeline``: the whole way from a driving video to the written result."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jsonargparse.typing import PositiveInt

from sfdkit.apply.frame_source import open_frame_source, read_source
from sfdkit.apply.frame_writer import open_frame_writer
from sfdkit.apply.runner import Precision, Runner
from sfdkit.bench.machine import describe_machine, peak_memory
from sfdkit.bench.report import Figures, check_json, print_stages, write_report
from sfdkit.bench.subject import large_picture, open_subject, puppet_frames
from sfdkit.bench.timing import Spread
from sfdkit.config.command import Command
from sfdkit.device import choose_device
from sfdkit.files import write_picture
from sfdkit.media.crop import CropMethod, CropRule
from sfdkit.media.video_writer import VideoWriter

_FRAMES = 50
"""Of the clip that is made where none is given: two seconds at 25 frames per second."""


@dataclass(kw_only=True)
class BenchPipeline(Command):
    """Time sfdkit animate from file to file: finding the face, decoding and cropping, motion, rendering, writing.

    Args:
        animator: What --checkpoint takes, a folder of sfdkit export, or the YAML file of an experiment
            (with random weights).
        source: The face to move; a puppet by default.
        driving: The driving clip; by default two seconds of a puppet in 1280 x 720, written for this.
        crop: How faces are cut out of the driving clip, see sfdkit animate; the source is cut to the largest square.
        batch_size: Driving frames per step.
        precision: float32, bfloat16 or float16, of checkpoints and configurations; an exported folder has its own.
        threads: Threads of one operation; all cores by default.
        repeats: How often the clip is animated.
        device: auto, cpu, cuda, cuda:1, mps; exported models run on cpu and cuda.
        output: A .json file for all figures.
    """

    animator: str
    source: str | None = None
    driving: str | None = None
    crop: CropMethod = "face"
    batch_size: PositiveInt = 8
    precision: Precision = "float32"
    threads: PositiveInt | None = None
    repeats: PositiveInt = 3
    device: str = "auto"
    output: str | None = None

    def run(self) -> Figures:
        """Measure, print, and return the figures.

        Raises:
            CheckpointError, ConfigError, DataError: The animator cannot be opened or run there, or a file not read.
        """
        if self.output is not None:
            check_json(self.output)
        device = choose_device(self.device)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        subject = open_subject(self.animator, device, self.precision, self.threads)
        taken: dict[str, list[float]] = {}
        frames = 0
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            source, driving = self._files(subject.runner, folder)
            for number in range(self.repeats):
                clock = _Clock()
                start = time.perf_counter()
                frames = self._animate(subject.runner, source, driving, folder / f"{number}.mp4", clock)
                clock.seconds["all"] = time.perf_counter() - start
                for part, seconds in clock.seconds.items():
                    taken.setdefault(part, []).append(seconds)
        machine = describe_machine(device)
        spreads = {part: Spread.of(values)._asdict() for part, values in taken.items()}
        rate = frames / spreads["all"]["median"]
        print(f"{machine['name']}, {machine['threads']} threads, torch {machine['torch']}\n")
        print(
            f"{subject.name}: {subject.runner.resolution} px, {subject.precision} on {subject.runner.device}, {frames} "
            f"frames from file to file, {rate:.1f} a second"
        )
        print_stages(spreads)
        figures = {"name": subject.name, "frames": frames, "frames_per_second": rate, "seconds": spreads}
        memory = peak_memory(device)
        print(f"peak memory {memory:.0f} MB")
        write_report(
            self.output, {"kind": "pipeline", "machine": machine, "animators": [figures], "peak_memory_mb": memory}
        )
        return figures

    def _files(self, runner: Runner, folder: Path) -> tuple[Path, Path]:
        """Return source and driving clip; those that are not given are drawn."""
        source, driving = folder / "source.png", folder / "driving.mp4"
        if self.source is None:
            write_picture(source, puppet_frames(1, runner.resolution)[0])
        if self.driving is None:
            with VideoWriter(driving, 25.0, None) as writer:
                for face in puppet_frames(_FRAMES, 128):
                    writer.write(large_picture(face))
        return Path(self.source or source), Path(self.driving or driving)

    def _animate(self, runner: Runner, source: Path, driving: Path, output: Path, clock: _Clock) -> int:
        """Do what ``sfdkit animate`` does, part by part; returns the number of frames."""
        with clock.part("find face"):
            clip = open_frame_source(driving, runner.resolution, CropRule(self.crop))
            still = read_source(source, runner.resolution, CropRule("centre"))
        with clock.part("source"):
            encoded = runner.source(still)
            runner.describe(encoded)
        frames = 0
        with open_frame_writer(output, clip.fps, None) as write:
            for batch in _batches(clip, self.batch_size, clock):
                with clock.part("motion"):
                    motion = runner.motion(batch)
                with clock.part("render"):
                    pictures = runner.render(encoded, motion)
                with clock.part("write"):
                    for picture in pictures:
                        write(picture)
                frames += len(batch)
        return frames


class _Clock:
    """Adds up the time of parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _batches(frames: Iterable[np.ndarray], size: int, clock: _Clock) -> Iterator[np.ndarray]:
    stream = iter(frames)
    while True:
        with clock.part("decode, crop"):
            batch = list(islice(stream, size))
        if not batch:
            return
        yield np.stack(batch)
