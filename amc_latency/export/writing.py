"""A traced network, layer by layer -> the bytes of a `.tflite`. Everything is NHWC: no TRANSPOSE is ever needed.

What the layers are, and what is folded and fused into them, `amc_latency.graph.trace.trace` says, so that the file is
what the latency table was asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx, nn

from amc_latency.errors import JobError
from amc_latency.graph.batch_norm import scale_and_shift
from amc_latency.graph.operations import BATCH_NORMS, CATS, parts_of
from amc_latency.graph.trace import NetworkGraph, traced_on_meta
from amc_latency.lut.shapes.shape import AVG_POOLS, MAX_POOLS, LayerShape
from amc_latency.lut.tflite.writer import TfliteGraph

if TYPE_CHECKING:
    from amc_latency.pixels import Normalisation

_ON_FEATURE_MAPS = (
    *("conv", "depthwise", "grouped", "scale", "shuffle", "nearest", "bilinear", "global_pool"),
    *(*AVG_POOLS, *MAX_POOLS),
)


class ExportError(JobError):
    """A network that can't be exported, or a file that doesn't compute what the network computes."""


def write(model: nn.Module, graph: NetworkGraph, pixels: Normalisation | None = None) -> bytes:
    """The file of `model`, of which `graph` is the trace.

    With `pixels` the file takes values of 0..255, and the normalisation that the network expects is folded into its
    first convolutions: exactly, so where they pad with zeros, which stand for the mean colour, the mean is taken off
    by an operator of its own. Raises ExportError.
    """
    file = TfliteGraph()
    index_of = {node: index for index, node in enumerate(graph.layer_nodes)}
    shapes = graph.architecture.shapes()
    tensors: dict[fx.Node, int] = {}
    stored: dict[str, list[np.ndarray]] = {}
    for node in traced_on_meta(model, graph.input_chw).graph.nodes:
        parts = parts_of(node) if node.op == "call_function" and node.target in CATS else None
        sources = [tensors[parent] for parent in parts or node.all_input_nodes if parent in tensors]
        if node.op == "placeholder":
            c, h, w = graph.input_chw
            tensors[node] = image = file.input(h, w, c)
        elif node.op == "output":
            returned = [tensors[parent] for parent in node.all_input_nodes]
            return file.finish([_as_sized(file, x, size) for x, size in zip(returned, graph.output_sizes, strict=True)])
        elif node.name in index_of:
            index = index_of[node.name]
            name = graph.layer_names[index]
            layer = _Layer(model, graph, name, shapes[index], graph.arguments[index], stored.setdefault(name, []))
            if pixels is not None and image in sources:
                sources = [layer.take_in(file, sources[0], pixels)]
            tensors[node] = layer.write(file, sources)
        elif sources:  # folded or fused into the layer before it, or nothing to do
            tensors[node] = sources[0]
    raise ExportError("the network returns nothing")


class _Layer:
    """One layer on its way into the file."""

    def __init__(
        self,
        model: nn.Module,
        graph: NetworkGraph,
        name: str,
        shape: LayerShape,
        argument: float,
        stored: list[np.ndarray],
    ) -> None:
        self.stored = stored
        """what earlier calls of its module put into the file"""
        self.name, self.shape, self.argument = name, shape, argument
        self.weight = self.bias = np.empty(0)
        if shape.kind in ("conv", "depthwise", "grouped", "linear"):
            self.weight, self.bias = _folded(model, name, graph.batch_norms.get(name))
        elif shape.activation == "prelu":
            self.weight = model.get_parameter(f"{name}.weight").detach().numpy()

    def take_in(self, file: TfliteGraph, x: int, pixels: Normalisation) -> int:
        """Fold the normalisation of pixels into this convolution; what it then reads."""
        if self.shape.kind != "conv":
            raise ExportError(f"{self.name}: pixels can be taken in by a convolution alone, not by {self.shape.kind}")
        mean, std = 255 * np.array(pixels.mean), 255 * np.array(pixels.std)
        if len(mean) != self.shape.c_in:
            raise ExportError(f"{len(mean)} means were given for an image of {self.shape.c_in} channels")
        self.weight = self.weight / std[None, :, None, None]
        if any(self.shape.padding_hw) or self.shape.end:
            return file.add_constant(x, -mean.astype(np.float32))
        self.bias = self.bias - (self.weight * mean[None, :, None, None]).sum((1, 2, 3))
        return x

    def write(self, file: TfliteGraph, sources: list[int]) -> int:
        """Add the layer and return its output."""
        shape, x = self.shape, sources[0]
        if shape.kind in _ON_FEATURE_MAPS and len(file.shape(x)) == 2:
            x = file.reshape(x, (1, 1, 1, file.shape(x)[-1]))
        weight, bias = self.weight, self._once(self.bias)
        window = (shape.stride, shape.padding_hw, shape.activation)
        match shape.kind:
            case "conv" | "grouped":
                if shape.kind == "conv" and file.shape(x)[-1] != shape.c_in:
                    # A flattened map that was viewed as the channels of one pixel.
                    weight, x = _as_flattened(file, x, weight)
                    x = file.reshape(x, (1, 1, 1, shape.c_in))
                weight = self._once(weight.transpose(0, 2, 3, 1))
                return file.conv(x, weight, bias, *window, shape.end, shape.dilation)
            case "depthwise":
                weight = self._once(weight.transpose(1, 2, 3, 0))
                return file.depthwise(x, weight, bias, *window, shape.end, shape.dilation)
            case "linear":
                _, *h_w, _ = file.shape(x)
                if h_w and h_w != [1, 1]:
                    weight, x = _as_flattened(file, x, weight)
                return file.linear(x, self._once(weight), bias, shape.activation)
            case "add":
                # A tensor that is added to itself is one input of the node.
                left, right = _of_one_rank(file, (x, sources[-1]))
                return file.add(left, right, shape.activation)
            case "mul":
                left, right = _of_one_rank(file, (x, sources[-1]))
                return file.mul(left, right)
            case "scale":
                return self._scale(file, x, sources[-1])
            case "concat":
                return file.concat(_of_one_rank(file, sources))
            case "slice":
                return file.slice(x, int(self.argument), shape.c_out)
            case "shuffle":
                return file.shuffle(x, shape.parts)
            case "add_scalar":
                return file.add_constant(x, np.array([self.argument]), shape.activation)
            case "mul_scalar":
                return file.mul_constant(x, np.array([self.argument]), shape.activation)
            case "activation" if shape.activation == "prelu":
                return file.prelu(x, np.broadcast_to(weight, file.shape(x)[-1:]))
            case "activation":
                return file.activation(x, shape.activation, self.argument)
            case "softmax":
                return file.softmax(_as_vector(file, x))
            case "avg_pool" | "inner_avg_pool":
                counts = shape.kind == "avg_pool"
                return file.avg_pool(x, shape.kernel_hw, *window, end=shape.end, count_include_pad=counts)
            case "max_pool" | "signed_max_pool":
                return file.max_pool(x, shape.kernel_hw, *window, end=shape.end)
            case "global_pool":
                return file.global_pool(x, keep_dims=bool(self.argument))
            case "nearest" | "bilinear":
                return file.upsample(x, shape.stride, shape.kind)
        raise ExportError(f"{self.name}: no way to write a {shape.kind} layer")

    def _once(self, values: np.ndarray) -> np.ndarray:
        """The values as float32: the very array that the file has, where an earlier call has put them there."""
        new = np.ascontiguousarray(values, np.float32)
        known = next((each for each in self.stored if np.array_equal(each, new)), None)
        if known is None:
            self.stored.append(new)
        return new if known is None else known

    def _scale(self, file: TfliteGraph, x: int, factors: int) -> int:
        if file.shape(x)[1:3] == (1, 1) and (self.shape.h, self.shape.w) != (1, 1):
            x, factors = factors, x
        if len(file.shape(factors)) == 2:
            factors = file.reshape(factors, (1, 1, 1, self.shape.c_in))
        return file.mul(x, factors)


def _of_one_rank(file: TfliteGraph, sources: Sequence[int]) -> list[int]:
    """What a layer reads: of [1, 1, 1, C] and [1, C] both as the latter."""
    ranks = {len(file.shape(source)) for source in sources}
    return list(sources) if len(ranks) == 1 else [_as_vector(file, source) for source in sources]


def _as_flattened(file: TfliteGraph, x: int, weight: np.ndarray) -> tuple[np.ndarray, int]:
    """A layer's weight [out, in, ...], and what it reads: PyTorch flattened [C, H, W], the file flattens [H, W, C]."""
    _, h, w, c = file.shape(x)
    in_chw = weight.reshape(len(weight), c, h, w, *weight.shape[2:])
    return np.moveaxis(in_chw, 1, 3).reshape(weight.shape), file.flatten(x)


