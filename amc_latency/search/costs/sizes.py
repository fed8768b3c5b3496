"""Multiply-accumulates, parameters and bytes of every policy."""

from __future__ import annotations

from collections.abc import Sequence

from amc_latency.lut.shapes.architecture import Searched
from amc_latency.search.costs.costs import LayerCosts


def macs_costs(architecture: Searched, choices: Sequence[Sequence[int]]) -> LayerCosts:
    """Multiply-accumulates of every policy."""
    return LayerCosts(architecture, choices, lambda shape: shape.macs)


def params_costs(architecture: Searched, choices: Sequence[Sequence[int]]) -> LayerCosts:
    """Parameters of every policy's deployed network, batch norm folded."""
    return LayerCosts(architecture, choices, lambda shape: shape.params, once=True)


def bytes_costs(architecture: Searched, choices: Sequence[Sequence[int]], overhead: int) -> LayerCosts:
    """Bytes of every policy's `.tflite`: parameters in their precisions, and `overhead` for all else in the file."""
    return LayerCosts(architecture, choices, lambda shape: shape.params_bytes, overhead, once=True)
