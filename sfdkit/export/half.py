"""ONNX graphs in float16, but for coordinates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sfdkit.errors import ConfigError

_STAYS = ("GridSample", "Resize", "Softmax", "Einsum", "Pow", "ReduceSum", "Reciprocal", "Sqrt")
"""Operations that stay in float32: sampling, resizing, and squares, which leave the range of float16."""


def halve(model: Any, path: Path) -> None:
    """Write a model with weights and arithmetic in float16; what it takes and gives stays as it is.

    Coordinates stay in float32, from the flow's own layers to GridSample: float16 has steps of a tenth of a pixel at
    256, and wrong results of GridSample in float16 were reported in browsers.

    Args:
        model: The ONNX model.
        path: The file.

    Raises:
        ConfigError: onnx or onnxruntime is not installed.
    """
    try:
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise ConfigError(f"half: {error.name} is not installed; pip install 'sfdkit[export]'") from error
    made = convert_float_to_float16(
        model, keep_io_types=True, op_block_list=list(_STAYS), node_block_list=sorted(_of_coordinates(model.graph))
    )
    onnx.save(made, str(path))


def _of_coordinates(graph: Any) -> set[str]:
    """Return the nodes from which the grids of GridSample are computed, back to convolutions and matrix products."""
    makers = {output: node for node in graph.node for output in node.output}
    waiting = [node.input[1] for node in graph.node if node.op_type == "GridSample"]
    found: set[str] = set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in found or node.op_type == "Conv":
            continue
        found.add(node.name)
        waiting += node.input
    return found
