"""What may be chosen of a traced network: its widths, and the precisions that each layer can have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from amc_latency.lut.shapes.architecture import Architecture, Choices, Searched, channel_choices
from amc_latency.lut.shapes.mixed import MixedArchitecture
from amc_latency.lut.shapes.precisions import precisions_of

MOST_ENTRIES = 3_000_000
"""Of the tables that dynamic programming takes: some seconds. MobileNetV2's are 240,000, GoogLeNet's 6 million."""


class Graph(Protocol):
    """A network's layers, traced or remembered."""

    @property
    def architecture(self) -> Architecture:
        """Their shapes."""

    @property
    def layer_names(self) -> Sequence[str]:
        """The module of each."""


def mixed_architecture(
    graph: Graph, precisions: Sequence[str], choices: Choices | None = None, most_entries: int = MOST_ENTRIES
) -> MixedArchitecture:
    """The network whose groups may keep `choices`, and whose layers may have each of `precisions` that their kind has.

    Choices are multiples of 8 unless given. Each layer has a precision of its own, but for calls of one module, which
    have its weights. Where many tensors are open at once, as in a DenseNet, tables would take more than `most_entries`:
    there a layer without weights has the precision of the layer that made what it reads first, since a boundary before
    it would seldom pay.
    """
    choices = [channel_choices(count) for count in graph.architecture.group_channels] if choices is None else choices
    own = _mixed(graph, precisions, weightless_too=True)
    if entries(own, own.choices(choices)) <= most_entries:
        return own
    return _mixed(graph, precisions, weightless_too=False)


def _mixed(graph: Graph, precisions: Sequence[str], weightless_too: bool) -> MixedArchitecture:
    architecture, names = graph.architecture, graph.layer_names
    allowed = [precisions_of(layer.shape, precisions) for layer in architecture.layers]
    first: list[int] = []
    for i, layer in enumerate(architecture.layers):
        like = names.index(names[i]) if layer.again else i
        makers = [tensor for tensor in architecture.reads[i] if tensor >= 0]
        if not weightless_too and not layer.shape.macs and makers and allowed[first[min(makers)]] == allowed[i]:
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
