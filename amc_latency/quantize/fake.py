"""Fake quantisation: a network in float32 whose weights and tensors take only the values that their bits can have.

Rounding passes gradients on as if it were not there (the straight-through estimator of Bengio et al., arXiv 1308.3432),
and none where a value was cut off at the end of its range. Biases, which a file has in 32 bits, stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from amc_latency.graph.operations import BATCH_NORMS, is_split
from amc_latency.graph.registry import MADE, channels_of
from amc_latency.graph.trace import NetworkGraph, traced_on_meta
from amc_latency.lut.shapes.activations import int8_range
from amc_latency.lut.shapes.architecture import INPUT
from amc_latency.lut.shapes.registry import KINDS
from amc_latency.quantize.bits import Format, formats_of
from amc_latency.quantize.ranges import Range, Ranges, observed, steps_of

ROUNDED = "rounded_"
"""begins the names of nodes that round what another holds"""
_LEAST = 1e-9
"""The largest weight that a channel without weights is given: ai-edge-quantizer's."""


class FakeTensor(nn.Module):
    """Rounds a tensor to `bits` over a range."""

    def __init__(self, found: Range, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.scale, self.zero_point = steps_of(found, bits)

    def forward(self, x: Tensor) -> Tensor:
        """What the integers stand for."""
        half = 2 ** (self.bits - 1)
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, -half, half - 1)

    def extra_repr(self) -> str:
        """As a printed network has it."""
        return f"{self.bits} bits of {self.scale:.6g} x (q - {self.zero_point})"


class FakeWeights(nn.Module):
    """A layer, itself part of the network that it was taken from, with its weights rounded to `bits`.

    With a scale for each channel out. A batch norm after it changes nothing: folded in, it scales a channel's weights
    and their step alike.
    """

    def __init__(self, layer: nn.Module, bits: int) -> None:
        super().__init__()
        self.layer, self.bits = layer, bits

    def forward(self, x: Tensor) -> Tensor:
        """What the layer computes."""
        weight = self.layer.get_parameter("weight")
        rounded = rounded_weights(weight, channels_of(self.layer).weight_dims[0], self.bits)
        return functional_call(self.layer, {"weight": rounded}, (x,))

    def extra_repr(self) -> str:
        """As a printed network has it."""
        return f"{self.bits} bits"


def rounded_weights(weight: Tensor, axis: int, bits: int) -> Tensor:
    """Weights as integers -(2^(bits - 1) - 1) .. 2^(bits - 1) - 1 can be, by a scale for each channel along `axis`."""
    most = 2 ** (bits - 1) - 1
    others = [dim for dim in range(weight.dim()) if dim != axis]
    scale = weight.detach().abs().amax(others).clamp_min(_LEAST) / most
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, axis, -most, most)


class Simulator:
    """Networks of one structure in any precisions: `model`, and what is cut from it. It is traced once."""

    def __init__(self, model: nn.Module, graph: NetworkGraph) -> None:
        self.graph = graph
        self._operations = traced_on_meta(model, graph.input_chw).graph

    def traced(self, network: nn.Module) -> fx.GraphModule:
        """A network of this structure as the graph of its operations; modules and parameters are its own."""
        return fx.GraphModule(network, copy.deepcopy(self._operations), type(network).__name__).train(network.training)

    def ranges(self, network: nn.Module, images: Tensor, batch: int = 64) -> Ranges:
        """The ranges of its tensors on images [N, C, H, W]. Raises `UserError` for no images."""
        return observed(self.traced(network), self.graph, images, batch)

    def network(self, network: nn.Module, precisions: Sequence[str], ranges: Ranges) -> fx.GraphModule:
        """It in `precisions`, one a layer, names of `bits.FORMATS`; it shares its modules with what is given.

        A layer of b bits reads and makes tensors of b bits; one in float32 sees what was made. Inputs and outputs of
        the network are floats. Raises `ValueError` for a wrong number of precisions, `UserError` for an unknown one.
        """
        formats = formats_of(precisions)
        if len(formats) != len(self.graph.layer_nodes):
            raise ValueError(f"{len(formats)} precisions for a network of {len(self.graph.layer_nodes)} layers")
        traced = self.traced(network)
        nodes = {node.name: node for node in traced.graph.nodes}
        rounding = _Rounding(traced, self.graph, ranges, formats)
        for layer, name in enumerate(self.graph.layer_nodes):
            rounding.layer(layer, nodes[name])
        for tensor, name in self.graph.holders.items():
            rounding.output(tensor, nodes[name])
        traced.recompile()
        return traced


