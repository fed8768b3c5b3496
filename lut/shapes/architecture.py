"""A network as the latency side sees it: layer shapes, what each reads, and which coupled groups set its channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from amc_latency.lut.shapes.shape import LayerShape, NetworkShape, with_channels

Part = tuple[int, int]
"""A coupled group, and how many values a layer has for each of the group's channels (49 after flattening 7x7)."""
Channels = int | tuple[Part, ...] | None
"""What sets a layer's channels: one group all of them, None if they never change, or parts, as after joining the
channels of several groups; what no part sets never changes."""
Choices = Sequence[Sequence[int]]
"""For each coupled group, the counts that it may keep, ascending: see `channel_choices`."""
ByGroup = Sequence[int] | Mapping[int, int]
"""How many channels each coupled group keeps, or each of those that are asked about."""
INPUT = -1
"""The network's input, among tensors that are numbered by the layers that make them."""


class Searched(Protocol):
    """A network as a policy decides it: a number for each coupled group, or for layers' precisions as well."""

    @property
    def full(self) -> tuple[int, ...]:
        """The largest value of what a policy decides."""

    @property
    def layers(self) -> Sequence[Any]:
        """What has a cost each."""

    def scope(self, layer: Any) -> tuple[int, ...]:
        """The numbers of a policy that the layer depends on, ascending."""

    def shapes_of(self, layer: Any, values: Sequence[int]) -> Sequence[LayerShape]:
        """What the layer costs under a policy, as shapes."""

    def shapes(self, values: Sequence[int] | None = None) -> NetworkShape:
        """All layer shapes under a policy, of the network as it is if none."""

    def reachable(self, layer: Any, choices: Choices) -> list[LayerShape]:
        """Every shape that the layer can have, each once."""

    def makes(self, layer: Any, group: int) -> bool:
        """Whether that number of a policy is about what the layer makes."""

    @property
    def widths(self) -> Sequence[int]:
        """Which numbers of a policy are counts of channels."""

    def weighed(self) -> NetworkShape:
        """The shapes by which a table's families weigh: those of the uncut network, in each precision."""

    def grids(self, choices: Choices) -> Sequence[tuple[Architecture, Choices]]:
        """The network in each precision, and the counts that its coupled groups may keep."""


@dataclass(frozen=True)
class Layer:
    """A layer at full width, and what sets its channels in and out."""

    shape: LayerShape
    in_group: Channels
    out_group: Channels
    again: bool = False
    """whether it is a later call of a module: its time and MACs count once more, its parameters don't"""
    reads: tuple[int, ...] | None = None
    """the tensors that it reads, each once, by the layers that made them; None for what the layer before it makes"""


