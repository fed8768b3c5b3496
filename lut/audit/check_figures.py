"""Whether a table's figures agree with each other: rounds, neighbours, phones, and what they were measured under."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from amc_latency.device.conditions import commonest_suspicion, measured_by, suspicions
from amc_latency.lut.audit.sweeps import sweeps
from amc_latency.lut.shapes.shape import parse_network
from amc_latency.lut.table.measurements import label
from amc_latency.lut.table.table import LatencyTable
from amc_latency.lut.table.table_text import Row

FAR_RATIO = 1.3
"""Beyond what alignment and noise do to sound layers: at most 1.23 in three tables of some 1,500 layers each."""
FAR_US = 1.0
"""Under a microsecond's difference a clock's own noise may explain any ratio."""
MATTERS_PCT = 5.0
"""A row that moves its layer's figure by more than this."""
DRIFT_PCT = 2.0
"""Between rounds, or between devices, in the median over what both timed."""
FEWEST_COMMON = 10
"""Fewer layers or networks than this say nothing about a whole round."""

Rows = Mapping[str, list[Row]]
Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """What is wrong or worth knowing, how often, the worst example, and what to do about it."""

    severity: Severity
    """error: the table cannot be used as it is; warning: figures may be off; note: worth knowing"""
    what: str
    count: int
    text: str
    worst: str = ""
    advice: str = ""


def figure_findings(table: LatencyTable) -> Iterator[Finding]:
    """What the figures themselves say."""
    rows = table.timed()
    yield from _suspect(table)
    yield from _zeros(table, rows)
    yield from _odd_rounds(table, rows)
    yield from _odd_layers(table)
    yield from _drift(rows)
    yield from _phones(rows)


def _suspect(table: LatencyTable) -> Iterator[Finding]:
    suspect = [(row, why) for row in table.lines() if (why := suspicions(row.conditions))]
    if suspect:
        worst, why = max(suspect, key=lambda row: len(row[1]))
        commonest, times = commonest_suspicion(why for _, why in suspect) or ("", 0)
        yield Finding(
            "warning",
            "suspect rows",
            len(suspect),
            f"rows that the device itself did not trust, {times} of them because of: {commonest}",
            f"'{label(worst.key)}' round {worst.round}: {', '.join(why)}",
            "let the device cool down, close what else runs on it, delete these lines and profile again",
        )


def _zeros(table: LatencyTable, rows: Rows) -> Iterator[Finding]:
    zeros = [key for key in rows if table.latency_us(key) == 0 and parse_network(key)[0].kind != "noop"]
    if zeros:
        yield Finding(
            "warning",
            "zero times",
            len(zeros),
            "layers that take no time at all",
            f"'{label(zeros[0])}'",
            "the clock was too coarse for them: time more runs in a round",
        )


def _odd_rounds(table: LatencyTable, rows: Rows) -> Iterator[Finding]:
    """Rows far off the other rounds of their layer."""
    protocol = table.protocol
    odd: list[tuple[float, float, str]] = []
    for key, timed in rows.items():
        if len(timed) < 3:
            continue
        figures = _figures(timed)
        usual = statistics.median(figures)
        for row, us in zip(timed, figures, strict=True):
            if not _far(us, usual):
                continue
            others = _figures(other for other in timed if other is not row)
            with_it, without = protocol.over_rounds(figures), protocol.over_rounds(others)
            moves_pct = 100 * abs(with_it / without - 1) if without > 0 else 0.0
            text = f"'{label(key)}' round {row.round}: {us:g} us, others {', '.join(f'{other:g}' for other in others)}"
            odd.append((moves_pct, _ratio(us, usual), text))
    if not odd:
        return
    # With three rounds, of which two are alike, the minimum or the median is often right all the same.
    matter = sum(moves_pct > MATTERS_PCT for moves_pct, *_ in odd)
    yield Finding(
        "warning" if matter else "note",
        "rounds far off",
        len(odd),
        f"rows more than {FAR_RATIO:g} times off the other rounds of their layer; {matter} of them move its "
        f"{protocol.statistic} by more than {MATTERS_PCT:g} %",
        max(odd)[2],
        "delete these lines and profile again, with nothing else running" if matter else "",
    )


