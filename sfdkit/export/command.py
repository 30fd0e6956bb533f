"""The command ``sfdkit export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfdkit.apply.axes import Axes, find_axes
from sfdkit.export.manifest import Batch, Format, Manifest, Target
from sfdkit.export.write import export_animator
from sfdkit.files import require_apart
from sfdkit.model.fingerprints import basis_fingerprint
from sfdkit.weights.commands import Trained
from sfdkit.weights.shipped import find_weights


@dataclass(kw_only=True)
class Export(Trained):
    """Write an animator as graphs that run without sfdkit's code: source, motion, render, and a model.json.

    The graphs take and give pictures of 8 bits. What was written is run and compared with the model on puppets and on
    noise before the folder appears; the differences are printed.

    Args:
        output: The folder, a new or an empty one.
        format: onnx (opset 18, for ONNX Runtime and others) or pt2 (for torch.export.load).
        batch: dynamic takes any number of driving frames at once, 1 one frame.
        half: Weights and arithmetic in float16, but for coordinates and what the graphs take and give: for GPUs.
        target: any keeps to operations that GPUs and browsers have; cpu takes others in their place, which ONNX Runtime
            computes faster on a processor.
        axes: The axes.json that sfdkit evaluate wrote for this checkpoint. By default those in the weights file, or the
            one in the folder of the run, above checkpoints/, if there are some. none: without.
    """

    output: str
    format: Format = "onnx"
    batch: Batch = "dynamic"
    half: bool = False
    target: Target = "any"
    axes: str | None = None

    def run(self) -> Manifest:
        """Export and return the description of what was written.

        Raises:
            CheckpointError: The checkpoint is missing, damaged or of another model, or the axes are of another model.
            ConfigError: Something is in the way of the output, a package is missing, or half for pt2.
            DataError: The axes cannot be read.
            ExportError: The model cannot be exported, or what came out differs from it.
        """
        source = find_weights(self.checkpoint)
        require_apart(self.output, checkpoint=source, axes=self.axes)
        loaded = self.load()
        found = find_axes(self.axes, source, loaded.axes)
        if found is not None:
            Axes.parse(*found, basis_fingerprint(loaded.animator.descriptors))
        made = export_animator(
            loaded.animator,
            Path(self.output),
            self.format,
            self.batch,
            self.half,
            found[0] if found else None,
            self.target,
        )
        size = sum(file.stat().st_size for file in Path(self.output).iterdir()) / 1e6
        psnr = made.checked["psnr"]
        print(
            f"wrote {self.output}: {', '.join(graph.file for graph in made.graphs.values())} and model.json, "
            f"{size:.1f} MB, {made.precision}, {'with' if made.axes else 'without'} axes"
        )
        print(
            "checked against the model on puppets and noise: pictures differ by at most "
            f"{made.checked['images']} of 255 ({f'{psnr:.0f} dB' if psnr else 'in nothing'}), motion coefficients by "
            f"at most {made.checked['motion']:.1g}"
        )
        return made
