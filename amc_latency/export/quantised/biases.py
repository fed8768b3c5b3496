"""Scales of weights that are large enough for their biases: what ai-edge-quantizer leaves out.

An int8 layer's bias is int32 in steps of its input's scale times its weights'. Where all weights of a channel are zero
or nearly so, as after pruning or under a batch norm whose scale went to zero, these steps are so small that the bias
doesn't fit, and the quantiser writes some other number, which takes the channel's whole output with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

_LARGEST_BIAS = 2.0**30
"""of int32, with room for the sum that it is added to"""
_FINEST = 2.0**-20
"""of a layer's largest scale: XNNPACK runs no layer whose steps are below 2^-32 of its output's"""
_DEAD = 1e-8
"""A scale of a channel without weights: the quantiser takes 1e-9 for their largest."""
_PLACES = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
"""Of an operator's inputs: what it reads, its weights and its bias."""
_CODES = {getattr(schema.BuiltinOperator, name): places for name, places in _PLACES.items()}


@dataclass(frozen=True)
class _Use:
    """One operator's weights and bias, in the quantised file, and what they were."""

    weight: int
    bias: int
    input_scale: float
    true_weight: np.ndarray
    true_bias: np.ndarray


def keep_biases(quantised: Any, plain: Any) -> int:
    """Enlarge scales in a `ModelT` so that all biases fit, by the float32 file that it was made of; how many it were.

    Operators are the same in both by the name of their output.
    """
    uses: dict[int, list[_Use]] = {}
    for use in _uses(quantised, plain):
        uses.setdefault(use.weight, []).append(use)
    return sum(_fit(quantised, tensor, of_weight) for tensor, of_weight in uses.items())


def _fit(quantised: Any, tensor: int, uses: list[_Use]) -> int:
    """The same for one tensor of weights, which several operators may share; how many of its channels were changed."""
    weight = quantised.subgraphs[0].tensors[tensor]
    scales = np.array(weight.quantization.scale, np.float64)
    alive = scales[scales > _DEAD]
    needed = np.full_like(scales, _FINEST * (alive.max() if alive.size else 1 / 127))
    for use in uses:
        fitting = np.abs(use.true_bias.astype(np.float64)) / (_LARGEST_BIAS * use.input_scale)
        needed = np.maximum(needed, fitting if len(scales) > 1 else fitting.max())
    changed = scales < needed
    if not changed.any():
        return 0
    new = np.where(changed, needed, scales).astype(np.float32)
    weight.quantization.scale = new
    along = [1] * uses[0].true_weight.ndim
    along[weight.quantization.quantizedDimension or 0] = -1
    steps = np.rint(uses[0].true_weight / new.astype(np.float64).reshape(along if len(new) > 1 else (1,) * len(along)))
    _put(quantised, weight, np.clip(steps, -127, 127).astype(np.int8))
    for use in uses:
        bias = quantised.subgraphs[0].tensors[use.bias]
        bias.quantization.scale = (use.input_scale * new.astype(np.float64)).astype(np.float32)
        _put(quantised, bias, np.rint(use.true_bias / bias.quantization.scale.astype(np.float64)).astype(np.int32))
    return int(changed.sum())


def _uses(quantised: Any, plain: Any) -> Iterator[_Use]:
    graph, true = quantised.subgraphs[0], plain.subgraphs[0]
    was = {true.tensors[each.outputs[0]].name: each for each in true.operators}
    for operator in graph.operators:
        places = _CODES.get(quantised.operatorCodes[operator.opcodeIndex].builtinCode)
        if places is None or len(operator.inputs) <= places[2]:
            continue
        x, weight, bias = (int(operator.inputs[place]) for place in places)
        if bias < 0 or graph.tensors[bias].type != schema.TensorType.INT32:
            continue
        # The same operator before: its constants may have other names now.
        old = was[graph.tensors[operator.outputs[0]].name]
        values = [_values(plain, true.tensors[old.inputs[place]]) for place in places[1:]]
        yield _Use(weight, bias, float(graph.tensors[x].quantization.scale[0]), *values)


def _values(model: Any, tensor: Any) -> np.ndarray:
    return np.frombuffer(model.buffers[tensor.buffer].data.tobytes(), np.float32).reshape(tensor.shape)


def _put(model: Any, tensor: Any, values: np.ndarray) -> None:
    """In a buffer of its own: an equal constant of another layer may share the one that it had."""
    model.buffers.append(schema.BufferT(data=np.ascontiguousarray(values).reshape(-1).view(np.uint8)))
    tensor.buffer = len(model.buffers) - 1
