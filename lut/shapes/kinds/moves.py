"""Joins, slices and shuffles of channels: what computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from amc_latency.lut.shapes.kind import Extra, Kind, Log

if TYPE_CHECKING:
    from amc_latency.lut.shapes.shape import LayerShape

COPY = "copy"
"""Role in a log: XNNPACK's way to join tensors is a copy for each of them."""


def _parts(shape: LayerShape) -> Sequence[tuple[int, ...]]:
    least, more = divmod(shape.c_out, shape.parts)
    return [(shape.h, shape.w, c) for c in [least + 1] * more + [least] * (shape.parts - more)]


def _check_concat(shape: LayerShape) -> str | None:
    if 2 <= shape.parts <= shape.c_in:
        return None
    return "a concat joins two tensors or more, each with a channel"


def _check_slice(shape: LayerShape) -> str | None:
    return "a slice has no more channels out than in" if shape.c_out > shape.c_in else None


def _check_shuffle(shape: LayerShape) -> str | None:
    return "a shuffle deals its channels out evenly" if shape.c_in % shape.parts else None


KINDS = (
    Kind(
        "concat",
        lambda to: to.graph.concat(to.inputs),
        Log(
            {"concat": ("CONCATENATION",), COPY: ("Copy",)},
            lambda shape: {"concat", COPY},
            lambda shape: Extra(COPY, total=shape.parts, own=1),
        ),
        own_fields=("parts",),
        int8_scale="output",
        check=_check_concat,
        inputs=_parts,
    ),
    Kind(
        "slice",
        lambda to: to.graph.slice(to.x, int(to.argument or 0), to.shape.c_out),
        Log({"slice": ("SLICE", "STRIDED_SLICE", "Slice")}),
        changes_channels=True,
        int8_scale="input",
        check=_check_slice,
    ),
    Kind(
        "shuffle",
        lambda to: to.graph.shuffle(to.x, to.shape.parts),
        Log({"shuffle": ("TRANSPOSE", "Transpose")}),
        own_fields=("parts",),
        on_maps=True,
        int8_scale="input",
        check=_check_shuffle,
    ),
)
