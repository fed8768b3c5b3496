"""The device's word on policies: their files are timed beside the original's, in the same rounds, until it is clear."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from amc_latency.device.base import Device, Protocol
from amc_latency.device.rounds.measure import Measurement
from amc_latency.device.rounds.paired import PairedTimings
from amc_latency.search.results.verdict import Verdict, verdict_of

MOST_ROUNDS = 3
"""Rounds are added until a target is met or not, up to so many times those of the protocol."""
LEAST_ROUND_MS = 200.0
"""What each network gets of a round at least: there are few of them, and a verdict rests on each."""


@dataclass(frozen=True)
class TimedNetwork:
    """One network's milliseconds, at the speed that a target is in, and their 95 % interval."""

    ms: float
    low_ms: float
    high_ms: float
    rounds: int
    measurement: Measurement
    """as the device gave it"""
    share_95: tuple[float, ...] = ()
    """of what the original takes: the ratio and its 95 % interval; none after a single round"""

    @property
    def interval_ms(self) -> tuple[float, ...]:
        """Both ends; none after a single round."""
        return (self.low_ms, self.high_ms) if math.isfinite(self.high_ms) else ()

    def verdict(self, target_ms: float) -> Verdict:
        """Whether the target is met, as far as the interval can tell."""
        return verdict_of(self.ms, self.low_ms, self.high_ms, target_ms)


class PolicyTimer:
    """Times files beside the original network.

    By a speed-up milliseconds are shares of what the original takes in the same rounds, times `original_ms`, what it
    took in the table: a device that is slower today than then makes both slower. By milliseconds, `original_ms` None,
    they are the device's own.
    """

    def __init__(self, device: Device, protocol: Protocol, original: str, original_ms: float | None) -> None:
        """`original` is the key of the original's file among those that are timed."""
        self.device = device
        if protocol.statistic != "min":
            protocol = replace(protocol, min_time_ms=max(protocol.min_time_ms, LEAST_ROUND_MS))
        self.protocol = protocol
        self.original = original
        self.original_ms = original_ms

    def time(self, files: Mapping[str, Path], judged: str, target_ms: float = math.inf) -> dict[str, TimedNetwork]:
        """Time files, the original's among them, in the same rounds: more of them until `judged` is met or not.

        Raises `BadModelError` before anything is timed, and `DeviceError` at the first file that fails.
        """
        timings = PairedTimings(self.device, files, self.protocol)
        least = self.protocol.rounds
        most = least if self.device.is_constant else MOST_ROUNDS * least

        def clear(so_far: PairedTimings) -> bool:
            return self._timed(so_far, judged).verdict(target_ms).is_decided

        timings.add_until(clear, least, most)
        return {name: self._timed(timings, name) for name in files}

    def _timed(self, timings: PairedTimings, name: str) -> TimedNetwork:
        share = timings.ratio(name, self.original)
        if self.original_ms is None:
            found, unit_ms = timings.level_ms(name), 1.0
        else:
            found, unit_ms = share, self.original_ms
        if self.device.is_constant:
            # What is predicted or replayed has no noise of its own, however many rounds there are.
            share, found = (replace(each, low=each.value, high=each.value) for each in (share, found))
        return TimedNetwork(
            ms=found.value * unit_ms,
            low_ms=found.low * unit_ms,
            high_ms=found.high * unit_ms,
            rounds=found.rounds,
            measurement=timings.measurement(name),
            share_95=(share.value, share.low, share.high) if math.isfinite(share.high) else (),
        )
