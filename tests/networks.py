"""Tiny networks in files, as third parties give them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sfdkit.face_networks.feature_network import LAYERS


class Pooled(nn.Module):
    """A convolution, the mean over each quarter, and one linear layer to any shape."""

    def __init__(self, shape: Sequence[int], seed: int = 0) -> None:
        super().__init__()
        self.shape = list(shape)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.linear = nn.Linear(16, int(np.prod(self.shape)))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        height, width = x.shape[2] // 2, x.shape[3] // 2
        parts = [x[:, :, a : a + height, b : b + width].mean((2, 3)) for a in (0, height) for b in (0, width)]
        return self.linear(torch.cat(parts, 1)).reshape([-1, *self.shape])


def save_script(path: Path, network: nn.Module, side: int = 16) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network.eval(), torch.rand(2, 3, side, side), check_trace=False).save(path)
    return path


def save_onnx(path: Path, weights: np.ndarray, side: int | str, batch: int | str = "n", second: bool = False) -> Path:
    """ReLU, mean over the picture, times weights 3 Z; ``second`` adds an output before it, the plain means."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    size = weights.shape[1]
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
        helper.make_node("Gemm", ["means", "weights"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, size])]
    if second:
        outputs.insert(0, helper.make_tensor_value_info("means", TensorProto.FLOAT, [batch, 3]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, side, side])],
        outputs,
        [numpy_helper.from_array(weights.astype(np.float32), "weights")],
    )
    return _save(path, graph, onnx)


def save_yunet(path: Path, box: Sequence[float], points: Sequence[float], always: float = 0.0) -> Path:
    """A detector of YuNet's form that sees red squares of 8 pixels, on the grid of 8.

    ``box`` is x, y, width and height around the middle of the square, ``points`` five x, y from there; in pixels.
    ``always`` is added to the score of each square, so that one is seen in any picture.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights, outputs = [], [], []
    nothing = np.zeros(4)
    bbox = np.array([0.5 + box[0] / 8, 0.5 + box[1] / 8, *np.log(np.array(box[2:]) / 8)])
    for stride in (8, 16, 32):
        red = np.zeros((1, 3, stride, stride))
        red[0, :, :, :] = np.array([-1, -1, 1]).reshape(3, 1, 1) / (255 * stride**2)  # of blue, green, red
        sees = red if stride == 8 else 0 * red
        for name, kernel, bias in (
            ("cls", sees, np.full(1, always if stride == 8 else 0)),
            ("obj", sees, np.full(1, always if stride == 8 else 0)),
            ("bbox", np.zeros((4, 3, stride, stride)), bbox if stride == 8 else nothing),
            ("kps", np.zeros((10, 3, stride, stride)), 0.5 + np.array(points) / 8),
        ):
            key, size = f"{name}_{stride}", len(bias)
            weights += [
                numpy_helper.from_array(kernel.astype(np.float32), f"{key}_w"),
                numpy_helper.from_array(bias.astype(np.float32), f"{key}_b"),
                numpy_helper.from_array(np.array([1, -1, size]), f"{key}_s"),
            ]
            nodes += [
                helper.make_node("Conv", ["input", f"{key}_w", f"{key}_b"], [f"{key}_c"], strides=[stride, stride]),
                helper.make_node("Transpose", [f"{key}_c"], [f"{key}_t"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{key}_t", f"{key}_s"], [key]),
            ]
            outputs.append(helper.make_tensor_value_info(key, TensorProto.FLOAT, [1, None, size]))
    taken = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "h", "w"])]
    return _save(path, helper.make_graph(nodes, "detector", taken, outputs, weights), onnx)


def save_centres(path: Path, side: int) -> Path:
    """A landmark network of MediaPipe's form: 1 S S 3 to the centres of red, green and blue light, and a logit.

    The centres are x, y and z in pixels from the edge of the input; z is that of x. The logit is above 0 where 10
    pixels or more are blue.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    y, x = np.mgrid[:side, :side] + 0.5
    grid = np.stack([x, y, x, np.ones_like(x)], -1).reshape(-1, 4)
    constants = {"grid": grid, "little": np.array(1e-6), "ten": np.array(10.0)}
    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    shapes = {"flat": [-1, 3], "row": [1, 1, 1, 9], "one": [1, 1], "cuts": [3, 1]}
    weights += [numpy_helper.from_array(np.array(value), name) for name, value in shapes.items()]
    weights += [numpy_helper.from_array(np.array(2), "two")]
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["pixels"]),
        helper.make_node("Transpose", ["pixels"], ["colours"], perm=[1, 0]),
        helper.make_node("MatMul", ["colours", "grid"], ["sums"]),
        helper.make_node("Split", ["sums", "cuts"], ["moments", "light"], axis=1),
        helper.make_node("Add", ["light", "little"], ["enough"]),
        helper.make_node("Div", ["moments", "enough"], ["centres"]),
        helper.make_node("Reshape", ["centres", "row"], ["points"]),
        helper.make_node("Gather", ["light", "two"], ["blue"], axis=0),
        helper.make_node("Sub", ["blue", "ten"], ["above"]),
        helper.make_node("Reshape", ["above", "one"], ["logit"]),
    ]
    outputs = [
        helper.make_tensor_value_info("points", TensorProto.FLOAT, [1, 1, 1, 9]),
        helper.make_tensor_value_info("logit", TensorProto.FLOAT, [1, 1]),
    ]
    taken = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, side, side, 3])]
    return _save(path, helper.make_graph(nodes, "centres", taken, outputs, weights), onnx)


def _save(path: Path, graph: Any, onnx: Any) -> Path:
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def save_features(path: Path, width: int = 4, seed: int = 0) -> Path:
    """A feature network of the perceptual loss with random weights, as .npz."""
    generator, inputs = torch.Generator().manual_seed(seed), 3
    arrays = {"conv0.weight": np.eye(3, dtype=np.float32)[:, :, None, None] * 4, "conv0.bias": np.full(3, -2.0)}
    for layer in LAYERS:
        outputs = width * 2 ** (int(layer[0]) - 1)
        weight = torch.randn(outputs, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5
        arrays |= {f"conv{layer}.weight": weight.numpy(), f"conv{layer}.bias": np.zeros(outputs, np.float32)}
        inputs = outputs
    np.savez(path, **arrays)
    return path


def save_linear(path: Path, weights: np.ndarray) -> Path:
    """A network of MediaPipe's blendshapes' form: 1 P 2 to as many values as ``weights``, 2P Z, has columns."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Flatten", ["points"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["rows"]),
        helper.make_node("Reshape", ["rows", "shape"], ["values"]),
    ]
    constants = [
        numpy_helper.from_array(weights.astype(np.float32), "weights"),
        numpy_helper.from_array(np.array([-1]), "shape"),
    ]
    taken = [helper.make_tensor_value_info("points", TensorProto.FLOAT, [1, len(weights) // 2, 2])]
    given = [helper.make_tensor_value_info("values", TensorProto.FLOAT, [weights.shape[1]])]
    return _save(path, helper.make_graph(nodes, "linear", taken, given, constants), onnx)
