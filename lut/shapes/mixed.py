"""Networks whose layers have precisions of their own: their layer shapes, and the variables that decide these.

A **precision policy** has the name of a precision for each layer. Where a tensor is made in one number format and read
in another, a boundary stands: once for the tensor, however many layers read it so. The network's own input and
outputs are float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from amc_latency.lut.shapes.architecture import INPUT, Architecture, ByGroup, Choices, Layer
from amc_latency.lut.shapes.precisions import FLOAT32, PRECISIONS, boundary, in_precision
from amc_latency.lut.shapes.shape import LayerShape, NetworkShape, ShapeError

_ByLayer = Sequence[str] | Mapping[int, str]


def mixed_shapes(
    architecture: Architecture, precisions: Sequence[str], counts: Sequence[int] | None = None
) -> NetworkShape:
    """All layer shapes at `counts` (full width if none), in order of execution; a tensor's boundaries after its maker.

    Raises `ValueError` for a wrong number of precisions or counts, `ShapeError` for one that there is not.
    """
    if len(precisions) != len(architecture.layers):
        raise ValueError(f"{len(precisions)} precisions for a network of {len(architecture.layers)} layers")
    if unknown := [name for name in precisions if name not in PRECISIONS]:
        raise ShapeError(f"no precision is called '{unknown[0]}'; there are {', '.join(PRECISIONS)}")
    counts = architecture.checked(counts)
    return tuple(shape for part in _parts(architecture) for shape in part.shapes(counts, precisions))


@dataclass(frozen=True)
class Part:
    """What decides some of a mixed network's shapes together: a layer, or the boundaries of a tensor."""

    groups: tuple[int, ...]
    """the coupled groups that they depend on"""
    layers: tuple[int, ...]
    """the layers whose precisions they depend on"""
    shapes: Callable[[ByGroup, _ByLayer], list[LayerShape]]
    shape: LayerShape
    """the layer's at full width, or that of a layer at the tensor"""
    makes: int | None = None
    """the layer, unless it is a boundary"""
    again: bool = False
    """as `Layer.again`"""


def _parts(architecture: Architecture) -> Iterator[Part]:
    for tensor in range(INPUT, len(architecture.layers)):
        if tensor != INPUT:
            yield _layer(architecture, tensor)
        yield _boundaries(architecture, tensor)


def _layer(architecture: Architecture, index: int) -> Part:
    layer = architecture.layers[index]

    @cache
    def layer_in(precision: str) -> Layer:
        return replace(layer, shape=in_precision(layer.shape, precision))

    def shapes(counts: ByGroup, precisions: _ByLayer) -> list[LayerShape]:
        return [architecture.shape_of(layer_in(precisions[index]), counts)]

    return Part(architecture.scope(layer), (index,), shapes, layer.shape, index, layer.again)


def _boundaries(architecture: Architecture, tensor: int) -> Part:
    readers, is_output = architecture.readers[tensor], tensor in architecture.outputs
    # The input is as large as what reads it says.
    layer = architecture.layers[readers[0] if tensor == INPUT else tensor]
    channels, shape = layer.shape.c_in, layer.shape
    hw = (shape.h, shape.w) if tensor == INPUT else (shape.h_out, shape.w_out)
    makers = () if tensor == INPUT else (tensor,)
    groups = () if tensor == INPUT else tuple(group for group, _ in architecture.out_parts(layer))

    def shapes(counts: ByGroup, precisions: _ByLayer) -> list[LayerShape]:
        made = PRECISIONS[precisions[tensor]].tensors if makers else FLOAT32
        read = [PRECISIONS[precisions[reader]].tensors for reader in readers] + [FLOAT32] * is_output
        wanted = [each for each in dict.fromkeys(read) if each != made]
        if not wanted:
            return []
        return [
            boundary(made, each, architecture.out_size(layer, counts) if makers else channels, *hw) for each in wanted
        ]

    return Part(tuple(sorted(groups)), tuple(dict.fromkeys((*makers, *readers))), shapes, layer.shape)


