"""Sweeps in a table: latency over channels, all else equal, and the steps that the device has there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from lut.family import TWO_FIGURE_KINDS, Family, family, grid_of
from lut.interpolate import channels, fit_staircases
from lut.shape import LayerShape, ShapeError, parse_shape
from lut.table import LatencyTable, TableError

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
    points: dict[tuple[object, ...], dict[int, float]] = defaultdict(dict)
    members: dict[tuple[object, ...], LayerShape] = {}

    def add(shape: LayerShape, over: str, fixed: int, count: int, us: float) -> None:
        name = (family(shape), over, fixed)
        members.setdefault(name, shape)
        points[name][count] = us

    for shape, us in _layers_us(table).items():
        if shape.kind in TWO_FIGURE_KINDS:
            add(shape, _OUTPUT, shape.c_in, shape.c_out, us)
            add(shape, _INPUT, shape.c_out, shape.c_in, us)
        else:
            add(shape, _BOTH, 0, shape.c_out, us)
    found = [
        Sweep(_least(members[name], str(name[1])), str(name[1]), us)
        for name, us in points.items()
        if len(us) >= FEWEST_POINTS
    ]
    return sorted(found, key=lambda sweep: (-len(sweep.points), -sweep.shape.c_in, sweep.shape))


def staircases(table: LatencyTable, kind: str | None = None, layer: str | None = None) -> list[Sweep]:
    """Sweeps over output channels with their steps, where there are any.

    The longest of each kind; or of each family of one `kind`; or of each family that `layer` names, which is a part of
    a sweep's title or the key of one of its layers. Raises `TableError` where nothing fits what was asked for.
    """
    known = [sweep for sweep in sweeps(table) if sweep.over != _INPUT]
    chosen = [sweep for sweep in known if kind in (None, sweep.shape.kind) and _named(sweep, layer)]
    if not chosen and (kind or layer):
        kinds = ", ".join(sorted({sweep.shape.kind for sweep in known})) or "none"
        example = f", such as '{known[0].title}'" if known else ""
        asked = " ".join(filter(None, (kind, layer and f"'{layer}'")))
        raise TableError(f"{table.path} has no sweep over channels of {asked}; it has some of: {kinds}{example}")
    longest: dict[object, Sweep] = {}
    for sweep in chosen:
        longest.setdefault(family(sweep.shape) if kind or layer else sweep.shape.kind, sweep)
    return _with_steps(table, list(longest.values()))


def _least(shape: LayerShape, over: str) -> LayerShape:
    """The shape with the fewest channels that such a layer can have of what its sweep is over."""
    if over == _OUTPUT:
        return replace(shape, c_out=1)
    if over == _INPUT:
        return replace(shape, c_in=1)
    c = max(shape.per_group, shape.parts)
    return replace(shape, c_in=c, c_out=c)


def _layers_us(table: LatencyTable) -> dict[LayerShape, float]:
    keys = (key for key in table.keys if " + " not in key)
    return {parse_shape(key): us for key in keys if (us := table.latency_us(key)) is not None}


def _named(sweep: Sweep, layer: str | None) -> bool:
    if layer is None:
        return True
    try:
        shape = parse_shape(layer)
    except ShapeError:
        return layer in sweep.title
    return any(sweep.at(count) == shape for count in sweep.points)


def _with_steps(table: LatencyTable, chosen: list[Sweep]) -> list[Sweep]:
    """The sweeps with what is learned from all layers of their kinds."""
    kinds = {sweep.shape.kind for sweep in chosen}
    timed: dict[Family, dict[LayerShape, float]] = defaultdict(dict)
    for shape, us in _layers_us(table).items():
        if shape.kind in kinds and us > 0:
            timed[family(shape)][shape] = us
    learned = fit_staircases(timed)
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
