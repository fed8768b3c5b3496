"""Several tables as one: rows of one header only, unless forced, and then each says where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amc_latency.device.base import Timing
from amc_latency.lut.table.headers import differences, differences_text, header_of, marked
from amc_latency.lut.table.table import LatencyTable, TableError


@dataclass(frozen=True)
class Contradiction:
    """A row that two tables have with different figures."""

    key: str
    round: int
    kept_us: float
    dropped_us: float
    dropped_from: str


@dataclass(frozen=True)
class MergedTable:
    """What one further table gave."""

    table: str
    rows: int
    added: int
    alike: int
    """rows that the tables before had with the same figures"""
    contradictions: int
    """rows that the tables before had with other figures, which stayed"""
    unlike: dict[str, tuple[object, object]]
    """fields of the header in which it differs from the first table's, with both values"""
    unusable: int
    """rows added that lack the figure which the first table counts"""


@dataclass(frozen=True)
class MergeReport:
    """What became of a merge."""

    table: str
    first: str
    rows: int
    merged: list[MergedTable]
    worst: Contradiction | None
    """the contradiction that is furthest apart"""


def merge(paths: Sequence[Path], out: Path, force: bool = False) -> MergeReport:
    """Write the rows of all tables to `out` under the first one's header; where rows contradict, earlier tables win.

    `force` merges across headers that differ, and replaces `out`. Raises `TableError` where these are needed and not
    given, for fewer than two tables, an `out` that is one of them, and a table that cannot be read or written.
    """
    if len(paths) < 2:
        raise TableError("a merge needs at least two tables")
    if out.exists():
        if any(path.exists() and path.samefile(out) for path in paths):
            raise TableError(f"{out} is one of the tables to merge: name another file")
        if not force:
            raise TableError(f"{out} exists already: name another file, or replace it with `force`")
    first, *others = [LatencyTable.open(path) for path in paths]
    if not force:
        for other in others:
            if unlike := differences(header_of(first), header_of(other)):
                raise TableError(
                    f"{first.path} and {other.path} don't mix: {differences_text(unlike)}. "
                    "`force` merges them all the same, and each row then says where it came from"
                )
    merged = first.detached()
    reports, contradictions = [], []
    for other in others:
        report, found = _add(merged, other)
        reports.append(report)
        contradictions += found
    merged.save_as(out, new=not out.exists())
    return MergeReport(
        table=str(out),
        first=str(first.path),
        rows=merged.row_count,
        merged=reports,
        worst=max(contradictions, key=_distance, default=None),
    )


def _add(merged: LatencyTable, other: LatencyTable) -> tuple[MergedTable, list[Contradiction]]:
    unlike = differences(header_of(merged), header_of(other))
    contradictions: list[Contradiction] = []
    added = alike = unusable = 0
    for timing in other.rows:
        own = merged.timing(timing.workload, timing.round)
        counts = timing.counted_us(merged.protocol) is not None
        if own is None or (counts and own.counted_us(merged.protocol) is None):
            merged.append(marked(timing, header_of(other)) if unlike else timing)
            added += 1
            unusable += not counts and timing.error is None
        elif _figures(own) == _figures(timing) or not counts:
            alike += 1
        else:
            contradictions.append(
                Contradiction(
                    timing.workload,
                    timing.round,
                    own.latency_us(merged.protocol),
                    timing.latency_us(merged.protocol),
                    str(other.path),
                )
            )
    report = MergedTable(
        table=str(other.path),
        rows=other.row_count,
        added=added,
        alike=alike,
        contradictions=len(contradictions),
        unlike=unlike,
        unusable=unusable,
    )
    return report, contradictions


def _figures(timing: Timing) -> tuple[object, ...]:
    return (timing.n, timing.cpu, timing.wall)


def _distance(contradiction: Contradiction) -> float:
    low, high = sorted((contradiction.kept_us, contradiction.dropped_us))
    return high / low if low > 0 else float("inf")
