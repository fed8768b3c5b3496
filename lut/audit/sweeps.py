"""Sweeps in a table: latency over channels, all else equal, and the steps that the device has there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from amc_latency.lut.prediction.interpolate import channels, fit_points
from amc_latency.lut.shapes.family import family, grid_of, related
from amc_latency.lut.shapes.shape import LayerShape, ShapeError, parse_shape
from amc_latency.lut.table.table import LatencyTable, TableError
from amc_latency.lut.table.timed_layers import TimedLayers

FEWEST_POINTS = 3
_MOST_BETWEEN = 50_000
"""counts on the grid that a curve is read off at; a layer of more has its own points only"""
_OUTPUT, _INPUT, _BOTH = "output channels", "input channels", "channels"


@dataclass(frozen=True)
class Sweep:
    """Layers that differ in one channel figure only."""

    shape: LayerShape
    """one of them"""
    over: str
    """`output channels`, `input channels`, or `channels` for kinds with one channel figure"""
    points: Mapping[int, float]
    """microseconds by channels, as timed"""
    learned: Mapping[int, float] = field(default_factory=dict)
    """microseconds by all channels on the table's grid, as predictions read them off the family's staircase"""
    step: int | None = None
    """the width of the device's steps in channels; None where none were found, or not looked for"""

    @property
    def title(self) -> str:
        """The layers' common key, with `*` for the channels."""
        kind, channels, rest = self.shape.text.split(" ", 2)
        size, c_out = channels.split(">")
        any_size = f"*x{size.partition('x')[2]}"
        channels = {_INPUT: f"{any_size}>{c_out}", _OUTPUT: f"{size}>*", _BOTH: any_size}[self.over]
        return f"{kind} {channels} {rest}"

    @property
    def jumps(self) -> list[int]:
        """The first count on the grid of each step but the lowest."""
        counts = sorted(self.learned or self.points)
        step = self.step
        if step is None:
            return []
        return [high for low, high in pairwise(counts) if -(-low // step) != -(-high // step)]

    def at(self, channels: int) -> LayerShape:
        """The sweep's layer with so many channels."""
        if self.over == _OUTPUT:
            return replace(self.shape, c_out=channels)
        if self.over == _INPUT:
            return replace(self.shape, c_in=channels)
        return replace(self.shape, c_in=channels, c_out=channels)


def sweeps(table: LatencyTable) -> list[Sweep]:
    """All sweeps of at least three layers, over input and output channels, longest first."""
    return _sweeps(TimedLayers(table.latencies_us()), (_OUTPUT, _INPUT, _BOTH))


def _sweeps(timed: TimedLayers, overs: Sequence[str]) -> list[Sweep]:
    found = []
    for shape, counts, us in timed.by_channels:
        for over in overs:
            if (over == _BOTH) == shape.two_figures:
                continue
            points: dict[int, dict[int, float]] = defaultdict(dict)
            for (c_in, c_out), layer_us in zip(counts, us, strict=True):
                if over == _INPUT:
                    points[c_out][c_in] = layer_us
                else:
                    points[c_in if over == _OUTPUT else 0][c_out] = layer_us
            found += [
                Sweep(_least(shape, over, fixed), over, own)
                for fixed, own in points.items()
                if len(own) >= FEWEST_POINTS
            ]
    return sorted(found, key=lambda sweep: (-len(sweep.points), -sweep.shape.c_in, sweep.shape))


def staircases(table: LatencyTable, kind: str | None = None, layer: str | None = None) -> list[Sweep]:
    """Sweeps over output channels with their steps, where there are any.

    The longest of each kind; or of each family of one `kind`; or of each family that `layer` names, which is a part of
    a sweep's title or the key of one of its layers. Raises `TableError` where nothing fits what was asked for.
    """
    timed = TimedLayers(table.latencies_us())
    known = _sweeps(timed, (_OUTPUT, _BOTH))
    chosen = [sweep for sweep in known if kind in (None, sweep.shape.kind) and _named(sweep, layer)]
    if not chosen and (kind or layer):
        kinds = ", ".join(sorted({sweep.shape.kind for sweep in known})) or "none"
        example = f", such as '{known[0].title}'" if known else ""
        asked = " ".join(filter(None, (kind, layer and f"'{layer}'")))
        raise TableError(f"{table.path} has no sweep over channels of {asked}; it has some of: {kinds}{example}")
    longest: dict[object, Sweep] = {}
    for sweep in chosen:
        longest.setdefault(family(sweep.shape) if kind or layer else sweep.shape.kind, sweep)
    return _with_steps(timed, list(longest.values()))


def _least(shape: LayerShape, over: str, fixed: int) -> LayerShape:
    """The shape with the fewest channels that such a layer can have of what its sweep is over, and `fixed` others."""
    if over == _OUTPUT:
        return replace(shape, c_in=fixed, c_out=1)
    if over == _INPUT:
        return replace(shape, c_in=1, c_out=fixed)
    c = max(shape.per_group, shape.parts)
    return replace(shape, c_in=c, c_out=c)


def _named(sweep: Sweep, layer: str | None) -> bool:
    if layer is None:
        return True
    try:
        shape = parse_shape(layer)
    except ShapeError:
        return layer in sweep.title
    return any(sweep.at(count) == shape for count in sweep.points)


def _with_steps(timed: TimedLayers, chosen: list[Sweep]) -> list[Sweep]:
    """The sweeps with what is learned from all layers of their families and of relatives."""
    wanted = {related(family(sweep.shape)) for sweep in chosen}
    learned = fit_points({name: points for name, points in timed.families.items() if related(name) in wanted})
    found = []
    for sweep in chosen:
        staircase = learned.get(family(sweep.shape))
        if staircase is not None:
            grid = grid_of([sweep.points])
            between = range(min(sweep.points), max(sweep.points), grid)
            counts = sorted({*(between if len(between) <= _MOST_BETWEEN else ()), *sweep.points})
            curve = staircase.latency_us(channels(sweep.at(count) for count in counts))
            step = staircase.pattern.step
            sweep = replace(
                sweep,
                learned=dict(zip(counts, map(float, curve), strict=True)),
                # Without steps, it is the grid that they would have to be wider than.
                step=step if step > grid else None,
            )
        found.append(sweep)
    return found
