"""What a layer costs at channel counts between those that were timed: the staircase of a layer family, learned.

Latency over channels is a curve of treads and risers whose shape belongs to the device's kernels: it may be flat inside
steps of some width, dip at some alignments, bend where a cache is full, and be slower at single spots. None of that is
assumed. A family's latency is modelled as

    (a + b c_in + c u + d c_in u) * exp(g),   u = c_out rounded up to a step,

where `g` is a Gaussian process over the logarithm of the channels, of two parts: one smooth, and one that repeats with
a period in output channels (alignments, steps of two heights), fading as 1/c_out like a fixed cost does. Step, period,
their strengths and the noise are those under which the timed points are likeliest (Rasmussen and Williams, Gaussian
Processes for Machine Learning, 2006, section 5.4.1); relatives of one kind and kernel vote on step and period together.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from amc_latency.lut.prediction.gaussian import Process, process
from amc_latency.lut.prediction.least_squares import non_negative_weights
from amc_latency.lut.shapes.family import Family, grid_of, related
from amc_latency.lut.shapes.shape import LayerShape

_WIDEST_STEP = 64
_PERIODS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""What kernels are wide: powers of two, and three of them; beside these, two and three times the grid."""
_DEPTHS = (0.1, 0.4)
_REACHES = (0.15, 0.5)
_ROUGHNESSES = (0.003, 0.02, 0.1, 0.3)
_NOISES = (0.001, 0.004, 0.015)
_LEVEL = 0.05
"""How far the whole curve may lie off its formula, like all strengths here as a share of the latency."""
_MOST_POINTS = 64
"""Points that a pattern is chosen by: more don't change it, and cost time with their cube."""
_STRONGEST_VOTE = 6.0
"""Relatives can outweigh a family's own evidence up to this log-likelihood: that of few points, not of many."""


@dataclass(frozen=True)
class Pattern:
    """What was found of a staircase; strengths are shares of the latency."""

    step: int
    """output channels round up to multiples of this; 1 where there are no steps"""
    period: int
    """what the steps leave repeats with this many output channels; 1 if nothing does"""
    depth: float
    """strength of the repeating part where c_out is one period"""
    reach: float
    """over which factor of channels, as a logarithm, the smooth part changes"""
    roughness: float
    """strength of the smooth part"""
    noise: float
    """of a single point"""


