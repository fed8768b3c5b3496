"""A traced network whose widths and precisions are chosen together."""

from __future__ import annotations

from collections.abc import Sequence

from amc_latency.graph.trace import NetworkGraph
from amc_latency.lut.shapes.mixed import MixedArchitecture
from amc_latency.lut.shapes.precisions import precisions_of


def mixed_architecture(graph: NetworkGraph, precisions: Sequence[str]) -> MixedArchitecture:
    """The network whose layers may have each of `precisions` that their kind has; calls of one module have the same."""
    layers, names = graph.architecture.layers, graph.layer_names
    allowed = [precisions_of(layer.shape, precisions) for layer in layers]
    tied = [names.index(name) if layer.again else i for i, (layer, name) in enumerate(zip(layers, names, strict=True))]
    return MixedArchitecture(graph.architecture, allowed, tied)