class MixedArchitecture:
    """A network whose widths and precisions are chosen together, by variables in network order.

    A variable is a coupled group, whose values are channels, or a layer's precision, whose values are 1 for the first
    of those that `allowed` names for the layer, 2 for the next, and so on: least bits first, so that the largest value
    is the most exact. So a policy of both is a tuple of numbers, as one of widths is, and whatever adds up, clamps and
    solves the one does the other. A layer with one allowed precision has no variable, and one that `tied` maps to an
    earlier layer has that one's. Raises `ValueError` for lists that don't fit.
    """

    def __init__(
        self, architecture: Architecture, allowed: Sequence[Sequence[str]], tied: Sequence[int] | None = None
    ) -> None:
        self.architecture = architecture
        self.allowed = tuple(tuple(each) for each in allowed)
        first = tuple(range(len(architecture.layers)) if tied is None else tied)
        if {len(self.allowed), len(first)} != {len(architecture.layers)} or not all(self.allowed):
            raise ValueError("each layer needs at least one allowed precision")
        if any(i < j or first[j] != j or self.allowed[i] != self.allowed[j] for i, j in enumerate(first)):
            raise ValueError("a layer can be tied to an earlier one alone, of the same allowed precisions")
        by_group, by_layer, full = _variables(architecture, self.allowed, first)
        self.full: tuple[int, ...] = full
        """the largest value of each variable"""
        self.by_group: tuple[int, ...] = by_group
        """the variable of each coupled group"""
        self.by_layer: tuple[int | None, ...] = by_layer
        """the variable of each layer's precision; None for a layer that has one precision alone"""
        self.layers = tuple(_parts(architecture))
        """parts: layers, and the boundaries of tensors, in order of execution"""

    def choices(self, group_choices: Choices) -> tuple[tuple[int, ...], ...]:
        """The values that each variable may have, if groups have these counts."""
        found = [tuple(range(1, value + 1)) for value in self.full]
        for variable, counts in zip(self.by_group, group_choices, strict=True):
            found[variable] = tuple(counts)
        return tuple(found)

    def counts(self, values: Sequence[int]) -> tuple[int, ...]:
        """The channels of each coupled group."""
        return tuple(values[variable] for variable in self.by_group)

    def precisions(self, values: Sequence[int]) -> tuple[str, ...]:
        """The precision of each layer."""
        return tuple(self._precision(layer, values) for layer in range(len(self.allowed)))

    def values(self, counts: Sequence[int], precisions: Sequence[str]) -> tuple[int, ...]:
        """The policy of these channels and precisions. Raises `ValueError` for one that no values make."""
        found = [0] * len(self.full)
        for variable, count in zip(self.by_group, counts, strict=True):
            found[variable] = count
        for layer, (chosen, each) in enumerate(zip(precisions, self.allowed, strict=True)):
            place = self.by_layer[layer]
            value = each.index(chosen) + 1 if chosen in each else 0
            if not value or (place is not None and found[place] not in (0, value)):
                raise ValueError(f"layer {layer} can't be {chosen} here: {', '.join(each)}, as what it is tied to")
            if place is not None:
                found[place] = value
        return tuple(found)

    def names(self, groups: Sequence[str], layers: Sequence[str]) -> tuple[str, ...]:
        """What each variable decides, by the names of coupled groups and layers."""
        found = [""] * len(self.full)
        for group, name in zip(self.by_group, groups, strict=True):
            found[group] = f"channels of {name}"
        for layer, name in zip(self.by_layer, layers, strict=True):
            if layer is not None:
                found[layer] = found[layer] or f"precision of {name}"
        return tuple(found)

    def scope(self, part: Part) -> tuple[int, ...]:
        """The variables that the part's shapes depend on, ascending."""
        precisions = {variable for layer in part.layers if (variable := self.by_layer[layer]) is not None}
        return tuple(sorted(precisions | {self.by_group[group] for group in part.groups}))

    def shapes_of(self, part: Part, values: Sequence[int]) -> Sequence[LayerShape]:
        """The part's shapes under a policy."""
        counts = {group: values[self.by_group[group]] for group in part.groups}
        return part.shapes(counts, {layer: self._precision(layer, values) for layer in part.layers})

    def shapes(self, values: Sequence[int] | None = None) -> NetworkShape:
        """All shapes under a policy, in order of execution; of the network as it is if none, in the last precisions."""
        values = self.full if values is None else values
        return tuple(shape for part in self.layers for shape in self.shapes_of(part, values))

    def reachable(self, part: Part, choices: Choices) -> list[LayerShape]:
        """Every shape that the part can have, each once; `choices` are the variables'."""
        scope, values = self.scope(part), list(self.full)
        found: dict[LayerShape, None] = {}
        for each in itertools.product(*(choices[variable] for variable in scope)):
            for variable, value in zip(scope, each, strict=True):
                values[variable] = value
            found |= dict.fromkeys(self.shapes_of(part, values))
        return list(found)

    @property
    def widths(self) -> Sequence[int]:
        """As `Searched.widths`."""
        return self.by_group

    def weighed(self) -> NetworkShape:
        """As `Searched.weighed`: of the network in each precision as far as layers have it, with its boundaries."""
        names = dict.fromkeys(name for each in self.allowed for name in each)
        return tuple(shape for name in names for shape in mixed_shapes(self.architecture, self._all(name)))

    def grids(self, choices: Choices) -> Sequence[tuple[Architecture, Choices]]:
        """As `Searched.grids`; boundaries are in none."""
        names = dict.fromkeys(name for each in self.allowed for name in each)
        groups = [choices[variable] for variable in self.by_group]
        found = []
        for name in names:
            layers = tuple(
                replace(layer, shape=in_precision(layer.shape, each))
                for layer, each in zip(self.architecture.layers, self._all(name), strict=True)
            )
            found.append((replace(self.architecture, layers=layers), groups))
        return found

    def _all(self, name: str) -> tuple[str, ...]:
        """That precision of every layer that may have it."""
        return tuple(name if name in each else each[-1] for each in self.allowed)

    def makes(self, part: Part, variable: int) -> bool:
        """Whether the variable is the precision of the part's layer, or channels that the layer makes."""
        if part.makes is None:
            return False
        made = self.architecture.out_parts(self.architecture.layers[part.makes])
        return variable == self.by_layer[part.makes] or variable in [self.by_group[group] for group, _ in made]

    def _precision(self, layer: int, values: Sequence[int]) -> str:
        variable = self.by_layer[layer]
        return self.allowed[layer][0 if variable is None else values[variable] - 1]


def _variables(
    architecture: Architecture, allowed: Sequence[Sequence[str]], first: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int | None, ...], tuple[int, ...]]:
    """The variable of each group and of each layer, and each variable's largest value.

    In network order, so that few are open at once: before a layer's precision those groups that no earlier layer has.
    """
    by_group: dict[int, int] = {}
    by_layer: list[int | None] = []
    full: list[int] = []
    for i, layer in enumerate(architecture.layers):
        for group in architecture.scope(layer):
            if group not in by_group:
                by_group[group] = len(full)
                full.append(architecture.group_channels[group])
        if first[i] != i or len(allowed[i]) == 1:
            by_layer.append(by_layer[first[i]] if first[i] != i else None)
        else:
            by_layer.append(len(full))
            full.append(len(allowed[i]))
    return tuple(by_group[group] for group in range(len(architecture.group_channels))), tuple(by_layer), tuple(full)
