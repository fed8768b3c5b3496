"""What a latency table holds, in figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from device.conditions import measured_by, suspicions
from device.measure import statistic_text
from lut.headers import foreign_rows
from lut.measurements import NETWORK, kind_of, measurements, percentile
from lut.table import LatencyTable


@dataclass(frozen=True)
class Overview:
    """A table's header and what stands under it."""

    table: str
    device: str
    model: str
    runtime: str
    figures: str
    """`measured` or `estimated`"""
    protocol: dict[str, Any]
    statistic: str
    """what a latency is, in words"""
    layers: dict[str, int]
    """by kind"""
    networks: int
    rows: int
    rounds: dict[int, int]
    """layers and networks by how many rounds of them were timed"""
    spread_pct: dict[str, float] | None
    """half the range of a layer's rounds, in percent of its latency: median and p90 over all; None for single rounds"""
    suspect: int
    errors: int
    """layers and networks that could not be timed"""
    measured_by: dict[str, int]
    """rows by phone, core or GPU, where they say it"""
    foreign: int
    """rows that came from tables with another header"""


def overview(table: LatencyTable) -> Overview:
    """Raises nothing: a table that could be read has these."""
    measured = measurements(table)
    kinds = Counter(kind_of(key) for key in measured)
    networks = kinds.pop(NETWORK, 0)
    spreads = [one.spread_pct for one in measured.values() if one.spread_pct is not None]
    spread = {name: round(percentile(spreads, share), 3) for name, share in (("median", 0.5), ("p90", 0.9)) if spreads}
    rows, identity = table.rows, table.identity
    by = Counter(who for timing in rows if (who := measured_by(timing.conditions)))
    return Overview(
        table=str(table.path),
        device=identity.name,
        model=identity.model,
        runtime=identity.runtime,
        figures="estimated" if identity.estimated else "measured",
        protocol=asdict(table.protocol),
        statistic=statistic_text(table.protocol, table.protocol.rounds),
        layers=dict(sorted(kinds.items())),
        networks=networks,
        rows=len(rows),
        rounds=dict(sorted(Counter(one.rounds for one in measured.values()).items())),
        spread_pct=spread or None,
        suspect=sum(bool(suspicions(timing.conditions)) for timing in rows),
        errors=len(table.errors),
        measured_by=dict(by.most_common()),
        foreign=sum(foreign_rows(table).values()),
    )
