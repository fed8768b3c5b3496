"""Networks that are compared are timed in the same rounds: what counts is each round's ratio, with its interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from amc_latency.device.base import Device, DeviceError, Protocol, Timing, shuffled
from amc_latency.device.conditions import calm_of, is_busy
from amc_latency.device.rounds.measure import Measurement, summarise, workload_of

Verdict = Literal["met", "not met", "within the noise"]
_LEAST_CALM = 4
"""Rounds without a neighbour that suffice: an interval of fewer says little."""
_EXACT = 200
"""Rounds up to which the distribution of ranks is counted out."""


@dataclass(frozen=True)
class Ratio:
    """What one workload takes as a share of another, from the rounds in which both were timed."""

    value: float
    low: float
    high: float
    """with `low`, where the true ratio lies with 95 % confidence"""
    rounds: int

    @property
    def half_pct(self) -> float:
        """Half the interval's width, in percent of the ratio."""
        return 50 * (self.high - self.low) / self.value

    def verdict(self, limit: float) -> Verdict:
        """Whether the ratio is at or under `limit`: undecided where the interval holds it."""
        if self.high <= limit:
            return "met"
        return "not met" if self.low > limit else "within the noise"

    def inverse(self) -> Ratio:
        """The other workload as a share of the one: a speed-up."""
        return Ratio(1 / self.value, 1 / self.high, 1 / self.low if self.low else math.inf, self.rounds)


def paired_ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """The ratio of the first to the second of each round's pair, in any unit.

    The estimate is Hodges and Lehmann's on the logarithms, the interval Wilcoxon's: one round that a neighbour spoilt
    moves neither by much, and nothing is assumed of their distribution but symmetry. Fewer than six rounds can't give
    95 % that way; theirs is Student's. One round has no interval: it reaches from 0 to infinity.
    Raises `DeviceError` where one takes no time at all, as a clock of whole microseconds may say.
    """
    if any(min(pair) <= 0 for pair in pairs):
        raise DeviceError("a model took 0 us, by the device's clock: it is too small to be compared")
    logs = [math.log(one / other) for one, other in pairs]
    n = len(logs)
    if n < 2:
        return Ratio(math.exp(logs[0]), 0.0, math.inf, n)
    averages = sorted((logs[i] + logs[j]) / 2 for i in range(n) for j in range(i + 1))
    centre = statistics.median(averages)
    if n < 6:
        from scipy.special import stdtrit

        half = float(stdtrit(n - 1, 0.975)) * statistics.stdev(logs) / math.sqrt(n)
        centre = statistics.fmean(logs)
        return Ratio(math.exp(centre), math.exp(centre - half), math.exp(centre + half), n)
    beyond = _rank_sum_quantile(n)
    return Ratio(math.exp(centre), math.exp(averages[beyond]), math.exp(averages[-1 - beyond]), n)


def _rank_sum_quantile(n: int) -> int:
    """How many of the sorted Walsh averages lie outside a 95 % interval, on each side.

    Wilcoxon's signed-rank sum of n symmetric differences is at most that number with a probability of at most 2.5 %.
    """
    if n > _EXACT:
        return math.floor(n * (n + 1) / 4 - 1.96 * math.sqrt(n * (n + 1) * (2 * n + 1) / 24))
    # Counts of subsets of 1..n by their sum; as floats, since 2^200 subsets are only ever divided.
    counts = [1.0]
    for rank in range(1, n + 1):
        longer = counts + [0.0] * rank
        for total, count in enumerate(counts):
            longer[total + rank] += count
        counts = longer
    at_most, quantile = 0.0, 0
    for total, count in enumerate(counts):
        at_most += count / 2.0**n
        if at_most > 0.025:
            break
        quantile = total
    return quantile


class PairedTimings:
    """Workloads timed in the same rounds, by round; `add` one round at a time until enough is known."""

    def __init__(self, device: Device, models: Mapping[str, bytes | Path], protocol: Protocol, seed: int = 0) -> None:
        """Raises `BadModelError` before anything is timed."""
        self.protocol = protocol
        self._device = device
        self._seed = seed
        self._workloads = [workload_of(name, model) for name, model in models.items()]
        self._timings: dict[str, dict[int, Timing]] = {name: {} for name in models}
        self.rounds = 0

    def add(self) -> None:
        """One more round, in an order of its own. Raises `DeviceError` at the first workload that fails."""
        order = shuffled(self._workloads, self._seed, self.rounds)
        for timing in self._device.time_round(order, self.protocol, self.rounds):
            timing.latency_us(self.protocol)  # a failure ends it here, not after the last round
            self._timings[timing.workload][timing.round] = timing
        self.rounds += 1

    def add_until(self, enough: Callable[[PairedTimings], bool], least: int, most: int) -> None:
        """Rounds until `enough` says so, from `least` to `most` in all. Raises as `add`.

        It is asked after each `least` rounds only, and so is whether enough of twice as many were without a neighbour.
        At one look an interval lies on the wrong side of a limit in 2.5 %,
        at one of three in 5 to 6 % at most; who looks after every round is wrong far more often.
        """
        while self.rounds < most and (self.rounds % least or not self._is_settled(least) or not enough(self)):
            self.add()

    def _is_settled(self, least: int) -> bool:
        return self.rounds > 0 and (self.calm_rounds() >= min(_LEAST_CALM, least) or self.rounds >= 2 * least)

    def measurement(self, name: str) -> Measurement:
        """The workload's latency over all rounds."""
        return summarise(self._timings[name].values(), self.protocol)

    def timings(self, name: str) -> list[Timing]:
        """The workload's timing of each round."""
        return list(self._timings[name].values())

    def ratio(self, name: str, to: str) -> Ratio:
        """What `name` takes as a share of `to`."""
        ours, theirs = self._rounds_ms(name, to)
        return self._centred(ours, theirs)

    def level_ms(self, name: str) -> Ratio:
        """What `name` takes in milliseconds: a ratio to one of them."""
        (ours,) = self._rounds_ms(name)
        return self._centred(ours, [1.0] * len(ours))

    def calm_rounds(self) -> int:
        """Rounds in which no workload was timed beside a neighbour."""
        return sum(not self._is_busy(index, *self._timings) for index in range(self.rounds))

    def _rounds_ms(self, *names: str) -> list[list[float]]:
        """Each one's milliseconds by round: by those in which all of them were calm, where there are enough."""
        rounds = range(self.rounds)
        counted = calm_of(rounds, [self._is_busy(index, *names) for index in rounds], _LEAST_CALM)
        return [[self._timings[name][index].latency_us(self.protocol) / 1e3 for index in counted] for name in names]

    def _is_busy(self, index: int, *names: str) -> bool:
        return any(is_busy(self._timings[name][index].conditions) for name in names)

    def _centred(self, ones: Sequence[float], others: Sequence[float]) -> Ratio:
        found = paired_ratio(list(zip(ones, others, strict=True)))
        if self.protocol.statistic != "min":
            return found
        # The smallest counts, and no typical round; how far it may be off is no less than a round's share of that.
        value = min(ones) / min(others)
        shift = value / found.value
        return Ratio(value, found.low * shift, found.high * shift, found.rounds)
