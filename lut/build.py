"""Fill a latency table: plan, time what is missing, append each timing as it comes. Can be resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from device.base import Device, Workload, shuffled
from lut.architecture import Architecture
from lut.plan import Choices, input_shapes, reachable_shapes, sweep_shapes
from lut.predict import missing_shapes
from lut.shape import LayerShape, NetworkShape, network_text
from lut.steps import Steps
from lut.table import LatencyTable

NETWORK_ROUNDS = 3
"""Whole networks get this many times the protocol's rounds: they are few, and each weighs on the calibration, while the
errors of a network's thirty layers cancel."""

Progress = Callable[[int, int, float, str], None]
"""Called after each timing with: done, total, seconds to go, and the workload's name."""


@dataclass(frozen=True)
class NetworkWorkload:
    """A whole network to time: its layer shapes, and how to make its `.tflite`."""

    shapes: NetworkShape
    build: Callable[[], bytes] = field(compare=False, repr=False)


@dataclass(frozen=True)
class BuildReport:
    """What a build did."""

    timed: int
    """Rows timed now."""
    planned: int
    """(Shape, round) pairs that the plan asks for, those from before included."""
    errors: dict[str, str]
    """Planned keys that could not be timed in any round, with the error."""
    incomplete: int
    """Planned keys that were timed in some rounds only."""
    seconds: float


def build_table(
    device: Device,
    table: LatencyTable,
    architecture: Architecture,
    choices: Choices,
    networks: Sequence[NetworkWorkload] = (),
    progress: Progress | None = None,
    seed: int = 0,
) -> BuildReport:
    """Time every planned (shape, round) that the table lacks: sweeps, input counts and whole networks, the rest.

    The order depends on nothing but the plan and `seed`, so a resumed build writes the rows that an unbroken
    one would have. A failed timing is tried once more. Raises `TableError` where device and table don't
    belong together or the table cannot be written, and `DeviceError` when the device is gone; all rows before
    stand.
    """
    table.expect(device.identity)
    sweep = sweep_shapes(architecture, choices)
    distinct = {network_text(network.shapes): network.build for network in networks}
    whole = [Workload(name, build) for name, build in distinct.items()]
    run = _Run(device, table, seed, progress)
    rounds = table.protocol.rounds
    try:
        run.total = _pairs(table, len(sweep) + len(input_shapes(architecture, choices, None)), len(whole))
        run.stage(layer_workloads(sweep), range(rounds))
        # The sweep alone decides, so that a resumed build finds the same steps.
        timed = {shape: table.latency_us(shape.text) for shape in sweep}
        steps = Steps({shape: latency_us for shape, latency_us in timed.items() if latency_us is not None})
        others = input_shapes(architecture, choices, steps)
        run.total = _pairs(table, len(sweep) + len(others), len(whole))
        # Networks among the layers, so that a slow minute of the device meets both alike.
        run.stage([*layer_workloads(others), *whole], range(rounds))
        run.stage(whole, range(rounds, NETWORK_ROUNDS * rounds))
        # A prediction sees the whole table, and may find narrower steps there than the sweep alone showed.
        unseen = missing_shapes(table, reachable_shapes(architecture, choices))
        left = [shape for shape in unseen if shape.text not in table.errors]
        run.total += rounds * len(left)
        run.stage(layer_workloads(left), range(rounds))
    finally:
        table.close()
    layers = [shape.text for shape in (*sweep, *others, *left)]
    errors = {key: error for key, error in table.errors.items() if key in {*layers, *distinct}}
    partly = {*table.missing(layers), *table.missing(distinct, NETWORK_ROUNDS * rounds)} - set(errors)
    return BuildReport(run.timed, run.total, errors, len(partly), time.perf_counter() - run.start)


def _pairs(table: LatencyTable, layers: int, networks: int) -> int:
    return table.protocol.rounds * (layers + NETWORK_ROUNDS * networks)


def layer_workloads(shapes: Iterable[LayerShape]) -> list[Workload]:
    """Each layer by its text, its `.tflite` made when it is timed."""
    return [Workload(shape.text, partial(_layer_file, shape)) for shape in shapes]


def _layer_file(shape: LayerShape) -> bytes:
    from lut.writer import layer_model

    return layer_model(shape)


class _Run:
    """One call of `build_table`: what it has done and how long it will take."""

    def __init__(self, device: Device, table: LatencyTable, seed: int, progress: Progress | None) -> None:
        self.device = device
        self.table = table
        self.seed = seed
        self.progress = progress
        self.start = time.perf_counter()
        self.total = 0
        self.done = 0
        self.timed = 0

    def stage(self, workloads: Sequence[Workload], rounds: Iterable[int]) -> None:
        """These rounds of the workloads, in each round only those that it lacks."""
        for round_index in rounds:
            order = shuffled(workloads, self.seed, round_index)
            todo = [workload for workload in order if not self.table.has(workload.name, round_index)]
            self.done += len(order) - len(todo)
            self._round(todo, round_index, first=True)
            failed = [workload for workload in todo if not self.table.has(workload.name, round_index)]
            self._round(failed, round_index, first=False)

    def _round(self, workloads: Sequence[Workload], round_index: int, first: bool) -> None:
        if not workloads:
            return
        for timing in self.device.time_round(workloads, self.table.protocol, round_index):
            known = self.table.has(timing.workload, round_index)
            self.table.append(timing)
            self.timed += timing.error is None and not known
            self.done += first and not known
            if self.progress is not None:
                elapsed_s = time.perf_counter() - self.start
                to_go_s = elapsed_s / max(1, self.timed) * max(0, self.total - self.done)
                self.progress(self.done, self.total, to_go_s, timing.workload)
