"""What `amc-latency bench` says of a file in one cache state, and of two files in the same rounds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from amc_latency.device.base import Summary, Timing
from amc_latency.device.conditions import read_conditions
from amc_latency.device.rounds.measure import deviation_pct
from amc_latency.device.rounds.paired import PairedTimings, Ratio, Verdict


@dataclass(frozen=True)
class ClockFigures:
    """One clock's milliseconds: the median over rounds of each round's figure; None is what a device does not say."""

    median_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    min_ms: float | None
    """the smallest of all runs"""
    mean_ms: float | None
    processes_sd_pct: float | None
    """standard deviation of the rounds' medians (else means), each in processes of its own, in percent of their mean"""


@dataclass(frozen=True)
class StateFigures:
    """What a file takes in one cache state."""

    latency_ms: float
    """what counts under the device's protocol"""
    interval_ms: tuple[float, float] | None
    """where it lies with 95 % confidence; none after one round, or if a round took no time"""
    statistic: str
    spread: float | None
    """half the range of the rounds, in percent"""
    rounds: int
    n: int
    cpu: ClockFigures | None
    """thread CPU time; none with several threads, whose other threads it misses"""
    wall: ClockFigures | None
    speed_pct: float | None
    """how fast the machine ran, in percent of the reference speed at which all these milliseconds are given"""


@dataclass(frozen=True)
class Interval:
    """A figure, and where it lies with 95 % confidence: unknown after one round."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Compared:
    """The file beside another in one cache state, from the rounds in which both were timed."""

    ratio: Interval
    """what the file takes as a share of the other"""
    speedup: Interval
    """how many times as fast it is"""
    rounds: int


@dataclass(frozen=True)
class SpeedupVerdict:
    """Whether the file is as many times as fast as the first other file as was asked for."""

    asked: float
    against: str
    state: str
    verdict: Verdict
    within_pct: float | None
    """half the width of the interval"""
    compared: Compared


def clock_figures(timings: Sequence[Timing], clock: Literal["cpu", "wall"]) -> ClockFigures | None:
    """One clock's figures of a workload's rounds; None where a round lacks that clock."""
    summaries: list[Summary] = [summary for timing in timings if (summary := getattr(timing, clock)) is not None]
    if not summaries or len(summaries) < len(timings):
        return None

    def of_rounds(name: str) -> list[float]:
        values = [getattr(summary, f"{name}_us") for summary in summaries]
        return [] if None in values else [us / 1e3 for us in values]

    def median(name: str) -> float | None:
        values = of_rounds(name)
        return statistics.median(values) if values else None

    rounds_ms = of_rounds("median") or of_rounds("mean")
    return ClockFigures(
        median_ms=median("median"),
        p90_ms=median("p90"),
        p99_ms=median("p99"),
        min_ms=min(of_rounds("min"), default=None),
        mean_ms=median("mean"),
        processes_sd_pct=deviation_pct(rounds_ms),
    )


def speed_pct(timings: Sequence[Timing]) -> float | None:
    """The machine's speed in percent of its reference, the median over rounds; None where a round does not say it."""
    speeds = []
    for timing in timings:
        conditions = read_conditions(timing.conditions)
        # A phone's sentinels stand in their row as they are, before and after: nothing is corrected by them.
        if conditions.reference_us is None or not isinstance(conditions.sentinel_us, float):
            return None
        if conditions.sentinel_us <= 0:
            return None
        speeds.append(100 * conditions.reference_us / conditions.sentinel_us)
    return statistics.median(speeds) if speeds else None


def state_figures(timed: PairedTimings, name: str) -> StateFigures:
    """A workload's figures from all its rounds."""
    measured, timings = timed.measurement(name), timed.timings(name)
    interval_ms = None
    if len(timings) > 1 and all(timing.latency_us(timed.protocol) > 0 for timing in timings):
        level_ms = timed.level_ms(name)
        interval_ms = level_ms.low, level_ms.high
    return StateFigures(
        latency_ms=measured.latency_ms,
        interval_ms=interval_ms,
        statistic=measured.statistic,
        spread=measured.spread_pct,
        rounds=measured.rounds,
        n=measured.n,
        cpu=clock_figures(timings, "cpu") if timed.protocol.threads == 1 else None,
        wall=clock_figures(timings, "wall"),
        speed_pct=speed_pct(timings),
    )


def compared(timed: PairedTimings, name: str, other: str) -> Compared:
    """The workload `name` beside `other`."""
    ratio = timed.ratio(name, to=other)
    return Compared(_interval(ratio), _interval(ratio.inverse()), ratio.rounds)


def speedup_verdict(timed: PairedTimings, name: str, other: str, asked: float) -> SpeedupVerdict:
    """Whether `name` is at least `asked` times as fast as `other`."""
    ratio = timed.ratio(name, to=other)
    within_pct = ratio.inverse().half_pct
    return SpeedupVerdict(
        asked,
        other,
        timed.protocol.state,
        ratio.verdict(1 / asked),
        within_pct if math.isfinite(within_pct) else None,
        compared(timed, name, other),
    )


def _interval(ratio: Ratio) -> Interval:
    if ratio.rounds < 2:
        return Interval(ratio.value, None, None)
    return Interval(ratio.value, ratio.low, ratio.high)
