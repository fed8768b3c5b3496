"""Which tensors are in memory while each layer runs: its inputs, its output, and what later layers still read."""

from __future__ import annotations

from torch import nn

from amc_latency.graph.trace import NetworkGraph, put_sizes, traced_on_meta

IMAGE = -1
"""The network's input, among tensors that are numbered by the layers that make them."""


def live_tensors(model: nn.Module, graph: NetworkGraph) -> list[frozenset[int]]:
    """For each layer, in order of execution, the tensors that are live while it runs, by the layer that made them.

    A tensor lives from the layer that makes it to the last that reads it, the image from the beginning, an output of
    the network to the end. What a layer takes in (a batch norm, a fused activation) and what moves no data (dropout,
    flatten) makes no tensor; nor do zeros around an image, which a window pads with as it reads.
    """
    traced = traced_on_meta(model, graph.input_chw)
    put_sizes(traced, graph.input_chw)
    made_by: dict[str, list[int]] = {}
    for index, node in enumerate(graph.layer_nodes):
        made_by.setdefault(node, []).append(index)
    holds: dict[str, frozenset[int]] = {}
    layers = len(graph.layer_nodes)
    last_read = dict.fromkeys(range(IMAGE, layers), IMAGE)
    for node in traced.graph.nodes:
        found = frozenset[int]().union(*(holds.get(parent.name, frozenset()) for parent in node.all_input_nodes))
        if node.op == "placeholder":
            found = frozenset({IMAGE})
        elif node.op == "output":
            last_read |= dict.fromkeys(found, layers)
        elif node.meta.get("tensor_meta") is None:
            continue  # Sizes that a view() takes.
        for index in made_by.get(node.name, ()):
            last_read |= dict.fromkeys(found, index)
            found = frozenset({index})
        holds[node.name] = found
    return [
        frozenset(tensor for tensor, last in last_read.items() if tensor == layer or tensor < layer <= last)
        for layer in range(layers)
    ]
