"""Fill a latency table: plan, time what is missing, append each timing as it comes. Can be resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Literal

from amc_latency.device.base import Device, Workload, shuffled
from amc_latency.device.conditions import calm_of, is_busy
from amc_latency.lut.building.learn import Check, Learner
from amc_latency.lut.building.plan import Choices, input_shapes, reachable_shapes, sweep_shapes
from amc_latency.lut.building.steps import Steps
from amc_latency.lut.prediction.predict import missing_shapes
from amc_latency.lut.prediction.uncertainty import relative_variance
from amc_latency.lut.shapes.architecture import Searched
from amc_latency.lut.shapes.shape import NOOP, LayerShape, NetworkShape, network_text
from amc_latency.lut.table.table import LatencyTable

Progress = Callable[[int, int, float, str], None]
"""Called after each timing with: done, total, seconds to go, and the workload's name."""


@dataclass(frozen=True)
class NetworkWorkload:
    """A whole network to time: its layer shapes, and how to make its `.tflite`."""

    shapes: NetworkShape
    build: Callable[[], bytes] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Plan:
    """Which layer shapes are timed."""

    kind: Literal["learn", "grid", "missing"] = "learn"
    """`learn` the device's staircase until the goal is met; a fixed `grid`; or only what can't be predicted yet"""
    goal: float = 0.005
    """mean relative error of layers, weighted by the network's time, at which learning ends"""


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
    checks: tuple[Check, ...] = ()
    """What learning was worth, on candidates that were drawn at its end; the last one counts."""


def build_table(
    device: Device,
    table: LatencyTable,
    architecture: Searched,
    choices: Choices,
    networks: Sequence[NetworkWorkload] = (),
    progress: Progress | None = None,
    seed: int = 0,
    plan: Plan = Plan(),
) -> BuildReport:
    """Time every planned (shape, round) that the table lacks, and whole networks.

    The order depends on nothing but the timings before and `seed`, so a resumed build writes the rows that an unbroken
    one would have. A failed timing is tried once more. Raises `TableError` where device and table don't
    belong together or the table cannot be written, and `DeviceError` when the device is gone; all rows before
    stand.
    """
    table.expect(device.identity)
    distinct = {network_text(network.shapes): network.build for network in networks}
    whole = [Workload(name, build) for name, build in distinct.items()]
    if table.protocol.state == "frame":
        # The no-op is taken from every layer of a network, so what it is off by counts dozens of times. Back to back it
        # takes a microsecond; after other memory several, and no two processes agree.
        whole += layer_workloads([NOOP])
    run = _Run(device, table, seed, progress)
    rounds = table.protocol.rounds
    try:
        planned: list[LayerShape] = []
        network_rounds = iter(range(table.protocol.network_rounds))

        def time_layers(shapes: Iterable[LayerShape], layer_rounds: Iterable[int]) -> None:
            # A round of networks after each of layers, so that a slow minute of the device meets both alike.
            for round_index in layer_rounds:
                run.stage(layer_workloads(shapes), [round_index])
                run.stage(whole, islice(network_rounds, 1))

        for shapes, expected in _stages(plan, table, architecture, choices, seed, run):
            planned += shapes
            run.total = _pairs(table, max(len(planned), expected), len(whole))
            time_layers(shapes, _deciding(table))
        # The last round comes later, so that not all timings of a layer fall into the same slow minute.
        time_layers(planned, range(len(_deciding(table)), rounds))
        run.stage(whole, network_rounds)
        # A calibration rests on these few: where a neighbour was there in most rounds, others take their place.
        for extra in range(table.protocol.network_rounds, 2 * table.protocol.network_rounds):
            run.stage([workload for workload in whole if _lacks_calm(table, workload.name)], [extra])
    finally:
        table.close()
    layers = [shape.text for shape in planned]
    errors = {key: error for key, error in table.errors.items() if key in {*layers, *distinct}}
    partly = {*table.missing(layers), *table.missing(distinct, table.protocol.network_rounds)} - set(errors)
    seconds = time.perf_counter() - run.start
    return BuildReport(run.timed, run.total, errors, len(partly), seconds, tuple(run.checks))


