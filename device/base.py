"""What every device shares: workloads, the timing protocol, timings, and who a device is."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

T = TypeVar("T")


class ProtocolError(ValueError):
    """A way of timing that makes no sense."""


class DeviceError(RuntimeError):
    """A device that cannot do what was asked: what is wrong and what to do, in one or two lines."""


@dataclass(frozen=True)
class Workload:
    """Something a device can time: a name, and how to make its `.tflite`, which is made only when it is needed."""

    name: str
    build: Callable[[], bytes] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Protocol:
    """How timing is done. A table holds timings of one protocol only."""

    warmup: int = 3
    """Runs before the first counted one, in each round."""
    runs: int = 10
    """Counted runs of each workload in a round, at least."""
    min_time_ms: float = 5.0
    """A round goes on until this time is over: layers of microseconds are not judged by one instant."""
    max_runs: int = 1000
    """Or until this many runs: enough for any statistic."""
    rounds: int = 3
    """Rounds, each in fresh processes and a shuffled order. Buffer alignment changes between them, so they differ."""
    threads: int = 1
    clock: Literal["cpu", "wall"] = "cpu"
    """Which clock counts; both are recorded. Thread CPU time is steadier, and means nothing with several threads."""
    statistic: Literal["min", "median"] = "min"
    """What counts: the smallest of all samples, or the median over rounds of each round's median.

    Other programs only ever slow a workload down, in bursts of half a second, so the smallest is the steadier one.
    """
    timeout_s: float = 60.0
    """A workload that takes longer is recorded as an error."""

    def __post_init__(self) -> None:
        if self.threads > 256:
            raise ProtocolError(f"{self.threads} threads are more than the 256 that make sense")
        if min(self.runs, self.rounds, self.threads) < 1 or self.warmup < 0 or self.timeout_s <= 0:
            raise ProtocolError("a protocol needs at least one run, round and thread, and a positive time-out")
        if self.min_time_ms < 0 or self.max_runs < self.runs:
            raise ProtocolError("a protocol's least time cannot be negative, nor its most runs below its least")
        if self.clock not in ("cpu", "wall") or self.statistic not in ("min", "median"):
            raise ProtocolError("a protocol's clock is cpu or wall, and its statistic min or median")
        if self.threads > 1 and self.clock == "cpu":
            raise ProtocolError("thread CPU time misses the other threads: use clock='wall' with more than one")

    def over_rounds(self, rounds: Iterable[float]) -> float:
        """One latency from those of each round (`Timing.latency_us`), in the same unit."""
        return min(rounds) if self.statistic == "min" else statistics.median(rounds)


@dataclass(frozen=True)
class Summary:
    """Samples of one clock in one round, in microseconds."""

    min_us: float
    median_us: float
    mean_us: float
    std_us: float


@dataclass(frozen=True)
class Timing:
    """What a device returns for a workload in one round: both clocks, or the error that took their place."""

    workload: str
    round: int
    n: int = 0
    cpu: Summary | None = None
    wall: Summary | None = None
    error: str | None = None

    def latency_us(self, protocol: Protocol) -> float:
        """The figure that counts under `protocol`. Raises `DeviceError` for an error row."""
        summary = self.cpu if protocol.clock == "cpu" else self.wall
        if summary is None:
            raise DeviceError(f"{self.workload} was not timed: {self.error or f'no {protocol.clock} clock'}")
        return summary.min_us if protocol.statistic == "min" else summary.median_us


@dataclass(frozen=True)
class DeviceIdentity:
    """Who measured: timings of two identities never share a table."""

    name: str
    """The device profile, e.g. `host`."""
    model: str
    """What the hardware calls itself, e.g. a CPU's model name and family."""
    runtime: str
    """Runtime and version, e.g. `ai-edge-litert 2.3.0 xnnpack`."""


class Device:
    """Times workloads. A subclass says who it is and times one round; everything else is shared."""

    identity: DeviceIdentity

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        """Time each workload once, in the given order, in fresh processes; yield each timing as it comes.

        A workload that fails yields a timing with an error and the round goes on.
        Raises `DeviceError` when the device itself is gone.
        """
        raise NotImplementedError

    def time(self, workloads: Sequence[Workload], protocol: Protocol, seed: int = 0) -> Iterator[Timing]:
        """All rounds of `protocol`, each shuffled by `seed` and its own number."""
        for round_index in range(protocol.rounds):
            yield from self.time_round(shuffled(workloads, seed, round_index), protocol, round_index)


def shuffled(items: Iterable[T], seed: int, round_index: int) -> list[T]:
    """The order of one round: the same for the same seed and round, so that a resumed round keeps it."""
    order = list(items)
    random.Random(f"{seed}/{round_index}").shuffle(order)
    return order
