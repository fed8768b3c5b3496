"""How far a prediction may be off: what a row's rounds say of its layer, and what whole networks say of the sum.

Whole networks that were timed say how large errors are; rows only say how that is spread over networks. So nothing is
counted twice: if the rows claim more than the networks show, the networks are believed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from amc_latency.lut.shapes.shape import LayerShape, parse_shape
from amc_latency.lut.table.table import LatencyTable

REPEAT_SD = 0.008
"""Of the same network's median in state `frame`, timed again another time at reference speed, relative to it.

Ten `bench` of a network over ten minutes: .9, .7 and 1.2 % on two machines (README), less the .3 % that one shows of
itself. A table's networks are timed within a minute, and can't tell of it.
"""
_POOLED_WEIGHT = 4
"""A kind's pooled variance counts as much as this many of a layer's own, which comes from two or three figures."""


def relative_variance(rounds: Sequence[float], statistic: str) -> float | None:
    """Of `statistic` over these rounds' figures, relative to its square; None for a single round.

    The smallest of n is off by about as much as the next is above it: where disturbances only ever add, and are
    exponential with mean s, it lies s/n above the truth with a deviation of s/n, and the gap to the next is s/(n - 1).
    """
    n, figures = len(rounds), sorted(rounds)
    if n < 2 or figures[0] <= 0:
        return None
    if statistic == "min":
        gap = (figures[1] - figures[0]) * (n - 1) / n
        return gap**2 / 2 / figures[0] ** 2
    mean = statistics.fmean(figures)
    # `statistics.variance` reckons in fractions: many times as long, for each of thousands of rows.
    spread = math.fsum((figure - mean) ** 2 for figure in figures) / (n - 1)
    if statistic == "median":
        # pi / 2n for many; this is within 1 % from three on, for normal figures. Of two it is the mean, and of an even
        # number that of the middle two, which is steadier.
        share = 1 / 2 if n == 2 else math.pi / (2 * n + (1 if n % 2 else 2.6))
        return share * spread / statistics.median(figures) ** 2
    return spread / n / mean**2


class RowErrors:
    """The relative variance of each layer row of a table: its own, drawn towards that of its kind and kernel."""

    def __init__(self, table: LatencyTable) -> None:
        rounds = {key: table.rounds_us(key) for key in table.keys if " + " not in key}
        self._own: dict[LayerShape, float] = {}
        by_kind: dict[tuple[str, tuple[int, int]], list[float]] = {}
        for key, latencies_us in rounds.items():
            own = relative_variance(latencies_us, table.protocol.statistic)
            if own is not None:
                shape = parse_shape(key)
                self._own[shape] = own
                by_kind.setdefault((shape.kind, shape.kernel_hw), []).append(own)
        self._pooled = {kind: statistics.fmean(variances) for kind, variances in by_kind.items()}
        self._overall = statistics.fmean(self._own.values()) if self._own else 0.0

    def variance(self, shape: LayerShape) -> float:
        """Of the layer's latency, relative to its square. That of its kind, where it has no rounds of its own to tell;
        0 where no row of the table has.
        """
        pooled = self._pooled.get((shape.kind, shape.kernel_hw), self._overall)
        own = self._own.get(shape)
        return pooled if own is None else (_POOLED_WEIGHT * pooled + own) / (_POOLED_WEIGHT + 1)


@dataclass(frozen=True)
class FitError:
    """What the residuals of a calibration say of networks that it has not seen."""

    variance: float
    """relative, of what layers don't explain: noise of a network's own timing, and what a sum of layers misses"""
    layers_share: float
    """how much of what the rows say of layers is believed: 1, or less where networks agree better than that"""
    covariance: tuple[tuple[float, ...], ...]
    """of the coefficients: the scale, and that of another term where one was fitted"""
    freedom: int
    """degrees of freedom: networks less coefficients"""

    def standard_error_ms(self, fitted: Sequence[float], predicted_ms: float, layers_variance: float) -> float:
        """Of what is measured about what is predicted; `fitted` are what the coefficients are multiplied with.

        `layers_variance` is that of the layers' sum, relative to its square.
        """
        at = np.array(fitted)
        of_fit = float(at @ np.array(self.covariance) @ at)
        relative = self.variance + self.layers_share * layers_variance
        return math.sqrt(predicted_ms**2 * relative + of_fit)

    def quantile(self, probability: float) -> float:
        """Student's t: how many standard errors above the prediction a measurement stays with that probability."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, probability))


def fit_error(columns: np.ndarray, layers_variances: Sequence[float]) -> FitError | None:
    """The error of the least-squares fit of `columns`, one row a network, to 1; None without a spare network.

    Residuals are relative errors. Their expected sum of squares is that of each network's variance times one less its
    leverage, which is solved for what the layers leave unexplained.
    """
    networks, fitted = columns.shape
    if networks <= fitted:
        return None
    inverse = np.linalg.pinv(columns.T @ columns)
    leverage = np.einsum("ij,jk,ik->i", columns, inverse, columns)
    layers = np.asarray(layers_variances, float)
    residuals = 1 - columns @ inverse @ columns.sum(axis=0)
    found = float(residuals @ residuals)
    explained = float(np.sum((1 - leverage) * layers))
    share = 1.0 if explained <= found else found / explained
    variance = max(0.0, found - explained) / (networks - fitted)
    weighted = columns * (variance + share * layers)[:, None]
    covariance = inverse @ (columns.T @ weighted) @ inverse
    return FitError(variance, share, tuple(map(tuple, covariance.tolist())), networks - fitted)


def sum_variance(layers: Iterable[tuple[LayerShape, float, float]]) -> float:
    """The relative variance of a network's sum, from each layer's shape, latency and standard error (us).

    A shape that a network has several times has the same error each time.
    """
    total, errors = 0.0, dict[LayerShape, float]()
    for shape, latency_us, error_us in layers:
        total += latency_us
        errors[shape] = errors.get(shape, 0.0) + error_us
    return sum(error**2 for error in errors.values()) / total**2 if total > 0 else 0.0
