"""What one layer costs, from a table's rows: its own row, or else what the staircase of its family says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from amc_latency.lut.prediction.interpolate import Staircase, channels, fit_points
from amc_latency.lut.shapes.family import Family, family, grid_of, related
from amc_latency.lut.shapes.precisions import FLOAT32
from amc_latency.lut.shapes.shape import LayerShape
from amc_latency.lut.table.timed_layers import Points, TimedLayers

_FEWEST_POINTS = {True: 3, False: 5}
"""Timed shapes that a family is read between, by whether it has two channel figures."""


class MissingShapeError(LookupError):
    """A layer that the table neither holds nor reaches. `shape` is the layer."""

    def __init__(self, shape: LayerShape, message: str) -> None:
        super().__init__(message)
        self.shape = shape


@dataclass(frozen=True)
class _Known:
    """The timed points of one family, and between which channels they tell what others cost."""

    points: Points
    grid: int
    """counts between are answered for on this grid only: off it a device may be slower"""
    least: tuple[int, int]
    most: tuple[int, int]

    def stand_in(self, shape: LayerShape) -> LayerShape | None:
        """The shape on the grid that costs what this one does; None outside of what was timed."""
        two_figures = shape.two_figures
        if len(self.points[1]) < _FEWEST_POINTS[two_figures]:
            return None
        c_out = min(-(-shape.c_out // self.grid) * self.grid, max(shape.c_out, self.most[1]))
        inside = self.least[0] <= shape.c_in <= self.most[0] and self.least[1] <= c_out <= self.most[1]
        if not inside or (c_out != shape.c_out and not two_figures):
            return None
        return replace(shape, c_out=c_out)


class LayerLatencies:
    """Microseconds of single layers, as a runtime takes them: with its fixed overhead.

    `timed` are the table's rows, `errors` those of layers that could not be timed, `where` names the table in errors.
    """

    def __init__(self, timed: Mapping[LayerShape, float], errors: Mapping[str, str], where: Path) -> None:
        self.timed = timed if isinstance(timed, TimedLayers) else TimedLayers.of_shapes(timed)
        self._errors = errors
        self._where = where
        self._read: dict[LayerShape, tuple[float, float]] = {}
        """shapes read off a staircase: microseconds and standard error"""
        self._staircases: dict[Family, Staircase] = {}

    def latency_us(self, shape: LayerShape) -> float:
        """The layer's own row, or the staircase's figure. Raises `MissingShapeError`."""
        return self.timed[shape] if shape in self.timed else self._reading(shape)[0]

    def reading_error_us(self, shape: LayerShape) -> float:
        """The standard error of reading a layer between those that were timed; 0 for a timed one."""
        return 0.0 if shape in self.timed else self._reading(shape)[1]

    def read(self, shapes: Iterable[LayerShape]) -> list[LayerShape]:
        """Look many layers up at once, which is quicker; returns those that are missing."""
        missing: list[LayerShape] = []
        wanted: dict[Family, dict[LayerShape, LayerShape]] = defaultdict(dict)
        for shape in dict.fromkeys(shapes):
            if shape in self.timed or shape in self._read:
                continue
            known = self._families.get(family(shape))
            stand_in = None if known is None or shape.text in self._errors else known.stand_in(shape)
            if stand_in is None:
                missing.append(shape)
            elif stand_in in self.timed:
                self._read[shape] = (self.timed[stand_in], 0.0)
            else:
                wanted[family(shape)][shape] = stand_in
        for name, stand_ins in wanted.items():
            staircase, points = self._staircase(name), channels(stand_ins.values())
            latencies_us, errors = staircase.latency_and_error(points)
            errors_us = latencies_us * errors
            for shape, latency_us, error_us in zip(stand_ins, latencies_us, errors_us, strict=True):
                self._read[shape] = (float(latency_us), float(error_us))
        return missing

    def missing(self, shape: LayerShape) -> MissingShapeError:
        """The error for a layer that cannot be told."""
        error = self._errors.get(shape.text)
        why = f"could not be timed: {error}" if error else "is not in the latency table"
        how = "" if shape.precision == FLOAT32 else f" and with a `precision` of {FLOAT32},{shape.precision}"
        advice = f"; profile its network, with a `step` that its counts are multiples of{how}, or import a log of it"
        return MissingShapeError(shape, f"layer '{shape}' {why} ({self._where}){'' if error else advice}")

    def _reading(self, shape: LayerShape) -> tuple[float, float]:
        if shape not in self._read and self.read([shape]):
            raise self.missing(shape)
        return self._read[shape]

    @cached_property
    def _families(self) -> dict[Family, _Known]:
        members = self.timed.families
        relatives: dict[tuple[object, ...], list[list[int]]] = defaultdict(list)
        for name, (points, _) in members.items():
            relatives[related(name)].append(np.unique(points[:, 1]).astype(int).tolist())
        grids = {each: grid_of(counts) for each, counts in relatives.items()}
        return {
            name: _Known(own, grids[related(name)], _pair(own[0].min(axis=0)), _pair(own[0].max(axis=0)))
            for name, own in members.items()
        }

    def _staircase(self, name: Family) -> Staircase:
        if name not in self._staircases:
            # Relatives vote together; families of other kinds are fitted when they are asked for.
            relatives = {
                other: known.points for other, known in self._families.items() if related(other) == related(name)
            }
            self._staircases |= fit_points(relatives)
        return self._staircases[name]


def _pair(counts: np.ndarray) -> tuple[int, int]:
    return int(counts[0]), int(counts[1])
