"""Where a file computes something else than PyTorch: layer by layer, each given what the file had before it.

So a layer's own error shows, and not that of the layers before it. Of int8 layers PyTorch's side is the network with
fake quantisation, by the scales that the file has, and what the two differ by is told in the file's own steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import Tensor, fx, nn

from amc_latency.device.rounds.measure import BadModelError
from amc_latency.device.tflite.outputs import TfliteRunner, Value, dequantised, quantised
from amc_latency.device.tflite.unpacked import unpacked
from amc_latency.errors import UserError
from amc_latency.export.export import Conversion
from amc_latency.export.quantised.policy import Policy
from amc_latency.graph.trace import NetworkGraph
from amc_latency.lut.shapes.architecture import INPUT
from amc_latency.lut.shapes.precisions import FLOAT32, INT8
from amc_latency.lut.tflite.builder import Added
from amc_latency.quantize.fake import ROUNDED, Simulator
from amc_latency.quantize.ranges import Range

_RELATIVE = 1e-4
"""What a float32 layer may be off by, as a share of its outputs' range."""
_MOVES = ("PAD", "PADV2", "RESHAPE", "TRANSPOSE", "SLICE", "CONCATENATION")
"""Operators that round nothing."""


@dataclass(frozen=True)
class Difference:
    """The first layer of a file whose output is off by more than rounding."""

    layer: int
    name: str
    operator: str
    off: float
    """by how much, at most: in steps of an int8 tensor, or as a share of a float32 tensor's range"""
    in_steps: bool

    @property
    def text(self) -> str:
        """In a few words."""
        how = f"{self.off:.3g} steps" if self.in_steps else f"{100 * self.off:.2g} % of its range"
        return f"{self.name} ({self.operator}) is the first whose output is off, by {how}, given the file's inputs"


def differences(
    model: nn.Module,
    graph: NetworkGraph,
    operators: Sequence[Sequence[Added]],
    content: bytes,
    policy: Policy,
    images: Tensor,
    inputs: Tensor,
) -> list[Difference]:
    """How far each layer's output in the file is from PyTorch's of what the file has before it, in order of layers.

    `images` [N, C, H, W] are what the network takes, `inputs` what the file takes of them. A layer without an operator,
    or whose tensor lies otherwise in the file, is left out. Raises `BadModelError`.
    """
    ends = {layer: own[-1] for layer, own in enumerate(operators) if own}
    tensors = {_text(each.name): each for each in unpacked(content).subgraphs[0].tensors}
    with TfliteRunner(content, tensors=[each.output for each in ends.values()]) as runner:
        found = runner(quantised(inputs.detach().float().numpy().transpose(0, 2, 3, 1), runner.input))
        values = dict(zip(ends, zip(found, runner.outputs, strict=True), strict=True))
    names = {INPUT: "x", **{layer: each.output for layer, each in ends.items()}}
    ranges = {tensor: _range(tensors, name) for tensor, name in names.items()}
    whole = {tensor: ranges.get(tensor, (0.0, 1.0)) for tensor in range(INPUT, len(policy))}
    beside = _Beside(Simulator(model, graph).network(model, policy, whole), graph, values, policy)
    with torch.inference_mode():
        beside.run(images)
    return [
        Difference(layer, graph.layer_names[layer], ends[layer].name, off, policy[layer] == INT8)
        for layer, off in sorted(beside.off.items())
    ]


def differing_layer(file: Conversion, content: bytes, policy: Policy, images: Tensor, inputs: Tensor) -> str | None:
    """The first layer of a file that was made of `file` whose output is off by more than rounding, in words.

    None where none is, or where that can't be looked at: such a network is compared by its outputs alone.
    """
    if file.network is None or file.graph is None:
        return None
    try:
        found = differences(file.network, file.graph, file.operators, content, policy, images, inputs)
    except (BadModelError, UserError, RuntimeError):
        return None
    if file.pixels is not None:
        # Their weights have other steps in the file, and their inputs too: the normalisation is in them.
        reads = file.graph.architecture.reads
        found = [each for each in found if not (each.in_steps and INPUT in reads[each.layer])]
    first = first_difference(found, file.operators)
    return None if first is None else first.text


def first_difference(found: Sequence[Difference], operators: Sequence[Sequence[Added]]) -> Difference | None:
    """The first that is more than rounding: a step for each operator of the layer that rounds, and one for its input.

    Half a step is what every value may be off by. What the layer before left in float32 is rounded first, and one that
    lies in the middle may go the other way, which a large weight shows.
    """
    for each in found:
        rounds = sum(operator.name not in _MOVES for operator in operators[each.layer])
        if each.off > (max(1, rounds) + 1 if each.in_steps else _RELATIVE):
            return each
    return None


class _Beside(fx.Interpreter):
    """Runs a network, and goes on from each layer with what the file has."""

    def __init__(
        self, traced: fx.GraphModule, graph: NetworkGraph, values: dict[int, tuple[np.ndarray, Value]], policy: Policy
    ) -> None:
        super().__init__(traced)
        self._tensors = {name: tensor for tensor, name in graph.holders.items()}
        self._values, self._policy = values, policy
        self._taken: set[str] = set()
        """nodes of int8 tensors that the file has given"""
        self.off: dict[int, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        """As PyTorch does, and then the file's own."""
        source = n.args[0] if n.args else None
        if str(n.target).startswith(ROUNDED) and isinstance(source, fx.Node) and source.name in self._taken:
            # They are on the file's own steps, which need not be those of a range of their own.
            return self.env[source]
        value = super().run_node(n)
        layer = self._tensors.get(n.name, INPUT)
        if layer not in self._values:
            return value
        stored, of = self._values[layer]
        real = _shaped(torch.from_numpy(dequantised(stored, of)), value.shape)
        if real is None:
            return value
        if self._policy[layer] == FLOAT32 or of["scale"] == 0:
            width = float(value.max().clamp_min(0) - value.min().clamp_max(0))
            self.off[layer] = float((real - value).abs().max()) / max(width, 1e-12)
        else:
            bounds = np.iinfo(of["dtype"])
            ends = [of["scale"] * (end - of["zero_point"]) for end in (bounds.min, bounds.max)]
            self.off[layer] = float((real - value.clamp(*ends)).abs().max()) / of["scale"]
            self._taken.add(n.name)
        return real


def _shaped(real: Tensor, shape: torch.Size) -> Tensor | None:
    """A file's tensor [N, H, W, C] or [N, C] as PyTorch has it; None where it holds something else."""
    nchw = real.permute(0, 3, 1, 2) if real.ndim == 4 else real
    if nchw.shape == shape:
        return nchw.contiguous()
    is_pixel = real.numel() == shape.numel() and real.shape[-1] == shape[1]
    return nchw.reshape(shape) if is_pixel else None


def _range(tensors: dict[str, Any], name: str) -> Range:
    """What a tensor's steps cover in the file: its own, or where it is float32 those that its int8 readers get."""
    for each in (name, f"{name}_quantized"):
        tensor = tensors.get(each)
        if tensor is None:
            continue
        found = tensor.quantization
        if found is not None and found.scale is not None and len(found.scale) == 1:
            scale, lowest = float(found.scale[0]), 0 if tensor.type == schema.TensorType.UINT8 else -128
            return scale * (lowest - int(found.zeroPoint[0])), scale * (lowest + 255 - int(found.zeroPoint[0]))
    return 0.0, 1.0


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else name
