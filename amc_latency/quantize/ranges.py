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
SMOOTHING = 0.95
"""What ai-edge-quantizer keeps of a range at each further image: the last 20 images have the most to say."""
_LEAST_WIDTH = 1e-9
"""ai-edge-quantizer's, of a tensor that is zero on all images"""


def steps_of(found: Range, bits: int) -> tuple[float, int]:
    """Scale and zero point of integers -2^(bits - 1) .. 2^(bits - 1) - 1 over the range and zero, which is exact."""
    low, high = min(found[0], 0.0), max(found[1], 0.0)
    scale = max(high - low, _LEAST_WIDTH) / (2**bits - 1)
    return scale, round(-(2 ** (bits - 1)) - low / scale)


def observed(traced: fx.GraphModule, graph: NetworkGraph, images: Tensor, batch: int = 64) -> Ranges:
    """The ranges of a network in eval mode, given as its operations, on images [N, C, H, W].

    Averages that later images weigh more in, as ai-edge-quantizer has them, see `SMOOTHING`. Raises `UserError` for no
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
    return {tensor: averaged(torch.cat(parts, 1)) for tensor, parts in watch.seen.items()}


def averaged(bounds: Tensor) -> Range:
    """The moving average of bounds [2, N], image by image."""
    images = bounds.shape[1]
    weights = (1 - SMOOTHING) * SMOOTHING ** torch.arange(images - 1, -1, -1, dtype=torch.float64)
    weights[0] = SMOOTHING ** (images - 1)
    low, high = (bounds.double().cpu() @ weights).tolist()
    return low, high


class _Watch(fx.Interpreter):
    """Notes the lowest and highest value of each tensor, image by image."""

    def __init__(self, traced: fx.GraphModule, graph: NetworkGraph) -> None:
        super().__init__(traced)
        self._tensors = {name: tensor for tensor, name in graph.holders.items()}
        self.seen: dict[int, list[Tensor]] = {tensor: [] for tensor in graph.holders}
        """[2, N] of each batch"""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._tensors:
            self.seen[self._tensors[n.name]].append(torch.stack(value.flatten(1).aminmax(dim=1)))
        return value
