"""Precisions by name: number formats of a layer's weights and tensors, which layers can have them, and boundaries."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from amc_latency.lut.shapes.activations import ACTIVATIONS
from amc_latency.lut.shapes.registry import KINDS

if TYPE_CHECKING:
    from amc_latency.lut.shapes.shape import LayerShape

FLOAT32, INT8 = "float32", "int8"


@dataclass(frozen=True)
class Precision:
    """A number format of layers; biases have 32 bits in any."""

    bits: int
    """of a weight"""
    tensors: str
    """the precision whose tensors its layers read and make: a boundary stands where another one's are needed"""
    tensor_bits: int
    """of a value in such a tensor"""


PRECISIONS = {INT8: Precision(8, INT8, 8), FLOAT32: Precision(32, FLOAT32, 32)}
"""By name, least bits first: what `LayerShape.precision` may be."""


def why_not(kind: str, activation: str, precision: str) -> str | None:
    """Why TFLite has no such layer in this precision; None if it has."""
    record = KINDS[kind]
    if record.is_boundary:
        return f"a {kind} stands between float32 and another precision" if precision == FLOAT32 else None
    if precision == FLOAT32:
        return None
    if record.int8_scale is None:
        return f"there is no {kind} in {precision}"
    if kind == "activation" and not (activation in ACTIVATIONS and ACTIVATIONS[activation].int8):
        return f"there is no {activation} in {precision}"
    return None


def can_be(shape: LayerShape, precision: str) -> bool:
    """Whether TFLite has such a layer in this precision."""
    return why_not(shape.kind, shape.activation, precision) is None


def precisions_of(shape: LayerShape, wanted: Collection[str]) -> tuple[str, ...]:
    """Those of the `wanted` precisions that such a layer can have, least bits first; float32 if it can have none."""
    return tuple(name for name in PRECISIONS if name in wanted and can_be(shape, name)) or (FLOAT32,)


def in_precision(shape: LayerShape, precision: str) -> LayerShape:
    """The layer in another precision. Raises `ShapeError` for one that there is not."""
    return shape if shape.precision == precision else replace(shape, precision=precision)


# Asked about again for every combination of readers.
@lru_cache(maxsize=2**14)
def boundary(made: str, read: str, channels: int, h: int, w: int) -> LayerShape:
    """What stands between a tensor of one precision and those who read it in another: one of them is float32."""
    from amc_latency.lut.shapes.shape import LayerShape

    kind, precision = ("quantize", read) if made == FLOAT32 else ("dequantize", made)
    return LayerShape(kind, channels, channels, h, w, precision=precision)
