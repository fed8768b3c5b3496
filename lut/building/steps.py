"""Where a device's latency jumps as output channels grow: found from measurements, never assumed."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from amc_latency.lut.shapes.family import Family, family
from amc_latency.lut.shapes.shape import LayerShape

Sweep = Mapping[int, float]
"""Microseconds by output channels, all else equal."""


def step_width(sweeps: Sequence[Sweep], largest_ratio: float = 0.25, fewest: int = 2) -> int | None:
    """The width of a device's steps in output channels: the sweeps' own grid where there are none.

    A width fits if latency hardly grows inside blocks of it and jumps where a block ends; the largest that
    fits counts. Growth is compared by position in the block, each position by its median over all blocks and
    sweeps, so neither noise nor a few odd points decide. None if there are fewer than `fewest` points at some
    position.
    """
    grid = _grid(sweeps)
    growths: list[tuple[int, float]] = []
    for sweep in sweeps:
        counts = sorted(sweep)
        pairs = [(low, high) for low, high in pairwise(counts) if high - low == grid]
        usual_growth = (sweep[counts[-1]] - sweep[counts[0]]) / (counts[-1] - counts[0]) if len(counts) > 1 else 0.0
        if usual_growth > 0:
            # Against the sweep's own slope, so that wide and narrow layers weigh the same.
            growths += [(low, (sweep[high] - sweep[low]) / usual_growth) for low, high in pairs if low % grid == 0]
    best = None
    # A width has as many positions as it has grid steps, and each takes growths of its own.
    widest = min(max((low for low, _ in growths), default=0), len(growths) // max(1, fewest) * grid)
    for width in range(2 * grid, widest + 1, grid):
        by_position = defaultdict(list)
        for low, growth in growths:
            by_position[low % width].append(growth)
        if len(by_position) < width // grid or min(map(len, by_position.values())) < fewest:
            continue
        best = best or grid
        # A quarter of all blocks at most may end without their jump: a width that only some jumps fit is none.
        jump = statistics.quantiles(by_position.pop(0), n=4, method="inclusive")[0]
        inside = max(abs(statistics.median(growths_here)) for growths_here in by_position.values())
        if jump > width / 2 and inside < largest_ratio * jump:
            best = width
    return best


class Steps:
    """The step width of every layer family among measured layers.

    A family with too few points for a finding of its own takes that of its relatives: same kind, kernel and
    precision.
    """

    def __init__(self, latencies_us: Mapping[LayerShape, float]) -> None:
        sweeps: dict[Family, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        for shape, latency_us in latencies_us.items():
            if shape.two_figures:
                sweeps[family(shape)][shape.c_in][shape.c_out] = latency_us
        self._sweeps = {name: list(by_c_in.values()) for name, by_c_in in sweeps.items()}
        self._widths: dict[Family, int] = {}

    def width(self, shape: LayerShape) -> int:
        """The step width in output channels for a layer's family; where none was found, the grid it was timed on."""
        name = family(shape)
        if name not in self._widths:
            relatives = [sweep for other, sweeps in self._sweeps.items() if _alike(other, name) for sweep in sweeps]
            own = self._sweeps.get(name, [])
            self._widths[name] = step_width(own) or step_width(relatives) or _grid(own or relatives)
        return self._widths[name]


def _alike(a: Family, b: Family) -> bool:
    return (a.kind, a.kernel, a.kernel_w, a.precision) == (b.kind, b.kernel, b.kernel_w, b.precision)


def representatives(counts: Iterable[int], width: int) -> list[int]:
    """The largest count of each step: what all smaller ones in the step cost."""
    largest: dict[int, int] = {}
    for count in sorted(counts):
        largest[-(-count // width)] = count
    return list(largest.values())


def _grid(sweeps: Sequence[Sweep]) -> int:
    """The distance that neighbours have most often in the longest sweep."""
    longest: list[int] = max((sorted(sweep) for sweep in sweeps), key=len, default=[])
    distances = Counter(high - low for low, high in pairwise(longest))
    return distances.most_common(1)[0][0] if distances else 1
