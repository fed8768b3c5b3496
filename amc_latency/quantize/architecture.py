"""What may be chosen of a traced network: its widths, and the precisions that each layer can have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from amc_latency.lut.shapes.architecture import Architecture
from amc_latency.lut.shapes.mixed import MixedArchitecture
from amc_latency.lut.shapes.precisions import precisions_of


class Graph(Protocol):
    """A network's layers, traced or remembered."""

    @property
    def architecture(self) -> Architecture:
        """Their shapes."""

    @property
    def layer_names(self) -> Sequence[str]:
        """The module of each."""


def mixed_architecture(graph: Graph, precisions: Sequence[str]) -> MixedArchitecture:
    """The network whose layers may have each of `precisions` that their kind has; calls of one module have the same."""
    architecture, names = graph.architecture, graph.layer_names
    allowed = [precisions_of(layer.shape, precisions) for layer in architecture.layers]
    tied = [
        names.index(name) if layer.again else i
        for i, (layer, name) in enumerate(zip(architecture.layers, names, strict=True))
    ]
    return MixedArchitecture(architecture, allowed, tied)