@dataclass(frozen=True)
class Architecture:
    """Layers in order of execution, and the full channel count of each coupled group in network order.

    A tensor has the number of the layer that makes it, the network's input is `INPUT`: what moves no data, as
    flattening, makes none.
    """

    layers: tuple[Layer, ...]
    group_channels: tuple[int, ...]
    returns: tuple[int, ...] | None = None
    """the tensors that the network returns; None for what its last layer makes"""

    @cached_property
    def reads(self) -> tuple[tuple[int, ...], ...]:
        """The tensors that each layer reads."""
        return tuple((i - 1,) if layer.reads is None else layer.reads for i, layer in enumerate(self.layers))

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """The tensors that the network returns."""
        return (len(self.layers) - 1,) if self.returns is None else self.returns

    @cached_property
    def readers(self) -> dict[int, tuple[int, ...]]:
        """The layers that read each tensor: none read what the network alone returns."""
        return {
            tensor: tuple(i for i, reads in enumerate(self.reads) if tensor in reads)
            for tensor in range(INPUT, len(self.layers))
        }

    @property
    def full(self) -> tuple[int, ...]:
        """The largest value of what a policy decides: each coupled group's channels."""
        return self.group_channels

    def shape_of(self, layer: Layer, counts: ByGroup) -> LayerShape:
        """The layer's shape when group `g` keeps `counts[g]` channels."""
        shape = layer.shape
        c_in, c_out = (self._size(layer.in_group, shape.c_in, counts), self._size(layer.out_group, shape.c_out, counts))
        if (c_in, c_out) == (shape.c_in, shape.c_out):
            return shape
        if shape.two_figures and min(c_in, c_out) > 0:
            return with_channels(shape, c_in, c_out)
        return replace(shape, c_in=c_in, c_out=c_out)

    def shapes(self, counts: Sequence[int] | None = None) -> NetworkShape:
        """All layer shapes at `counts` (full width if none). Raises `ValueError` for a wrong number of counts."""
        counts = self.checked(counts)
        return tuple(self.shape_of(layer, counts) for layer in self.layers)

    def shapes_of(self, layer: Layer, counts: Sequence[int]) -> tuple[LayerShape, ...]:
        """What the layer costs at `counts`, as shapes: its own alone."""
        return (self.shape_of(layer, counts),)

    @property
    def widths(self) -> Sequence[int]:
        """As `Searched.widths`: all."""
        return range(len(self.group_channels))

    def weighed(self) -> NetworkShape:
        """As `Searched.weighed`: its own."""
        return self.shapes()

    def grids(self, choices: Choices) -> Sequence[tuple[Architecture, Choices]]:
        """As `Searched.grids`: itself."""
        return [(self, choices)]

    def checked(self, counts: Sequence[int] | None) -> Sequence[int]:
        """The counts, full width if none. Raises `ValueError` for a wrong number of them."""
        counts = self.group_channels if counts is None else counts
        if len(counts) != len(self.group_channels):
            raise ValueError(f"{len(counts)} channel counts for a network of {len(self.group_channels)} coupled groups")
        return counts

    def params(self, counts: Sequence[int] | None = None) -> tuple[int, ...]:
        """Parameters of each layer at `counts`: none for those that an earlier layer has already. As `shapes`."""
        shapes = zip(self.layers, self.shapes(counts), strict=True)
        return tuple(0 if layer.again else shape.params for layer, shape in shapes)

    def scope(self, layer: Layer) -> tuple[int, ...]:
        """The coupled groups that the layer's shape depends on, ascending."""
        shape = layer.shape
        sides = (*self._parts(layer.in_group, shape.c_in), *self._parts(layer.out_group, shape.c_out))
        return tuple(sorted({group for group, _ in sides}))

    def out_size(self, layer: Layer, counts: ByGroup) -> int:
        """The layer's channels out when group `g` keeps `counts[g]` channels."""
        return self._size(layer.out_group, layer.shape.c_out, counts)

    def in_sizes(self, layer: Layer, choices: Choices) -> list[int]:
        """Every number of channels in that the layer can have, ascending."""
        return self._sizes(layer.in_group, layer.shape.c_in, choices)

    def out_sizes(self, layer: Layer, choices: Choices) -> list[int]:
        """Every number of channels out that the layer can have, ascending."""
        return self._sizes(layer.out_group, layer.shape.c_out, choices)

    def reachable(self, layer: Layer, choices: Choices) -> list[LayerShape]:
        """Every shape that the layer can have, each once."""
        shape, pairs = layer.shape, {(layer.shape.c_in, layer.shape.c_out)}
        ins, outs = self._parts(layer.in_group, shape.c_in), self._parts(layer.out_group, shape.c_out)
        # Group by group, so that sums which come out alike are told once.
        for group in self.scope(layer):
            in_values, out_values = (sum(values for part, values in side if part == group) for side in (ins, outs))
            cuts = [self.group_channels[group] - count for count in choices[group]]
            pairs = {(c_in - in_values * cut, c_out - out_values * cut) for c_in, c_out in pairs for cut in cuts}
        return [replace(shape, c_in=c_in, c_out=c_out) for c_in, c_out in sorted(pairs)]

    def out_parts(self, layer: Layer) -> tuple[Part, ...]:
        """The coupled groups that set the layer's channels out, and how many of these go with each of a group's."""
        return self._parts(layer.out_group, layer.shape.c_out)

    def makes(self, layer: Layer, group: int) -> bool:
        """Whether the group's channels are among the layer's outputs."""
        return any(part == group for part, _ in self.out_parts(layer))

    def group_widths(self) -> tuple[int, ...]:
        """How many channels of its layers each group's channels stand for: more than 1 in grouped convolutions."""
        widths: dict[int, int] = {}
        for layer in self.layers:
            for group, values in self._parts(layer.out_group, layer.shape.c_out):
                widths[group] = min(values, widths.get(group, values))
        return tuple(widths.get(group, 1) for group in range(len(self.group_channels)))

    def _parts(self, side: Channels, size: int) -> tuple[Part, ...]:
        if side is None:
            return ()
        return ((side, size // self.group_channels[side]),) if isinstance(side, int) else side

    def _size(self, side: Channels, size: int, counts: ByGroup) -> int:
        for group, values in self._parts(side, size):
            size -= values * (self.group_channels[group] - counts[group])
        return size

    def _sizes(self, side: Channels, size: int, choices: Choices) -> list[int]:
        sizes = {size}
        for group, values in self._parts(side, size):
            cuts = [values * (self.group_channels[group] - count) for count in choices[group]]
            sizes = {size - cut for size in sizes for cut in cuts}
        return sorted(sizes)


def channel_choices(channels: int, min_keep: float = 0.2, step: int = 8, least: int = 1) -> tuple[int, ...]:
    """Counts that a group may keep: multiples of `step` from `min_keep * channels` and `least` up, and `channels`."""
    smallest = max(1, math.ceil(max(least, channels * min_keep) / step - 1e-9)) * step
    return (*range(smallest, channels, step), channels)