class Staircase:
    """One family's latency over its channels, from timed `points` [n, 2] (c_in, c_out) and their microseconds [n]."""

    def __init__(self, points: np.ndarray, latencies_us: np.ndarray, two_figures: bool, pattern: Pattern) -> None:
        self.pattern = pattern
        self._points = points
        self._two_figures = two_figures
        self._weights = _fit_formula(_columns(points, two_figures, pattern.step), latencies_us)
        self._latencies_us = latencies_us

    def latency_us(self, points: np.ndarray) -> np.ndarray:
        """Microseconds at `points` [m, 2]."""
        return self.latency_and_error(points)[0]

    def error(self, points: np.ndarray) -> np.ndarray:
        """Standard error of `latency_us` at `points` [m, 2] as a share of it, beside the noise of a timing."""
        return self.latency_and_error(points)[1]

    def latency_and_error(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`latency_us` and `error`, in the time that one of them takes."""
        p = self.pattern
        own = _LEVEL**2 + p.roughness**2 + (p.depth * p.period / points[:, 1]) ** 2 * (p.period > 1)
        mean, explained = self._process.read(points)
        return self._formula_us(points) * np.exp(mean), np.sqrt(np.maximum(0.0, own - explained))

    def left_out_errors(self) -> np.ndarray:
        """Each timed point's relative error when it is predicted from all others [n] (Rasmussen, 5.4.2).

        The formula's weights stay those of all points, so with few of them the errors come out a little small.
        """
        return self._process.left_out_errors()

    @cached_property
    def _process(self) -> Process:
        log_ratio = np.log(self._latencies_us / self._formula_us(self._points))
        return process(self._kernel, self.pattern.noise, self._points, log_ratio)

    def _formula_us(self, points: np.ndarray) -> np.ndarray:
        return _columns(points, self._two_figures, self.pattern.step) @ self._weights

    def _kernel(self, points: np.ndarray, others: np.ndarray) -> np.ndarray:
        p = self.pattern
        distances = _distances(points, others, self._two_figures)
        kernel = _LEVEL**2 + p.roughness**2 * np.exp(-distances / (2 * p.reach**2))
        if p.period > 1:
            kernel += p.depth**2 * _repeating(points, others, distances, p.period)
        return kernel


def fit_staircases(timed: Mapping[Family, Mapping[LayerShape, float]]) -> dict[Family, Staircase]:
    """A staircase for each family, from its timed shapes' microseconds; families without any are left out."""
    return fit_points(
        {name: (channels(shapes), np.array(list(shapes.values()), float)) for name, shapes in timed.items() if shapes}
    )


def fit_points(timed: Mapping[Family, tuple[np.ndarray, np.ndarray]]) -> dict[Family, Staircase]:
    """`fit_staircases` of each family's channels [n, 2] and microseconds [n], of which there is one at least."""
    relatives: dict[tuple[object, ...], list[Family]] = defaultdict(list)
    for name in timed:
        relatives[related(name)].append(name)
    staircases: dict[Family, Staircase] = {}
    for names in relatives.values():
        own = tuple((timed[name][0].tobytes(), timed[name][1].tobytes()) for name in names)
        staircases |= zip(names, _relatives(own, names[0].two_figures), strict=True)
    return staircases


@lru_cache(maxsize=64)
def _relatives(families: tuple[tuple[bytes, bytes], ...], two_figures: bool) -> tuple[Staircase, ...]:
    """The staircases of relatives, of each its points' channels and microseconds as the bytes of their arrays.

    Kept, as one search asks about the same rows about five times.
    """
    arrays = [(np.frombuffer(points).reshape(-1, 2), np.frombuffer(timed)) for points, timed in families]
    return tuple(
        Staircase(*own, two_figures, pattern)
        for own, pattern in zip(arrays, _patterns(arrays, two_figures), strict=True)
    )


def channels(shapes: Iterable[LayerShape]) -> np.ndarray:
    """[n, 2]: channels in and out of each shape."""
    return np.array([(shape.c_in, shape.c_out) for shape in shapes], float).reshape(-1, 2)


def _columns(points: np.ndarray, two_figures: bool, step: int) -> np.ndarray:
    c_in, c_out = points[:, 0], np.ceil(points[:, 1] / step) * step
    ones = np.ones(len(points))
    return np.stack([ones, c_in, c_out, c_in * c_out] if two_figures else [ones, c_out], axis=1)


def _fit_formula(columns: np.ndarray, latencies_us: np.ndarray) -> np.ndarray:
    """Weights by least squares of the relative error; none is negative: more channels never take time off."""
    relative = columns / latencies_us[:, None]
    # Columns differ by a million times; without a common size the solver stops early.
    sizes = relative.max(axis=0)
    return non_negative_weights(relative / sizes, np.ones(len(latencies_us))) / sizes


def _distances(points: np.ndarray, others: np.ndarray, two_figures: bool) -> np.ndarray:
    """Squared, between the logarithms of the channels [..., m, n]."""
    axes = (0, 1) if two_figures else (1,)
    logs, other_logs = np.log(points), np.log(others)
    return sum((logs[..., :, None, axis] - other_logs[..., None, :, axis]) ** 2 for axis in axes)


def _repeating(points: np.ndarray, others: np.ndarray, distances: np.ndarray, period: int) -> np.ndarray:
    """Above 0 where two points are at the same place of a period, the more the nearer and the narrower [..., m, n]."""
    c_out, other_c_out = points[..., 1], others[..., 1]
    same = (c_out % period)[..., :, None] == (other_c_out % period)[..., None, :]
    # One of `period` points only: exponentials are what takes the time.
    repeating = np.zeros(np.broadcast_shapes(same.shape, distances.shape))
    same = np.broadcast_to(same, repeating.shape)
    sizes = (period / c_out)[..., :, None] * (period / other_c_out)[..., None, :]
    repeating[same] = np.broadcast_to(sizes, repeating.shape)[same] * np.exp(-distances[same] / 2)
    return repeating


def _patterns(families: Sequence[tuple[np.ndarray, np.ndarray]], two_figures: bool) -> list[Pattern]:
    """The likeliest pattern of each of these relatives."""
    samples = [_sample(*arrays) for arrays in families]
    grid = grid_of(points[:, 1].astype(int).tolist() for points, _ in families)
    steps = _likeliest_steps(samples, two_figures, grid)
    periods = [p for p in sorted({*_PERIODS, 2 * grid, 3 * grid}) if p > grid and p % grid == 0 and p <= _WIDEST_STEP]
    forms = [(step, *part) for step in steps for part in [(1, 0.0), *itertools.product(periods, _DEPTHS)]]
    strengths = list(itertools.product(_REACHES, _ROUGHNESSES, _NOISES))
    likelihoods = [_log_likelihoods(*sample, two_figures, forms, strengths) for sample in samples]
    by_form = [own.max(axis=1) for own in likelihoods]
    patterns = []
    for own, best in zip(likelihoods, by_form, strict=True):
        others = np.sum(by_form, axis=0) - best
        vote = np.maximum(others - others.max(), -_STRONGEST_VOTE)
        form, strength = np.unravel_index(np.argmax(own + vote[:, None]), own.shape)
        patterns.append(Pattern(*forms[form], *strengths[strength]))
    return patterns


def _sample(points: np.ndarray, latencies_us: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `_MOST_POINTS` of the points, at random: a stride would meet one place of a period again and again."""
    if len(points) <= _MOST_POINTS:
        return points, latencies_us
    chosen = np.random.default_rng(0).permutation(len(points))[:_MOST_POINTS]
    return points[chosen], latencies_us[chosen]


def _likeliest_steps(samples: Sequence[tuple[np.ndarray, np.ndarray]], two_figures: bool, grid: int) -> list[int]:
    """The three steps whose formula leaves least, all relatives together; 1, no steps, is always one more."""
    left = {}
    for step in (1, *(step for step in range(grid + 1, _WIDEST_STEP + 1) if step % 4 == 0 or step % grid == 0)):
        left[step] = 0.0
        for points, latencies_us in samples:
            columns = _columns(points, two_figures, step)
            ratio = columns @ _fit_formula(columns, latencies_us) / latencies_us
            left[step] += len(points) * math.log(np.mean((ratio - 1) ** 2) + 1e-9)
    return list(dict.fromkeys([*sorted(left, key=lambda step: left[step])[:3], 1]))


def _log_likelihoods(
    points: np.ndarray,
    latencies_us: np.ndarray,
    two_figures: bool,
    forms: Sequence[tuple[int, int, float]],
    strengths: Sequence[tuple[float, float, float]],
) -> np.ndarray:
    """[forms, strengths]: how likely the points are under each pattern, as a logarithm."""
    distances = _distances(points, points, two_figures)
    noises = np.array([noise for _, _, noise in strengths])
    smooth = _LEVEL**2 + np.stack(
        [roughness**2 * np.exp(-distances / (2 * reach**2)) for reach, roughness, _ in strengths]
    )
    smooth += noises[:, None, None] ** 2 * np.eye(len(points))
    log_ratios = {}
    for step in dict.fromkeys(form[0] for form in forms):
        columns = _columns(points, two_figures, step)
        log_ratios[step] = np.log(latencies_us / (columns @ _fit_formula(columns, latencies_us)))
    pulled = np.stack(list(log_ratios.values()), axis=1)
    by_part = {}
    for period, depth in dict.fromkeys(form[1:] for form in forms):
        kernels = smooth + depth**2 * (_repeating(points, points, distances, period) if period > 1 else 0.0)
        log_sizes = np.log(np.diagonal(np.linalg.cholesky(kernels), axis1=1, axis2=2)).sum(axis=1)
        strains = np.einsum("if,sif->sf", pulled, np.linalg.solve(kernels, pulled))
        by_part[period, depth] = dict(zip(log_ratios, (-0.5 * strains - log_sizes[:, None]).T, strict=True))
    return np.array([by_part[period, depth][step] for step, period, depth in forms])
