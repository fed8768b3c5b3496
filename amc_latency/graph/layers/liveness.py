"""Which tensors are in memory while each layer runs: its inputs, its output, and what later layers still read."""

from __future__ import annotations

from amc_latency.lut.shapes.architecture import INPUT, Architecture


def live_tensors(architecture: Architecture) -> list[frozenset[int]]:
    """For each layer, in order of execution, the tensors that are live while it runs, by the layer that made them.

    A tensor lives from the layer that makes it to the last that reads it, the image from the beginning, an output of
    the network to the end. What a layer takes in (a batch norm, a fused activation) and what moves no data (dropout,
    flatten) makes no tensor; nor do zeros around an image, which a window pads with as it reads.
    """
    layers = len(architecture.layers)
    last_read = {tensor: max(readers, default=INPUT) for tensor, readers in architecture.readers.items()}
    last_read |= dict.fromkeys(architecture.outputs, layers)
    return [
        frozenset(tensor for tensor, last in last_read.items() if tensor == layer or tensor < layer <= last)
        for layer in range(layers)
    ]
