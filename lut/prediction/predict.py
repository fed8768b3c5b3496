"""A network's milliseconds from a latency table: its layers' sum less the no-op, then a calibration."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from amc_latency.lut.prediction.calibration import (
    Calibration,
    calibration_error,
    fit_calibration,
    network_family,
    traffic_of,
)
from amc_latency.lut.prediction.layers import LayerLatencies, MissingShapeError
from amc_latency.lut.prediction.uncertainty import REPEAT_SD, FitError, RowErrors, sum_variance
from amc_latency.lut.shapes.shape import NOOP, LayerShape, NetworkShape, is_network, parse_network
from amc_latency.lut.table.headers import holds_estimates
from amc_latency.lut.table.table import LatencyTable, no_garbage_collection
from amc_latency.lut.table.timed_layers import TimedLayers

__all__ = ["Calibration", "Coverage", "MissingShapeError", "Predictor", "fit_calibration", "missing_shapes"]


@dataclass(frozen=True)
class Coverage:
    """How many of a network's ops a table can tell; what costs no time, such as a reshape, is no layer and no op."""

    ops: int
    covered: int
    missing: tuple[LayerShape, ...]
    """what it can't, each once, in order"""

    @property
    def share_pct(self) -> float:
        """Of the ops, those that are covered."""
        return 100 * self.covered / self.ops if self.ops else 100.0


