"""Exporting an animator to a folder, and checking what was exported against eager.

Legend: ``B`` driving frames, ``R`` resolution.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sfdkit import __version__
from sfdkit.errors import ConfigError, ExportError
from sfdkit.export.graphs import Traceable, graphs_of
from sfdkit.export.manifest import OPSET, PERSON, Batch, Format, Graph, Manifest, Target
from sfdkit.export.runtime import open_graph
from sfdkit.files import new_folder
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.blocks import for_cpu
from sfdkit.model.encoders import Encoder
from sfdkit.model.fingerprints import basis_fingerprint, motion_fingerprint
from sfdkit.model.summary import cost_per_driven_frame
from sfdkit.puppets.clips import make_clip

SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2"}
MOST_LEVELS = {"float32": 2, "float16": 16, "int8": 255}
"""How far a pixel may be from eager's, of 255."""
LEAST_PSNR = {"float32": 60.0, "float16": 40.0, "int8": 25.0}
"""dB of all pictures together."""
MOST_MOTION = {"float32": 1e-3, "float16": 0.05, "int8": 1e-3}
"""How far a motion coefficient may be from eager's; about 1 is their standard deviation over frames."""


class Checked(NamedTuple):
    """How far an exported animator is from eager."""

    images: int
    """Largest difference of a pixel, of 255."""
    psnr: float | None
    """dB, of all pictures together, see :func:`check`; None where nothing differs."""
    motion: float
    """Largest difference of a motion coefficient."""
    lost: float | None = None
    """dB that frames of clips lose by int8, against what they should show."""


def export_animator(
    animator: FaceAnimator,
    folder: Path,
    file_format: Format = "onnx",
    batch: Batch = "dynamic",
    half: bool = False,
    axes: str | None = None,
    target: Target = "any",
    beside: Callable[[Path, Manifest], None] | None = None,
    int8: Sequence[np.ndarray] | None = None,
) -> Manifest:
    """Write an animator as graphs and a description; the folder appears whole or not at all.

    Args:
        animator: In eval mode, on the CPU.
        folder: A new or an empty folder.
        file_format: ``onnx`` or ``pt2``.
        batch: ``dynamic`` takes any number of driving frames at once, ``1`` one.
        half: Weights and arithmetic in float16, but for coordinates and what the graphs take and give.
        axes: The content of the model's ``axes.json``.
        target: ``cpu`` for graphs that ONNX Runtime computes faster on a CPU, see :func:`sfdkit.model.blocks.for_cpu`.
        beside: Writes further files into the folder.
        int8: Clips, each T R R 3 uint8, to find scales on: convolutions of the graph ``render`` are in int8.

    Raises:
        ConfigError: Something is in the way, a package is missing, ``half``, ``target`` or ``int8`` for pt2, or both
            ``half`` and ``int8``.
        ExportError: The model cannot be exported, or what came out differs from eager.
    """
    if half and file_format == "pt2":
        raise ConfigError("half: pt2 keeps the model's own type; use --format onnx, or --half false")
    if target == "cpu" and file_format == "pt2":
        raise ConfigError("target: cpu is for ONNX Runtime; use --format onnx, or --target any")
    if int8 is not None and (half or file_format == "pt2"):
        raise ConfigError("int8: it is for --format onnx without --half")
    with new_folder(folder) as part:
        graphs = {}
        with torch.no_grad(), animator.descriptors.kept(), _quiet():  # the basis becomes a constant
            for name, traceable in graphs_of(animator, 1 if batch == "1" else 2).items():
                file = name + SUFFIXES[file_format]
                with for_cpu(target == "cpu"):
                    _write(traceable, part / file, file_format, batch, half)
                graphs[name] = Graph(file=file, inputs=traceable.inputs, outputs=traceable.outputs)
            checked = check(animator, _runner(part, graphs, file_format), batch, "float16" if half else "float32")
            if int8 is not None:
                checked = _to_int8(animator, part, graphs, batch, int8)
            basis = animator.descriptors.basis()
        manifest = Manifest(
            sfdkit=__version__,
            format=file_format,
            opset=OPSET if file_format == "onnx" else None,
            batch=batch,
            precision="float16" if half else "float32" if int8 is None else "int8",
            target=target,
            resolution=animator.resolution,
            identity_size=animator.descriptors.identity_size,
            motion_size=animator.descriptors.motion_size,
            fingerprints={
                "basis": basis_fingerprint(animator.descriptors),
                "motion": motion_fingerprint(animator),
            },
            cost=cost_per_driven_frame(animator)._asdict(),
            normalisation={
                "source": _normalisation(animator.encoder),
                "driving": _normalisation(animator.driving_encoder or animator.encoder),
            },
            graphs=graphs,
            basis=[[float(str(value)) for value in row] for row in basis.cpu().numpy()],
            axes=None if axes is None else json.loads(axes),
            checked=checked._asdict(),
        )
        manifest.write(part)
        if beside is not None:
            beside(part, manifest)
    return manifest


def _to_int8(
    animator: FaceAnimator, folder: Path, graphs: dict[str, Graph], batch: Batch, clips: Sequence[np.ndarray]
) -> Checked:
    from sfdkit.export.int8 import quantise

    lost = quantise(folder / graphs["render"].file, _runner(folder, graphs, "onnx"), clips)
    run = _runner(folder, graphs, "onnx")
    return check(animator, run, batch, "int8")._replace(lost=lost(run))


