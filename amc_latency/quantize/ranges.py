"""What a network's tensors range over on calibration images, and the scale and zero point that follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from amc_latency.errors import UserError
from amc_latency.graph.trace import NetworkGraph

Range = tuple[float, float]
"""lowest and highest"""
Ranges = Mapping[int, Range]
"""What each tensor ranges over, by its number in `NetworkGraph.architecture`."""
_NO_RANGE = 1e-9
"""What is narrower was zero on all images; it is then taken to go to 1, as `export.quantised` does."""


def steps_of(found: Range, bits: int) -> tuple[float, int]:
    """Scale and zero point of integers -2^(bits - 1) .. 2^(bits - 1) - 1 over the range and zero, which is exact."""
    low, high = min(found[0], 0.0), max(found[1], 0.0)
    if high - low < _NO_RANGE:
        low, high = 0.0, 1.0
    scale = (high - low) / (2**bits - 1)
    return scale, round(-(2 ** (bits - 1)) - low / scale)


def observed(traced: fx.GraphModule, graph: NetworkGraph, images: Tensor, batch: int = 64) -> Ranges:
    """The ranges of a network in eval mode, given as its operations, on images [N, C, H, W].

    From the lowest to the highest value of any image, as `export.quantised` takes them. Raises `UserError` for no
    images.
    """
    if not len(images):
        raise UserError("ranges of tensors need calibration images, and there are none")
    was_training, watch = traced.training, _Watch(traced.eval(), graph)
    try:
        with torch.inference_mode():
            for part in images.split(batch):
                watch.run(part)
    finally:
        traced.train(was_training)
    return watch.seen


class _Watch(fx.Interpreter):
    """Notes the lowest and highest value of each tensor."""

    def __init__(self, traced: fx.GraphModule, graph: NetworkGraph) -> None:
        super().__init__(traced)
        self._tensors = {name: tensor for tensor, name in graph.holders.items()}
        self.seen: dict[int, Range] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._tensors:
            tensor = self._tensors[n.name]
            low, high = (float(bound) for bound in value.aminmax())
            known = self.seen.get(tensor, (low, high))
            self.seen[tensor] = (min(low, known[0]), max(high, known[1]))
        return value