def _folded(model: nn.Module, name: str, norm: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a layer with its batch norm folded in, in float64; a batch norm alone as a 1x1 filter."""
    layer: Any = model.get_submodule(name)
    if isinstance(layer, BATCH_NORMS):
        scale, shift = scale_and_shift(layer, dtype=torch.float64)
        return scale.detach()[:, None, None, None].numpy(), shift.detach().numpy()
    weight = layer.weight.detach().double()
    bias = torch.zeros(len(weight)).double() if layer.bias is None else layer.bias.detach().double()
    if norm is not None:
        scale, shift = scale_and_shift(model.get_submodule(norm), dtype=torch.float64)
        bias = bias * scale + shift
        weight = weight * scale.view(-1, *(1,) * (weight.dim() - 1))
    return weight.detach().numpy(), bias.detach().numpy()


def _as_sized(file: TfliteGraph, x: int, size: tuple[int, ...]) -> int:
    """What the network returns as it returns it: [1, H, W, C] for a map [C, H, W], or [1, C]."""
    if len(size) == 1:
        return _as_vector(file, x)
    return x if len(file.shape(x)) == 4 else file.reshape(x, (1, 1, 1, size[0]))


def _as_vector(file: TfliteGraph, x: int) -> int:
    """The network's output as [1, C], which it is already after a linear layer or a global pool."""
    _, *h_w, _ = file.shape(x)
    if not h_w:
        return x
    if h_w != [1, 1]:
        raise ExportError("a flattened feature map stands where logits [N, classes] or the like are expected")
    return file.flatten(x)
