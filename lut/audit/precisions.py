"""What a table says of precisions: how much longer or shorter a layer takes in each than in float32."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from amc_latency.lut.prediction.layers import LayerLatencies
from amc_latency.lut.shapes.family import Family, family
from amc_latency.lut.shapes.precisions import FLOAT32, PRECISIONS, can_be, in_precision
from amc_latency.lut.shapes.registry import KINDS
from amc_latency.lut.shapes.shape import NOOP, LayerShape
from amc_latency.lut.table.table import LatencyTable, TableError
from amc_latency.lut.table.timed_layers import TimedLayers


@dataclass(frozen=True)
class PrecisionRatio:
    """Layers of one kind, or of one shape but for their channels, in two precisions."""

    kind: str
    shape: str | None
    """the layers' common key without the precision, `*` for channels; None for all of a kind"""
    precision: str
    n: int
    """layers that were timed in the one, and timed or told in the other"""
    float32_us: float
    """of all of them, less the fixed overhead"""
    us: float
    """of the same in this precision"""
    ratio: float
    """of the two sums: below 1 the precision is the faster"""
    least: float
    most: float
    """of any one of them"""


@dataclass(frozen=True)
class Boundary:
    """What stands between precisions, at one size of image."""

    shape: str
    n: int
    """that were timed"""
    per_thousand_us: float
    """microseconds for a thousand values, in the median, less the fixed overhead"""


@dataclass(frozen=True)
class PrecisionReport:
    """Of each precision in the table."""

    table: str
    kinds: list[PrecisionRatio]
    shapes: list[PrecisionRatio]
    """slowest against float32 first"""
    boundaries: list[Boundary]


def precision_ratios(table: LatencyTable, kind: str | None = None) -> PrecisionReport:
    """Compare all layers, or those of a `kind`, in each precision with float32.

    What a layer takes counts without the fixed overhead that the no-op stands for, as in a network. Raises `TableError`
    for a table of one precision, and for one without such a kind.
    """
    timed = TimedLayers(table.latencies_us())
    layers = LayerLatencies(timed, table.errors, table.path)
    shapes = [shape for shape in timed if kind in (None, shape.kind)]
    others = [shape for shape in shapes if shape.precision != FLOAT32]
    if not others:
        of = f" of kind {kind}" if kind else ""
        raise TableError(
            f"{table.path} has no layers{of} but in {FLOAT32}: `amc-latency profile` with a `precision` of "
            f"{FLOAT32},int8 times others"
        )
    if NOOP not in timed:
        raise layers.missing(NOOP)
    ratios = _Ratios(layers, timed[NOOP])
    by_family: dict[tuple[Family, str], list[tuple[float, float]]] = defaultdict(list)
    titles: dict[Family, str] = {}
    for name in dict.fromkeys(shape.precision for shape in others):
        pairs = ratios.of([shape for shape in shapes if shape.precision in (FLOAT32, name)], name)
        for shape, pair in pairs.items():
            titles.setdefault(family(shape), _title(shape))
            by_family[family(shape), name].append(pair)
    by_kind: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for (of_family, name), found in by_family.items():
        by_kind[of_family.kind, name] += found
    rows = [_ratio(of.kind, titles[of], name, found) for (of, name), found in by_family.items()]
    return PrecisionReport(
        str(table.path),
        [_ratio(of_kind, None, name, found) for (of_kind, name), found in sorted(by_kind.items())],
        sorted(rows, key=lambda row: (PRECISIONS[row.precision].bits, -row.ratio, row.shape)),
        _boundaries([shape for shape in others if KINDS[shape.kind].is_boundary], layers, timed[NOOP]),
    )


class _Ratios:
    def __init__(self, layers: LayerLatencies, noop_us: float) -> None:
        self._layers = layers
        self._noop_us = noop_us

    def of(self, shapes: Sequence[LayerShape], precision: str) -> dict[LayerShape, tuple[float, float]]:
        """By the float32 layer, what it takes and what it does in this precision, where the table tells both."""
        plain = dict.fromkeys(
            in_precision(shape, FLOAT32)
            for shape in shapes
            if not KINDS[shape.kind].is_boundary and can_be(shape, precision) and can_be(shape, FLOAT32)
        )
        pairs = {shape: in_precision(shape, precision) for shape in plain}
        missing = {*self._layers.read([*pairs, *pairs.values()])}
        known = {shape: other for shape, other in pairs.items() if not missing & {shape, other}}
        found = {shape: (self._net_us(shape), self._net_us(other)) for shape, other in known.items()}
        # What is within the fixed overhead has no ratio.
        return {shape: pair for shape, pair in found.items() if min(pair) > 0}

    def _net_us(self, shape: LayerShape) -> float:
        return self._layers.latency_us(shape) - self._noop_us


def _ratio(kind: str, title: str | None, precision: str, pairs: Sequence[tuple[float, float]]) -> PrecisionRatio:
    plain_us, other_us = map(math.fsum, zip(*pairs, strict=True))
    each = [other / plain for plain, other in pairs]
    return PrecisionRatio(
        kind, title, precision, len(pairs), plain_us, other_us, other_us / plain_us, min(each), max(each)
    )


def _boundaries(shapes: Sequence[LayerShape], layers: LayerLatencies, noop_us: float) -> list[Boundary]:
    found: dict[str, list[float]] = defaultdict(list)
    for shape in shapes:
        thousands = shape.c_out * shape.h_out * shape.w_out / 1000
        title = f"{_title(shape)} {shape.precision}"
        found[title].append(max(0.0, layers.latency_us(shape) - noop_us) / thousands)
    return [Boundary(title, len(each), float(np.median(each))) for title, each in sorted(found.items())]


def _title(shape: LayerShape) -> str:
    """The key with `*` for channels, and without what says the precision."""
    kind, _, rest = shape.text.split(" ", 2)
    out = ">*" if shape.two_figures else ""
    return f"{kind} *x{shape.h}x{shape.w}{out} {rest.rpartition(' ')[0]}"
