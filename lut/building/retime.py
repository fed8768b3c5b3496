"""Layers that a network depends on most are timed once more, where its timing contradicts its prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from amc_latency.device.base import Device, shuffled
from amc_latency.lut.building.build import layer_workloads
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.shapes.shape import NOOP, LayerShape
from amc_latency.lut.table.table import LatencyTable

MOST_LAYERS = 8


def decisive_layers(predictor: Predictor, shapes: Sequence[LayerShape], n: int = MOST_LAYERS) -> list[LayerShape]:
    """The network's layers whose errors weigh most in its sum: each shape's standard error times its number."""
    distinct = [shape for shape in dict.fromkeys(shapes) if shape != NOOP]
    weight = {shape: shapes.count(shape) * predictor.layer_error_us(shape) for shape in distinct}
    return sorted(distinct, key=lambda shape: -weight[shape])[:n]


def retime(device: Device, table: LatencyTable, layers: Sequence[LayerShape]) -> tuple[float, float]:
    """Add as many rounds of these layers, and of the no-op, as the protocol has: their sum before and after, in ms.

    The sums are less the no-op. Raises `DeviceError` and `TableError`; what cannot be timed keeps what it had.
    """
    before_ms = Predictor(table).raw_ms(layers)
    workloads = layer_workloads([NOOP, *layers])
    # A layer that was read off a staircase has no rounds yet, and gets the protocol's.
    first = {
        each.name: max((timing.round for timing in table.rows if timing.workload == each.name), default=-1) + 1
        for each in workloads
    }
    # Beyond the table's own rounds: what a killed session has left on a phone for one of those is no new timing.
    beyond = max(first.values())
    try:
        for index in range(table.protocol.rounds):
            order = shuffled(workloads, 0, beyond + index)
            for timing in device.time_round(order, table.protocol, beyond + index):
                if timing.error is None:
                    table.append(replace(timing, round=first[timing.workload] + index))
    finally:
        table.close()
    return before_ms, Predictor(table).raw_ms(layers)
