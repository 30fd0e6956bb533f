"""``sfdkit bench training``: where the time of a training step goes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt

from sfdkit.bench.machine import describe_machine, peak_memory
from sfdkit.bench.report import Figures, check_json, print_ratios, print_stages, write_report
from sfdkit.bench.timing import Spread, ratios
from sfdkit.config.command import Command
from sfdkit.train.callbacks.step_clock import PARTS, StepClock
from sfdkit.train.command import build
from sfdkit.train.task import AnimationTask


@dataclass(kw_only=True)
class BenchTraining(Command):
    """Time the parts of a training step of an experiment: a real training of a few steps, in this process.

    All loss terms count from the first step. Parts: wait for data (with transfer and augmentation), forward, loss
    terms, backward, and the rest (discriminator, optimisers, averages). On a GPU each part is waited for, so that the
    sum is a little more than an undisturbed step takes.

    Args:
        experiment: The YAML file of an experiment, such as quickstart.yaml; its shards must be there.
        compare: Another one, timed in turn with the first; the ratio is printed.
        options: Options of sfdkit fit for both, such as [--data.init_args.batch_size=8,--trainer.precision=bf16-mixed].
        compare_options: Options for --compare besides; alone, the same experiment is compared with itself under them.
        steps: Steps of each block that count.
        blocks: Blocks of each experiment; with --compare they take turns.
        warm_up: Steps at the begin of a block that do not count.
        threads: Threads of one operation; all cores by default.
        output: A .json file for all figures.
    """

    experiment: str
    compare: str | None = None
    options: list[str] | None = None
    compare_options: list[str] | None = None
    steps: PositiveInt = 10
    blocks: PositiveInt = 3
    warm_up: NonNegativeInt = 3
    threads: PositiveInt | None = None
    output: str | None = None

    def run(self) -> list[Figures]:
        """Measure, print, and return the figures of each experiment.

        Raises:
            SfdkitError: A part of an experiment cannot be built or run.
        """
        if self.output is not None:
            check_json(self.output)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        calls = [(self.experiment, [*(self.options or ())])]
        if self.compare is not None or self.compare_options:
            calls.append((self.compare or self.experiment, [*(self.options or ()), *(self.compare_options or ())]))
        taken: list[dict[str, list[float]]] = [{name: [] for name in (*PARTS, "step")} for _ in calls]
        clocks: dict[int, StepClock] = {}
        device = torch.device("cpu")
        for block in range(self.blocks):
            for number in sorted(range(len(calls)), reverse=bool(block % 2)):
                clocks[number], device = self._block(*calls[number])
                for step in clocks[number].steps:
                    for name, seconds in step.items():
                        taken[number][name].append(seconds)
        machine = describe_machine(device)
        print(f"{machine['name']}, {machine['threads']} threads, torch {machine['torch']}")
        figures = []
        for number, ((name, options), times) in enumerate(zip(calls, taken, strict=True)):
            spreads = {part: Spread.of(values)._asdict() for part, values in times.items()}
            rate = clocks[number].rows / spreads["step"]["median"]
            figures.append(
                {
                    "name": name,
                    "options": options,
                    "targets_per_step": clocks[number].rows,
                    "images_per_second": rate,
                    "seconds": spreads,
                }
            )
            print(f"\n{' '.join([name, *options])}: {clocks[number].rows} targets a step, {rate:.1f} a second")
            print_stages(spreads)
        report: dict[str, Any] = {"kind": "training", "machine": machine, "experiments": figures}
        if len(taken) == 2:
            report["ratios"] = {name: spread._asdict() for name, spread in ratios(*taken).items()}
            print_ratios(report["ratios"], *(" ".join([name, *options]) for name, options in calls))
        report["peak_memory_mb"] = peak_memory(device)
        print(f"peak memory {report['peak_memory_mb']:.0f} MB, all together")
        write_report(self.output, report)
        return figures

    def _block(self, experiment: str, options: Sequence[str]) -> tuple[StepClock, torch.device]:
        """Train for a few steps, and return their times."""
        with tempfile.TemporaryDirectory() as folder:
            fixed = {
                "model.starts": "{}",
                "trainer.max_steps": self.warm_up + self.steps,
                "trainer.max_time": "null",
                "trainer.max_epochs": -1,
                "trainer.limit_val_batches": 0,
                "trainer.logger": "false",
                "trainer.enable_progress_bar": "false",
                "trainer.default_root_dir": folder,
                "checkpoint.dirpath": Path(folder) / "checkpoints",
            }
            given = [f"--config={experiment}", *(f"--{k}={v}" for k, v in fixed.items()), *options]
            cli = build(given, "sfdkit bench", with_networks=True)
            clock = StepClock(self.warm_up)
            cli.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
            cli.trainer.fit(cli.model, cli.datamodule)
            assert isinstance(cli.model, AnimationTask)
            return clock, cli.model.device
