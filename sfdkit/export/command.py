"""The command ``sfdkit export``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from sfdkit.apply.axes import Axes, find_axes
from sfdkit.errors import ConfigError
from sfdkit.export.int8 import read_clips
from sfdkit.export.manifest import Batch, Format, Manifest, Target
from sfdkit.export.web import REMEDY, WebPage
from sfdkit.export.write import checked_on, export_animator
from sfdkit.files import require_apart
from sfdkit.model.fingerprints import basis_fingerprint
from sfdkit.weights.commands import Trained, describe


@dataclass(kw_only=True)
class Export(Trained):
    """Write an animator as graphs that run without sfdkit's code: source, motion, render, and a model.json.

    The graphs take and give pictures of 8 bits. What was written is run and compared with the model on puppets and,
    but for int8, on noise before the folder appears; the differences are printed.

    Args:
        output: The folder, a new or an empty one.
        format: onnx (opset 18, for ONNX Runtime and others), pt2 (for torch.export.load), or web: the graphs of onnx
            with a page that animates faces in the browser, for any web server.
        batch: dynamic takes any number of driving frames at once, 1 one frame.
        half: Weights and arithmetic in float16, but for coordinates and what the graphs take and give: for GPUs.
        int8: puppets, or a clip of a face: convolutions of the render graph are in int8, with scales from its frames,
            for processors. What that loses is printed.
        target: any keeps to operations that GPUs and browsers have; cpu takes others in their place, which ONNX Runtime
            computes faster on a processor.
        axes: The axes.json that sfdkit evaluate wrote for this checkpoint. By default those in the weights file, or the
            one in the folder of the run, above checkpoints/, if there are some. none: without.
        runtime: For web: the folder of the npm package onnxruntime-web, whose files are copied, or an https address
            from which the page loads them.
    """

    output: str
    format: Format | Literal["web"] = "onnx"
    batch: Batch = "dynamic"
    half: bool = False
    int8: str | None = None
    target: Target = "any"
    axes: str | None = None
    runtime: str | None = None

    def run(self) -> Manifest:
        """Export and return the description of what was written.

        Raises:
            CheckpointError: The checkpoint is missing, damaged or of another model, or the axes are of another model.
            ConfigError: Something is in the way of the output, a package is missing, or half for pt2.
            DataError: The axes cannot be read.
            ExportError: The model cannot be exported, or what came out differs from it.
        """
        source = self.source
        require_apart(self.output, checkpoint=source, axes=self.axes)
        page = self._page()
        loaded = self.load()
        found = find_axes(self.axes, source, loaded.axes)
        if found is not None:
            Axes.parse(*found, basis_fingerprint(loaded.animator.descriptors))
        made = export_animator(
            loaded.animator,
            Path(self.output),
            "onnx" if self.format == "web" else self.format,
            self.batch,
            self.half,
            found[0] if found else None,
            self.target,
            partial(page.write, card=describe(loaded, source)) if page else None,
            None if self.int8 is None else read_clips(self.int8, loaded.animator.resolution),
        )
        size = sum(file.stat().st_size for file in Path(self.output).rglob("*") if file.is_file()) / 1e6
        psnr = made.checked["psnr"]
        print(
            f"wrote {self.output}: {'index.html, ' if page else ''}"
            f"{', '.join(graph.file for graph in made.graphs.values())} and model.json, "
            f"{size:.1f} MB, {made.precision}, {'with' if made.axes else 'without'} axes"
        )
        print(
            f"checked against the model on {checked_on(made.precision)}: pictures differ by at most "
            f"{made.checked['images']} of 255 ({f'{psnr:.0f} dB' if psnr else 'in nothing'}), motion coefficients by "
            f"at most {made.checked['motion']:.1g}"
        )
        if (lost := made.checked.get("lost")) is not None:
            print(f"int8: frames of {self.int8} lose {lost:.3f} dB against what they should show")
        return made

    def _page(self) -> WebPage | None:
        """Return the page that is written with the graphs, if one is.

        Raises:
            ConfigError: It has no runtime, there is no page that would load one, or browsers cannot run such graphs.
        """
        if self.format == "web":
            if self.target != "any":
                raise ConfigError(f"target: browsers take graphs for any; leave --target {self.target} out")
            if self.half or self.int8:
                name = "half" if self.half else "int8"
                raise ConfigError(f"{name}: not every browser computes in it; leave --{name} out")
            if self.runtime is None:
                raise ConfigError(f"runtime: is missing, and the page needs one; {REMEDY}")
            return WebPage(self.runtime)
        if self.runtime is not None:
            raise ConfigError(f"runtime: --format {self.format} has no page that would load it; use --format web")
        return None
