"""Which layer shapes have a staircase in common: those that differ in their channels only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from amc_latency.lut.shapes.registry import KINDS
from amc_latency.lut.shapes.shape import LayerShape


class Family(NamedTuple):
    """A layer shape without its channels; `per_group_out` is what a grouped convolution's groups make."""

    kind: str
    h: int
    w: int
    kernel: int
    stride: int
    padding: int
    activation: str
    precision: str
    end: int
    dilation: int
    per_group: int
    parts: int
    per_group_out: int
    kernel_w: int
    padding_w: int

    @property
    def two_figures(self) -> bool:
        """Whether channels in and out differ, so that the staircase has two axes."""
        return KINDS[self.kind].two_figures


_VALUES = attrgetter(*Family._fields)
_WIDEST = 64
_ON_GRID = 0.9
"""So many of all counts must lie on a grid: a few that were imported or are a classifier's need not."""


def family(shape: LayerShape) -> Family:
    """What stays of a layer shape when its channels are forgotten: layers of one family share a staircase."""
    return Family._make(_VALUES(shape))


def related(name: Family) -> tuple[object, ...]:
    """What families have in common that may run the same code, and so have the same steps and alignments."""
    n = name
    rare = (n.per_group, n.parts, n.per_group_out, n.kernel_w)
    return (n.kind, n.kernel, n.stride, n.activation, n.precision, n.dilation, *rare)


def grid_of(counts_by_family: Iterable[Iterable[int]]) -> int:
    """What the output counts of these families are multiples of, each family's widest and a tenth of all aside.

    1 if no family has several: nothing is known of a grid then.
    """
    counts: list[int] = []
    for family_counts in counts_by_family:
        ordered = sorted(set(family_counts))
        # A full count need not be on the grid of those that it is cut to.
        counts += ordered[:-1]
    if not counts:
        return 1
    whole = math.gcd(*counts)
    wider = range(_WIDEST // whole * whole, whole, -whole)
    # Relatives were mostly timed at the same counts.
    times = Counter(counts)
    on_grid = (g for g in wider if sum(n for count, n in times.items() if count % g == 0) >= _ON_GRID * len(counts))
    return next(on_grid, whole)
