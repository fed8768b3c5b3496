"""A `.tflite` of one layer from its shape: what a device is given to time."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from amc_latency.lut.shapes.kind import Writing
from amc_latency.lut.shapes.precisions import FLOAT32, INT8
from amc_latency.lut.shapes.registry import KINDS
from amc_latency.lut.shapes.shape import LayerShape, ShapeError
from amc_latency.lut.tflite.int8 import Int8Graph
from amc_latency.lut.tflite.writer import TfliteGraph

_RANDOM_BLOCK = 1 << 20
_GRAPHS: dict[str, type[TfliteGraph]] = {FLOAT32: TfliteGraph, INT8: Int8Graph}
"""What writes layers of each precision."""


def layer_model(shape: LayerShape) -> bytes:
    """A `.tflite` of this one layer, with weights that depend on nothing but their number.

    An add and a mul have two inputs, a scale a second one [1, 1, 1, C]; a concat's inputs have as nearly equal
    channels as can be, and a slice takes its first channels. An int8 layer reads and makes int8, but for what stands
    between precisions. Raises `ShapeError` for what can't be written.
    """
    kind = KINDS[shape.kind]
    if not kind.takes_activation and shape.activation != "none":
        raise ShapeError(f"a {shape.kind} layer has no fused activation: {shape.text}")
    graph = _GRAPHS[shape.precision]()
    inputs = [graph.input(*size, non_negative=kind.reads_non_negative) for size in kind.inputs(shape)]
    if kind.reads_float:
        graph.as_float(inputs[0])
    constants = [_weights(*size) for size in kind.constants(shape)]
    return graph.finish([kind.write(Writing(graph, inputs, shape, constants))])


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
