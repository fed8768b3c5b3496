"""What every device shares: workloads, the timing protocol, timings, and who a device is."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from amc_latency.android_bench.safe.limits import COUNT, SECONDS

if TYPE_CHECKING:
    from amc_latency.android_bench.printed.op_profile import OpProfile

T = TypeVar("T")
State = Literal["hot", "frame"]


class ProtocolError(ValueError):
    """A way of timing that makes no sense."""


class DeviceError(RuntimeError):
    """A device that cannot do what was asked: what is wrong and what to do, in one or two lines."""


class Interrupted(Exception):
    """Raised by what a device was timing when `Device.interrupt` was called."""


@dataclass(frozen=True)
class Workload:
    """Something a device can time: a name, and how to make its `.tflite`, which is made only when it is needed."""

    name: str
    build: Callable[[], bytes] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Protocol:
    """How timing is done. A table holds timings of one protocol only."""

    warmup: int = 3
    """Runs before the first counted one, in each round, at least."""
    warmup_ms: float = 0.0
    """The warm-up goes on until this time is over: a phone's cores need a while to reach their speed."""
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
    statistic: Literal["min", "median", "mean"] = "min"
    """What counts: the smallest of all samples, the median over rounds of each round's median, or the mean of means.

    The median is what a user sees. The smallest is a third below it where memory is slow, and the luck of one process
    (`benchmarks/repeatability.py`). A mean is all that some programs print.
    """
    timeout_s: float = 60.0
    """A workload that takes longer is recorded as an error."""
    batch: int = 1
    """Images at once. A latency is that of the whole batch; only a GPU times more than one."""
    precision: Literal["fp32", "tf32", "fp16"] = "fp32"
    """What a GPU computes in: tf32 are fp32 numbers multiplied with 10 bits of mantissa. All else is fp32."""
    state: State = "hot"
    """What a run finds in the caches: what the one before has left there (back to back, as `benchmark_model` runs), or
    its inputs alone, because other memory was touched in between: an app that infers once a frame.
    """
    frame_mb: int = 16
    """Megabytes that are touched before each run in state `frame`. A GPU takes twice its second-level cache instead."""

    def __post_init__(self) -> None:
        most: dict[str, float] = {"warmup": COUNT, "runs": COUNT, "max_runs": COUNT, "rounds": COUNT, "batch": COUNT}
        most |= {"warmup_ms": 1000 * SECONDS, "min_time_ms": 1000 * SECONDS, "timeout_s": SECONDS}
        for name, limit in most.items():
            # Turned round, so that NaN is refused as well.
            if not getattr(self, name) <= limit:
                raise ProtocolError(f"a protocol's {name} is at most {limit:,.0f}, not {getattr(self, name)}")
        if self.threads > 256:
            raise ProtocolError(f"{self.threads} threads are more than the 256 that make sense")
        if min(self.runs, self.rounds, self.threads) < 1 or self.warmup < 0 or self.timeout_s <= 0:
            raise ProtocolError("a protocol needs at least one run, round and thread, and a positive time-out")
        if min(self.min_time_ms, self.warmup_ms) < 0 or self.max_runs < self.runs:
            raise ProtocolError("a protocol's least time cannot be negative, nor its most runs below its least")
        if self.clock not in ("cpu", "wall") or self.statistic not in ("min", "median", "mean"):
            raise ProtocolError("a protocol's clock is cpu or wall, and its statistic min, median or mean")
        if self.batch < 1 or self.precision not in ("fp32", "tf32", "fp16"):
            raise ProtocolError("a protocol's batch is at least 1, its precision fp32, tf32 or fp16")
        if self.state not in ("hot", "frame") or not 1 <= self.frame_mb <= 1024:
            raise ProtocolError("a protocol's state is hot or frame, its frame_mb 1 to 1024")
        if self.threads > 1 and self.clock == "cpu":
            raise ProtocolError("thread CPU time misses the other threads: use clock='wall' with more than one")

    @property
    def network_rounds(self) -> int:
        """Rounds of whole networks, on which calibrations and results rest: they are few, and each weighs.

        The smallest sample needs many fresh interpreters, whose memory lies differently each time: on a computer,
        pruned MobileNetV2 stays 0.5 to 1.5 % above its floor with 9 of them, and 0.1 to 0.5 % with 27.
        """
        return self.rounds * (9 if self.statistic == "min" else 3)

    def over_rounds(self, rounds: Iterable[float]) -> float:
        """One latency from those of each round (`Timing.latency_us`), in the same unit."""
        match self.statistic:
            case "min":
                return min(rounds)
            case "median":
                return statistics.median(rounds)
        return statistics.fmean(rounds)


@dataclass(frozen=True)
class Summary:
    """Samples of one clock in one round, in microseconds; None is what a program did not print."""

    min_us: float | None
    median_us: float | None
    mean_us: float | None
    std_us: float | None
    p10_us: float | None = None
    p90_us: float | None = None
    p99_us: float | None = None