def _stages(
    plan: Plan, table: LatencyTable, architecture: Searched, choices: Choices, seed: int, run: _Run
) -> Iterator[tuple[list[LayerShape], int]]:
    """Batches of shapes, each planned when those before are timed, and how many shapes to expect in all."""
    reachable = reachable_shapes(architecture, choices)
    done = 0
    if plan.kind == "grid":
        grids = architecture.grids(choices)
        sweep = _merged(sweep_shapes(*grid) for grid in grids)
        yield sweep, len(sweep) + len(_merged(input_shapes(*grid, None) for grid in grids))
        # The sweep alone decides, so that a resumed build finds the same steps.
        timed = {shape: figure[0] for shape in sweep if (figure := _figure(table, shape)) is not None}
        steps = Steps(timed)
        others = _merged(input_shapes(*grid, steps) for grid in grids)
        done = len(sweep) + len(others)
        yield others, done
    elif plan.kind == "learn":
        grids = architecture.grids(choices)
        fixed = sum(len(sweep_shapes(*grid)) + len(input_shapes(*grid, None)) for grid in grids)
        learner = Learner(reachable, architecture.weighed(), plan.goal, seed, limit=fixed)
        batch = learner.first()
        known: dict[LayerShape, tuple[float, float]] = {}
        while batch:
            done += len(batch)
            # A guess for the progress bar; what is to come depends on what is found.
            yield batch, round(1.5 * done) if not known else done
            known |= {shape: figure for shape in batch if (figure := _figure(table, shape)) is not None}
            batch = learner.more(known)
        run.checks = learner.checks
    # What was timed may tell less than was planned for: a narrower grid, or a layer that failed.
    left = [shape for shape in missing_shapes(table, [NOOP, *reachable]) if shape.text not in table.errors]
    if left or not done:
        yield left, done + len(left)


def _merged(shapes: Iterable[Iterable[LayerShape]]) -> list[LayerShape]:
    return list(dict.fromkeys(shape for some in shapes for shape in some))


def _deciding(table: LatencyTable) -> range:
    """The rounds that a plan goes by: all but the last one, if there are several."""
    return range(max(1, table.protocol.rounds - 1))


def _figure(table: LatencyTable, shape: LayerShape) -> tuple[float, float] | None:
    """A timed layer's microseconds, and how far they are off by chance, as a share of them; by the deciding rounds."""
    found = [timing for index in _deciding(table) if (timing := table.timing(shape.text, index))]
    timings = calm_of(found, [is_busy(timing.conditions) for timing in found])
    rounds_us = [us for timing in timings if (us := timing.counted_us(table.protocol))]
    if not rounds_us:
        return None
    variance = relative_variance(rounds_us, table.protocol.statistic)
    return table.protocol.over_rounds(rounds_us), math.sqrt(variance or 0.0)


def _lacks_calm(table: LatencyTable, key: str) -> bool:
    """Whether a network was timed beside a neighbour in more than two of three rounds, though it could be timed."""
    busy = [row.is_busy for row in table.lines(key) if row.counted_us is not None]
    return 3 * busy.count(False) < len(busy)


def _pairs(table: LatencyTable, layers: int, networks: int) -> int:
    # The no-op is among both, where it is timed as often as networks are.
    twice = table.protocol.rounds if table.protocol.state == "frame" else 0
    return table.protocol.rounds * layers + table.protocol.network_rounds * networks - twice


def layer_workloads(shapes: Iterable[LayerShape]) -> list[Workload]:
    """Each layer by its text, its `.tflite` made when it is timed."""
    return [Workload(shape.text, partial(_layer_file, shape)) for shape in shapes]


def _layer_file(shape: LayerShape) -> bytes:
    from amc_latency.lut.building.layer_model import layer_model

    return layer_model(shape)


class _Run:
    """One call of `build_table`: what it has done and how long it will take."""

    def __init__(self, device: Device, table: LatencyTable, seed: int, progress: Progress | None) -> None:
        self.device = device
        self.table = table
        self.seed = seed
        self.progress = progress
        self.start = time.perf_counter()
        self.checks: list[Check] = []
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
        # Before anything is timed that could not be kept.
        self.table.lock()
        for timing in self.device.time_round(workloads, self.table.protocol, round_index):
            known = self.table.has(timing.workload, round_index)
            self.table.append(timing)
            self.timed += timing.error is None and not known
            self.done += first and not known
            if self.progress is not None:
                elapsed_s = time.perf_counter() - self.start
                to_go_s = elapsed_s / max(1, self.timed) * max(0, self.total - self.done)
                self.progress(self.done, self.total, to_go_s, timing.workload)