def _odd_layers(table: LatencyTable) -> Iterator[Finding]:
    """Layers that cost more than both neighbours in channels, or less than both, by far."""
    odd: dict[str, tuple[float, str]] = {}
    for sweep in sweeps(table):
        counts = sorted(sweep.points)
        for below, count, above in zip(counts, counts[1:], counts[2:], strict=False):
            us = sweep.points[count]
            neighbours = (sweep.points[below], sweep.points[above])
            nearest = min(max(us, min(neighbours)), max(neighbours))
            if _far(us, nearest):
                key = sweep.at(count).text
                text = f"'{key}': {us:g} us, neighbours in channels {neighbours[0]:g} and {neighbours[1]:g}"
                odd[key] = max(odd.get(key, (0.0, "")), (_ratio(us, nearest), text))
    if odd:
        yield Finding(
            "warning",
            "layers far off",
            len(odd),
            f"layers more than {FAR_RATIO:g} times above or below both neighbours in channels",
            max(odd.values())[1],
            "delete their lines and profile again; what stays so is the device's own",
        )


def _drift(rows: Rows) -> Iterator[Finding]:
    """How each round compares with the first, over the layers timed in both."""
    by_round: dict[int, dict[str, float]] = defaultdict(dict)
    for key, timed in rows.items():
        for row, us in zip(timed, _figures(timed), strict=True):
            by_round[row.round][key] = us
    if not by_round:
        return
    first = min(by_round)
    drifted = {}
    for index in sorted(by_round):
        ratio = _median_ratio(by_round[index], by_round[first])
        common = len(by_round[index].keys() & by_round[first].keys())
        if ratio is not None and common >= FEWEST_COMMON and abs(ratio - 1) > DRIFT_PCT / 100:
            drifted[index] = (ratio, common)
    if drifted:
        worst, (ratio, common) = max(drifted.items(), key=lambda item: abs(item[1][0] - 1))
        yield Finding(
            "warning",
            "drift between rounds",
            len(drifted),
            f"rounds that differ from round {first} by more than {DRIFT_PCT:g} % in the median",
            f"round {worst}: {100 * (ratio - 1):+.1f} % over {common} layers or networks",
            "something else ran, or the device grew warm: profile anew when it is quiet",
        )


def _phones(rows: Rows) -> Iterator[Finding]:
    """Who measured, and how far they agree on what several of them timed."""
    by_phone: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for key, timed in rows.items():
        for row, us in zip(timed, _figures(timed), strict=True):
            if who := measured_by(row.conditions):
                by_phone[who][key].append(us)
    if len(by_phone) < 2:
        return
    figures = {who: {key: statistics.fmean(us) for key, us in keys.items()} for who, keys in by_phone.items()}
    ratios = {(a, b): _median_ratio(figures[b], figures[a]) for a, b in combinations(sorted(figures), 2)}
    known = {pair: ratio for pair, ratio in ratios.items() if ratio is not None}
    worst = max(known, key=lambda pair: abs(known[pair] - 1), default=None)
    differ = worst is None or abs(known[worst] - 1) > DRIFT_PCT / 100
    if worst is None:
        text = "no layer was timed by two of them, so nobody knows whether they agree"
    else:
        text = f"{worst[1]} takes {known[worst]:.3f} times as long as {worst[0]}, in the median over common layers"
    yield Finding(
        "warning" if differ else "note",
        "several devices",
        len(by_phone),
        f"devices measured this table: {', '.join(sorted(by_phone))}",
        text,
        "profile with one of them only, into another table" if differ else "",
    )


def _figures(timed: Iterable[Row]) -> list[float]:
    """Microseconds of rows that have them."""
    return [row.counted_us for row in timed if row.counted_us is not None]


def _median_ratio(figures: Mapping[str, float], against: Mapping[str, float]) -> float | None:
    ratios = [us / against[key] for key, us in figures.items() if against.get(key, 0.0) > 0]
    return statistics.median(ratios) if ratios else None


def _ratio(a: float, b: float) -> float:
    """How many times one is the other, at least 1."""
    low, high = sorted((a, b))
    return high / low if low > 0 else float("inf")


def _far(us: float, usual: float) -> bool:
    return _ratio(us, usual) > FAR_RATIO and abs(us - usual) > FAR_US
