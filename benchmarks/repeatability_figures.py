"""What `repeatability.py` counts from its raw rounds: how well each candidate of what a latency is repeats, adds up and
ranks. Nothing here times anything.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from amc_latency.device.base import Protocol
from amc_latency.device.rounds.paired import Ratio, paired_ratio
from scipy.stats import spearmanr

STATES = ("hot", "frame")
STATISTICS = ("min", "p10", "median", "mean")
OVER = ("min", "median")
CLOCKS = ("cpu", "wall")
SPEEDS = ("shown", "reference")
"""Figures as the clock showed them, or at the speed at which the sentinel takes what it took first."""
NOOP = "noop"


@dataclass(frozen=True)
class Row:
    """One workload in one process in one state: microseconds by clock, speed and statistic."""

    repeat: int
    round: int
    workload: str
    state: str
    at: float
    """seconds since 1970"""
    sentinel_us: float
    """median, thread CPU time"""
    figures_us: dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """What a latency might be."""

    state: str
    statistic: str
    over: str
    """how the rounds' figures become one"""
    clock: str
    speed: str
    rounds: int
    """fresh processes"""

    @property
    def figure(self) -> tuple[str, str, str, str]:
        """What it needs of each round."""
        return self.state, self.clock, self.speed, self.statistic


FORMER = Candidate("hot", "min", "min", "cpu", "shown", 27)
"""What a latency of this computer was before there were states and sentinels."""


def candidates(rounds: Sequence[int]) -> list[Candidate]:
    """All of them, with these numbers of processes."""
    return [Candidate(*choice) for choice in itertools.product(STATES, STATISTICS, OVER, CLOCKS, SPEEDS, rounds)]


def default_candidate(protocol: Protocol) -> Candidate:
    """What whole networks are timed by under `protocol` on this computer."""
    over = "min" if protocol.statistic == "min" else "median"
    return Candidate(protocol.state, protocol.statistic, over, protocol.clock, "reference", protocol.network_rounds)


def one_choice_apart(one: Candidate, other: Candidate) -> bool:
    """Whether they differ in one thing at most."""
    names = ("state", "statistic", "over", "clock", "speed", "rounds")
    return sum(getattr(one, name) != getattr(other, name) for name in names) <= 1


def complete(rows: Sequence[Row], expected: int) -> dict[int, list[Row]]:
    """The repeats that were timed to their end; of one that was begun anew, its last rows count."""
    latest = {(row.repeat, row.round, row.workload, row.state): row for row in rows}
    repeats: dict[int, list[Row]] = {}
    for row in latest.values():
        repeats.setdefault(row.repeat, []).append(row)
    return {repeat: some for repeat, some in repeats.items() if len(some) == expected}


class Rounds:
    """Raw rounds as arrays [repeat, round] by workload and figure; NaN where a workload was not timed."""

    def __init__(self, rows: Iterable[Row], repeats: int, rounds: int) -> None:
        self._found: dict[tuple[str, tuple[str, str, str, str]], np.ndarray] = {}
        for row in rows:
            for clock, speed, statistic in itertools.product(CLOCKS, SPEEDS, STATISTICS):
                key = row.workload, (row.state, clock, speed, statistic)
                array = self._found.setdefault(key, np.full((repeats, rounds), np.nan))
                array[row.repeat, row.round] = row.figures_us[clock][speed][statistic]

    def latency_us(self, workload: str, candidate: Candidate) -> np.ndarray:
        """The workload's latency in each repeat [repeat], over as many of the candidate's rounds as it was timed in."""
        values = self._found[workload, candidate.figure][:, : candidate.rounds]
        return np.nanmin(values, axis=1) if candidate.over == "min" else np.nanmedian(values, axis=1)

    def networks_us(self, networks: Iterable[str], candidate: Candidate) -> np.ndarray:
        """Latencies [repeat, network]."""
        return np.stack([self.latency_us(name, candidate) for name in networks], axis=1)

    def sums_us(self, networks: Mapping[str, Sequence[str]], candidate: Candidate) -> np.ndarray:
        """Each network's layers, less the no-op each, summed [repeat, network]."""
        noop = self.latency_us(NOOP, candidate)
        layers = {
            text: np.maximum(0, self.latency_us(text, candidate) - noop) for text in set().union(*networks.values())
        }
        return np.stack([np.sum([layers[text] for text in texts], axis=0) for texts in networks.values()], axis=1)


def deviation_pct(latencies: np.ndarray) -> np.ndarray:
    """Standard deviation over repeats of each network's latency [repeat, network], in percent of its mean."""
    return 100 * latencies.std(axis=0, ddof=1) / latencies.mean(axis=0)


def difference_pct(latencies: np.ndarray) -> np.ndarray:
    """How far each network's largest latency of all repeats is above its smallest."""
    return 100 * (latencies.max(axis=0) / latencies.min(axis=0) - 1)


def left_out_errors_pct(sums: np.ndarray, latencies: np.ndarray) -> np.ndarray:
    """How far each network's sum is off its latency, after the best scale of the others: least relative squares."""
    ratios = sums / latencies
    others, squares = ratios.sum() - ratios, (ratios**2).sum() - ratios**2
    return 100 * (others / squares * ratios - 1)


def ordered_pairs(latencies: np.ndarray, least: float = 1.01, most: float = 1.03) -> tuple[int, int]:
    """Pairs that are `least` to `most` apart by the mean of the other repeats: those that a repeat orders rightly, and
    all, over repeats [repeat, network].
    """
    right = total = 0
    for index, mine in enumerate(latencies):
        truth = np.delete(latencies, index, axis=0).mean(axis=0)
        for a, b in itertools.permutations(range(len(truth)), 2):
            if least <= truth[a] / truth[b] <= most:
                total += 1
                right += bool(mine[a] > mine[b])
    return right, total