@dataclass(frozen=True)
class Timing:
    """What a device returns for a workload in one round: both clocks, or the error that took their place."""

    workload: str
    round: int
    n: int = 0
    cpu: Summary | None = None
    wall: Summary | None = None
    error: str | None = None
    conditions: str = ""
    """What it was measured under, as JSON, where a device says so: see `amc_latency.device.conditions`."""

    def counted_us(self, protocol: Protocol) -> float | None:
        """The figure that counts under `protocol`, None where there is none."""
        summary = self.cpu if protocol.clock == "cpu" else self.wall
        if self.error is not None or summary is None:
            return None
        return getattr(summary, f"{protocol.statistic}_us")

    def latency_us(self, protocol: Protocol) -> float:
        """The figure that counts under `protocol`. Raises `DeviceError` for an error row."""
        latency_us = self.counted_us(protocol)
        if latency_us is None:
            why = self.error or f"no {protocol.statistic} of the {protocol.clock} clock"
            raise DeviceError(f"{self.workload} was not timed: {why}")
        return latency_us


@dataclass(frozen=True)
class DeviceIdentity:
    """Who measured: timings of two identities never share a table."""

    name: str
    """The device profile, e.g. `host`."""
    model: str
    """What the hardware calls itself, e.g. a CPU's model name and family."""
    runtime: str
    """Runtime and version, e.g. `ai-edge-litert 2.3.0 xnnpack`, with the hash of a binary that was brought along."""
    estimated: bool = False
    """True where nobody measured: the figures come from a cost model, and every place that shows one says so."""

    @property
    def text(self) -> str:
        """Name, hardware and runtime in a line."""
        return ", ".join((self.name, self.model, self.runtime))


def source_word(estimated: bool) -> str:
    """How figures came about, in a word."""
    return "estimated" if estimated else "measured"


def differences(one: T, other: T) -> dict[str, tuple[object, object]]:
    """The fields in which two identities or two protocols differ, with both values."""
    names = [each.name for each in fields(one)]  # type: ignore[arg-type]
    return {
        name: (getattr(one, name), getattr(other, name)) for name in names if getattr(one, name) != getattr(other, name)
    }


class Device:
    """Times workloads. A subclass says who it is and times one round; everything else is shared."""

    identity: DeviceIdentity
    protocol: Protocol = Protocol()
    """How this device is timed unless a table or the user says otherwise."""
    states: tuple[State, ...] = ("hot",)
    """The cache states of a protocol that it can time in."""
    gives_reference: bool = False
    """Whether its timings are given at a reference speed, which stands in each row's conditions."""
    is_constant: bool = False
    """Whether it answers the same each time: more rounds would say no more."""
    repeats: frozenset[str] | None = None
    """Names of the workloads whose timings it repeats, of a device that times nothing itself."""
    profiles_operators: bool = False
    """Whether `op_profile` says what each operator of a model takes."""
    is_this_computer: bool = False
    """Whether it is at hand in any case, and several of it are its cores, which share what is between them."""
    has_threads: bool = True
    """Whether a protocol's `threads` mean something."""
    precisions: tuple[str, ...] = ("float32", "int8")
    """Those of layers that it can run."""
    times_batches: bool = False
    """Whether it times a protocol's `batch` of images at once."""
    working: Sequence[str] = ()
    """Of several devices that are timed on as one, their names."""
    say: Callable[[str], object] = staticmethod(lambda text: None)
    """Called with what the user should know while a device makes them wait."""

    def use_reference(self, protocol: Protocol, reference_us: float, hot_us: float | None = None) -> str | None:
        """Go on at the speed that a table's rows are given at, where this device gives timings at one.

        What the user should know of it is returned, one line if anything.
        """
        return None

    @property
    def text(self) -> str:
        """Who measures, or whose measurements are replayed, in a line."""
        return self.identity.text

    def check_op_profile(self, protocol: Protocol) -> None:
        """Raise `DeviceError` if operators cannot be told apart."""
        raise DeviceError(f"no op profile on {self.identity.name}")

    def op_profile(self, model: bytes, protocol: Protocol) -> OpProfile:
        """What each operator of a `.tflite` takes. Raises `DeviceError` where that is not to be had."""
        raise DeviceError(f"no op profile on {self.identity.name}")

    def close(self) -> None:
        """Let go of the hardware and leave nothing behind on it; harmless when done twice."""

    def interrupt(self) -> None:
        """From another thread: have a `time_round` that makes one wait end soon, by `Interrupted`, and clean up."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        """Time each workload in fresh processes, in the given order as far as may be; yield each timing as it comes.

        A workload that fails yields a timing with an error and the round goes on. A second timing of a workload takes
        the place of the first.
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
