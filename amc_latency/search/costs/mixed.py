"""A traced network whose widths and precisions are chosen together."""

from __future__ import annotations

import math
from collections.abc import Sequence

from amc_latency.graph.trace import NetworkGraph
from amc_latency.lut.shapes.architecture import Choices, Searched
from amc_latency.lut.shapes.mixed import MixedArchitecture
from amc_latency.lut.shapes.precisions import precisions_of

MOST_ENTRIES = 3_000_000
"""Of the tables that dynamic programming takes: some seconds. MobileNetV2's are 240,000, GoogLeNet's 6 million."""


def mixed_architecture(
    graph: NetworkGraph, precisions: Sequence[str], choices: Choices, most_entries: int = MOST_ENTRIES
) -> MixedArchitecture:
    """The network whose groups may keep `choices`, and whose layers may have each of `precisions` that their kind has.

    Each layer has a precision of its own, but for calls of one module, which have its weights. Where many tensors are
    open at once, as in a DenseNet, tables would take more than `most_entries`: there a layer without weights has the
    precision of the layer that made what it reads first, since a boundary before it would seldom pay.
    """
    own = _mixed(graph, precisions, weightless_too=True)
    if entries(own, own.choices(choices)) <= most_entries:
        return own
    return _mixed(graph, precisions, weightless_too=False)


def _mixed(graph: NetworkGraph, precisions: Sequence[str], weightless_too: bool) -> MixedArchitecture:
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
