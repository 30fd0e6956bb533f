"""Running an exported animator by ONNX Runtime (https://onnxruntime.ai), without torch.

Legend: ``B`` driving frames, ``R`` resolution, ``M`` motion coefficients.

Example:
    >>> animator = Animator("exported")                    # doctest: +SKIP
    >>> source = animator.source(picture)                  # R R 3 uint8, once    # doctest: +SKIP
    >>> motion = animator.motion(frames)                   # B R R 3 uint8 -> B M    # doctest: +SKIP
    >>> pictures = animator.render(source, motion)         # B R R 3 uint8    # doctest: +SKIP
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from sfdkit.apply.runner import Coefficients
from sfdkit.errors import ConfigError, DataError, SfdkitWarning
from sfdkit.export.manifest import PERSON, Manifest

ExportedSource: TypeAlias = Mapping[str, np.ndarray]
"""What the graph ``source`` gave, by name."""

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""What runs the graphs: the first that this ONNX Runtime has, and what that one cannot do the next."""


class Animator:
    """An animator in a folder that ``sfdkit export --format onnx`` wrote.

    Args:
        folder: The folder.
        threads: Threads of one operation; ONNX Runtime's own choice, a thread for each core, by default.
        providers: Execution providers of ONNX Runtime, the preferred one first.

    Raises:
        ConfigError: onnxruntime is not installed, or lacks a provider.
        DataError: The folder holds no exported animator, or one of another format or version, or a damaged file.
    """

    def __init__(self, folder: str | Path, threads: int | None = None, providers: Sequence[str] | None = None) -> None:
        self.manifest = Manifest.read(folder)
        if self.manifest.format != "onnx":
            raise DataError(
                f"model: {folder} holds graphs of the format {self.manifest.format}, which torch.export.load reads; "
                "export with --format onnx to run them here"
            )
        self.resolution = self.manifest.resolution
        self.identity_size = self.manifest.identity_size
        self.motion_size = self.manifest.motion_size
        self.basis = self.manifest.fingerprints["basis"]
        self.motion_model = self.manifest.fingerprints["motion"]
        self.axes = None if self.manifest.axes is None else json.dumps(self.manifest.axes)
        self._sessions = {
            name: open_graph(Path(folder) / graph.file, threads, providers)
            for name, graph in self.manifest.graphs.items()
        }

    @property
    def device(self) -> str:
        """Where the graphs run, for people."""
        return ", ".join(p.removesuffix("ExecutionProvider").lower() for p in self._sessions["render"].get_providers())

    def source(self, picture: np.ndarray) -> ExportedSource:
        """Encode a source, once for any number of driving frames.

        Args:
            picture: R R 3 uint8; another size is resized, with a warning.
        """
        return self._run("source", {"picture": self._fit(picture[None])})

    def describe(self, source: ExportedSource) -> Coefficients:
        """Return the descriptors of an encoded source."""
        return Coefficients(source["identity"][0], source["own"][0])

    def motion(self, frames: np.ndarray) -> np.ndarray:
        """Return the motion coefficients, B M float32.

        Args:
            frames: B R R 3 uint8; another size is resized, with a warning.
        """
        frames = self._fit(frames)
        return np.concatenate([self._run("motion", {"frames": rows})["motion"] for rows in self._parts(frames)])

    def render(self, source: ExportedSource, motion: np.ndarray) -> np.ndarray:
        """Render one source, or B, under motion coefficients, B M float32; returns B R R 3 uint8."""
        motion, faces = np.asarray(motion, np.float32), len(source["image"])
        if faces > 1:
            each = ({name: value[row : row + 1] for name, value in source.items()} for row in range(faces))
            return np.concatenate([self.render(one, motion[r : r + 1]) for r, one in enumerate(each)])
        parts = self._parts(motion)
        return np.concatenate([self._run("render", {"motion": rows, **source})["frames"] for rows in parts])

    def change_identity(self, source: ExportedSource, identity: np.ndarray) -> ExportedSource:
        """Return B sources that look as identity coefficients B N say.

        Raises:
            ConfigError: The model was trained without ``code_share``.
        """
        if PERSON not in self.manifest.graphs:
            raise ConfigError(
                "identity: this model was not trained to draw faces from their code alone (code_share), so it cannot "
                "change who is seen"
            )
        given = {name: source[name] for name in ("image", "identity", "own")}
        names = self.manifest.graphs["source"].outputs
        rows = [self._run(PERSON, {**given, "wanted": row[None].astype(np.float32)}).values() for row in identity]
        return {name: np.concatenate(parts) for name, parts in zip(names, zip(*rows, strict=True), strict=True)}

    def morph(self, source: ExportedSource, other: ExportedSource, share: np.ndarray) -> ExportedSource:
        """Refuse: no graph mixes two people's detail.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("what: an exported model interpolates motion alone; give --checkpoint for the identity")

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return rows as many at a time as the graphs take."""
        return [rows] if self.manifest.batch == "dynamic" else [rows[i : i + 1] for i in range(len(rows))]

    def _run(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = self.manifest.graphs[name].outputs
        return dict(zip(outputs, self._sessions[name].run(outputs, dict(inputs)), strict=True))

    def _fit(self, pictures: np.ndarray) -> np.ndarray:
        """Return pictures, B H W 3 uint8, at the model's size."""
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
            raise ValueError(
                f"pictures are uint8 RGB, rows x height x width x 3, got {pictures.shape} {pictures.dtype}"
            )
        side, size = self.resolution, pictures.shape[1:3]
        if size == (side, side):
            return pictures
        warnings.warn(
            f"pictures of {size[1]}x{size[0]} are resized to the model's {side}x{side}", SfdkitWarning, stacklevel=3
        )
        resized = [Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC) for picture in pictures]
        return np.stack([np.asarray(picture) for picture in resized])


def providers_of(device: str) -> list[str] | None:
    """Return the execution providers of a device's name, None for ``auto``: the best that is there.

    Raises:
        ConfigError: ONNX Runtime has no provider for it.
    """
    kind, _, number = device.partition(":")
    if device == "auto":
        return None
    if kind not in ("cpu", "cuda") or (number and number != "0"):
        raise ConfigError(f"device: {device!r} cannot run an exported model; use auto, cpu or cuda")
    return list(PROVIDERS[PROVIDERS.index(f"{kind.upper()}ExecutionProvider") :])


def open_graph(path: Path, threads: int | None = None, providers: Sequence[str] | None = None) -> Any:
    """Return the session of an ONNX file; errors as for :class:`Animator`."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("model: running it needs onnxruntime; pip install 'sfdkit[export]'") from error
    there = onnxruntime.get_available_providers()
    if lacking := [name for name in providers or () if name not in there]:
        raise ConfigError(
            f"this onnxruntime has no {lacking[0]}, it has {', '.join(there)}: give another device or providers, or "
            "install onnxruntime-gpu for CUDA"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # each graph's threads would hold up the next
    try:
        chosen = list(providers or (name for name in PROVIDERS if name in there))
        return onnxruntime.InferenceSession(str(path), options, chosen)
    except Exception as error:  # onnxruntime raises classes of its own without a common base
        raise DataError(
            f"model: {path} cannot be run ({str(error).splitlines()[0]}); export the checkpoint again"
        ) from error
