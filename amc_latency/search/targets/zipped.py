"""How many bytes a network with zeros among its weights takes once it is packed."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from amc_latency.graph.batch_norm import scale_and_shift
from amc_latency.graph.registry import outputs_first
from amc_latency.lut.shapes.architecture import Choices
from amc_latency.lut.shapes.shape import LayerShape
from amc_latency.models.load import Network
from amc_latency.search.costs.costs import LayerCosts
from amc_latency.search.judge.weights import SparseShape, masked, weight_layers

_MARGIN = 1.015
"""The weights that are packed in the end are fine-tuned ones, which moves the size by less than 1 %."""
_SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""Of a layer's weights: what is packed to see its size, which between them is read off a monotone curve."""
_PIECES, _PIECE = 16, 2048
"""Of a larger layer so many pieces of so many weights are packed: deflate looks back 32 kB and no further."""


def zipped_bytes(content: bytes) -> int:
    """The size of a file by zlib at level 9: what it takes in a zip or an APK that packs it, or gzipped on its way.

    A `.tflite` itself stores zeros like any weight; a package's deflate is where they go, without a format of ours.
    """
    return len(zlib.compress(content, 9))


def emptied(network: Network) -> Network:
    """The network with no weights but zeros: its file is what all else takes."""
    names = weight_layers(network.model, network.graph)
    return replace(network, model=masked(network.model, names, [0] * len(names)))


def zipped_costs(network: Network, choices: Choices, overhead: int) -> LayerCosts:
    """Packed bytes of every policy's `.tflite`, a little over the truth; `overhead` for all that is no weight.

    `network` is what `weight_network` gave.
    """
    model, norms = network.model, network.graph.batch_norms
    sizes = [
        _sizes(model.get_submodule(name), _scale(model, norms.get(name)), counts)
        for name, counts in zip(weight_layers(model, network.graph), choices, strict=True)
    ]

    def cost(shape: LayerShape) -> int:
        return sizes[shape.group][shape.kept] if isinstance(shape, SparseShape) else 0

    return LayerCosts(network.graph.architecture, choices, cost, overhead, once=True)


def _scale(model: nn.Module, norm: str | None) -> np.ndarray | None:
    """What the batch norm that is folded into a layer multiplies its weights by, [channels out]."""
    if norm is None:
        return None
    scale, _ = scale_and_shift(model.get_submodule(norm))
    return scale.detach().cpu().numpy()


def _sizes(layer: nn.Module, scale: np.ndarray | None, counts: Sequence[int]) -> dict[int, int]:
    """For each count the packed bytes of a layer's weights, as the file has them, if that many are kept."""
    from scipy.interpolate import PchipInterpolator

    weight = outputs_first(layer).detach().cpu().numpy()
    # A depthwise layer's filters lie side by side, channel by channel.
    is_depthwise = isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels == layer.out_channels
    first = 0 if is_depthwise else 1
    by_channel = np.ones(1, np.float32) if scale is None else scale
    by_weight = np.broadcast_to(by_channel.reshape(-1, *(1,) * (weight.ndim - 1)), weight.shape)
    values, scales = (np.ascontiguousarray(np.moveaxis(each, first, -1)).ravel() for each in (weight, by_weight))
    order = np.sort(np.abs(values))[::-1]
    if values.size > _PIECES * _PIECE:
        starts = np.linspace(0, values.size - _PIECE, _PIECES).astype(int)
        picked = (starts[:, None] + np.arange(_PIECE)).ravel()
        values, scales = values[picked], scales[picked]
    kept = sorted({round(share * order.size) for share in _SHARES})
    # Zeros are in the overhead already.
    empty, packed = zipped_bytes(bytes(values.nbytes)), []
    for count in kept:
        threshold = order[count - 1] if count else math.inf
        # A zero times a negative scale is -0.0: other bytes.
        zeroed = np.where(np.abs(values) >= threshold, values, np.float32(0)) * scales
        packed.append((zipped_bytes(zeroed.tobytes()) - empty) * order.size / values.size)
    curve = PchipInterpolator(kept, np.maximum.accumulate(packed)) if len(kept) > 1 else lambda _: packed[0]
    return {count: math.ceil(_MARGIN * float(curve(count))) for count in counts}
