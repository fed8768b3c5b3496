"""Upsampling by a whole factor, which is the shape's stride."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from amc_latency.lut.shapes.kind import Kind, Log

if TYPE_CHECKING:
    from amc_latency.lut.shapes.shape import LayerShape


def _enlarged(shape: LayerShape, size: int, kernel: int, padding: int) -> int:
    return size * shape.stride


def _resizing(name: str, ops: Sequence[str]) -> Kind:
    return Kind(
        name,
        lambda to: to.graph.upsample(to.x, to.shape.stride, to.shape.kind),
        Log({name: ops}),
        on_maps=True,
        output=_enlarged,
        int8_scale="input",
    )


KINDS = (
    _resizing("nearest", ("RESIZE_NEAREST_NEIGHBOR",)),
    _resizing("bilinear", ("RESIZE_BILINEAR", "Resize Bilinear")),
)