def fake_quantized(model: nn.Module, graph: NetworkGraph, precisions: Sequence[str], ranges: Ranges) -> fx.GraphModule:
    """`model` in `precisions`; see `Simulator.network`."""
    return Simulator(model, graph).network(model, precisions, ranges)


class _Rounding:
    """Puts rounding into a traced network."""

    def __init__(self, traced: fx.GraphModule, graph: NetworkGraph, ranges: Ranges, formats: Sequence[Format]) -> None:
        self._traced, self._graph, self._ranges, self._formats = traced, graph, ranges, formats
        self._read: dict[tuple[fx.Node, Range, int], fx.Node] = {}
        """what was rounded for readers"""

    def layer(self, layer: int, node: fx.Node) -> None:
        """Round a layer's weights, and what it reads where that isn't made as the layer needs it."""
        shape, own = self._graph.architecture.layers[layer].shape, self._formats[layer]
        module = self._traced.get_submodule(str(node.target)) if node.op == "call_module" else None
        if own.weights is not None and MADE[shape.kind].weight_axes is not None and not isinstance(module, BATCH_NORMS):
            assert module is not None
            node.target = self._add(f"weights_{node.name}", FakeWeights(module, own.weights))
        if own.tensors is None:
            return
        joins = KINDS[shape.kind].int8_scale == "output"
        for source in node.all_input_nodes:
            tensor = self._graph.tensors.get(source.name)
            # The parts of a split are rounded where they are made.
            if tensor is None or is_split(source):
                continue
            is_made = tensor != INPUT and self._formats[tensor].tensors == own.tensors
            if joins or not is_made:
                found = self._range(layer if joins else tensor)
                node.replace_input_with(source, self._rounded(source, found, own.tensors))

    def output(self, tensor: int, node: fx.Node) -> None:
        """Round what a layer makes, for whoever reads it."""
        bits = None if tensor == INPUT else self._formats[tensor].tensors
        if bits is None:
            return
        users = list(node.users)
        rounded = self._put(node, self._range(tensor), bits)
        for user in users:
            user.replace_input_with(node, rounded)

    def _range(self, tensor: int) -> Range:
        """What a rounded tensor ranges over: what TFLite asks for where an int8 layer makes it, else what was seen."""
        if tensor == INPUT or self._formats[tensor].tensors is None:
            return self._ranges[tensor]
        architecture = self._graph.architecture
        shape = architecture.layers[tensor].shape
        fixed = KINDS[shape.kind].int8_range or int8_range(shape.activation)
        if fixed is not None:
            return fixed
        keeps = KINDS[shape.kind].int8_scale == "input"
        return self._range(architecture.reads[tensor][0]) if keeps else self._ranges[tensor]

    def _rounded(self, source: fx.Node, found: Range, bits: int) -> fx.Node:
        key = (source, found, bits)
        if key not in self._read:
            self._read[key] = self._put(source, found, bits)
        return self._read[key]

    def _put(self, after: fx.Node, found: Range, bits: int) -> fx.Node:
        name = self._add(f"{ROUNDED}{after.name}_{len(self._read)}_{bits}", FakeTensor(found, bits))
        with self._traced.graph.inserting_after(after):
            return self._traced.graph.call_module(name, (after,))

    def _add(self, name: str, module: Any) -> str:
        while hasattr(self._traced, name):
            name += "_"
        module.train(self._traced.training)
        self._traced.add_submodule(name, module)
        return name
