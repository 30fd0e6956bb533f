"""``sfdkit bench inference``: where the time of a driven frame goes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt

from sfdkit.apply.runner import Precision
from sfdkit.bench.machine import Roofline, describe_machine, measure_roofline, peak_memory
from sfdkit.bench.report import PEERS, Figures, check_json, print_figures, print_ratios, write_report
from sfdkit.bench.subject import Subject, large_picture, open_subject, puppet_frames
from sfdkit.bench.timing import Spread, ratios, time_in_turn
from sfdkit.config.command import Command
from sfdkit.device import choose_device
from sfdkit.media.crop import CropRule, crop_resize
from sfdkit.media.video_writer import VideoWriter

DRIVEN = "driven frame"
"""The stage that counts for live use: the motion of a frame read and the source rendered under it, bytes to bytes."""


@dataclass(kw_only=True)
class BenchInference(Command):
    """Time the parts of animating a face, one driving frame after the other, on a puppet.

    Parts: detect (the face in a picture of 1280 x 720), crop, source (encoded once), motion (read per frame), render
    (per frame), driven frame (motion and render, 8-bit pictures in and out), write (H.264). The table gives medians
    and quartiles, the share of the roofline that a product of matrices and a copy reach here, and the loss of quality.

    Args:
        animator: What --checkpoint takes, a folder of sfdkit export, or the YAML file of an experiment
            (with random weights).
        compare: Another one, timed in turn with the first; the ratio is printed.
        batch_size: Driving frames at once; times are for all of them.
        precision: float32, bfloat16 or float16, of checkpoints and configurations; an exported folder has its own.
        compare_precision: That of --compare; as precision by default.
        compile: Compile the networks of a checkpoint or a configuration (torch.compile).
        compare_compile: The same for --compare; not by default.
        threads: Threads of one operation; all cores by default.
        repeats: Rounds that count.
        warm_up: Rounds before them.
        device: auto, cpu, cuda, cuda:1, mps; exported models run on cpu and cuda.
        output: A .json file for all figures.
    """

    animator: str
    compare: str | None = None
    batch_size: PositiveInt = 1
    precision: Precision = "float32"
    compare_precision: Precision | None = None
    compile: bool = False
    compare_compile: bool = False
    threads: PositiveInt | None = None
    repeats: PositiveInt = 30
    warm_up: NonNegativeInt = 5
    device: str = "auto"
    output: str | None = None

    def run(self) -> list[Figures]:
        """Measure, print, and return the figures of each animator.

        Raises:
            CheckpointError, ConfigError, DataError: An animator cannot be opened or run there.
        """
        if self.output is not None:
            check_json(self.output)
        device = choose_device(self.device)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        named = [(self.animator, self.precision, self.compile)]
        if self.compare is not None:
            named.append((self.compare, self.compare_precision or self.precision, self.compare_compile))
        subjects = [open_subject(name, device, kind, self.threads, compiled) for name, kind, compiled in named]
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            stages = [self._stages(subject, stack, folder / f"{n}.mp4") for n, subject in enumerate(subjects)]
            taken = time_in_turn(stages, self.repeats, self.warm_up)
        figures = [
            self._figures(subject, times, measure_roofline(device, getattr(torch, subject.precision)))
            for subject, times in zip(subjects, taken, strict=True)
        ]
        machine = describe_machine(device)
        print_figures(machine, figures, DRIVEN)
        report: dict[str, Any] = {"kind": "inference", "machine": machine, "animators": figures, "peers": PEERS}
        if len(taken) == 2:
            report["ratios"] = {name: spread._asdict() for name, spread in ratios(*taken).items()}
            print_ratios(report["ratios"], *(subject.name for subject in subjects))
        print(f"peak memory {peak_memory(device):.0f} MB, all together")
        report["peak_memory_mb"] = peak_memory(device)
        write_report(self.output, report)
        return figures

    def _stages(self, subject: Subject, stack: ExitStack, video: Path) -> dict[str, Callable[[], object]]:
        runner, side = subject.runner, subject.runner.resolution
        frames = puppet_frames(1 + self.batch_size, side)
        picture = large_picture(puppet_frames(1, 128)[0])
        rule = CropRule("face")
        look = rule.watcher()
        place = CropRule("centre").place([], picture.shape[1], picture.shape[0])
        source, motion = runner.source(frames[0]), runner.motion(frames[1:])
        result = runner.render(source, motion)[0]
        writer = stack.enter_context(VideoWriter(video, 25.0, None))
        return {
            "detect": lambda: look(picture),
            "crop": lambda: crop_resize(picture, place, side),  # type: ignore[arg-type]
            "source": lambda: runner.describe(runner.source(frames[0])),
            "motion": lambda: runner.motion(frames[1:]),
            "render": lambda: runner.render(source, motion),
            DRIVEN: lambda: runner.render(source, runner.motion(frames[1:])),
            "write": lambda: writer.write(result),
        }

    def _figures(self, subject: Subject, taken: dict[str, list[float]], roofline: Roofline) -> Figures:
        best = roofline.seconds(subject.cost.gmac, subject.cost.moved) * self.batch_size
        driven = Spread.of(taken[DRIVEN]).median
        return {
            "name": subject.name,
            "resolution": subject.runner.resolution,
            "device": subject.runner.device,
            "precision": subject.precision,
            "batch_size": self.batch_size,
            "gmac": subject.cost.gmac,
            "moved_mb": subject.cost.moved / 1e6,
            "psnr_to_float32": subject.psnr,
            "seconds": {name: Spread.of(times)._asdict() for name, times in taken.items()},
            "frames_per_second": self.batch_size / driven,
            "roofline": {
                "gflops": roofline.flops / 1e9,
                "gigabytes_per_second": roofline.bandwidth / 1e9,
                "share": best / driven,
            },
        }
