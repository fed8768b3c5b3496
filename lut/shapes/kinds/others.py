"""Softmax, and the least that a runtime can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amc_latency.lut.shapes.kind import Kind, Log

if TYPE_CHECKING:
    pass


KINDS = (
    Kind(
        "softmax",
        lambda to: to.graph.softmax(to.x),
        Log({"softmax": ("SOFTMAX", "Softmax")}),
        sign=lambda shape, argument: "non_negative",
        int8_range=(0.0, 255 / 256),
    ),
    Kind("noop", lambda to: to.graph.absolute(to.x), work=lambda shape, cache_bytes: {}, int8_scale=None),
)
