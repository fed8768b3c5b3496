"""A device whose timings come from a cost model: what a phone would show, by estimate, when there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from amc_latency.device.base import DeviceIdentity, Protocol, Summary, Timing, Workload
from amc_latency.lut.prediction.estimate import CostModel
from amc_latency.lut.prediction.tabled import TabledDevice
from amc_latency.lut.shapes.precisions import FLOAT32
from amc_latency.lut.shapes.shape import ShapeError, parse_network
from amc_latency.lut.table.table import LatencyTable


class EstimateDevice(TabledDevice):
    """Answers with the cost model's figures."""

    precisions = (FLOAT32,)
    protocol = Protocol(warmup=0, runs=1, min_time_ms=0.0, max_runs=1, rounds=1, clock="wall", statistic="mean")

    def __init__(self, model: CostModel) -> None:
        self.model = model
        self.identity = DeviceIdentity(model.name, model.model, model.runtime, estimated=True)
        where = Path(f"estimates of {model.name}")
        self.table = LatencyTable(where, self.identity, self.protocol).detached()

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        """Yields the estimate of each layer or network; for a workload that is neither, an error."""
        for workload in workloads:
            try:
                latency_us = 1000 * self.model.network(parse_network(workload.name)).ms
            except ShapeError as error:
                yield Timing(workload.name, round_index, error=f"cannot be estimated: {error}")
                continue
            summary = Summary(latency_us, latency_us, latency_us, 0.0)
            yield Timing(workload.name, round_index, protocol.runs, summary, summary)
