"""A network's milliseconds from a latency table: its layers' sum less the no-op, then a calibration."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lut.shape import NOOP, LayerShape, NetworkShape, parse_network
from lut.steps import TWO_FIGURE_KINDS, Family, Steps, family
from lut.table import LatencyTable

FEWEST_NETWORKS = 4
_LEAST_SPREAD = 1.25


class MissingShapeError(LookupError):
    """A layer that the table neither holds nor reaches. `shape` is the layer."""

    def __init__(self, shape: LayerShape, message: str) -> None:
        super().__init__(message)
        self.shape = shape


@dataclass(frozen=True)
class Calibration:
    """What whole networks cost, from the sum of their layers: `scale * sum_ms + offset_ms`."""

    scale: float = 1.0
    offset_ms: float = 0.0
    networks: int = 0
    """Whole networks that were timed; with fewer than four nothing is fitted."""

    @property
    def calibrated(self) -> bool:
        """False for the identity that stands in where too few networks were timed."""
        return self.networks >= FEWEST_NETWORKS


def network_family(shapes: Sequence[LayerShape]) -> tuple[object, ...]:
    """What networks share that differ only in the widths of their layers: what one calibration holds for."""
    return (shapes[0].c_in, *(family(shape) for shape in shapes), shapes[-1].c_out)


def fit_calibration(sums_ms: Sequence[float], measured_ms: Sequence[float]) -> Calibration:
    """Least squares of the relative error, so that small networks weigh as much as large ones.

    Networks that are nearly alike say nothing about an offset and give a scale only. Fewer than four give the
    identity.
    """
    sums, measured = np.asarray(sums_ms, float), np.asarray(measured_ms, float)
    if len(sums) < FEWEST_NETWORKS or not (sums.min() > 0 and measured.min() > 0):
        return Calibration(networks=len(sums))
    columns = [sums / measured]
    if sums.max() >= _LEAST_SPREAD * sums.min():
        columns.append(1 / measured)
    solution = np.linalg.lstsq(np.stack(columns, axis=1), np.ones(len(sums)), rcond=None)[0]
    return Calibration(float(solution[0]), float(solution[1]) if len(columns) > 1 else 0.0, len(sums))


class Predictor:
    """Predictions from what a table holds now; make a new one after the table has grown.

    `networks` are those to calibrate on, where the table holds them; by default all of the table's. A network
    counts for those that differ from it only in their widths.
    """

    def __init__(self, table: LatencyTable, networks: Iterable[NetworkShape] | None = None) -> None:
        self.table = table
        self._exact: dict[LayerShape, float] = {}
        self._measured_networks: dict[NetworkShape, float] = {}
        for key in table.keys:
            shapes, latency_us = parse_network(key), table.latency_us(key)
            assert latency_us is not None
            if len(shapes) == 1:
                self._exact[shapes[0]] = latency_us
            else:
                self._measured_networks[shapes] = latency_us
        self._networks = list(self._measured_networks if networks is None else networks)
        self._steps = Steps(self._exact)
        self._points: dict[tuple[Family, int], dict[int, tuple[int, float]]] = {}
        self._by_family: dict[Family, list[LayerShape]] = defaultdict(list)
        for shape in self._exact:
            self._by_family[family(shape)].append(shape)
        self._errors = table.errors
        self._layers_us: dict[LayerShape, float] = {}
        self._calibrations: dict[tuple[object, ...], Calibration] = {}

    def layer_us(self, shape: LayerShape) -> float:
        """The layer's microseconds less the no-op's, never below 0.

        A timed layer's own row; else, for a layer with channels in and out, the widest count of its output
        step, linear in input channels between timed counts. Raises `MissingShapeError`.
        """
        latency_us = self._layers_us.get(shape)
        if latency_us is None:
            noop_us = self._exact.get(NOOP)
            if noop_us is None:
                raise self._missing(NOOP)
            # A layer at the clock's resolution may come out under the no-op; it doesn't give time back.
            latency_us = max(0.0, self._gross_us(shape) - noop_us)
            self._layers_us[shape] = latency_us
        return latency_us

    def raw_ms(self, shapes: Sequence[LayerShape]) -> float:
        """The sum of the layers in milliseconds, before calibration. Raises `MissingShapeError`."""
        return sum(self.layer_us(shape) for shape in shapes) / 1000

    def ms(self, shapes: Sequence[LayerShape]) -> float:
        """The network's predicted milliseconds. Raises `MissingShapeError`."""
        calibration = self.calibration(shapes)
        return calibration.scale * self.raw_ms(shapes) + calibration.offset_ms

    def calibration(self, shapes: Sequence[LayerShape]) -> Calibration:
        """The calibration that holds for this network's family."""
        name = network_family(shapes)
        if name not in self._calibrations:
            self._calibrations[name] = self._fit(name)
        return self._calibrations[name]

    def measured_ms(self, shapes: Sequence[LayerShape]) -> float | None:
        """The whole network's own timing, if the table holds it."""
        latency_us = self._measured_networks.get(tuple(shapes))
        return None if latency_us is None else latency_us / 1000

    def _fit(self, name: tuple[object, ...]) -> Calibration:
        sums, measured = [], []
        for network in self._networks:
            measured_ms = self.measured_ms(network)
            if measured_ms is None or network_family(network) != name:
                continue
            try:
                sums.append(self.raw_ms(network))
            except MissingShapeError:
                continue
            measured.append(measured_ms)
        return fit_calibration(sums, measured)

    def _gross_us(self, shape: LayerShape) -> float:
        if shape in self._exact:
            return self._exact[shape]
        if shape.kind not in TWO_FIGURE_KINDS:
            raise self._missing(shape)
        points = [(c_in, us) for c_in, (c_out, us) in self._step_points(shape).items() if c_out >= shape.c_out]
        above = bisect_left(points, (shape.c_in, 0.0))
        if above < len(points) and points[above][0] == shape.c_in:
            return points[above][1]
        if above in (0, len(points)):
            raise self._missing(shape)
        (low, low_us), (high, high_us) = points[above - 1], points[above]
        return low_us + (high_us - low_us) * (shape.c_in - low) / (high - low)

    def _step_points(self, shape: LayerShape) -> dict[int, tuple[int, float]]:
        """By ascending timed c_in: the widest c_out of the shape's step timed with it, and its latency."""
        width = self._steps.width(shape)
        step = -(-shape.c_out // width)
        name = (family(shape), step)
        if name not in self._points:
            inside = [other for other in self._by_family[name[0]] if -(-other.c_out // width) == step]
            inside.sort(key=lambda other: (other.c_in, other.c_out))
            self._points[name] = {other.c_in: (other.c_out, self._exact[other]) for other in inside}
        return self._points[name]

    def _missing(self, shape: LayerShape) -> MissingShapeError:
        error = self._errors.get(shape.text)
        why = f"could not be timed: {error}" if error else "is not in the latency table"
        advice = "; profile its network, with a --step that its counts are multiples of, or import a log of it"
        return MissingShapeError(shape, f"layer '{shape}' {why} ({self.table.path}){'' if error else advice}")


def missing_shapes(table: LatencyTable, shapes: Iterable[LayerShape]) -> list[LayerShape]:
    """Those of the layers that cannot be predicted from the table, each once."""
    predictor = Predictor(table)
    missing = []
    for shape in dict.fromkeys(shapes):
        try:
            predictor.layer_us(shape)
        except MissingShapeError as error:
            missing.append(error.shape)
    return list(dict.fromkeys(missing))
