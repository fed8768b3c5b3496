"""A network as the latency side sees it: layer shapes, and which coupled group sets each one's channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lut.shape import LayerShape, NetworkShape


@dataclass(frozen=True)
class Layer:
    """A layer at full width. A group index of `None` says that those channels never change."""

    shape: LayerShape
    in_group: int | None
    out_group: int | None


@dataclass(frozen=True)
class Architecture:
    """Layers in order of execution, and the full channel count of each coupled group in network order."""

    layers: tuple[Layer, ...]
    group_channels: tuple[int, ...]

    def shape_of(self, layer: Layer, counts: Sequence[int]) -> LayerShape:
        """The layer's shape when group `g` keeps `counts[g]` channels.

        A layer may see several values per channel (a linear layer after flattening 7x7): they scale together.
        """
        in_count = 0 if layer.in_group is None else counts[layer.in_group]
        out_count = 0 if layer.out_group is None else counts[layer.out_group]
        return self.sized(layer, in_count, out_count)

    def sized(self, layer: Layer, in_count: int, out_count: int) -> LayerShape:
        """The layer's shape with those counts in its own groups; a count without a group is not looked at."""
        c_in, c_out = layer.shape.c_in, layer.shape.c_out
        if layer.in_group is not None:
            c_in = c_in // self.group_channels[layer.in_group] * in_count
        if layer.out_group is not None:
            c_out = c_out // self.group_channels[layer.out_group] * out_count
        return replace(layer.shape, c_in=c_in, c_out=c_out)

    def shapes(self, counts: Sequence[int] | None = None) -> NetworkShape:
        """All layer shapes at `counts` (full width if none). Raises `ValueError` for a wrong number of counts."""
        counts = self.group_channels if counts is None else counts
        if len(counts) != len(self.group_channels):
            raise ValueError(f"{len(counts)} channel counts for a network of {len(self.group_channels)} coupled groups")
        return tuple(self.shape_of(layer, counts) for layer in self.layers)


def channel_choices(channels: int, min_keep: float = 0.2, step: int = 8) -> tuple[int, ...]:
    """Counts that a group may keep: multiples of `step` from `min_keep * channels` up, and `channels` itself."""
    smallest = max(1, math.ceil(channels * min_keep / step - 1e-9)) * step
    return (*range(smallest, channels, step), channels)
