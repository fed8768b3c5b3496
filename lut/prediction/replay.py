"""A device whose timings come from a latency table: for tests, and for machines without the real one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from amc_latency.device.base import DeviceError, Protocol, Summary, Timing, Workload
from amc_latency.lut.prediction.predict import MissingShapeError, Predictor
from amc_latency.lut.prediction.tabled import TabledDevice
from amc_latency.lut.shapes.precisions import FLOAT32, PRECISIONS
from amc_latency.lut.shapes.shape import NOOP, ShapeError, parse_network
from amc_latency.lut.table.table import LatencyTable


class ReplayDevice(TabledDevice):
    """Answers from the table's rows, else with its predictions.

    `table` is a detached copy: a prediction is never stored in the file as if it had been timed.
    """

    def __init__(self, table: LatencyTable) -> None:
        self.table = table.detached()
        self.identity = table.identity
        self.repeats = frozenset(table.keys)
        self.precisions = (FLOAT32, *sorted({*PRECISIONS} & {key.rpartition(" ")[2] for key in table.keys} - {FLOAT32}))
        self._predictor = Predictor(table)

    @property
    def text(self) -> str:
        """Whose measurements are replayed."""
        return f"replay of {self.identity.text}"

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        """Yields the row of that round where there is one, else what the table says of the workload.

        A workload that the table cannot answer for yields an error. Raises `DeviceError` for a protocol that counts
        another statistic than the table's; more rounds or runs cost nothing here.
        """
        own = self.table.protocol
        if (protocol.clock, protocol.statistic, protocol.threads) != (own.clock, own.statistic, own.threads):
            raise DeviceError(f"{self.table.path} replays its own statistic only: {own.statistic} of {own.clock} time")
        for workload in workloads:
            row = self.table.timing(workload.name, round_index)
            if row is not None and self.table.has(workload.name, round_index):
                yield row
                continue
            try:
                latency_us = self._latency_us(workload.name)
            except (ShapeError, MissingShapeError) as error:
                yield Timing(workload.name, round_index, error=f"not in the replayed table: {error}")
                continue
            summary = Summary(latency_us, latency_us, latency_us, 0.0)
            yield Timing(workload.name, round_index, protocol.runs, summary, summary)

    def _latency_us(self, name: str) -> float:
        latency_us = self.table.latency_us(name)
        if latency_us is not None:
            return latency_us
        shapes = parse_network(name)
        if len(shapes) > 1:
            return self._predictor.ms(shapes) * 1000
        return self._predictor.layer_us(shapes[0]) + (self.table.latency_us(NOOP.text) or 0.0)