def _normalisation(encoder: Encoder) -> dict[str, Any]:
    values = {name: getattr(encoder, name, None) for name in ("mean", "std")}
    numbers = {n: [round(x, 6) for x in v.flatten().tolist()] for n, v in values.items() if isinstance(v, Tensor)}
    return {"resolution": encoder.resolution, **numbers}


def _write(traceable: Traceable, path: Path, file_format: Format, batch: Batch, half: bool) -> None:
    rows = None if traceable.dynamic is None or batch == "1" else torch.export.Dim("batch", min=1, max=4096)
    shapes = tuple(
        [None] * len(argument)
        if isinstance(argument, list)
        else {0: rows}
        if number == traceable.dynamic and rows is not None
        else None
        for number, argument in enumerate(traceable.arguments)
    )
    module: nn.Module = traceable.module.eval()
    try:
        if file_format == "pt2":
            program = torch.export.export(module, traceable.arguments, dynamic_shapes=shapes)
            torch.export.save(program, path)
            return
        made = torch.onnx.export(
            module,
            traceable.arguments,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=shapes,
            input_names=traceable.inputs,
            output_names=traceable.outputs,
            verbose=False,
        )
    except ImportError as error:
        raise ConfigError(f"export: {error.name} is not installed; pip install 'sfdkit[export]'") from error
    except Exception as error:  # torch raises many kinds of errors
        raise ExportError(f"{path.stem}: the model cannot be exported ({_first_line(error)})") from error
    assert made is not None
    if not half:
        made.save(path, include_initializers=True)
        return
    from sfdkit.export.half import halve

    halve(made.model_proto, path)


def _runner(folder: Path, graphs: dict[str, Graph], file_format: Format) -> dict[str, Callable[..., list[np.ndarray]]]:
    """Return functions that run the graphs of a folder: arrays in, arrays out."""
    if file_format == "pt2":
        modules = {name: torch.export.load(folder / graphs[name].file).module() for name in graphs}

        def run(name: str, *arrays: np.ndarray) -> list[np.ndarray]:
            tensors: list[Any] = [torch.from_numpy(array) for array in arrays]
            out = modules[name](*tensors[:4], tensors[4:]) if name == "render" else modules[name](*tensors)
            return [value.numpy() for value in (out if isinstance(out, tuple) else (out,))]

    else:
        sessions = {name: open_graph(folder / graph.file) for name, graph in graphs.items()}

        def run(name: str, *arrays: np.ndarray) -> list[np.ndarray]:
            return sessions[name].run(graphs[name].outputs, dict(zip(graphs[name].inputs, arrays, strict=True)))

    return {name: partial(run, name) for name in graphs}


def checked_on(precision: str) -> str:
    """Say on which pictures :func:`check` judges."""
    return "puppets" if precision == "int8" else "puppets and noise"


def check(
    animator: FaceAnimator, run: dict[str, Callable[..., list[np.ndarray]]], batch: Batch, precision: str
) -> Checked:
    """Compare exported graphs with eager on puppets and on noise; in int8, whose ranges are those of clips, on puppets.

    Raises:
        ExportError: They differ by more than :data:`MOST_LEVELS`, :data:`LEAST_PSNR` or :data:`MOST_MOTION`.
    """
    side, rows = animator.resolution, 1 if batch == "1" else 3
    puppets = [make_clip(person, "test", 0, 1 + rows, side)[0].permute(0, 2, 3, 1) for person in (0, 1)]
    pictures = [np.ascontiguousarray(clip.numpy()) for clip in puppets]
    if precision != "int8":
        pictures.append(np.random.default_rng(0).integers(0, 256, (1 + rows, side, side, 3), np.uint8))
    levels, moved, squares = 0, 0.0, []
    eager = graphs_of(animator, rows)
    other = torch.from_numpy(np.ascontiguousarray(puppets[1][:1].numpy()))
    wanted = eager["source"].module(other)[1]

    def compare(made: np.ndarray, right: Tensor) -> None:
        nonlocal levels
        difference = made.astype(np.int16) - right.numpy()
        levels = max(levels, int(abs(difference).max()))
        squares.append(float(np.square(difference, dtype=np.float64).mean()))

    for frames in pictures:
        source, driving = torch.from_numpy(frames[:1]), torch.from_numpy(frames[1:])
        face, motion = eager["source"].module(source), eager["motion"].module(driving)
        encoded, (read,) = run["source"](frames[:1]), run["motion"](frames[1:])
        moved = float(np.maximum(moved, abs(read - motion.numpy()).max()))  # unlike max, it keeps what is no number
        compare(run["render"](read, *encoded)[0], eager["render"].module(motion, *face[:3], list(face[3:])))
        if PERSON in eager:
            face = eager[PERSON].module(*face[:3], wanted)
            encoded = run[PERSON](*encoded[:3], wanted.numpy())
            compare(run["render"](read, *encoded)[0], eager["render"].module(motion, *face[:3], list(face[3:])))
    error = float(np.mean(squares))
    psnr = float(10 * np.log10(255**2 / error)) if error else None
    apart = levels > MOST_LEVELS[precision] or (psnr is not None and psnr < LEAST_PSNR[precision])
    if apart or not moved <= MOST_MOTION[precision]:
        raise ExportError(
            f"the exported graphs differ from the model, on {checked_on(precision)}: by {levels} of 255 at most, "
            f"{'in no pixel' if psnr is None else f'{psnr:.1f} dB'}, motion coefficients by {moved:.2g}; "
            f"{MOST_LEVELS[precision]}, {LEAST_PSNR[precision]:g} dB and {MOST_MOTION[precision]:g} are allowed in "
            f"{precision}"
        )
    return Checked(levels, psnr, moved)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which tells of its own affairs."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)
