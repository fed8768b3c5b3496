"""PyTorch network -> `.tflite`, checked against PyTorch.

What the layers are, and what is folded and fused into them, `amc_latency.graph.trace` says, so that the file is
what the latency table was asked about. Everything is NHWC: no TRANSPOSE is ever needed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from amc_latency.errors import JobError, UserError
from amc_latency.files import replacing
from amc_latency.graph import NetworkGraph, trace
from lut.shape import LayerShape
from lut.tflite import TfliteError, run_tflite, tflite_ops
from lut.writer import TfliteGraph

_SUPPORTED = (
    "Conv2d (groups 1 or depthwise) with BatchNorm2d, Linear and additions, each with ReLU or ReLU6; "
    "MaxPool2d, AvgPool2d, global average pooling, flattening, Dropout, Identity"
)
_RANDOM_IMAGES = 4


class ExportError(JobError):
    """A network that can't be exported, or a file that doesn't compute what the network computes."""


@dataclass(frozen=True)
class ExportReport:
    """What an exported file is, and how far it is from PyTorch."""

    macs: int
    params: int
    max_abs_error: float
    max_abs_output: float
    """what that error is to be seen beside: a network whose outputs all but vanish shows little"""
    """largest difference between an output of the file and of PyTorch, over all images"""
    ops: dict[str, int]
    """how often each TFLite operator occurs"""
    bytes: int


def to_tflite(model: nn.Module, input_chw: tuple[int, int, int]) -> bytes:
    """The network as a float32 `.tflite` with input [1, H, W, C]; `model` is not changed.

    Raises ExportError that names the first module or operation which is not supported.
    """
    frozen = _frozen(model)
    return _write(frozen, _traced(frozen, input_chw))


def export(
    model: nn.Module,
    input_chw: tuple[int, int, int],
    path: Path,
    images: Tensor | None = None,
    tolerance: float = 1e-4,
) -> ExportReport:
    """Write `model` to `path` once the file's outputs equal PyTorch's on `images` [N, C, H, W].

    Random images if there are none. Outputs are equal if none differs by more than `tolerance`, or `tolerance`
    times the largest output if that is above 1. Raises ExportError if they are not, if the network is not
    supported, or if the file can't be written; `path` then keeps what it held.
    """
    if images is None:
        images = torch.randn(_RANDOM_IMAGES, *input_chw, generator=torch.Generator().manual_seed(0))
    if not len(images) or tuple(images.shape[1:]) != tuple(input_chw):
        raise ExportError(f"images {list(images.shape)} can't check a network with input [N, *{input_chw}]")
    frozen = _frozen(model)
    graph = _traced(frozen, input_chw)
    content = _write(frozen, graph)
    path = Path(path)
    try:
        with replacing(path) as unchecked:
            unchecked.write_bytes(content)
            error, largest = _checked_error(frozen, images.detach().float().cpu(), unchecked, tolerance)
    except OSError as failure:
        raise ExportError(f"can't write {path}: {failure.strerror}") from failure
    shapes = graph.architecture.shapes()
    return ExportReport(
        macs=sum(shape.macs for shape in shapes),
        params=sum(shape.params for shape in shapes),
        max_abs_error=error,
        max_abs_output=largest,
        ops=tflite_ops(content),
        bytes=len(content),
    )


def _frozen(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).eval().float().cpu()


def _traced(model: nn.Module, input_chw: tuple[int, int, int]) -> NetworkGraph:
    try:
        return trace(model, input_chw)
    except UserError as error:
        raise ExportError(f"the network can't be exported: {error}. Supported: {_SUPPORTED}") from error


def _checked_error(model: nn.Module, images: Tensor, path: Path, tolerance: float) -> tuple[float, float]:
    with torch.inference_mode():
        expected = model(images).numpy()
    try:
        got = run_tflite(path, images.numpy())
    except TfliteError as failure:
        raise ExportError(f"the exported file can't be run: {failure}") from failure
    if got.shape != expected.shape:
        raise ExportError(f"the exported file returns {list(got.shape)}, PyTorch {list(expected.shape)}")
    error = float(np.abs(got - expected).max())
    largest = float(np.abs(expected).max())
    allowed = tolerance * max(1.0, largest)
    if not error <= allowed:  # also for NaN
        raise ExportError(
            f"the exported file differs from PyTorch by {error:.2g} where {allowed:.2g} is allowed; "
            "it was not kept. An in-place operation on a tensor that is read again has this effect."
        )
    return error, largest


def _write(model: nn.Module, graph: NetworkGraph) -> bytes:
    traced = fx.symbolic_trace(model)
    layers = list(zip(graph.layer_names, graph.architecture.shapes(), strict=True))
    file = TfliteGraph()
    tensors: dict[fx.Node, int] = {}
    for node in traced.graph.nodes:
        name = str(node.target) if node.op == "call_module" else node.name
        sources = [tensors[parent] for parent in node.all_input_nodes]
        if node.op == "placeholder":
            c, h, w = graph.input_chw
            tensors[node] = file.input(h, w, c)
        elif node.op == "output":
            return file.finish([_as_vector(file, sources[0])])
        elif layers and layers[0][0] == name:
            _, shape = layers.pop(0)
            tensors[node] = _layer(file, shape, sources, model, name, graph.batch_norms.get(name))
        else:  # folded or fused into the layer before it, or nothing to do
            tensors[node] = sources[0]
    raise ExportError("the network returns nothing")


def _layer(
    file: TfliteGraph, shape: LayerShape, sources: list[int], model: nn.Module, name: str, norm: str | None
) -> int:
    """Add one layer to the file and return its output."""
    x = sources[0]
    window = (shape.stride, shape.padding, shape.activation)
    if shape.kind in ("conv", "depthwise", "avg_pool", "max_pool") and len(file.shape(x)) != 4:
        raise ExportError(f"{name}: a {shape.kind} layer after global pooling can't be exported; use Linear there")
    match shape.kind:
        case "conv":
            weight, bias = _folded(model, name, norm)
            return file.conv(x, weight.transpose(0, 2, 3, 1), bias, *window)
        case "depthwise":
            weight, bias = _folded(model, name, norm)
            return file.depthwise(x, weight.transpose(1, 2, 3, 0), bias, *window)
        case "linear":
            weight, bias = _folded(model, name, norm)
            _, *h_w, c = file.shape(x)
            if h_w and h_w != [1, 1]:
                # PyTorch flattened [C, H, W]; the file flattens [H, W, C].
                in_chw = weight.reshape(len(weight), c, *h_w)
                weight, x = in_chw.transpose(0, 2, 3, 1).reshape(weight.shape), file.flatten(x)
            return file.linear(x, weight, bias, shape.activation)
        case "add":
            # A tensor that is added to itself is one input of the node.
            return file.add(x, sources[-1], shape.activation)
        case "avg_pool":
            return file.avg_pool(x, shape.kernel, *window)
        case "max_pool":
            return file.max_pool(x, shape.kernel, *window)
        case "global_pool":
            return file.global_pool(x)
    raise ExportError(f"{name}: no way to write a {shape.kind} layer")


def _folded(model: nn.Module, name: str, norm: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a layer with its batch norm folded in: computed in float64, returned in float32."""
    layer: Any = model.get_submodule(name)
    weight = layer.weight.detach().double()
    bias = torch.zeros(len(weight)).double() if layer.bias is None else layer.bias.detach().double()
    if norm is not None:
        batch_norm: Any = model.get_submodule(norm)
        scale = batch_norm.weight.detach().double() / (batch_norm.running_var.double() + batch_norm.eps).sqrt()
        bias = (bias - batch_norm.running_mean.double()) * scale + batch_norm.bias.detach().double()
        weight = weight * scale[:, None, None, None]
    return weight.float().numpy(), bias.float().numpy()


def _as_vector(file: TfliteGraph, x: int) -> int:
    """The network's output as [1, C], which it is already after a linear layer or a global pool."""
    _, *h_w, _ = file.shape(x)
    if not h_w:
        return x
    if h_w != [1, 1]:
        raise ExportError("the network returns a flattened feature map; only logits [N, classes] can be exported")
    return file.flatten(x)