class Predictor:
    """Predictions from what a table holds now; make a new one after the table has grown.

    `networks` are those to calibrate on, where the table holds them; by default all of the table's. A network
    counts for those that differ from it only in their widths.
    """

    def __init__(self, table: LatencyTable, networks: Iterable[NetworkShape] | None = None) -> None:
        self.table = table
        latencies_us = table.latencies_us()
        self._measured_networks: dict[NetworkShape, float] = {
            parse_network(key): us for key, us in latencies_us.items() if is_network(key)
        }
        self._networks = list(self._measured_networks if networks is None else networks)
        with no_garbage_collection():
            self._layers = LayerLatencies(TimedLayers(latencies_us), table.errors, table.path)
        self._layers_us: dict[LayerShape, float] = {}
        self._calibrations: dict[tuple[object, ...], Calibration] = {}
        self._fit_errors: dict[tuple[object, ...], FitError | None] = {}
        self._row_errors: RowErrors | None = None
        self.holds_estimates = holds_estimates(table)
        """whether any of the table's figures may be one that nobody measured"""

    def layer_us(self, shape: LayerShape) -> float:
        """The layer's microseconds less the no-op's, never below 0.

        A timed layer's own row, else what the staircase of its family says. Raises `MissingShapeError`.
        """
        latency_us = self._layers_us.get(shape)
        if latency_us is None:
            noop_us = self._layers.timed.get(NOOP)
            if noop_us is None:
                raise self._layers.missing(NOOP)
            # A layer at the clock's resolution may come out under the no-op; it doesn't give time back.
            latency_us = max(0.0, self._layers.latency_us(shape) - noop_us)
            self._layers_us[shape] = latency_us
        return latency_us

    def missing(self, shapes: Iterable[LayerShape]) -> list[LayerShape]:
        """Those of the layers that cannot be predicted, each once; all others are then looked up quickly."""
        return self._layers.read(shapes)

    def coverage(self, shapes: Sequence[LayerShape]) -> Coverage:
        """Which of a network's layers the table can tell. Raises `MissingShapeError` if it lacks the no-op."""
        self.layer_us(NOOP)
        missing = self.missing(shapes)
        return Coverage(len(shapes), sum(shape not in missing for shape in shapes), tuple(missing))

    def raw_ms(self, shapes: Sequence[LayerShape]) -> float:
        """The sum of the layers in milliseconds, before calibration. Raises `MissingShapeError`."""
        if not all(shape in self._layers_us for shape in shapes):
            # One look at each staircase, which takes as long for many layers as for one.
            self._layers.read(shapes)
        return sum(self.layer_us(shape) for shape in shapes) / 1000

    def ms(self, shapes: Sequence[LayerShape]) -> float:
        """The network's predicted milliseconds. Raises `MissingShapeError`."""
        calibration = self.calibration(shapes)
        return calibration.ms(self.raw_ms(shapes), calibration.amount(shapes))

    def calibration(self, shapes: Sequence[LayerShape]) -> Calibration:
        """The calibration that holds for this network's family."""
        name = network_family(shapes)
        if name not in self._calibrations:
            self._calibrations[name] = self._fit(name)
        return self._calibrations[name]

    def standard_error_ms(self, shapes: Sequence[LayerShape]) -> float | None:
        """Of a measurement about `ms`, if made as those of the calibration were; None without a calibration to tell by.

        In state `frame` it may be made at another time (`REPEAT_SD`). Raises `MissingShapeError`.
        """
        error = self._fit_error(network_family(shapes))
        if error is None:
            return None
        calibration = self.calibration(shapes)
        fitted = calibration.fitted(self.raw_ms(shapes), calibration.amount(shapes))
        ms = self.ms(shapes)
        repeat_ms = REPEAT_SD * ms if self.table.protocol.state == "frame" else 0.0
        return math.hypot(error.standard_error_ms(fitted, ms, self._sum_variance(shapes)), repeat_ms)

    def interval_ms(self, shapes: Sequence[LayerShape], confidence: float = 0.95) -> tuple[float, float] | None:
        """What is measured lies in here with that probability; None where there is no standard error."""
        half_ms, ms = self.margin_ms(shapes, (1 + confidence) / 2), self.ms(shapes)
        return None if half_ms is None else (max(0.0, ms - half_ms), ms + half_ms)

    def margin_ms(self, shapes: Sequence[LayerShape], confidence: float) -> float | None:
        """How far above `ms` a measurement stays with that probability; None where there is no standard error."""
        error_ms, fit = self.standard_error_ms(shapes), self._fit_error(network_family(shapes))
        return None if error_ms is None or fit is None else fit.quantile(confidence) * error_ms

    def layer_error_us(self, shape: LayerShape) -> float:
        """The standard error of `layer_us`: that of its row, or of reading it between rows, which holds theirs."""
        reading_error_us = self._layers.reading_error_us(shape)
        if reading_error_us > 0:
            return reading_error_us
        if self._row_errors is None:
            self._row_errors = RowErrors(self.table)
        return math.sqrt(self._row_errors.variance(shape)) * self._layers.latency_us(shape)

    def measured_ms(self, shapes: Sequence[LayerShape]) -> float | None:
        """The whole network's own timing, if the table holds it."""
        latency_us = self._measured_networks.get(tuple(shapes))
        return None if latency_us is None else latency_us / 1000

    def _fit(self, name: tuple[object, ...]) -> Calibration:
        known = list(self._calibration_networks(name))
        return fit_calibration(
            [sum_ms for _, sum_ms, _ in known],
            [measured_ms for _, _, measured_ms in known],
            traffic_of([network for network, _, _ in known]),
        )

    def _fit_error(self, name: tuple[object, ...]) -> FitError | None:
        # Estimated networks agree with estimated layers, and say nothing of any device.
        if self.holds_estimates:
            return None
        if name not in self._fit_errors:
            known = list(self._calibration_networks(name))
            self._fit_errors[name] = calibration_error(
                [sum_ms for _, sum_ms, _ in known],
                [measured_ms for _, _, measured_ms in known],
                [self._sum_variance(network) for network, _, _ in known],
                traffic_of([network for network, _, _ in known]),
            )
        return self._fit_errors[name]

    def _calibration_networks(self, name: tuple[object, ...]) -> Iterator[tuple[NetworkShape, float, float]]:
        """Those that calibrate this family: each with its layers' sum and its timing, in milliseconds."""
        for network in self._networks:
            measured_ms = self.measured_ms(network)
            if measured_ms is None or network_family(network) != name:
                continue
            try:
                yield network, self.raw_ms(network), measured_ms
            except MissingShapeError:
                continue

    def _sum_variance(self, shapes: Sequence[LayerShape]) -> float:
        return sum_variance((shape, self.layer_us(shape), self.layer_error_us(shape)) for shape in shapes)


def missing_shapes(table: LatencyTable, shapes: Iterable[LayerShape]) -> list[LayerShape]:
    """Those of the layers that cannot be predicted from the table, each once."""
    return Predictor(table).missing(shapes)
