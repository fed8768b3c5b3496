"""Sums and products, of two tensors or of a tensor and a number."""

from __future__ import annotations

import numpy as np
from torch import fx

from amc_latency.errors import UserError
from amc_latency.graph.in_file import of_one_rank
from amc_latency.graph.kind import Call, Made, TorchKind
from amc_latency.graph.layers.layer_list import Value, check_alike
from amc_latency.graph.layers.layer_shapes import plain_shape
from amc_latency.graph.operations import ADDS, DIVS, MULS, NEGATIVES, SUBS, operands_of, with_scalar
from amc_latency.lut.shapes.shape import LayerShape
from amc_latency.lut.tflite.writer import TfliteGraph


def _add(call: Call) -> Value:
    return _scaled(call) or _binary(call, "add")


def _mul(call: Call) -> Value:
    return _scaled(call) or _binary(call, "mul")


def _scaled(call: Call) -> Value | None:
    """Of a tensor and a number."""
    arithmetic = with_scalar(call.node)
    if arithmetic is None:
        return None
    kind, argument = arithmetic
    return call.found.add(call, plain_shape(call.name, kind, call.x.size), call.x.labels, argument=argument)


def _binary(call: Call, kind: str) -> Value:
    """Of two tensors, whose channels are tied; `scale` where one has a figure a channel."""
    found, node, name, inputs, size = call.found, call.node, call.name, call.inputs, call.size
    if not all(isinstance(each, fx.Node) and each in found.values for each in operands_of(node)):
        raise UserError(f"{name}: {kind} of something that is neither a number nor made of the image")
    if node.kwargs.get("alpha", 1) != 1:
        raise UserError(f"{name}: a weighted sum of two tensors is not supported; weigh one by a product before it")
    left, right, made = inputs[0], inputs[-1], kind
    if left.size != right.size and kind == "mul":
        if len(left.size) == 3 and left.size[1:] == (1, 1):
            left, right = right, left
        if len(left.size) == 3 and right.size == (left.size[0], 1, 1):
            made = "scale"
    if (left.size != right.size and made != "scale") or left.size != size:
        raise UserError(f"{name}: {made} of {left.size} and {right.size} is not supported; only of equal sizes")
    check_alike(name, inputs, made)
    found.labels.tie(left.labels, right.labels, f"{'added' if kind == 'add' else 'multiplied'} in {name}")
    return found.add(call, plain_shape(name, made, size), left.labels, x=left)


def _two(file: TfliteGraph, sources: list[int], shape: LayerShape) -> list[int]:
    # A tensor that is added to itself is one input of the node.
    return of_one_rank(file, (sources[0], sources[-1]))


def _map_and_factors(file: TfliteGraph, sources: list[int], shape: LayerShape) -> list[int]:
    x, factors = sources[0], sources[-1]
    if file.shape(x)[1:3] == (1, 1) and (shape.h, shape.w) != (1, 1):
        x, factors = factors, x
    return [x, factors]


def _number(module: object, shape: LayerShape, argument: float) -> list[np.ndarray]:
    return [np.array([argument])]


KINDS = (
    TorchKind(
        "sum",
        _add,
        functions=ADDS,
        made={"add": Made(fuses=True, inputs=_two), "add_scalar": Made(fuses=True, constants=_number)},
    ),
    TorchKind(
        "product",
        _mul,
        functions=MULS,
        made={
            "mul": Made(inputs=_two),
            "scale": Made(inputs=_map_and_factors),
            "mul_scalar": Made(fuses=True, constants=_number),
        },
    ),
    TorchKind("difference and quotient", _scaled, functions=(*SUBS, *DIVS, *NEGATIVES)),
)
