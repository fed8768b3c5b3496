"""Which layer shapes have a staircase in common: those that differ in their channels only."""

from __future__ import annotations

import math
from collections.abc import Iterable

from amc_latency.lut.shapes.shape import LayerShape

Family = tuple[str, int, int, int, int, int, str, str, int, int, int, int, int, int, int]
"""A layer shape without its channels."""

TWO_FIGURE_KINDS = ("conv", "linear")
"""Kinds whose channels in and out differ; all others have one channel figure."""
_WIDEST = 64
_ON_GRID = 0.9
"""So many of all counts must lie on a grid: a few that were imported or are a classifier's need not."""


def family(shape: LayerShape) -> Family:
    """What stays of a layer shape when its channels are forgotten: layers of one family share a staircase."""
    s = shape
    rare = (s.end, s.dilation, s.per_group, s.parts, s.per_group_out, s.kernel_w, s.padding_w)
    return (s.kind, s.h, s.w, s.kernel, s.stride, s.padding, s.activation, s.dtype, *rare)


def related(name: Family) -> tuple[object, ...]:
    """What families have in common that may run the same code, and so have the same steps and alignments."""
    kind, _, _, kernel, stride, _, activation, dtype, _, dilation, *rare, _ = name
    return (kind, kernel, stride, activation, dtype, dilation, *rare)


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
    return next((g for g in wider if sum(count % g == 0 for count in counts) >= _ON_GRID * len(counts)), whole)
