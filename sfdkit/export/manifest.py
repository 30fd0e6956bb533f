"""``model.json``: what the folder of an exported model says of itself. This module needs no torch.

Its schema, ``sfdkit.export/1``::

    {"schema": "sfdkit.export/1", "sfdkit": "<version>", "format": "onnx" | "pt2", "opset": 18 | null,
     "batch": "dynamic" | "1", "precision": "float32" | "float16" | "int8", "target": "any" | "cpu",
     "resolution": R, "identity_size": N, "motion_size": M,
     "fingerprints": {"basis": "<of the basis>", "motion": "<of the meaning of motion coefficients>"},
     "pictures": "<what the graphs take and give>",
     "cost": {"gmac": billions of multiply-accumulates of a driven frame, "moved": bytes that it reads and writes},
     "normalisation": {"source": {"resolution": R, "mean": [3], "std": [3]}, "driving": {the same}},
     "graphs": {"source": {"file": "source.onnx", "inputs": [names], "outputs": [names]},
                "motion": ..., "render": ..., "person": ...},
     "basis": [D rows of N + M numbers], "axes": the content of axes.json | null,
     "checked": {"images": largest difference to eager, of 255, "psnr": dB | null, "motion": largest difference,
                 "lost": dB by int8 | null}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from sfdkit.errors import DataError
from sfdkit.files import atomic_write

SCHEMA = "sfdkit.export/1"
FILE_NAME = "model.json"
OPSET = 18
"""From 20 on GridSample's modes are renamed: TensorRT then samples the nearest pixel without a word, and ONNX Runtime's
WebGPU provider has GridSample for 16 to 19 alone."""
GRAPHS = ("source", "motion", "render")
PERSON = "person"
"""A graph of models that can change who is seen."""
PICTURES = "uint8 RGB, rows x height x width x 3; scaling and normalisation are inside the graphs"

Format: TypeAlias = Literal["onnx", "pt2"]
Batch: TypeAlias = Literal["dynamic", "1"]
Target: TypeAlias = Literal["any", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One of the graphs."""

    file: str
    """Name of its file in the folder."""
    inputs: list[str]
    outputs: list[str]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What ``model.json`` holds, see above."""

    sfdkit: str
    format: Format
    opset: int | None
    batch: Batch
    precision: Literal["float32", "float16", "int8"]
    target: Target
    resolution: int
    identity_size: int
    motion_size: int
    fingerprints: Mapping[str, str]
    cost: Mapping[str, float]
    normalisation: Mapping[str, Mapping[str, Any]]
    graphs: Mapping[str, Graph]
    basis: list[list[float]]
    axes: Mapping[str, Any] | None
    checked: Mapping[str, float | None]

    def write(self, folder: Path) -> None:
        """Write the file into a folder."""
        content = {"schema": SCHEMA, **asdict(self), "pictures": PICTURES}
        with atomic_write(folder / FILE_NAME) as part:
            part.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Read the file of a folder, and check that all graphs are there.

        Raises:
            DataError: No such folder or file, no json, of another schema, incomplete, with another opset, or the file
                of a graph is missing.
        """
        path = Path(folder) / FILE_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(
                f"model: {path} cannot be read ({error.strerror}); give a folder that sfdkit export wrote"
            ) from error
        except ValueError as error:
            raise DataError(f"model: {path} is damaged ({error}); export the checkpoint again") from error
        schema = content.pop("schema", None) if isinstance(content, dict) else None
        if schema != SCHEMA:
            raise DataError(
                f"model: {path} has the schema {schema!r}, this sfdkit reads {SCHEMA!r}; export the checkpoint again "
                "with this sfdkit, or use the one that wrote it"
            )
        content.pop("pictures", None)
        try:
            stored = content.pop("graphs")
            manifest = cls(graphs={n: Graph(**stored[n]) for n in (*GRAPHS, *({PERSON} & set(stored)))}, **content)
        except (TypeError, KeyError) as error:
            raise DataError(f"model: {path} is incomplete ({error}); export the checkpoint again") from error
        if manifest.format == "onnx" and manifest.opset != OPSET:
            raise DataError(
                f"model: {path} has the opset {manifest.opset}, with which some runtimes sample pictures wrongly "
                f"without a word; export the checkpoint again, which writes opset {OPSET}"
            )
        for graph in manifest.graphs.values():
            if not (Path(folder) / graph.file).is_file():
                raise DataError(f"model: {Path(folder) / graph.file} is missing; export the checkpoint again")
        return manifest
