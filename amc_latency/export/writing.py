"""A traced network, layer by layer -> the bytes of a `.tflite`. Everything is NHWC: no TRANSPOSE is ever needed.

What the layers are, and what is folded and fused into them, `amc_latency.graph.trace.trace` says, so that the file is
what the latency table was asked about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx, nn

from amc_latency.errors import ExportError
from amc_latency.graph.batch_norm import scale_and_shift
from amc_latency.graph.in_file import as_map, as_vector
from amc_latency.graph.operations import BATCH_NORMS
from amc_latency.graph.registry import MADE, outputs_first
from amc_latency.graph.trace import NetworkGraph, traced_on_meta
from amc_latency.lut.shapes.kind import Writing
from amc_latency.lut.shapes.registry import KINDS
from amc_latency.lut.shapes.shape import LayerShape
from amc_latency.lut.tflite.builder import Added
from amc_latency.lut.tflite.writer import TfliteGraph

if TYPE_CHECKING:
    from amc_latency.pixels import Normalisation


@dataclass(frozen=True)
class Written:
    """A file, and which of its operators are which layer's."""

    content: bytes
    operators: tuple[tuple[Added, ...], ...]
    """those of each of `Architecture.layers`; a layer that needs none has none"""


def write(model: nn.Module, graph: NetworkGraph, pixels: Normalisation | None = None) -> Written:
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
    operators: list[tuple[Added, ...]] = [()] * len(shapes)
    made_by: dict[int, int] = {}
    for node in traced_on_meta(model, graph.input_chw).graph.nodes:
        index = index_of.get(node.name)
        parents = node.all_input_nodes if index is None else MADE[shapes[index].kind].reads(node)
        sources = [tensors[parent] for parent in parents or () if parent in tensors]
        if node.op == "placeholder":
            c, h, w = graph.input_chw
            tensors[node] = image = file.input(h, w, c)
        elif node.op == "output":
            outputs = []
            for parent, size in zip(node.all_input_nodes, graph.output_sizes, strict=True):
                before, x = len(file.added), tensors[parent]
                outputs.append(_as_sized(file, x, size))
                if x in made_by:
                    operators[made_by[x]] += tuple(file.added[before:])
            return Written(file.finish(outputs), tuple(operators))
        elif index is not None:
            name = graph.layer_names[index]
            module = model.get_submodule(name) if node.op == "call_module" else None
            known, before = stored.setdefault(name, []), len(file.added)
            layer = _Layer(model, graph, name, module, shapes[index], graph.arguments[index], known)
            if pixels is not None and image in sources:
                sources = [layer.take_in(file, sources[0], pixels)]
            tensors[node] = made = layer.write(file, sources)
            operators[index] = tuple(file.added[before:])
            made_by[made] = index
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
        module: nn.Module | None,
        shape: LayerShape,
        argument: float,
        stored: list[np.ndarray],
    ) -> None:
        self.stored = stored
        """what earlier calls of its module put into the file"""
        self.name, self.shape, self.argument = name, shape, argument
        self.made, self.module = MADE[shape.kind], module
        self.weight = self.bias = np.empty(0)
        if self.made.weight_axes is not None:
            self.weight, self.bias = _folded(model, name, graph.batch_norms.get(name))

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
        shape, kind = self.shape, KINDS[self.shape.kind]
        if kind.on_maps:
            sources = [as_map(file, x) for x in sources]
        inputs = self.made.inputs(file, sources, shape)
        constants = self.made.constants(self.module, shape, self.argument)
        if self.made.weight_axes is not None:
            weight, x = self.weight, inputs[0]
            if file.shape(x)[-1] != shape.c_in:
                # A flattened map, which may be viewed as the channels of one pixel.
                weight, x = _as_flattened(file, x, weight)
                inputs = [as_map(file, x) if kind.on_maps else x]
            constants = [self._once(weight.transpose(self.made.weight_axes)), self._once(self.bias)]
        return kind.write(Writing(file, inputs, shape, constants, self.argument))

    def _once(self, values: np.ndarray) -> np.ndarray:
        """The values as float32: the very array that the file has, where an earlier call has put them there."""
        new = np.ascontiguousarray(values, np.float32)
        known = next((each for each in self.stored if np.array_equal(each, new)), None)
        if known is None:
            self.stored.append(new)
        return new if known is None else known


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
    weight = outputs_first(layer).detach().double()
    bias = torch.zeros(len(weight)).double() if layer.bias is None else layer.bias.detach().double()
    if norm is not None:
        scale, shift = scale_and_shift(model.get_submodule(norm), dtype=torch.float64)
        bias = bias * scale + shift
        weight = weight * scale.view(-1, *(1,) * (weight.dim() - 1))
    return weight.detach().numpy(), bias.detach().numpy()


def _as_sized(file: TfliteGraph, x: int, size: tuple[int, ...]) -> int:
    """What the network returns as it returns it: [1, H, W, C] for a map [C, H, W], or [1, C]."""
    if len(size) == 1:
        return as_vector(file, x)
    return x if len(file.shape(x)) == 4 else file.reshape(x, (1, 1, 1, size[0]))
