"""The graph ``render`` with convolutions in int8, for processors.

Static quantisation with scales from clips, written as QuantizeLinear and DequantizeLinear around float operations (QDQ,
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html): other runtimes read that as well. What
reads the source and the motion stays in float32, as it costs little, and so do coordinates.

Legend: ``T`` frames of a clip, ``R`` resolution.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from sfdkit.apply.frame_source import open_frame_source
from sfdkit.errors import ConfigError, DataError
from sfdkit.media.crop import CropRule
from sfdkit.puppets.clips import make_clip

PUPPETS = "puppets"
CLIPS, FRAMES = 8, 7
"""Puppets that stand in for clips, and frames of each."""
MOST_FRAMES = 100
"""Frames that are read of a clip."""

Run = Mapping[str, Callable[..., list[np.ndarray]]]
"""The graphs by name: arrays in, arrays out."""


def read_clips(name: str, resolution: int) -> list[np.ndarray]:
    """Return clips to find scales on, each T R R 3 uint8 with T of at least 3.

    Args:
        name: ``puppets``, or a video or a folder of frames of a face, which is cut out.
        resolution: ``R``.

    Raises:
        DataError: It cannot be read, shows no face, or has fewer than 3 frames.
    """
    if name == PUPPETS:
        clips = (make_clip(number, "train", 0, FRAMES, resolution, fps=2.0)[0] for number in range(CLIPS))
        return [np.ascontiguousarray(clip.permute(0, 2, 3, 1).numpy()) for clip in clips]
    frames = list(islice(open_frame_source(name, resolution, CropRule("face")), MOST_FRAMES))
    if len(frames) < 3:
        raise DataError(f"int8: {name} has {len(frames)} frames, and 3 are wanted at least; give a longer clip")
    return [np.stack(frames)]


def quantise(path: Path, run: Run, clips: Sequence[np.ndarray]) -> Callable[[Run], float]:
    """Replace the file of the graph ``render`` by one whose convolutions are in int8.

    Scales come from every other frame, drawn from the first one.

    Args:
        path: The file.
        run: All graphs in float32.
        clips: Each T R R 3 uint8.

    Returns:
        A function of the graphs as they are then, which returns how many dB the other frames lose.

    Raises:
        ConfigError: onnx or onnxruntime is not installed.
    """
    try:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise ConfigError(f"int8: {error.name} is not installed; pip install 'sfdkit[export]'") from error
    import onnx

    names = [given.name for given in onnx.load(path, load_external_data=False).graph.input]
    faces = [run["source"](clip[:1]) for clip in clips]

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._given = self._each()

        def _each(self) -> Iterator[dict[str, np.ndarray]]:
            for clip, face in zip(clips, faces, strict=True):
                for frame in range(1, len(clip), 2):
                    (motion,) = run["motion"](clip[frame : frame + 1])
                    yield dict(zip(names, (motion, *face), strict=True))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._given, None)

    def squared_error(graphs: Run) -> float:
        squares = []
        for clip, face in zip(clips, faces, strict=True):
            for frame in range(2, len(clip), 2):
                (made,) = graphs["render"](run["motion"](clip[frame : frame + 1])[0], *face)
                squares.append(np.square(made.astype(np.float64) - clip[frame]).mean())
        return float(np.mean(squares))

    before = squared_error(run)
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,  # else sums of products overflow on processors without instructions for int8
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return lambda graphs: float(10 * np.log10(squared_error(graphs) / before))
