"""Precisions by name: number formats of a layer's weights and tensors, which layers can have them, and boundaries."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache

from amc_latency.lut.shapes.activations import ACTIVATIONS
from amc_latency.lut.shapes.registry import KINDS
from amc_latency.lut.shapes.shape import LayerShape

FLOAT32, INT8 = "float32", "int8"


@dataclass(frozen=True)
class Precision:
    """A number format of layers."""

    bits: int
    """of a weight"""
    tensors: str
    """the precision whose tensors its layers read and make: a boundary stands where another one's are needed"""


PRECISIONS = {INT8: Precision(8, INT8), FLOAT32: Precision(32, FLOAT32)}
"""By name, least bits first: what `LayerShape.dtype` may be."""


def can_be(shape: LayerShape, precision: str) -> bool:
    """Whether TFLite has such a layer in this precision."""
    activation = ACTIVATIONS.get(shape.activation)
    return precision == FLOAT32 or (
        KINDS[shape.kind].int8_scale is not None
        and (shape.kind != "activation" or (activation is not None and activation.int8))
    )


def precisions_of(shape: LayerShape, wanted: Collection[str]) -> tuple[str, ...]:
    """Those of the `wanted` precisions that such a layer can have, least bits first; float32 if it can have none."""
    return tuple(name for name in PRECISIONS if name in wanted and can_be(shape, name)) or (FLOAT32,)


def in_precision(shape: LayerShape, precision: str) -> LayerShape:
    """The layer in another precision. Raises `ShapeError` for one that there is not."""
    return shape if shape.dtype == precision else replace(shape, dtype=precision)


# Asked about again for every combination of readers.
@lru_cache(maxsize=2**14)
def boundary(made: str, read: str, channels: int, h: int, w: int) -> LayerShape:
    """What stands between a tensor of one precision and those who read it in another: one of them is float32."""
    kind, precision = ("quantize", read) if made == FLOAT32 else ("dequantize", made)
    return LayerShape(kind, channels, channels, h, w, dtype=precision)
