"""Tiny networks in files, as third parties give them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

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
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
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
