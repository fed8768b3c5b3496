"""What runs would take at reference speed, by the sentinel network beside them: arithmetic on a worker's answer."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from amc_latency.device.base import Summary

_SMOOTHED = 2
"""A chunk's speed is the median of so many sentinels before and after it too: each has some luck of its own."""
_CALM = 1.15
"""A run is calm if the sentinel took at most so many times what it does at reference speed: nobody is on the hardware
that this core shares. Other runs can be set to that speed only roughly: who waits for memory loses less to a neighbour
than the sentinel does, whose second run finds its weights in the core's own cache. Beside a neighbour that takes 1.7
times as long, a network of 3.3 MB 1.45 times, and so it comes out 15 % too short (Intel Xeon)."""
_LEAST_MEMORY = 0.1
"""The share of memory in the sentinel's time below which it can't be told from noise."""
_MOST_APART = 4.0
"""By how much memory, or a whole run, may be set otherwise than if all was slowed alike."""


class Speed(NamedTuple):
    """What the sentinel takes in microseconds, in a state and back to back right after: alike in state `hot`."""

    us: float
    hot_us: float


def calm_runs(answer: dict[str, Any], clock: str, reference: Speed) -> list[int]:
    """The places of the runs in a worker's answer whose sentinel was about as fast as at `reference`, back to back."""
    second = f"sentinel_hot_{clock}_ns"
    sentinel_ns = smoothed(answer[second if second in answer else f"sentinel_{clock}_ns"])
    most_ns = _CALM * 1e3 * reference.hot_us
    return [place for place, chunk in enumerate(answer["chunk"]) if sentinel_ns[chunk] <= most_ns]


def only(answer: dict[str, Any], places: Sequence[int]) -> dict[str, Any]:
    """A worker's answer with these runs alone, and the sentinels of their chunks."""
    chunks = sorted({answer["chunk"][place] for place in places})
    number = {chunk: i for i, chunk in enumerate(chunks)}
    found: dict[str, Any] = {"chunk": [number[answer["chunk"][place]] for place in places]}
    for name, values in answer.items():
        if name != "chunk":
            found[name] = [values[place] for place in (chunks if name.startswith("sentinel") else places)]
    return found


def wandering(sentinel_ns: Sequence[int]) -> float:
    """By how much smoothed speeds differ, as a share: of their middle 80 %."""
    smooth = sorted(smoothed(sentinel_ns))
    cut = len(smooth) // 10
    return smooth[-1 - cut] / smooth[cut] - 1


def smoothed(values: Sequence[float]) -> list[float]:
    """Each value's median with its neighbours'."""
    return [statistics.median(values[max(0, i - _SMOOTHED) : i + _SMOOTHED + 1]) for i in range(len(values))]


def sentinel_speed(answer: dict[str, Any], clock: str, share: float = 0.5) -> Speed:
    """What the sentinel took in a worker's answer: its median, or another quantile."""

    def quantile_us(samples_ns: Sequence[int]) -> float:
        return float(np.quantile(samples_ns, share)) / 1e3

    us = quantile_us(answer[f"sentinel_{clock}_ns"])
    hot_ns = answer.get(f"sentinel_hot_{clock}_ns")
    return Speed(us, us if hot_ns is None else quantile_us(hot_ns))


def at_reference(answer: dict[str, Any], clock: str, counted: str, reference: Speed) -> list[float]:
    """A worker's samples of a clock, in nanoseconds, as they would be if the sentinel was as fast as at `reference`.

    The clock that counts tells the speed, for both. With second runs, what these take is arithmetic and goes by the
    sentinel's second run; what the first takes beyond is memory, and goes by what the sentinel's takes beyond.
    """
    sentinel_ns = smoothed(answer[f"sentinel_{counted}_ns"])
    samples = zip(answer[f"{clock}_ns"], answer["chunk"], strict=True)
    if f"hot_{clock}_ns" not in answer:
        return [sample * 1e3 * reference.us / sentinel_ns[chunk] for sample, chunk in samples]
    sentinel_hot_ns = smoothed(answer[f"sentinel_hot_{counted}_ns"])
    reference_memory_us = reference.us - reference.hot_us
    found = []
    for (sample, chunk), hot in zip(samples, smoothed(answer[f"hot_{clock}_ns"]), strict=True):
        memory = sentinel_ns[chunk] - sentinel_hot_ns[chunk]
        all_alike = 1e3 * reference.us / sentinel_ns[chunk]
        if memory < _LEAST_MEMORY * sentinel_ns[chunk] or reference_memory_us < _LEAST_MEMORY * reference.us:
            # Where memory costs nothing, there is nothing to tell apart.
            found.append(sample * all_alike)
            continue
        # A difference of two timings is mostly noise where it is small.
        of_memory = min(max(1e3 * reference_memory_us / memory, all_alike / _MOST_APART), all_alike * _MOST_APART)
        apart = hot * 1e3 * reference.hot_us / sentinel_hot_ns[chunk] + (sample - hot) * of_memory
        found.append(max(apart, sample * all_alike / _MOST_APART))
    return found


def summary_of(samples_ns: Sequence[float]) -> Summary:
    """Samples in nanoseconds as a summary in microseconds; the standard deviation is the population's."""
    samples_us = sorted(sample / 1e3 for sample in samples_ns)
    mean_us = statistics.fmean(samples_us)
    # The nearest rank: with fewer than a hundred samples p99 is the largest.
    p10_us, p90_us, p99_us = (samples_us[math.ceil(share * len(samples_us) / 100) - 1] for share in (10, 90, 99))
    return Summary(
        min_us=samples_us[0],
        median_us=statistics.median(samples_us),
        mean_us=mean_us,
        std_us=statistics.pstdev(samples_us, mean_us),
        p10_us=p10_us,
        p90_us=p90_us,
        p99_us=p99_us,
    )
