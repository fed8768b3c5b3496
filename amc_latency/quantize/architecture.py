"""What may be chosen of a traced network: its widths, and the precisions that each layer can have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from amc_latency.lut.shapes.architecture import INPUT, Architecture, Choices, Searched, channel_choices
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


MOST_ENTRIES = 3_000_000
"""Of the tables that dynamic programming takes on the usual grid: some seconds. MobileNetV2's are 240,000, GoogLeNet's
6 million."""


def mixed_architecture(graph: Graph, precisions: Sequence[str], most_entries: int = MOST_ENTRIES) -> MixedArchitecture:
    """The network whose layers may have each of `precisions` that their kind has; calls of one module have the same.

    Each layer else has a precision of its own. But where many tensors are open at once, as in a DenseNet, tables would
    take more than `most_entries`: there a layer without weights has the precision of the layer that made what it reads
    first, since a boundary before it would seldom pay.
    """
    own = _mixed(graph, precisions, follows=False)
    grid = own.choices([channel_choices(channels) for channels in graph.architecture.group_channels])
    return own if entries(own, grid) <= most_entries else _mixed(graph, precisions, follows=True)


def _mixed(graph: Graph, precisions: Sequence[str], follows: bool) -> MixedArchitecture:
    """With `follows`, layers without weights are as what they read."""
    architecture, names = graph.architecture, graph.layer_names
    allowed = [precisions_of(layer.shape, precisions) for layer in architecture.layers]
    first: list[int] = []
    for i, layer in enumerate(architecture.layers):
        like = names.index(names[i]) if layer.again else i
        makers = [tensor for tensor in architecture.reads[i] if tensor != INPUT]
        if follows and not layer.shape.macs and makers and allowed[min(makers)] == allowed[i]:
            like = min(makers)
        first.append(i if like == i else first[like])
    return MixedArchitecture(architecture, allowed, first)


def entries(network: Searched, choices: Choices) -> int:
    """How many combinations of choices dynamic programming has tables for, in all its steps."""
    scopes = [scope for part in network.layers if (scope := network.scope(part))]
    open_now: tuple[int, ...] = ()
    found = 0
    for number in range(len(choices)):
        together = (*open_now, number)
        found += math.prod(len(choices[each]) for each in together)
        open_now = tuple(each for each in together if any(each in scope and scope[-1] > number for scope in scopes))
    return found
