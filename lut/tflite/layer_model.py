"""A `.tflite` of one layer from its shape: what a device is given to time."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from amc_latency.lut.shapes.shape import LayerShape, ShapeError
from amc_latency.lut.tflite.writer import TfliteGraph

_ENDS_IN_NOTHING = ("concat", "slice", "shuffle", "softmax", "global_pool", "nearest", "bilinear", "noop")
_RANDOM_BLOCK = 1 << 20


def layer_model(shape: LayerShape) -> bytes:
    """A `.tflite` of this one layer, with weights that depend on nothing but their number.

    An add and a mul have two inputs, a scale a second one [1, 1, 1, C]; a concat's inputs have as nearly equal
    channels as can be, and a slice takes its first channels. Raises `ShapeError` for what can't be written.
    """
    if shape.kind in _ENDS_IN_NOTHING and shape.activation != "none":
        raise ShapeError(f"a {shape.kind} layer has no fused activation: {shape.text}")
    graph = TfliteGraph()
    if shape.kind == "concat":
        return graph.finish([graph.concat([graph.input(shape.h, shape.w, c) for c in _parts(shape)])])
    size = (shape.c_in,) if shape.kind == "linear" else (shape.h, shape.w, shape.c_in)
    # Padding by zeros, which XNNPACK takes, is right for a max pool where nothing is below zero.
    x = graph.input(*size, non_negative=shape.kind == "max_pool")
    kernel, window = shape.kernel_hw, (shape.stride, shape.padding_hw, shape.activation, shape.end)
    match shape.kind:
        case "conv" | "grouped":
            weight = _weights(shape.c_out, *kernel, shape.per_group or shape.c_in)
            out = graph.conv(x, weight, _weights(shape.c_out), *window, shape.dilation)
        case "depthwise":
            out = graph.depthwise(x, _weights(1, *kernel, shape.c_in), _weights(shape.c_in), *window, shape.dilation)
        case "linear":
            out = graph.linear(x, _weights(shape.c_out, shape.c_in), _weights(shape.c_out), shape.activation)
        case "add":
            out = graph.add(x, graph.input(*size), shape.activation)
        case "mul":
            out = graph.mul(x, graph.input(*size), shape.activation)
        case "scale":
            out = graph.mul(x, graph.input(1, 1, shape.c_in), shape.activation)
        case "add_scalar":
            out = graph.add_constant(x, _weights(1), shape.activation)
        case "mul_scalar":
            out = graph.mul_constant(x, _weights(1), shape.activation)
        case "slice":
            out = graph.slice(x, 0, shape.c_out)
        case "shuffle":
            out = graph.shuffle(x, shape.parts)
        case "activation":
            is_prelu = shape.activation == "prelu"
            out = graph.prelu(x, _weights(shape.c_in)) if is_prelu else graph.activation(x, shape.activation)
        case "softmax":
            out = graph.softmax(x)
        case "avg_pool" | "inner_avg_pool":
            out = graph.avg_pool(x, kernel, *window, count_include_pad=shape.kind == "avg_pool")
        case "max_pool" | "signed_max_pool":
            out = graph.max_pool(x, kernel, *window)
        case "global_pool":
            out = graph.global_pool(x)
        case "nearest" | "bilinear":
            out = graph.upsample(x, shape.stride, shape.kind)
        case "noop":
            out = graph.absolute(x)
        case _:
            raise ShapeError(f"no way to write a {shape.kind} layer: {shape.text}")
    return graph.finish([out])


def _parts(shape: LayerShape) -> list[int]:
    least, more = divmod(shape.c_out, shape.parts)
    return [least + 1] * more + [least] * (shape.parts - more)


def _weights(*shape: int) -> np.ndarray:
    """Ordinary float32 values: magnitudes from 0.01 to 0.1, both signs, the same on every call."""
    size, block = int(np.prod(shape)), _random_block()
    values = block[:size] if size <= len(block) else np.resize(block, size)
    return values.reshape(shape)


@lru_cache(maxsize=1)
def _random_block() -> np.ndarray:
    # Drawing weights anew for every file would take longer than writing it.
    draw = np.random.default_rng(0)
    magnitude = draw.uniform(0.01, 0.1, _RANDOM_BLOCK).astype(np.float32)
    block = np.where(draw.random(_RANDOM_BLOCK) < 0.5, -magnitude, magnitude)
    block.setflags(write=False)
    return block