def rank_correlation(some: np.ndarray, others: np.ndarray) -> float:
    """Spearman's, of two lists of figures."""
    return float(spearmanr(some, others).statistic)


@dataclass(frozen=True)
class Figures:
    """What one candidate is worth; None where there is one repeat only."""

    candidate: Candidate
    deviation_pct: float | None
    """mean over networks"""
    most_deviation_pct: float | None
    difference_pct: float | None
    """largest of all networks"""
    mape_pct: float
    """of summed layers, after the best scale"""
    max_pct: float
    rank: float | None
    """the least of any repeat, with the mean of the others"""
    sums_rank: float
    """of the layers' sums with the networks, the least of any repeat"""
    ordered: int
    close: int


def figures_of(rounds: Rounds, networks: Mapping[str, Sequence[str]], candidate: Candidate) -> Figures:
    """All of a candidate's figures; `networks` are the texts of each one's layers."""
    measured, sums = rounds.networks_us(networks, candidate), rounds.sums_us(networks, candidate)
    errors = np.abs([left_out_errors_pct(a, b) for a, b in zip(sums, measured, strict=True)])
    several = len(measured) > 1
    ordered, close = ordered_pairs(measured) if several else (0, 0)
    means = [np.delete(measured, i, axis=0).mean(axis=0) for i in range(len(measured))] if several else []
    return Figures(
        candidate,
        float(deviation_pct(measured).mean()) if several else None,
        float(deviation_pct(measured).max()) if several else None,
        float(difference_pct(measured).max()) if several else None,
        float(errors.mean()),
        float(errors.max()),
        min((rank_correlation(a, b) for a, b in zip(measured, means, strict=True)), default=None) if several else None,
        min(rank_correlation(a, b) for a, b in zip(sums, measured, strict=True)),
        ordered,
        close,
    )


def table_lines(figures: Sequence[Figures], default: Candidate) -> list[str]:
    """One line a candidate, in the order given."""
    lines = [
        f"{'state':6} {'round':7}{'over':7}{'clock':6}{'speed':10}{'rounds':>6}{'sd %':>7}{'worst':>7}{'range %':>9}"
        f"{'MAPE %':>8}{'max %':>7}{'rank':>7}{'sums':>7}{'close':>9}"
    ]
    for each in figures:
        which = each.candidate
        cells = [
            f"{which.state:6} {which.statistic:7}{which.over:7}{which.clock:6}{which.speed:10}{which.rounds:6}",
            *(_cell(value, 7, 2) for value in (each.deviation_pct, each.most_deviation_pct)),
            _cell(each.difference_pct, 9, 2),
            f"{each.mape_pct:8.2f}{each.max_pct:7.2f}",
            _cell(each.rank, 7, 3),
            f"{each.sums_rank:7.3f}",
            f"{f'{each.ordered}/{each.close}' if each.close else '-':>9}",
        ]
        mark = "  <- default" if which == default else "  <- before" if which == FORMER else ""
        lines.append("".join(cells) + mark)
    return lines


def _cell(value: float | None, width: int, digits: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"


@dataclass(frozen=True)
class Reloading:
    """Fresh processes against reloading in one: latencies of one network, some rounds for each long-lived process."""

    network: str
    fresh_pct: float
    """standard deviation within a long-lived process's rounds"""
    reloaded_pct: float
    processes_pct: float
    """standard deviation of the long-lived processes' means"""
    expected_pct: float
    """what that would be if a reload were as good as a new process"""
    ratio: Ratio
    """fresh to reloaded"""


def reloading(network: str, fresh: Sequence[Sequence[float]], reloaded: Sequence[Sequence[float]]) -> Reloading:
    """Both by long-lived process and round; the fresh ones are those timed in between."""
    reloaded_pct = _pooled_pct(reloaded)
    means = [(statistics.fmean(one), statistics.fmean(other)) for one, other in zip(fresh, reloaded, strict=True)]
    # Against the fresh ones of the same minutes: what the computer did meanwhile is no property of a process.
    relative = [other / one for one, other in means]
    apart_pct = 100 * statistics.stdev(relative) / statistics.fmean(relative)
    fresh_pct, each = _pooled_pct(fresh), len(reloaded[0])
    expected_pct = ((fresh_pct**2 + reloaded_pct**2) / each) ** 0.5
    return Reloading(network, fresh_pct, reloaded_pct, apart_pct, expected_pct, paired_ratio(means))


def _pooled_pct(groups: Sequence[Sequence[float]]) -> float:
    """Standard deviation within groups, in percent."""
    return 100 * statistics.fmean(statistics.variance(some) / statistics.fmean(some) ** 2 for some in groups) ** 0.5


def reloading_lines(found: Sequence[Reloading]) -> list[str]:
    """As a table."""
    lines = [
        f"{'':14}{'fresh, sd %':>12}{'reloaded, sd %':>16}{'processes, sd %':>17}{'by chance':>11}"
        "   fresh / reloaded (95 %)"
    ]
    for each in found:
        ratio = each.ratio
        lines.append(
            f"{each.network:14}{each.fresh_pct:12.2f}{each.reloaded_pct:16.2f}{each.processes_pct:17.2f}"
            f"{each.expected_pct:11.2f}   {ratio.value:.4f} ({ratio.low:.4f} to {ratio.high:.4f})"
        )
    return lines


def shown_candidates(rounds: Sequence[int], default: Candidate, every: bool) -> list[Candidate]:
    """Those of a table: every one, or the default, what is one choice apart from it, and what was before."""
    default = replace(default, rounds=min(rounds, key=lambda n: abs(n - default.rounds)))
    found = candidates(rounds)
    return found if every else [each for each in found if one_choice_apart(each, default) or each == FORMER]
